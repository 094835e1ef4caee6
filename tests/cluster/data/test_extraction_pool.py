"""A pool of actors writes the same bytes even if some of them are killed."""

import shutil
import threading
from dataclasses import replace

import psutil
import pytest

from cluster.data import actor_pool
from cluster.data.extraction import extract
from cluster.data.shard_set import ShardSet
from tests.support.feature_sets import ENCODER, content, damage, plan

pytestmark = pytest.mark.cluster


def actors(form="ray::_Worker"):
    """Return the processes of this process's actors, by the beginning of their title."""
    family = psutil.Process().children(recursive=True)
    return [one for one in family if "".join(command_of(one)[:1]).startswith(form)]


def command_of(process):
    try:
        return process.cmdline()
    except psutil.Error:  # the process has just ended
        return []


def test_the_bytes_do_not_depend_on_the_number_of_actors(session, drawn_shards, tmp_path):
    for num_workers in (1, 2):
        extract(plan(drawn_shards, tmp_path / str(num_workers)), num_workers=num_workers)
    assert content(tmp_path / "1") == content(tmp_path / "2")


def test_a_lost_actor_costs_its_shard_alone(session, many_shards, tmp_path):
    killed, counts = [], []

    def progress(count):
        counts.append(count)
        if not killed and count and (found := actors("ray::_Worker.write") or actors()):
            found[0].kill()
            killed.append(found[0].pid)

    manifest = extract(plan(many_shards, tmp_path / "disturbed"), num_workers=2, progress=progress)
    assert (len(killed), manifest.splits, counts[-1]) == (1, {"train": 590, "val": 10}, 600)
    extract(plan(many_shards, tmp_path / "quiet"), num_workers=2)
    assert content(tmp_path / "disturbed") == content(tmp_path / "quiet")


def test_actors_that_die_again_and_again_end_it(session, drawn_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(actor_pool, "_MAX_LOST_IN_A_ROW", 2)
    is_over = threading.Event()

    def kill_all():
        while not is_over.wait(0.02):
            for one in actors():
                one.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(RuntimeError, match=r"2 actors were lost in a row, .* run the same command again"):
            extract(plan(drawn_shards, tmp_path), num_workers=1)
    finally:
        is_over.set()
        killer.join()


def test_a_bad_image_is_told_in_one_line(session, drawn_shards, tmp_path):
    shards = shutil.copytree(drawn_shards, tmp_path / "shards")
    key = ShardSet(shards).reader("val").read(0).key
    damage(shards / "val-000000.tar", key)
    with pytest.raises(ValueError, match=rf"^sample {key} of .*val-000000.tar: the image does not decode"):
        extract(plan(shards, tmp_path / "out"), num_workers=2)


def test_weights_that_do_not_fit_are_told_in_one_line(session, drawn_shards, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"no weights")
    wrong = plan(drawn_shards, tmp_path / "out", model=replace(ENCODER, weights=str(tmp_path / "w.pth")))
    with pytest.raises(ValueError, match=r"w.pth cannot be loaded safely"):
        extract(wrong, num_workers=1)


def test_a_cluster_without_room_is_refused(session, drawn_shards, tmp_path):
    with pytest.raises(ValueError, match=r"1 worker of 99 CPU does not fit: .*; use less for each worker, or a"):
        extract(plan(drawn_shards, tmp_path), num_workers=2, cpus_per_worker=99)
