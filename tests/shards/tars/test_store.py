"""Scans are kept until the manifest is written."""

import fsspec
import pytest

from shards.storage.folders import open_folder
from shards.tars.scan import scan_tar
from shards.tars.store import ScanStore
from tests.support.raw_tars import tar_samples, write_tar


@pytest.mark.parametrize("place", ["folder", "memory://index"])
def test_a_scan_is_used_until_its_tar_or_a_setting_changes(tmp_path, place):
    tar = tmp_path / "0.tar"
    write_tar(tar, tar_samples(["a"]))
    folder = open_folder(place if "://" in place else tmp_path / place)
    store = ScanStore(folder, ("txt", "ptb"))
    scan = scan_tar(str(tar), "txt", has_word=bool, add_captions=lambda texts: None)
    store.save(scan, {"num_captions": 1})
    stored = store.load(str(tar))
    assert (stored.scan, stored.words, store.has(str(tar))) == (scan, {"num_captions": 1}, True)
    assert ScanStore(folder, ("json", "ptb")).load(str(tar)) is None
    write_tar(tar, tar_samples(["a", "b"]))
    assert not store.has(str(tar))
    store.clear()
    assert store.load(str(tar)) is None
    if "://" in place:
        assert fsspec.filesystem("memory").find("/index") == []


def test_a_torn_scan_does_not_count(tmp_path):
    store = ScanStore(tmp_path, ("txt", "ptb"))
    (tmp_path / "records").mkdir()
    write_tar(tmp_path / "0.tar", tar_samples(["a"]))
    scan = scan_tar(str(tmp_path / "0.tar"), "txt", has_word=bool, add_captions=lambda texts: None)
    store.save(scan, {})
    (path,) = (tmp_path / "records").iterdir()
    path.write_bytes(path.read_bytes()[:50])
    assert store.load(scan.location) is None
