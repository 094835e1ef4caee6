import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.data import conversion
from cluster.data.conversion import convert
from shards.images import ImageSpec
from shards.manifest import load_manifest
from shards.storage.files import sha256_of
from shards.synthetic.scenes import write_scenes
from shards.writer import write_shard
from tests.support.command_line import captioning
from tests.support.conversions import content, drawn, plan, whole
from tests.support.shard_tables import in_tables

CONSOLE_SCRIPT = Path(sys.executable).with_name("captioning")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def converted(scenes, tmp_path_factory):
    return whole(scenes, tmp_path_factory.mktemp("shards"))


def test_the_manifest_names_the_annotation_files_and_their_checksums(scenes, converted):
    files = sorted((scenes / "annotations").iterdir())
    assert load_manifest(converted).annotations == {file.name: sha256_of(file) for file in files}


def test_the_vocabulary_comes_from_training_captions_alone(scenes, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(scenes, source)
    captions = source / "annotations" / "captions_val.json"
    annotations = json.loads(captions.read_text())
    for annotation in annotations["annotations"]:
        annotation["caption"] = "zebra " * 9
    captions.write_text(json.dumps(annotations))
    assert "zebra" not in plan(source, tmp_path / "out").vocabulary.words


def test_rare_words_are_left_out(scenes, tmp_path):
    counts = [len(plan(scenes, tmp_path, minimum_word_count=count).vocabulary) for count in (1, 4, 30)]
    assert counts[0] >= counts[1] > counts[2]


def test_a_folder_of_source_code_is_refused(scenes, tmp_path):
    (tmp_path / "order.py").touch()
    (tmp_path / "__init__.py").touch()
    with pytest.raises(
        ValueError, match=r"holds __init__\.py and 1 more, which this command does not write; choose a new or empty"
    ):
        plan(scenes, tmp_path)


def test_a_second_conversion_has_nothing_to_do(scenes, converted):
    assert plan(scenes, converted).missing == ()


def test_only_the_missing_shard_is_written_again(scenes, converted, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(converted, folder)
    (folder / "train-000001.tar").unlink()
    again = plan(scenes, folder)
    assert [shard.name for shard in again.missing] == ["train-000001.tar"]
    convert(again, num_workers=0)
    assert content(folder) == content(converted)


def test_an_altered_shard_is_written_again(scenes, converted, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(converted, folder)
    shard = folder / "train-000002.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    convert(plan(scenes, folder), num_workers=0)
    assert content(folder) == content(converted)


def test_leftovers_of_another_unfinished_plan_are_removed(scenes, converted, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in plan(scenes, folder, samples_per_shard=10).shards:
        write_shard(shard, folder)
    convert(plan(scenes, folder), num_workers=0)
    assert content(folder) == content(converted)


def test_a_finished_shard_set_of_other_settings_is_refused(scenes, converted):
    with pytest.raises(ValueError, match=r"set from other images, .* or codecs \(shorter_side_px \d+ -> 32\)"):
        plan(scenes, converted, image=ImageSpec(shorter_side_px=32))


def test_a_finished_shard_set_of_another_vocabulary_is_refused(scenes, converted):
    with pytest.raises(ValueError, match="has a finished shard set from other"):
        plan(scenes, converted, minimum_word_count=30)


def test_a_finished_shard_set_of_pictures_that_changed_since_is_refused(scenes, converted, tmp_path):
    source, folder = tmp_path / "source", shutil.copytree(converted, tmp_path / "out")
    shutil.copytree(scenes, source)
    assert plan(source, folder).missing == ()  # a copy of the same pictures
    first = min((source / "images").iterdir())
    first.write_bytes(first.read_bytes()[:-2] + b"  ")  # no end marker, and the same size
    with pytest.raises(
        ValueError,
        match=r"other images \(the content of some has changed, in 1 of \d shards\); choose another folder, or write",
    ):
        plan(source, folder)


def test_a_split_none_of_whose_images_decodes_is_never_finished(scenes, tmp_path):
    source = shutil.copytree(scenes, tmp_path / "source")
    for path in (source / "images").iterdir():
        path.write_bytes(path.name.encode())
    planned = plan(source, tmp_path / "out", on_bad="skip", max_rejected=1.0)
    with pytest.raises(ValueError, match=r"split train has no image that can be stored: 90 were set aside \(first: "):
        convert(planned, num_workers=0)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_finished_shard_set_of_an_earlier_codec_stays_as_it_is(scenes, converted, tmp_path, monkeypatch):
    folder = tmp_path / "shards"
    with monkeypatch.context() as earlier:
        earlier.setattr(conversion, "TurboCodec", lambda: None)
        convert(plan(scenes, folder), num_workers=0)
    before = content(folder)
    assert plan(scenes, folder).missing == ()
    victim = min(folder.glob("*.tar"))
    victim.write_bytes(victim.read_bytes()[:-1])
    convert(plan(scenes, folder), num_workers=0)
    assert content(folder) == before
    assert (load_manifest(folder).is_turbo, load_manifest(converted).is_turbo) == (False, True)


def test_an_image_that_does_not_decode_stops_the_conversion(scenes, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(scenes, source)
    victim = sorted((source / "images").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(ValueError, match=rf"{victim.name} \(image \d+\): .*set it aside with --on-bad skip"):
        convert(plan(source, tmp_path / "out"), num_workers=0)


def test_an_image_that_does_not_decode_can_be_set_aside(scenes, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(scenes, source)
    victim = (
        source
        / "images"
        / f"{json.loads((source / 'annotations/captions_train.json').read_text())['images'][0]['file_name']}"
    )
    victim.write_bytes(b"")
    manifest = convert(plan(source, tmp_path / "out", on_bad="skip"), num_workers=0)
    set_aside = [one.reason for shard in manifest.shards for one in shard.set_aside]
    assert (manifest.splits, len(set_aside), "empty" in set_aside[0]) == ({"train": 89, "val": 20}, 1, True)
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [one["reason"] for one in rejected] == set_aside


def test_too_many_faulty_images_end_the_conversion_and_what_is_written_stays(scenes, tmp_path):
    source, folder = shutil.copytree(scenes, tmp_path / "source"), tmp_path / "out"
    for path in sorted((source / "images").iterdir())[:4]:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"3 images or captions of 110 images are faulty, more than the 1 that may be"):
        convert(plan(source, folder, on_bad="skip"), num_workers=0)
    written = set(folder.glob("*.tar"))
    assert (bool(written), (folder / "manifest.json").exists()) == (True, False)
    planned = plan(source, folder, on_bad="skip", max_rejected=0.05)
    assert {folder / shard.name for shard in planned.missing}.isdisjoint(written)
    assert convert(planned, num_workers=0).splits == {"train": 86, "val": 20}
    assert len((folder / "rejected.jsonl").read_text().splitlines()) == 4


@pytest.mark.cluster
def test_the_bytes_do_not_depend_on_the_number_of_workers(session, scenes, converted, tmp_path):
    for num_workers in (1, 2):
        convert(plan(scenes, tmp_path / str(num_workers)), num_workers=num_workers)
    assert content(tmp_path / "1") == content(tmp_path / "2") == content(converted)


@pytest.mark.cluster
@pytest.mark.faults
def test_a_killed_conversion_is_finished_by_the_same_command(session, tmp_path):
    write_scenes(tmp_path / "scenes", num_train=3000, num_val=10, seed=4, size_px=64)
    command = ["convert", tmp_path / "scenes", tmp_path / "killed", "--samples-per-shard", "100"]
    process = subprocess.Popen([CONSOLE_SCRIPT, *command], stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list((tmp_path / "killed" / "records").glob("*.json"))) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    was_finished = (tmp_path / "killed" / "manifest.json").exists()
    assert captioning(*command).code == 0
    convert(plan(tmp_path / "scenes", tmp_path / "whole", samples_per_shard=100), num_workers=0)
    assert (was_finished, content(tmp_path / "killed")) == (False, content(tmp_path / "whole"))


def wait_for(condition, process, *, seconds=120):
    """Wait until the condition is true; fail if the process ends or after a timeout."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline, f"it did not get there within {seconds} s"
        time.sleep(0.01)


@pytest.mark.cluster
def test_real_photographs_are_read_by_stock_webdataset(shared_data, tmp_path):
    source = shared_data / "coco-mini"
    manifest = convert(plan(source, tmp_path, samples_per_shard=100), num_workers=0)
    read = {
        split: read_by_webdataset([tmp_path / shard.name for shard in manifest.of_split(split)])
        for split in manifest.splits
    }
    assert {split: len(set(keys)) for split, keys in read.items()} == manifest.splits == {"train": 298, "val": 65}


def read_by_webdataset(files):
    """Return the keys that stock WebDataset reads, in another process, because it leaves files open."""
    code = """
import sys, webdataset
for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode("pil"):
    assert sample["jpg"].size == (sample["json"]["width"], sample["json"]["height"])
    print(sample["__key__"])
"""
    command = [sys.executable, "-c", code, *files]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_the_manifest_is_what_was_returned(scenes, tmp_path):
    assert convert(plan(scenes, tmp_path), num_workers=0) == load_manifest(tmp_path)


def test_a_set_with_a_table_is_kept_by_the_same_command(scenes, converted, tmp_path, monkeypatch):
    in_tables(monkeypatch)
    convert(plan(scenes, tmp_path), num_workers=0)
    before, again = content(tmp_path), plan(scenes, tmp_path)
    assert (again.missing, len([*tmp_path.glob("shards-*.arrow")])) == ((), 1)
    assert convert(again, num_workers=0).digest == load_manifest(converted).digest
    assert content(tmp_path) == before
