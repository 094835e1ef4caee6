import json


def test_a_dry_conversion_writes_nothing(captioning, drawn_shards, tmp_path):
    _, _, told = captioning("convert", drawn_shards.parent / "scenes", tmp_path / "out", "--dry-run")
    assert ((tmp_path / "out").exists(), "train-000000.tar: 120 images" in told) == (False, True)


def test_a_conversion_says_what_it_made(captioning, drawn_shards, tmp_path):
    arguments = ("convert", drawn_shards.parent / "scenes", tmp_path / "out", "--num-workers", "0", "--json")
    _, printed, _ = captioning(*arguments)
    assert json.loads(printed)["splits"] == {"train": 120, "val": 30}
