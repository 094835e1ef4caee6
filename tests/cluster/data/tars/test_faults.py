"""An index whose disk, folder, server or rival gets in its way: one clear line, and nothing is lost."""

import errno
from threading import Thread

import pytest

from cluster.data.conversion_config import IndexConfig
from cluster.data.tars import indexing
from cluster.data.tars.indexing import index
from cluster.data.tars.plan import plan_index
from jobs.console.job import Invocation
from jobs.index import IndexJob, main
from shards.manifest import load_manifest
from shards.tars.scan import scan_tar
from tests.support.http_server import answering
from tests.support.raw_tars import tar_samples, write_tar
from tests.support.small_disk import small_disk


@pytest.fixture
def tars(tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(3):
        write_tar(folder / f"{number}.tar", tar_samples([f"{number}{key}" for key in "abcdefg"]))
    return folder


def plan(address, folder):
    return plan_index([str(address)], folder, IndexConfig(minimum_word_count=1))


def test_what_was_scanned_before_the_disk_was_full_is_kept(tars, tmp_path):
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", kib=64) as disk:
        (disk / "filler").write_bytes(bytes(56 * 1024))
        (disk / "set").mkdir()
        with pytest.raises(OSError, match="No space left on device") as error:
            index(plan(tars, disk / "set"), num_workers=0)
        assert error.value.errno == errno.ENOSPC
        assert str(error.value.filename).startswith(str(disk / "set"))
        (disk / "filler").unlink()
        again = plan(tars, disk / "set")
        assert 0 < len(again.missing) < 3
        assert index(again, num_workers=0).splits == {"train": 21}


def test_two_at_once_scan_each_tar_once(tars, tmp_path, monkeypatch):
    scanned = []
    monkeypatch.setattr(
        indexing, "scan_tar", lambda *args, **kwargs: (scanned.append(args[0]), scan_tar(*args, **kwargs))[1]
    )
    job = IndexJob(locations=(str(tars), str(tmp_path / "set")), minimum_word_count=1, num_workers=0)
    runs = [Thread(target=main, args=(Invocation(settings=job, dry_run=False, json=False),)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert sorted(scanned) == [f"{tars}/{number}.tar" for number in range(3)]
    assert load_manifest(tmp_path / "set").splits == {"train": 21}


@pytest.mark.parametrize(
    ("status", "error", "fault"),
    [
        (404, FileNotFoundError, r"404, message='Not Found', .*/2\.tar.*; check the address and the credentials"),
        (403, PermissionError, r"403, message='Forbidden', .*/2\.tar.*; check the address and the credentials"),
        (200, ValueError, r"1 of 3 files cannot be used .*/2\.tar: it is no whole tar .*; fetch it again"),
    ],
)
def test_a_tar_that_a_server_does_not_give_is_named_and_the_others_are_kept(tars, tmp_path, status, error, fault):
    answers = {f"/{number}.tar": (200, (tars / f"{number}.tar").read_bytes()) for number in range(2)}
    with answering(answers | {"/2.tar": (status, b"<html>Please log in.</html>")}) as url:
        with pytest.raises(error, match=fault) as refusal:
            index(plan(f"{url}/{{0..2}}.tar", tmp_path / "set"), num_workers=0)
        assert len(str(refusal.value).splitlines()) == 1
        assert len(list((tmp_path / "set" / "records").glob("*.json"))) == 2
