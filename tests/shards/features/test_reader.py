"""The format of feature sets: what is stored, read and rejected."""

import hashlib
import io
import json
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from shards.features.manifest import load_features
from shards.features.reader import FeatureReader
from shards.reader import DamagedSampleError
from tests.support.feature_shards import SETTINGS, SHAPE, features, manifest, source


def view_of(reader, number, view):
    target = np.empty(SHAPE[1:], np.float16)
    reader.copy_view(number, view, target)
    return target


def test_every_view_comes_back_as_it_was(stored):
    reader = FeatureReader(*stored, "train")
    read = [[view_of(reader, number, view) for view in range(2)] for number in (0, 2, 5)]
    assert np.array_equal(read, [features(number) for number in (0, 2, 5)])


def test_captions_come_with_key_and_shard(stored):
    reader = FeatureReader(*stored, "train")
    assert tuple(reader.describe(3)) == ("000000000003", "train-000001.tar", ("caption of 3",))


def test_a_sample_without_features_keeps_its_number_and_is_named(stored):
    reader = FeatureReader(*stored, "train")
    with pytest.raises(DamagedSampleError, match=r"000000000004 .*it has no features: its image could not be encoded"):
        view_of(reader, 4, 0)
    assert [(one.key, one.reason) for one in stored[1].shards[1].set_aside] == [("000000000004", "it is white")]


def test_a_reader_reads_on_in_another_process(stored):
    reader = FeatureReader(*stored, "train")
    view_of(reader, 0, 0)
    assert np.array_equal(view_of(pickle.loads(pickle.dumps(reader)), 5, 1), features(5)[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_channels": 5}, r"its npy holds \(2, 3, 4\) float16, not \(2, 3, 5\) float16"),
        ({"settings": replace(SETTINGS, views=1)}, r"not \(1, 3, 4\) float16"),
    ],
)
def test_features_of_another_shape_are_named(stored, changes, message):
    folder, made = stored
    with pytest.raises(DamagedSampleError, match=message):
        view_of(FeatureReader(folder, replace(made, **changes), "train"), 0, 0)


def overwritten(stored, old, new):
    """Replace the first occurrence of some bytes in the first shard."""
    shard = stored[0] / "train-000000.tar"
    found = shard.read_bytes()
    assert old in found
    shard.write_bytes(found.replace(old, new, 1))
    return FeatureReader(*stored, "train")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"'<f2'", b"'<i2'", r"its npy holds \(2, 3, 4\) int16"),
        (b"\x93NUMPY\x01", b"\x93NUMPY\x02", r"its npy has format version \(2, 0\), not \(1, 0\)"),
        (b"\x93NUMPY", b"NUMPY!", "damaged"),
    ],
)
def test_an_altered_header_is_named(stored, old, new, message):
    reader = overwritten(stored, old, new)
    with pytest.raises(DamagedSampleError, match=message):
        view_of(reader, 0, 0)


def test_a_short_array_is_named(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, features(0))
    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        for name, stored in (("1.json", b"{}"), ("1.npy", buffer.getvalue()[:-2])):
            member = tarfile.TarInfo(name)
            member.size = len(stored)
            tar.addfile(member, io.BytesIO(stored))
    num_bytes = (tmp_path / "train-000000.tar").stat().st_size
    made = manifest([replace(source(num_samples=1), num_bytes=num_bytes)])
    with pytest.raises(DamagedSampleError, match="its npy has 174 bytes, not the size of"):
        view_of(FeatureReader(tmp_path, made, "train"), 0, 0)


def test_a_damaged_description_is_named(stored):
    reader = overwritten(stored, b'{"image_id"', b'?"image_id"')
    with pytest.raises(DamagedSampleError, match="Expecting value"):
        reader.describe(0)


def test_a_cut_shard_is_refused_with_the_job_that_mends_it(stored):
    shard = stored[0] / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"has \d+ bytes, but its record says \d+; run captioning extract again"):
        view_of(FeatureReader(*stored, "train"), 0, 0)


def test_a_split_that_was_not_extracted_is_refused(stored):
    with pytest.raises(ValueError, match="has no split val; it has train; add it with captioning extract --splits"):
        FeatureReader(*stored, "val")


def test_a_manifest_survives_being_saved(stored):
    assert load_features(stored[0]) == stored[1]


def test_an_unfinished_feature_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a finished feature set; run captioning extract"):
        load_features(tmp_path)


def saved_with(stored, change, *, is_sealed_again=False):
    """Change the manifest's content on disk."""
    path = stored[0] / "features.json"
    found = json.loads(path.read_text())
    change(found)
    if is_sealed_again:
        del found["seal"]
        found = {"seal": hashlib.sha256(json.dumps(found).encode()).hexdigest(), **found}
    path.write_text(json.dumps(found))
    return stored[0]


@pytest.mark.parametrize(
    ("change", "is_sealed_again", "message"),
    [
        (
            lambda found: found.update(format_version=9),
            False,
            "format version 9, this release reads 1 to 2; upgrade",
        ),
        (
            lambda found: found.update(format_version=0),
            False,
            "has format version 0, this release reads 1 to 2; delete",
        ),
        (lambda found: found["encoder"].update(backbone="alexnet"), False, "was edited: .*; delete"),
        (lambda found: found["shards"][0].update(sha256="6" * 64), False, "was edited"),
        (lambda found: found.update(digest="7" * 64), True, "was edited"),
        (lambda found: found.update(num_regions="many"), False, "is damaged .num_regions: .*; delete"),
        (lambda found: found["shards"][0].update(name="../x.tar"), True, "names the shard .*, which is not beside it"),
    ],
)
def test_an_altered_manifest_is_refused(stored, change, is_sealed_again, message):
    with pytest.raises(ValueError, match=message):
        load_features(saved_with(stored, change, is_sealed_again=is_sealed_again))


def test_a_manifest_that_is_no_json_is_refused(stored):
    (stored[0] / "features.json").write_text("{")
    with pytest.raises(ValueError, match=r"is damaged .*; delete .* and run captioning extract again"):
        load_features(stored[0])
