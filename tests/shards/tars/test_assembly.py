"""Scans become the records of a shard set, with ids that are unique."""

import pytest

from shards.tars.assembly import assemble
from shards.tars.scan import TarScan


def scan(location, ids, sha256=None, **changes):
    return TarScan(
        location=location, stamp="", num_bytes=1, sha256=sha256 or location, ids=tuple(ids), set_aside=(), **changes
    )


def assembled(splits, *scans, captions="txt", folder=None):
    by_location = {one.location: one for one in scans}
    return assemble(splits, by_location.__getitem__, captions=captions, folder=folder)


def test_shards_are_numbered_within_their_split(tmp_path):
    splits = {"train": ["/far/a/0.tar", f"{tmp_path}/tars/1.tar"], "val": ["s3://b/0.tar"]}
    found = assembled(
        splits, *(scan(one, [one]) for ones in splits.values() for one in ones), folder=tmp_path / "set"
    ).shards
    assert [(one.name, one.tar.location, one.tar.id_prefix) for one in found] == [
        ("train-000000.tar", "/far/a/0.tar", ""),
        ("train-000001.tar", "../tars/1.tar", ""),  # near, so that both can be moved
        ("val-000000.tar", "s3://b/0.tar", ""),
    ]


@pytest.mark.parametrize(
    ("locations", "prefixes"),
    [
        (["s3://b/x/0.tar", "s3://b/x/1.tar"], ["0/", "1/"]),
        (["s3://b/x/0.tar", "s3://b/y/0.tar"], ["x/0/", "y/0/"]),
        (["/a/x/0.tar", "/a/0.tar"], ["x/0/", "0/"]),
    ],
)
def test_keys_that_tars_share_become_ids_of_their_own(locations, prefixes, tmp_path):
    found = assembled({"train": locations}, *(scan(one, ["k", one]) for one in locations), folder=tmp_path)
    assert [one.tar.id_prefix for one in found.shards] == prefixes
    assert (
        found.shared_keys == f"tars share the keys of 1 of the samples, such as k in {locations[0]} and {locations[1]}"
    )


@pytest.mark.parametrize(
    ("scans", "captions", "fault"),
    [
        (
            [scan("0", [7]), scan("1", [7])],
            "json",
            "image ids repeat: 1 of the samples, such as 7 in 0 and 1; give each",
        ),
        ([scan("0", ["a"], "x"), scan("1", ["b"], "x")], "txt", "0 of train and .*1 of val have the same content"),
        (
            [scan("0", ["a"]), scan("1", [], others={"images without a .txt": 3})],
            "txt",
            r"the tars of split val have no image with captions in its txt \(3 images without a .txt\); name where",
        ),
    ],
)
def test_faults_of_all_tars_together_are_refused(scans, captions, fault, tmp_path):
    with pytest.raises(ValueError, match=fault):
        assembled({"train": ["0"], "val": ["1"]}, *scans, captions=captions, folder=tmp_path / "deep" / "set")
