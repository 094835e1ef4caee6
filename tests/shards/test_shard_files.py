"""Where the files of shards are: beside the manifest, near it, or at URLs; and the errors of a web server."""

import os
import pickle

import pytest

from shards.layout import TarSource
from shards.shard_files import ShardFiles
from shards.storage.files import sha256_of
from shards.storage.remote import UNKNOWN_SIZE, RemoteFolder
from shards.table.shard_table import ShardRecord
from shards.verification import verify_shards
from tests.support.http_server import answering
from tests.support.raw_tars import tar_samples, write_tar


@pytest.fixture
def tar(tmp_path):
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "0.tar", tar_samples(["a"]))
    return tmp_path / "tars" / "0.tar"


def record_at(location, tar):
    return ShardRecord(
        name="train-000000.tar",
        split="train",
        num_samples=1,
        num_bytes=tar.stat().st_size,
        sha256=sha256_of(tar),
        plan_digest="",
        tar=TarSource(location=location, captions="txt"),
    )


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTIONING_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "location", ["../tars/0.tar", "{root}/tars/0.tar", "file://{root}/tars/0.tar", "{url}/t/0.tar"]
)
def test_a_tar_is_opened_where_it_is(tar, tmp_path, location):
    with answering({"/t/0.tar": (200, tar.read_bytes())}) as url:
        record = record_at(location.format(root=tmp_path, url=url), tar)
        files = pickle.loads(pickle.dumps(ShardFiles(tmp_path / "set", cache_gib=2)))
        with files.open(record) as file:
            assert file.read() == tar.read_bytes()
        assert files.sizes([record])[record.name] in (record.num_bytes, UNKNOWN_SIZE)
        verify_shards(tmp_path / "set", [record])
    assert (len(files.remote_sizes([record])), files.cache_gib) == ("{url}" in location, 2)


def test_nothing_is_read_from_a_pipe_in_a_tars_place(tar, tmp_path):
    record = record_at("../tars/0.tar", tar)
    tar.unlink()
    os.mkfifo(tar)
    with pytest.raises(ValueError, match="it is no ordinary file"):
        ShardFiles(tmp_path / "set").open(record)


def test_an_altered_tar_is_noticed(tar, tmp_path):
    record = record_at("../tars/0.tar", tar)
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    tar.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"1 of 1 shards differ .* first .*0.tar; restore these tars, or run captioning"
    ):
        verify_shards(tmp_path / "set", [record])
    tar.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 1 shards, first .*0.tar; restore these tars"):
        verify_shards(tmp_path / "set", [record])


def test_an_altered_tar_at_a_url_is_noticed_when_it_is_fetched(tar, tmp_path):
    record = record_at("", tar)
    with answering({"/0.tar": (200, tar.read_bytes()[:-1] + b"?")}) as url:
        altered = record_at(f"{url}/0.tar", tar)
        with pytest.raises(ValueError, match=r"has the sha256 .* but its record says"):
            ShardFiles(tmp_path / "set").open(altered)
    assert record.tar.location == ""


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, FileNotFoundError), (403, PermissionError), (401, PermissionError), (500, ConnectionError)],
)
def test_what_a_web_server_answers_is_told_apart(status, kind):
    waits = []
    with answering({"/0.tar": (status, "no")}) as url, pytest.raises(kind, match=f"{status}|0.tar"):
        RemoteFolder(url, waits.append).stream("0.tar", lambda file: file.read())
    assert len(waits) == (3 if kind is ConnectionError else 0)
