"""``convert --rebuild``: a finished shard set whose source or settings have changed."""

import json
import shutil
from dataclasses import replace

import pytest

from cluster.config import ClusterConfig
from cluster.data import conversion
from cluster.data.conversion import convert
from cluster.errors import Unreachable
from shards.manifest import load_manifest
from shards.records import stale_shards
from tests.support.conversions import content, drawn, plan, whole


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def converted(scenes, tmp_path_factory):
    return whole(scenes, tmp_path_factory.mktemp("shards"))


@pytest.fixture
def changed(scenes, tmp_path):
    """Return a source of which a caption of one picture has changed and a picture of val is gone."""
    source = shutil.copytree(scenes, tmp_path / "changed")
    for split in ("train", "val"):
        path = source / "annotations" / f"captions_{split}.json"
        content = json.loads(path.read_text())
        content["annotations"][0]["caption"] += " a"
        gone = content["images"].pop() if split == "val" else {"id": None}
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] != gone["id"]]
        path.write_text(json.dumps(content))
    return source


def test_a_source_that_changed_is_refused_with_the_difference_and_rebuild_goes_on(changed, converted, tmp_path, caplog):
    folder = shutil.copytree(converted, tmp_path / "out")
    with pytest.raises(
        ValueError,
        match=r"\(val images 20 -> 19, captions_train.* -> .*\); choose .* again with captioning convert --rebuild",
    ):
        plan(changed, folder)
    assert content(folder) == content(converted)
    planned = plan(changed, folder, rebuild=True)
    assert len([one for one in planned.missing if one.split == "train"]) == 1
    with pytest.raises(KeyboardInterrupt):
        convert(planned, num_workers=0, progress=raising)
    assert "no job can read it until that is done" in caplog.text
    assert not (folder / "manifest.json").exists()
    convert(plan(changed, folder), num_workers=0)
    convert(plan(changed, tmp_path / "fresh"), num_workers=0)
    # The records of shards that were kept have the times of the files that they were written from.
    assert without_records(folder) == without_records(tmp_path / "fresh")


def test_a_rebuild_that_is_killed_before_its_first_shard_goes_on(changed, converted, tmp_path, monkeypatch):
    folder = shutil.copytree(converted, tmp_path / "out")
    with monkeypatch.context() as killed:
        killed.setattr(conversion, "remove_stale_shards", lambda plans, folder: raising(None))
        with pytest.raises(KeyboardInterrupt):
            convert(plan(changed, folder, rebuild=True), num_workers=0)
    assert not (folder / "manifest.json").exists()
    convert(plan(changed, folder, rebuild=True), num_workers=0)
    convert(plan(changed, tmp_path / "fresh"), num_workers=0)
    assert without_records(folder) == without_records(tmp_path / "fresh")


def faulty(source):
    """Take the words from the captions of three pictures, which is known before anything is written."""
    path = source / "annotations" / "captions_train.json"
    content = json.loads(path.read_text())
    ids = {image["id"] for image in content["images"][:3]}
    for annotation in content["annotations"]:
        if annotation["image_id"] in ids:
            annotation["caption"] = "!"
    path.write_text(json.dumps(content))


def test_a_rebuild_that_is_refused_leaves_the_set_whole(changed, converted, tmp_path):
    folder = shutil.copytree(converted, tmp_path / "out")
    fewer = plan(changed, folder, rebuild=True, samples_per_shard=50)
    with pytest.raises(Unreachable, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        convert(fewer, num_workers=1, cluster=ClusterConfig(address="127.0.0.1:1"))
    faulty(changed)
    with pytest.raises(ValueError, match=r"images or captions of \d+ images are faulty, more than the 1"):
        convert(plan(changed, folder, rebuild=True, samples_per_shard=50, on_bad="skip"), num_workers=0)
    assert content(folder) == content(converted)


def test_what_a_rebuild_removes_is_told(scenes, converted, tmp_path, caplog):
    folder = shutil.copytree(converted, tmp_path / "out")
    planned = plan(scenes, folder, rebuild=True, splits=("train",))
    names = [f"train-00000{number}.tar" for number in range(5)]
    assert stale_shards(planned.shards, folder) == ["val-000000.tar"]
    convert(planned, num_workers=0)
    assert f"{folder}: removing the shards that an earlier plan wrote (1): val-000000.tar" in caplog.text
    assert sorted(path.name for path in folder.glob("*.tar")) == names


@pytest.mark.parametrize("rebuild", [False, True])
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("captions_train.json", "photos.json", r"with no annotation file in common \(captions_.*; now photos\.json\)"),
        ("train", "test", r"with no split in common \(train, val; now test\)"),
    ],
)
def test_a_set_of_another_source_is_never_rebuilt(scenes, converted, tmp_path, rebuild, old, new, reason):
    source = shutil.copytree(scenes, tmp_path / "source")
    annotations = source / "annotations"
    (annotations / "captions_val.json").unlink()
    (annotations / "captions_train.json").rename(annotations / "captions_train.json".replace(old, new))
    split, name = ("test", "captions_test.json") if new == "test" else ("train", new)
    if new == "test":  # as an earlier release's set, which has no names of files
        folder = shutil.copytree(converted, tmp_path / "out")
        replace(load_manifest(folder), annotations={}).save(folder)
    else:
        folder = converted
    before = content(folder)
    options = {"annotations": (f"{split}={annotations / name}",), "vocabulary_split": split, "rebuild": rebuild}
    with pytest.raises(ValueError, match=f"set of another source, {reason}; choose another folder, or remove this one"):
        plan(source, folder, **options)
    assert content(folder) == before


def without_records(folder):
    return {name: stored for name, stored in content(folder).items() if not name.startswith("records/")}


def raising(record):
    raise KeyboardInterrupt


def test_rebuild_leaves_a_set_of_the_same_source_as_it_is(scenes, converted):
    planned = plan(scenes, converted, rebuild=True)
    assert (planned.difference, planned.missing) == ("", ())
