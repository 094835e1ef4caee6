"""``captioning export`` from the command line."""

import json

from shards.sources.coco import read_coco


def test_the_wanted_splits_are_written(captioning, drawn_shards, tmp_path):
    code, printed, _ = captioning("export", drawn_shards, tmp_path / "coco", "--splits", "val", "--json")
    assert (code, json.loads(printed)["splits"]) == (0, {"val": 30})
    exported = read_coco(tmp_path / "coco").splits["val"]
    original = read_coco(drawn_shards.parent / "scenes").splits["val"]
    assert [(one.image_id, one.captions) for one in exported] == [(one.image_id, one.captions) for one in original]


def test_a_dry_export_writes_nothing(captioning, drawn_shards, tmp_path):
    code, printed, told = captioning("export", drawn_shards, tmp_path / "coco", "--dry-run", "--json")
    assert (code, json.loads(printed), list(tmp_path.iterdir())) == (0, {"train": 120, "val": 30}, [])
    assert "would write 120 images of train" in told
