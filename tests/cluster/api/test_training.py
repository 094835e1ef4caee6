"""What the Python API does without a trained model; ``tests/integration/test_readme.py`` trains one."""

import pytest

from cluster import api


def test_a_conversion_returns_the_manifest_and_prints_nothing(drawn_shards, tmp_path, capfd):
    scenes, shards = str(drawn_shards.parent / "scenes"), str(tmp_path / "shards")
    config = api.ConversionConfig(samples_per_shard=50, minimum_word_count=1)
    first, again = (api.convert(scenes, shards, config=config, num_workers=0) for _ in range(2))
    assert (first.splits, again.digest == first.digest) == ({"train": 120, "val": 30}, True)
    assert capfd.readouterr() == ("", "")


def test_a_submission_names_its_cluster(monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="no cluster was given"):
        api.submit(api.TrainRun(name="big"))


def test_a_run_whose_shards_are_missing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        api.train(api.TrainRun(name="n", shards=str(tmp_path / "none"), storage=api.StorageConfig(home=tmp_path)))
