"""Forms of sources are recognized by what is there, and give what COCO's form gives."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet
import pytest

from shards.images import ImageSpec
from shards.sources.coco import read_coco
from shards.sources.recognition import FORMS, SourceOptions, read_source
from shards.writer import plan_shards, write_shard
from tests.support.pictures import write_annotations, write_coco
from tests.support.saved_datasets import IMAGE, save_dictionary

PLAN = {"spec": ImageSpec(), "samples_per_shard": 2, "seed": 0}


@pytest.fixture
def coco(tmp_path):
    content = write_coco(tmp_path / "coco", num_images=7)
    for split, ids in (("train", {1, 2, 3}), ("val", {4, 5, 6, 7})):
        images = [one for one in content["images"] if one["id"] in ids]
        annotations = [one for one in content["annotations"] if one["image_id"] in ids]
        write_annotations(tmp_path / "coco", {"images": images, "annotations": annotations}, name=split)
    return tmp_path / "coco"


def rows_of(coco, split):
    """Return file, id and captions of each image of a split."""
    content = json.loads((coco / "annotations" / f"captions_{split}.json").read_text())
    for image in content["images"]:
        captions = [one["caption"] for one in content["annotations"] if one["image_id"] == image["id"]]
        yield image["file_name"], image["id"], captions


def as_csv(coco, folder):
    lines = [
        f'{split},{name},{image_id},"{caption}"'
        for split in ("train", "val")
        for name, image_id, captions in rows_of(coco, split)
        for caption in captions
    ]
    (folder / "captions.csv").write_text("\n".join(["split,image,image_id,caption", *lines]))


def as_parquet(coco, folder):
    rows = [
        {"split": split, "file_name": name, "image_id": image_id, "captions": captions}
        for split in ("train", "val")
        for name, image_id, captions in rows_of(coco, split)
    ]
    pa.parquet.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")


def as_imagefolder(coco, folder):
    for split, own in (("train", "train"), ("val", "validation")):
        (folder / own).mkdir()
        for name, _, _ in rows_of(coco, split):
            shutil.copy(coco / "images" / name, folder / own)
        lines = [
            json.dumps({"file_name": name, "image_id": image_id, "text": captions})
            for name, image_id, captions in rows_of(coco, split)
        ]
        (folder / own / "metadata.jsonl").write_text("\n".join(lines))


def as_saved_datasets(coco, folder):
    schema = pa.schema([("image", IMAGE), ("image_id", pa.int64()), ("captions", pa.list_(pa.string()))])
    splits = {
        own: [
            {
                "image": {"bytes": (coco / "images" / name).read_bytes(), "path": name},
                "image_id": image_id,
                "captions": captions,
            }
            for name, image_id, captions in rows_of(coco, split)
        ]
        for split, own in (("train", "train"), ("val", "validation"))
    }
    save_dictionary(folder / "set", splits, schema, parts=2)
    for path in (folder / "set").iterdir():
        path.rename(folder / path.name)


def as_karpathy(coco, folder):
    images = [
        {"imgid": image_id, "filename": name, "split": split, "sentences": [{"raw": text} for text in captions]}
        for split in ("train", "val")
        for name, image_id, captions in rows_of(coco, split)
    ]
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))


@pytest.mark.parametrize(
    ("write", "form"),
    [
        (as_csv, "table"),
        (as_parquet, "table"),
        (as_imagefolder, "table"),
        (as_saved_datasets, "datasets"),
        (as_karpathy, "karpathy"),
    ],
)
def test_every_form_with_ids_gives_what_cocos_gives(coco, tmp_path, write, form):
    folder = tmp_path / "other"
    shutil.copytree(coco / "images", folder / "images")
    write(coco, folder)
    source = read_source(folder, SourceOptions())
    assert source.form == form

    def told(annotations):
        return {
            split: [(one.image_id, one.path.name, one.path.read_bytes(), one.captions) for one in images]
            for split, images in annotations.splits.items()
        }

    assert told(source.annotations) == told(read_coco(coco))
    made = {
        name: [
            [write_shard(plan, tmp_path / name).sha256 for plan in plan_shards(split, images, **PLAN)]
            for split, images in annotations.splits.items()
        ]
        for name, annotations in (("theirs", source.annotations), ("cocos", read_coco(coco)))
    }
    assert made["theirs"] == made["cocos"]


def test_forms_without_ids_give_the_same_captions(coco, tmp_path):
    folder = tmp_path / "other"
    (folder / "Images").mkdir(parents=True)
    for name, _, _ in rows_of(coco, "val"):
        shutil.copy(coco / "images" / name, folder / "Images")
    for name, _, captions in rows_of(coco, "val"):
        (folder / "Images" / name).with_suffix(".txt").write_text("\n".join(captions))
    found = {"sidecars": read_source(folder, SourceOptions())}
    lines = [f"{name}#{n}\t{text}" for name, _, captions in rows_of(coco, "val") for n, text in enumerate(captions)]
    (folder / "my.token").write_text("\n".join(lines))
    found["flickr"] = read_source(folder, SourceOptions())
    expected = {name: tuple(captions) for name, _, captions in rows_of(coco, "val")}
    assert {form: source.form for form, source in found.items()} == {form: form for form in found}
    for source in found.values():
        assert {one.path.name: one.captions for one in source.annotations.splits["train"]} == expected


def test_cocos_own_files_come_before_karpathys(coco):
    as_karpathy(coco, coco)
    assert read_source(coco, SourceOptions()).form == "coco"
    assert read_source(coco, SourceOptions(form="karpathy")).form == "karpathy"


def test_two_split_files_are_refused_with_the_flag_that_decides(tmp_path):
    for name in ("dataset_a.json", "dataset_b.json"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"holds dataset_a\.json and dataset_b\.json; choose one with --karpathy FILE"):
        read_source(tmp_path, SourceOptions())


def test_two_forms_at_once_are_refused_with_the_flag_that_decides(coco):
    as_csv(coco, coco)
    with pytest.raises(ValueError, match="can be read as coco and as table; choose one with --format"):
        read_source(coco, SourceOptions())
    assert read_source(coco, SourceOptions(form="table")).form == "table"


def test_a_folder_of_no_form_is_told_all_forms(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no captions: .*--annotations SPLIT=FILE"):
        read_source(tmp_path, SourceOptions())


@pytest.mark.parametrize("form", FORMS)
def test_a_wanted_form_that_is_not_there_is_told(tmp_path, form):
    with pytest.raises((FileNotFoundError, ValueError), match=str(tmp_path)):
        read_source(tmp_path, SourceOptions(form=form))


def test_named_files_are_used_instead(coco, tmp_path):
    as_csv(coco, coco)
    lines = [line for line in (coco / "captions.csv").read_text().splitlines() if not line.startswith("train")]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    (coco / "annotations" / "captions_val.json").rename(coco / "other.json")
    table = read_source(coco, SourceOptions(annotations=(f"dev={tmp_path / 'mine.csv'}",)))
    assert (table.form, list(table.annotations.splits)) == ("table", ["val"])
    own = read_source(coco, SourceOptions(annotations=("my=other.json",)))
    assert (own.form, len(own.annotations.splits["my"])) == ("coco", 4)


@pytest.mark.parametrize(
    ("annotations", "fault"),
    [
        (("captions.csv",), "is not SPLIT=FILE"),
        (("a=x.csv", "a=y.csv"), "names a twice"),
        (("a=x.csv", "b=y.json"), "use files of one form"),
        (("a=x.csv",), r"x\.csv is not a file"),
        (("a=x.json",), r"x\.json is not a file"),
    ],
)
def test_named_files_that_cannot_be_are_refused(tmp_path, annotations, fault):
    with pytest.raises((ValueError, FileNotFoundError), match=fault):
        read_source(tmp_path, SourceOptions(annotations=annotations))


def test_images_without_splits_are_dealt(coco):
    options = SourceOptions(annotations=("train=annotations/captions_train.json",), split_by="1:1")
    with pytest.raises(ValueError, match=r"has splits of its own \(train\); leave out --split-by 1:1"):
        read_source(coco, options)
    (coco / "captions.csv").write_text("image,caption\n" + "".join(f"{n:012d}.jpg,A.\n" for n in range(1, 8)))
    dealt = read_source(coco, SourceOptions(form="table", split_by="1:1")).annotations
    assert {split: len(images) for split, images in dealt.splits.items()} == {"train": 4, "val": 3}
    only = read_source(coco, SourceOptions(form="table", split_by="1:1"), ["val"]).annotations
    assert only.splits == {"val": dealt.splits["val"]}


def test_columns_of_a_source_without_any_are_refused(coco):
    with pytest.raises(ValueError, match="is read as coco, which has no columns; leave out --caption-column text"):
        read_source(coco, SourceOptions(caption_column="text"))
