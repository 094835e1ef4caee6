"""Download of a COCO with three images from a real server on this machine."""

import shutil

import pytest

from shards.archives.download import OFFICIAL_URL, plan_download
from tests.support.coco_server import CAPTIONS, TRAIN, VAL, layout, pictures_of, serving_coco, zipped


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving_coco(tmp_path, monkeypatch) as running:
        yield running


def names_of(server):
    return [name for name, _ in server.requests]


def test_the_layout_is_what_conversion_reads(server, tmp_path):
    server.fetch()
    assert pictures_of(tmp_path) == layout(CAPTIONS, VAL, TRAIN)


def test_what_is_done_is_not_asked_for_again(server):
    server.fetch()
    server.requests.clear()
    plan = server.fetch()
    assert (server.requests, plan.archives, len(plan.done)) == ([], (), 4)


def test_what_was_deleted_is_fetched_again(server, tmp_path):
    server.fetch()
    shutil.rmtree(tmp_path / "val2017")
    server.requests.clear()
    server.fetch()
    assert names_of(server) == ["val2017.zip"]


def test_one_split_comes_alone_and_another_run_brings_the_rest(server, tmp_path):
    server.fetch(splits=["val"])
    first = pictures_of(tmp_path)
    server.fetch(splits=["train"])
    assert first == {name: content for name, content in layout(CAPTIONS, VAL).items() if "train" not in name}
    assert pictures_of(tmp_path) == layout(CAPTIONS, VAL, TRAIN)


def test_a_zip_file_that_was_there_is_checked_and_left_alone(server, tmp_path):
    (tmp_path / "val2017.zip").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"val2017.zip has 4 bytes with md5 .*; delete it and run again"):
        server.fetch()
    assert (tmp_path / "val2017.zip").read_bytes() == b"mine"


def test_kept_archives_are_not_fetched_again(server, tmp_path):
    server.fetch(splits=["val"], keep_archives=True)
    kept = sorted(path.name for path in tmp_path.glob("*.zip"))
    server.fetch(splits=["train"], keep_archives=True)
    assert kept == ["annotations_trainval2017.zip", "val2017.zip"]
    assert names_of(server) == ["annotations_trainval2017.zip", "val2017.zip", "train2017.zip"]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("step", ["fetch", "check", "unpack"])
def test_a_kill_at_any_step_costs_no_second_transfer(server, tmp_path, step):
    def kill(progress):
        if (progress.step, progress.name[:5]) == (step, "train"):
            raise KilledError

    with pytest.raises(KilledError):
        server.fetch(progress=kill)
    server.fetch()
    assert pictures_of(tmp_path) == layout(CAPTIONS, VAL, TRAIN)
    assert names_of(server).count("train2017.zip") == 1


def test_a_file_that_a_power_cut_left_wrong_is_written_again(server, tmp_path):
    torn = tmp_path / "train2017" / "000000000009.jpg"
    torn.parent.mkdir()
    torn.write_bytes(bytes(700))
    server.fetch()
    assert torn.read_bytes() == b"n" * 700


def test_progress_ends_at_its_total(server):
    last = {}
    server.fetch(progress=lambda seen: last.update({(seen.name, seen.step): seen.total_bytes - seen.done_bytes}))
    assert set(last.values()) == {0}
    assert {("val2017.zip", "fetch"), ("val2017.zip", "check"), ("val2017", "unpack")} < set(last)


def test_a_disk_that_is_too_small_is_told_before_the_first_request(server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(
        RuntimeError, match=r"tiny needs \d+,\d+ more bytes, but .* has only 0 free; free some space, choose another"
    ):
        server.fetch()
    assert not server.requests


def test_the_plan_of_coco_tells_what_it_takes(tmp_path):
    plan = plan_download("coco2017", tmp_path / "absent", splits=["val"])
    assert plan.bytes_to_fetch == 252_907_541 + 815_585_330
    # The annotation archive is gone before the pictures come: captions, then an archive and what is in it.
    assert plan.bytes_needed == 3_872_493 + 815_585_330 + 815_585_330 * 102 // 100
    kept = plan_download("coco2017", tmp_path, splits=["val"], keep_archives=True)
    assert kept.bytes_needed == plan.bytes_needed + 252_907_541


def test_the_plan_counts_what_is_there_already(server, tmp_path):
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
            "base URL file:///etc is not http; give an address that starts with http://",
        ),
    ],
)
def test_what_cannot_be_planned_is_told(tmp_path, dataset, options, told):
    with pytest.raises(ValueError, match=told):
        plan_download(dataset, tmp_path, **options)


def test_a_folder_of_source_code_is_refused(tmp_path):
    (tmp_path / "reader.py").touch()
    (tmp_path / "test2017").mkdir()  # COCO's own, from elsewhere
    with pytest.raises(ValueError, match=r"holds reader\.py, which this command does not write; choose a new or empty"):
        plan_download("coco2017", tmp_path)


def test_a_file_is_no_folder_to_download_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file, not a folder; choose a folder to download into"):
        plan_download("coco2017", tmp_path / "file")


def test_the_official_server_is_the_default(tmp_path):
    urls = [step.remote.url for step in plan_download("coco2014", tmp_path).archives]
    assert urls == [
        f"{OFFICIAL_URL}/{path}2014.zip" for path in ("annotations/annotations_trainval", "zips/val", "zips/train")
    ]
