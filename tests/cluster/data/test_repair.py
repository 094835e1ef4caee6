"""A repair gives the bytes of before, or is refused; ``tests/jobs/test_verify.py`` has the sound case."""

import shutil

import pytest

from cluster.data.repair import repair
from cluster.data.shard_set import ShardSet
from shards.synthetic.scenes import write_scenes


def test_another_source_is_refused_and_the_sound_shards_stay(drawn_shards, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(drawn_shards, folder)
    (folder / "val-000000.tar").unlink()
    write_scenes(tmp_path / "scenes", num_train=120, num_val=30, seed=2, size_px=64)
    before = {path.name: path.read_bytes() for path in folder.glob("*.tar")}
    with pytest.raises(ValueError, match="from other images"):
        repair(ShardSet(folder), tmp_path / "scenes")
    assert {path.name: path.read_bytes() for path in folder.glob("*.tar")} == before
