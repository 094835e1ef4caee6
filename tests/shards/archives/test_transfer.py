"""Transfers from a server that breaks off, ignores ranges or changes the file."""

import logging
import socket

import pytest

from shards.archives.download import download, plan_download
from tests.support.coco_server import VAL, pictures_of, serving_coco, zipped


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving_coco(tmp_path, monkeypatch) as running:
        yield running


@pytest.mark.parametrize("tag", ['"first"', "Mon, 01 Sep 2025 00:00:00 GMT"])
def test_a_broken_transfer_goes_on_at_its_byte(server, tmp_path, tag):
    server.tag, server.faults = tag, [None, "breaks off"]
    server.fetch(splits=["val"])
    half = len(zipped(VAL)) // 2
    assert server.requests[1:] == [("val2017.zip", 0), ("val2017.zip", half)]
    assert pictures_of(tmp_path)["val2017/000000000139.jpg"] == VAL["val2017/000000000139.jpg"]


def test_another_process_goes_on_at_the_byte_where_the_first_gave_up(server):
    server.faults = [None, "breaks off", *[503] * 6]
    with pytest.raises(
        RuntimeError, match=r"failed 6 times in a row, the last time with: 503 .*; 5,\d+ of 10,\d+ bytes are kept"
    ):
        server.fetch(splits=["val"])
    plan = server.fetch(splits=["val"])
    whole = len(zipped(VAL))
    assert plan.bytes_to_fetch == whole - whole // 2
    assert server.requests[-1] == ("val2017.zip", whole // 2)


@pytest.mark.parametrize("fault", ["ignores ranges", "other range", "other tag"])
def test_a_server_that_does_not_resume_is_asked_for_the_whole(server, tmp_path, fault):
    server.faults = [None, "breaks off", fault]
    server.fetch(splits=["val"])
    assert server.requests[-1] == ("val2017.zip", 0)
    assert pictures_of(tmp_path)["val2017/000000000139.jpg"] == VAL["val2017/000000000139.jpg"]


def test_new_bytes_make_earlier_failures_forgotten(server):
    server.faults = [None, *[503] * 5, "breaks off", *[503] * 4, "breaks off"]
    server.fetch(splits=["val"])
    assert server.naps == [2, 4, 8, 16, 32, 2, 4, 8, 16, 32, 2]


def test_a_file_that_changed_on_the_server_is_fetched_from_its_start(server, tmp_path):
    right = server.files["/zips/val2017.zip"]
    server.files["/zips/val2017.zip"] = bytes(len(right))
    server.faults = [None, "breaks off", *[503] * 6]
    with pytest.raises(RuntimeError, match="failed 6 times in a row"):
        server.fetch(splits=["val"])
    server.files["/zips/val2017.zip"], server.tag = right, '"second"'
    server.fetch(splits=["val"])
    assert pictures_of(tmp_path)["val2017/000000000139.jpg"] == VAL["val2017/000000000139.jpg"]


def test_a_weak_tag_resumes_nothing(server):
    server.tag, server.faults = 'W/"first"', [None, "breaks off"]
    server.fetch(splits=["val"])
    assert server.requests[1:] == [("val2017.zip", 0)] * 2


def test_waits_grow_and_end_with_the_attempts(server, caplog):
    server.faults = [503] * 6
    with pytest.raises(
        RuntimeError, match=r"503 Service Unavailable; 0 of .* check the network and run again to resume"
    ):
        server.fetch()
    assert (server.naps, len(server.requests)) == ([2, 4, 8, 16, 32], 6)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 5


def test_a_silent_server_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shards.archives.transfer.TIMEOUT_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        plan = plan_download("tiny", tmp_path, base_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(RuntimeError, match=r"failed 6 times in a row, the last time with: .*timed out"):
            download(plan, progress=lambda _: None, sleep=lambda _: None)


def test_a_refusal_is_not_repeated(server):
    server.files.clear()
    with pytest.raises(RuntimeError, match=r"annotations_trainval2017.zip answered 404 Not Found; check the base URL"):
        server.fetch()
    assert len(server.requests) == 1


def test_a_file_of_another_size_is_refused_before_it_is_fetched(server, tmp_path):
    server.files["/zips/val2017.zip"] = b"<html>please log in</html>"
    with pytest.raises(
        RuntimeError, match=r"has 26 bytes instead of 10\d+, so it is a different file or a login page; check"
    ):
        server.fetch(splits=["val"])
    assert not list(tmp_path.glob("val*"))


def test_a_file_with_another_checksum_is_deleted(server, tmp_path):
    server.files["/zips/val2017.zip"] = bytes(len(zipped(VAL)))
    with pytest.raises(
        RuntimeError, match=r"with md5 \w{32}, not .* with \w{32}, so it is damaged .* it was deleted: run again"
    ):
        server.fetch(splits=["val"])
    assert not list(tmp_path.glob("val2017.zip.part"))
