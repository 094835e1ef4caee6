"""A real server on this machine that breaks off, ignores ranges and changes its mind; archives that mean harm."""

import hashlib
import io
import logging
import os
import shutil
import socket
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shards.download import DATASETS, OFFICIAL_URL, Archive, download, plan_download
from shards.unpack import Part

TRAIN = {"train2017/": b"", "train2017/000000000009.jpg": b"n" * 700, "train2017/000000000025.jpg": b"t" * 900}
VAL = {"val2017/": b"", "val2017/000000000139.jpg": bytes(range(256)) * 40}
CAPTIONS = {
    f"annotations/{kind}_{split}2017.json": b"{}" for kind in ("captions", "instances") for split in ("train", "val")
}


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def archive(path, content, **targets):
    parts = tuple(Part(split=split, target=target, num_bytes=2000) for split, target in targets.items())
    return Archive(path=path, num_bytes=len(content), md5=hashlib.md5(content).hexdigest(), parts=parts)


class Handler(BaseHTTPRequestHandler):
    """Serve ``server.files``; a request takes the next of ``server.faults`` and notes the byte or error it answers."""

    def do_GET(self):
        server, ranged = self.server, self.headers["Range"]
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int) or self.path not in server.files:
            server.requests.append((self.path.rpartition("/")[2], fault or 404))
            return self.send_error(fault or 404)
        content, tag = server.files[self.path], server.tag
        start = 0
        if ranged and fault != "ignores ranges" and self.headers["If-Range"] == tag:
            start = int(ranged[6:-1])
        server.requests.append((self.path.rpartition("/")[2], start))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header(
            "ETag" if tag.startswith(("W/", '"')) else "Last-Modified", '"other"' if fault == "other tag" else tag
        )
        if start:
            first = 0 if fault == "other range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: len(body) // 2] if fault == "breaks off" else body)
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(os, "sync", lambda: None)  # it waits for whatever else this machine writes
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.requests, running.faults, running.tag = [], [], '"first"'
        running.files = {}
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def coco(server, monkeypatch):
    """Serve a COCO of three pictures; return a function that changes an archive and what is known of it."""

    def serve(name, content, **targets):
        path = f"{'annotations' if 'ann' in name else 'zips'}/{name}.zip"
        server.files[f"/{path}"] = content
        table[path] = archive(path, content, **targets)
        monkeypatch.setitem(DATASETS, "tiny", tuple(table.values()))

    table = {}
    captions = {split: f"annotations/captions_{split}2017.json" for split in ("train", "val")}
    serve("annotations_trainval2017", zipped(CAPTIONS), **captions)
    serve("val2017", zipped(VAL), val="val2017")
    serve("train2017", zipped(TRAIN), train="train2017")
    return serve


@pytest.fixture
def fetch(server, coco, tmp_path):
    """Return a function that plans and downloads; its ``naps`` are the seconds that it wanted to sleep."""

    def run(*, progress=lambda _: None, **options):
        port = server.server_address[1]
        plan = plan_download("tiny", tmp_path, base_url=f"http://127.0.0.1:{port}", **options)
        download(plan, progress=progress, sleep=run.naps.append)
        return plan

    run.naps = []
    return run


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def layout(*contents):
    return {
        name: content
        for members in contents
        for name, content in members.items()
        if content and "instances" not in name
    }


def pictures_of(folder):
    return {name: content for name, content in files(folder).items() if not name.startswith(".downloaded")}


def names_of(server):
    return [name for name, _ in server.requests]


def test_the_layout_is_what_conversion_reads(fetch, tmp_path):
    fetch()
    assert pictures_of(tmp_path) == layout(CAPTIONS, VAL, TRAIN)


def test_what_is_done_is_not_asked_for_again(fetch, server):
    fetch()
    server.requests.clear()
    plan = fetch()
    assert (server.requests, plan.archives, len(plan.done)) == ([], (), 4)


def test_what_was_deleted_is_fetched_again(fetch, server, tmp_path):
    fetch()
    shutil.rmtree(tmp_path / "val2017")
    server.requests.clear()
    fetch()
    assert names_of(server) == ["val2017.zip"]


def test_one_split_comes_alone_and_another_run_brings_the_rest(fetch, server, tmp_path):
    fetch(splits=["val"])
    first = pictures_of(tmp_path)
    fetch(splits=["train"])
    assert first == {name: content for name, content in layout(CAPTIONS, VAL).items() if "train" not in name}
    assert pictures_of(tmp_path) == layout(CAPTIONS, VAL, TRAIN)


@pytest.mark.parametrize("tag", ['"first"', "Mon, 01 Sep 2025 00:00:00 GMT"])
def test_a_broken_transfer_goes_on_at_its_byte(fetch, server, tmp_path, tag):
    server.tag, server.faults = tag, [None, "breaks off"]
    fetch(splits=["val"])
    half = len(zipped(VAL)) // 2
    assert server.requests[1:] == [("val2017.zip", 0), ("val2017.zip", half)]
    assert pictures_of(tmp_path)["val2017/000000000139.jpg"] == VAL["val2017/000000000139.jpg"]


def test_another_process_goes_on_at_the_byte_where_the_first_gave_up(fetch, server):
    server.faults = [None, "breaks off", *[503] * 6]
    with pytest.raises(
        RuntimeError, match=r"failed 6 times in a row, at last with: 503 .*; 5,\d+ of 10,\d+ bytes are kept"
    ):
        fetch(splits=["val"])
    plan = fetch(splits=["val"])
    whole = len(zipped(VAL))
    assert plan.bytes_to_fetch == whole - whole // 2
    assert server.requests[-1] == ("val2017.zip", whole // 2)


@pytest.mark.parametrize("fault", ["ignores ranges", "other range", "other tag"])
def test_a_server_that_does_not_resume_is_asked_for_the_whole(fetch, server, tmp_path, fault):
    server.faults = [None, "breaks off", fault]
    fetch(splits=["val"])
    assert server.requests[-1] == ("val2017.zip", 0)
    assert pictures_of(tmp_path)["val2017/000000000139.jpg"] == VAL["val2017/000000000139.jpg"]


def test_new_bytes_make_earlier_failures_forgotten(fetch, server):
    server.faults = [None, *[503] * 5, "breaks off", *[503] * 4, "breaks off"]
    fetch(splits=["val"])
    assert fetch.naps == [2, 4, 8, 16, 32, 2, 4, 8, 16, 32, 2]


def test_a_file_that_changed_on_the_server_is_fetched_from_its_start(fetch, server, tmp_path):
    right = server.files["/zips/val2017.zip"]
    server.files["/zips/val2017.zip"] = bytes(len(right))
    server.faults = [None, "breaks off", *[503] * 6]
    with pytest.raises(RuntimeError, match="failed 6 times in a row"):
        fetch(splits=["val"])
    server.files["/zips/val2017.zip"], server.tag = right, '"second"'
    fetch(splits=["val"])
    assert pictures_of(tmp_path)["val2017/000000000139.jpg"] == VAL["val2017/000000000139.jpg"]


def test_a_weak_tag_resumes_nothing(fetch, server):
    server.tag, server.faults = 'W/"first"', [None, "breaks off"]
    fetch(splits=["val"])
    assert server.requests[1:] == [("val2017.zip", 0)] * 2


def test_waits_grow_and_end_with_the_attempts(fetch, server, caplog):
    server.faults = [503] * 6
    with pytest.raises(
        RuntimeError, match=r"503 Service Unavailable; 0 of .* check the network and run again to go on"
    ):
        fetch()
    assert (fetch.naps, len(server.requests)) == ([2, 4, 8, 16, 32], 6)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 5


def test_a_silent_server_is_given_up(coco, tmp_path, monkeypatch):
    monkeypatch.setattr("shards.transfer.TIMEOUT_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        plan = plan_download("tiny", tmp_path, base_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(RuntimeError, match=r"failed 6 times in a row, at last with: .*timed out"):
            download(plan, progress=lambda _: None, sleep=lambda _: None)


def test_a_refusal_is_not_repeated(fetch, server):
    server.files.clear()
    with pytest.raises(RuntimeError, match=r"annotations_trainval2017.zip answered 404 Not Found; check the base URL"):
        fetch()
    assert len(server.requests) == 1


def test_a_file_of_another_size_is_refused_before_it_is_fetched(fetch, server, tmp_path):
    server.files["/zips/val2017.zip"] = b"<html>please log in</html>"
    with pytest.raises(
        RuntimeError, match=r"offers 26 bytes instead of 10\d+, so it is another file or a login page; check"
    ):
        fetch(splits=["val"])
    assert not list(tmp_path.glob("val*"))


def test_a_file_with_another_checksum_is_deleted(fetch, server, tmp_path):
    server.files["/zips/val2017.zip"] = bytes(len(zipped(VAL)))
    with pytest.raises(
        RuntimeError, match=r"with md5 \w{32}, not .* with \w{32}, so it is damaged .* it is deleted: run again"
    ):
        fetch(splits=["val"])
    assert not list(tmp_path.glob("val2017.zip.part"))


def test_a_zip_file_that_was_there_is_checked_and_left_alone(fetch, tmp_path):
    (tmp_path / "val2017.zip").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"val2017.zip has 4 bytes with md5 .*; delete it and run again"):
        fetch()
    assert (tmp_path / "val2017.zip").read_bytes() == b"mine"


def test_kept_archives_are_not_fetched_again(fetch, server, tmp_path):
    fetch(splits=["val"], keep_archives=True)
    kept = sorted(path.name for path in tmp_path.glob("*.zip"))
    fetch(splits=["train"], keep_archives=True)
    assert kept == ["annotations_trainval2017.zip", "val2017.zip"]
    assert names_of(server) == ["annotations_trainval2017.zip", "val2017.zip", "train2017.zip"]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("step", ["fetch", "check", "unpack"])
def test_a_kill_at_any_step_costs_no_second_transfer(fetch, server, tmp_path, step):
    def kill(progress):
        if (progress.step, progress.name[:5]) == (step, "train"):
            raise KilledError

    with pytest.raises(KilledError):
        fetch(progress=kill)
    fetch()
    assert pictures_of(tmp_path) == layout(CAPTIONS, VAL, TRAIN)
    assert names_of(server).count("train2017.zip") == 1


def test_a_file_that_a_power_cut_left_wrong_is_written_again(fetch, tmp_path):
    torn = tmp_path / "train2017" / "000000000009.jpg"
    torn.parent.mkdir()
    torn.write_bytes(bytes(700))
    fetch()
    assert torn.read_bytes() == b"n" * 700


def test_progress_ends_at_its_total(fetch):
    last = {}
    fetch(progress=lambda seen: last.update({(seen.name, seen.step): seen.total_bytes - seen.done_bytes}))
    assert set(last.values()) == {0}
    assert {("val2017.zip", "fetch"), ("val2017.zip", "check"), ("val2017", "unpack")} < set(last)


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "val2017/../../evil", "C:evil", "val2017\\..\\evil", "a\x1b[2Jb", "a\nb"]
)
def test_an_archive_that_leads_outside_unpacks_nothing(fetch, coco, tmp_path, name):
    coco("val2017", zipped({**VAL, name: b"evil"}), val="val2017")
    with pytest.raises(
        ValueError, match=r"val2017.zip holds '.*', a link or a name that leads elsewhere, so nothing .* trust"
    ):
        fetch()
    assert not (tmp_path / "val2017").exists()


def test_an_archive_with_a_link_unpacks_nothing(fetch, coco, tmp_path):
    link = zipfile.ZipInfo("val2017/000000000001.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    coco("val2017", zipped({link: b"/etc/passwd", **VAL}), val="val2017")
    with pytest.raises(ValueError, match=r"val2017/000000000001.jpg', a link or a name that leads elsewhere"):
        fetch()
    assert not (tmp_path / "val2017").exists()


def test_names_that_are_not_pictures_stay_in_the_archive(fetch, coco, tmp_path):
    odd = {
        "val2017/.hidden.jpg": b"x",
        "val2017/deep/1.jpg": b"x",
        "val2017/run.sh": b"x",
        ".downloaded/train2017.json": b"x",
    }
    coco("val2017", zipped({**VAL, **odd}), val="val2017")
    fetch()
    assert pictures_of(tmp_path) == layout(CAPTIONS, VAL, TRAIN)


def test_a_link_in_the_folder_is_not_followed_outside(fetch, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (tmp_path / "val2017").symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"val2017 leads outside .*; put a folder in place of the link"):
        fetch()
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: content[: len(content) // 2], "File is not a zip file"),
        (lambda content: content.replace(bytes(range(256)), bytes(256), 1), "Bad CRC-32 for file"),
    ],
)
def test_a_damaged_archive_is_told_in_one_line(fetch, coco, tmp_path, damage, told):
    coco("val2017", damage(zipped(VAL)), val="val2017")
    with pytest.raises(RuntimeError, match=rf"val2017.zip is damaged \({told}.*\); delete it and run again"):
        fetch()
    assert not (tmp_path / "val2017" / "000000000139.jpg").exists()


def test_an_archive_without_its_pictures_is_refused(fetch, coco):
    coco("val2017", zipped(TRAIN), val="val2017")
    with pytest.raises(RuntimeError, match=r"val2017.zip holds no val2017, so it is another archive; delete it"):
        fetch()


def test_a_disk_that_is_too_small_is_told_before_the_first_request(fetch, server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(
        RuntimeError, match=r"tiny needs \d+,\d+ bytes more and .* has 0 free; make room, choose another folder"
    ):
        fetch()
    assert not server.requests


def test_the_plan_of_coco_tells_what_it_takes(tmp_path):
    plan = plan_download("coco2017", tmp_path / "absent", splits=["val"])
    assert plan.bytes_to_fetch == 252_907_541 + 815_585_330
    # The annotation archive is gone before the pictures come: captions, then an archive and what is in it.
    assert plan.bytes_needed == 3_872_493 + 815_585_330 + 815_585_330 * 102 // 100
    kept = plan_download("coco2017", tmp_path, splits=["val"], keep_archives=True)
    assert kept.bytes_needed == plan.bytes_needed + 252_907_541


def test_the_plan_counts_what_is_there_already(coco, tmp_path):
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "1.jpg").write_bytes(bytes(500))
    (tmp_path / "val2017.zip.part").write_bytes(bytes(1000))
    step = plan_download("tiny", tmp_path, splits=["val"]).archives[-1]
    assert (step.bytes_to_fetch, step.bytes_to_unpack) == (len(zipped(VAL)) - 1000, 1500)


@pytest.mark.parametrize(
    ("dataset", "options", "told"),
    [
        ("coco2016", {}, "there is no dataset 'coco2016'; choose one of coco2017, coco2014"),
        ("coco2017", {"splits": ["val", "test"]}, "coco2017 has no split 'test'; choose from train, val"),
        (
            "coco2017",
            {"base_url": "file:///etc"},
            "file:///etc cannot be downloaded from; give an address that starts with http://",
        ),
    ],
)
def test_what_cannot_be_planned_is_told(tmp_path, dataset, options, told):
    with pytest.raises(ValueError, match=told):
        plan_download(dataset, tmp_path, **options)


def test_a_file_is_no_folder_to_download_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file, so nothing can be downloaded into it; name a folder"):
        plan_download("coco2017", tmp_path / "file")


def test_the_official_server_is_the_default(tmp_path):
    urls = [step.remote.url for step in plan_download("coco2014", tmp_path).archives]
    assert urls == [
        f"{OFFICIAL_URL}/{path}2014.zip" for path in ("annotations/annotations_trainval", "zips/val", "zips/train")
    ]
