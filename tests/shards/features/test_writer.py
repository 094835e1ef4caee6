"""Feature shards are standard tar files with reproducible bytes, and finished only for the plan that made them."""

import io
import tarfile

import numpy as np

from shards.features.writer import write_feature_shard
from shards.records import finished_records
from tests.support.feature_shards import features, plan, samples


def test_numpy_and_tar_read_a_shard(stored):
    with tarfile.open(stored[0] / "train-000000.tar") as tar:
        names, times = zip(*((member.name, member.mtime) for member in tar), strict=True)
        read = np.load(io.BytesIO(tar.extractfile(names[3]).read()), allow_pickle=False)
    assert (names[2:4], set(times)) == (("000000000001.json", "000000000001.npy"), {0})
    assert np.array_equal(read, features(1))


def test_the_same_features_are_the_same_bytes(stored, tmp_path):
    again = write_feature_shard(samples(range(3)), plan(), tmp_path / "again")
    assert again == stored[1].shards[0]


def test_a_finished_shard_is_not_wanted_again_until_it_or_its_plan_changes(stored):
    folder, made = stored
    assert finished_records([plan()], folder) == [made.shards[0]]
    assert finished_records([plan(first=1)], folder) == []
    (folder / "train-000000.tar").write_bytes(b"")
    assert finished_records([plan()], folder) == []


def test_a_shard_with_samples_set_aside_is_finished_only_if_they_may_be(stored):
    wanted = [plan("train-000001.tar", first=3, skip_bad=skip) for skip in (True, False)]
    assert finished_records(wanted, stored[0]) == finished_records(wanted[:1], stored[0]) != []
