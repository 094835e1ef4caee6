"""A shard set is opened if it is intact, and refused otherwise."""

import shutil

import pytest

from cluster.data.shard_set import ShardSet


@pytest.fixture(scope="module")
def shard_set(drawn_shards):
    return ShardSet(drawn_shards)


def test_an_unknown_split_is_refused(shard_set):
    with pytest.raises(ValueError, match="the shard set has no split test; it has train, val"):
        shard_set.reader("test")


def test_an_altered_vocabulary_is_refused(drawn_shards, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(drawn_shards, folder)
    with (folder / "vocabulary.txt").open("a") as file:
        file.write("zebra\n")
    with pytest.raises(ValueError, match="differs from the vocabulary in the manifest"):
        ShardSet(folder)
