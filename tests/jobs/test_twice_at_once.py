"""A job that starts while another process writes to its folder."""

import queue
import shutil
import threading

import pytest

from jobs import convert, download, extract
from jobs.console.job import Invocation
from shards.storage import lock
from shards.storage.lock import sole_writer
from tests.support.coco_server import serving_coco
from tests.support.pictures import write_coco


@pytest.fixture
def converting(tmp_path):
    """Return a function that converts three pictures to two shards in a folder."""
    write_coco(tmp_path / "coco")
    settings = {"num_workers": 0, "samples_per_shard": 2, "minimum_word_count": 1}
    return lambda folder: convert.main(
        Invocation(settings=convert.ConvertJob(source=tmp_path / "coco", shards=folder, **settings))
    )


@pytest.fixture
def extracting(converting, tmp_path):
    converting(tmp_path / "shards")
    encoder = extract.EncoderConfig(backbone="squeezenet1_1", weights="none", image_size_px=32)
    settings = {"shards": tmp_path / "shards", "model": encoder, "num_workers": 0}
    return lambda folder: extract.main(Invocation(settings=extract.ExtractJob(features=folder, **settings)))


@pytest.fixture
def downloading(tmp_path, monkeypatch):
    with serving_coco(tmp_path, monkeypatch) as server:
        settings = {"dataset": "tiny", "base_url": server.url}
        yield lambda folder: download.main(Invocation(settings=download.DownloadJob(folder=folder, **settings)))


def stamps(folder):
    """Return the inodes of the files that a job replaces only if they are missing or damaged."""
    return {path.name: path.stat().st_ino for pattern in ("*.tar", "*.jpg") for path in folder.rglob(pattern)}


@pytest.mark.parametrize("job", ["converting", "extracting", "downloading"])
def test_a_second_job_waits_for_the_first_and_leaves_its_files_alone(job, request, tmp_path, monkeypatch):
    run, told = request.getfixturevalue(job), queue.Queue()
    monkeypatch.setattr(lock.logger, "warning", lambda form, *values: told.put(form % values))
    run(tmp_path / "alone")
    folder = tmp_path / "together"
    second = threading.Thread(target=run, args=(folder,))
    with sole_writer(folder):
        second.start()
        assert f"{folder} is being written by process " in told.get(timeout=20)
        half = folder / ".half-written.tmp"
        half.touch()
        shutil.copytree(tmp_path / "alone", folder, dirs_exist_ok=True)
        written, is_left_alone = stamps(folder), half.exists()
    second.join()
    assert (is_left_alone, stamps(folder)) == (True, written)
