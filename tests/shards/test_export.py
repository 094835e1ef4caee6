"""A shard set comes back as a folder in COCO layout, which gives the same set again."""

import dataclasses
import json

import pytest

from shards.export import export_split
from shards.manifest import Manifest
from shards.sources.coco import read_coco
from shards.writer import write_shard
from tests.support.shard_plans import SPEC, deal, seven_images


def manifest_of(records):
    return Manifest(
        shards=tuple(records),
        image_spec=SPEC,
        codec_versions={},
        samples_per_shard=3,
        seed=5,
        vocabulary_digest="",
        minimum_word_count=1,
    )


def test_the_exported_folder_gives_the_same_shards(tmp_path):
    plans = deal(seven_images(tmp_path / "coco"))
    manifest = manifest_of(write_shard(plan, tmp_path / "shards") for plan in plans)
    assert export_split(tmp_path / "shards", manifest, "train", tmp_path / "again") == 7
    again = deal(read_coco(tmp_path / "again").splits["train"])
    assert [write_shard(plan, tmp_path / "other").sha256 for plan in again] == [one.sha256 for one in manifest.shards]


def test_texts_as_ids_become_numbers_and_are_kept_beside_them(tmp_path):
    images = [
        dataclasses.replace(one, image_id=f"dogs/{n}.jpg") for n, one in enumerate(seven_images(tmp_path / "coco"))
    ]
    manifest = manifest_of(write_shard(plan, tmp_path / "shards") for plan in deal(images))
    export_split(tmp_path / "shards", manifest, "train", tmp_path / "again")
    content = json.loads((tmp_path / "again" / "annotations" / "captions_train.json").read_text())
    assert sorted(one["id"] for one in content["images"]) == [1, 2, 3, 4, 5, 6, 7]
    assert {one["name"] for one in content["images"]} == {one.image_id for one in images}
    assert len(read_coco(tmp_path / "again").splits["train"]) == 7


def test_a_folder_of_something_else_is_refused(tmp_path):
    manifest = manifest_of(write_shard(plan, tmp_path / "shards") for plan in deal(seven_images(tmp_path / "coco")))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        export_split(tmp_path / "shards", manifest, "train", tmp_path / "mine")


def test_the_photographs_that_a_set_was_made_of_are_not_written_over(tmp_path):
    manifest = manifest_of(write_shard(plan, tmp_path / "shards") for plan in deal(seven_images(tmp_path / "coco")))
    before = {path: path.read_bytes() for path in (tmp_path / "coco").rglob("*.jpg")}
    with pytest.raises(ValueError, match=r"coco holds .*, which this command does not write"):
        export_split(tmp_path / "shards", manifest, "train", tmp_path / "coco")
    assert before == {path: path.read_bytes() for path in (tmp_path / "coco").rglob("*.jpg")}


def test_an_export_is_gone_on_with_but_not_by_that_of_another_set(tmp_path):
    plans = deal(seven_images(tmp_path / "coco"))
    manifest = manifest_of(write_shard(plan, tmp_path / "shards") for plan in plans)
    export_split(tmp_path / "shards", manifest, "train", tmp_path / "again")
    assert export_split(tmp_path / "shards", manifest, "train", tmp_path / "again") == 7
    other = manifest_of(manifest.shards[:1])
    with pytest.raises(ValueError, match=r"again holds annotations and 1 more, which this command does not write"):
        export_split(tmp_path / "shards", other, "train", tmp_path / "again")


def test_a_file_in_the_folders_place_is_named(tmp_path):
    manifest = manifest_of(write_shard(plan, tmp_path / "shards") for plan in deal(seven_images(tmp_path / "coco")))
    (tmp_path / "mine").touch()
    with pytest.raises(ValueError, match=r"mine is a file; choose a new or empty folder"):
        export_split(tmp_path / "shards", manifest, "train", tmp_path / "mine")
