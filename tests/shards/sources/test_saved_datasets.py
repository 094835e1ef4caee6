"""Datasets that Hugging Face's library saved."""

import errno
import json

import pyarrow as pa
import pytest

from shards.sources.recognition import SourceOptions, read_source
from shards.sources.saved_datasets import find_saved, is_saved, open_saved
from tests.support.pictures import encoded, noise
from tests.support.saved_datasets import IMAGE, save_dataset, save_dictionary

SCHEMA = pa.schema([("image", IMAGE), ("captions", pa.list_(pa.string())), ("licence", pa.string())])


def row(number, **changes):
    content = encoded(noise(24, 16, seed=number))
    image = {"bytes": content, "path": f"{number}.jpg"}
    return {"image": image, "captions": [f"Dog {number}.", "A dog."], "licence": "CC", **changes}


def read(folder, splits=(), skip_bad=False, **options):
    return read_source(folder, SourceOptions(**options), splits, skip_bad=skip_bad).annotations


def test_images_are_read_where_they_are_in_the_file(tmp_path):
    save_dataset(tmp_path / "set", [row(number) for number in range(7)], SCHEMA, parts=2)
    annotations = read(tmp_path / "set")
    images = annotations.splits["train"]
    assert [(one.image_id, one.path.read_bytes()) for one in images] == [
        (f"{number}.jpg", row(number)["image"]["bytes"]) for number in range(7)
    ]
    assert (images[3].captions, images[3].columns) == (("Dog 3.", "A dog."), {"licence": "CC"})
    assert (annotations.has_splits, list(annotations.files)) == (False, ["state.json"])


def test_splits_are_the_datasets_of_a_dictionary(tmp_path):
    save_dictionary(tmp_path / "set", {"train": [row(1), row(2)], "validation": [row(3)]}, SCHEMA)
    annotations = read(tmp_path / "set")
    assert {split: len(images) for split, images in annotations.splits.items()} == {"train": 2, "val": 1}
    assert sorted(annotations.files) == ["train/state.json", "validation/state.json"]
    assert list(read(tmp_path / "set", ["val"]).splits) == ["val"]


@pytest.mark.parametrize(("split", "expected"), [(None, "train"), ("train", "train"), ("dev", "val"), ("all", "train")])
def test_a_dataset_alone_is_train_unless_it_says_otherwise(tmp_path, split, expected):
    save_dataset(tmp_path / "set", [row(1)], SCHEMA, split=split)
    assert list(read(tmp_path / "set").splits) == [expected]


@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        ("caption", pa.string(), "A dog."),
        ("text", pa.large_string(), "A dog."),
        ("sentences", pa.list_(pa.string()), ["A dog."]),
        ("caption_0", pa.string(), "A dog."),
    ],
)
def test_captions_are_in_columns_of_usual_names(tmp_path, column, kind, value):
    schema = pa.schema([(column, kind), ("picture", IMAGE)])
    save_dataset(tmp_path / "set", [{column: value, "picture": row(1)["image"]}], schema)
    assert [one.captions for one in read(tmp_path / "set").splits["train"]] == [("A dog.",)]


def test_rows_of_one_image_are_joined(tmp_path):
    rows = [row(1, captions=["A."]), row(2), row(1, captions=["B."])]
    save_dataset(tmp_path / "set", rows, SCHEMA)
    assert {one.image_id: one.captions for one in read(tmp_path / "set").splits["train"]}["1.jpg"] == ("A.", "B.")


def test_images_without_a_name_are_named_by_their_rows(tmp_path):
    rows = [row(number, image={"bytes": row(number)["image"]["bytes"], "path": None}) for number in range(3)]
    save_dataset(tmp_path / "set", rows, SCHEMA)
    assert [one.image_id for one in read(tmp_path / "set").splits["train"]] == ["row-0", "row-1", "row-2"]


def test_an_image_without_bytes_is_the_file_of_its_path(tmp_path):
    rows = [row(1), row(2, image={"bytes": None, "path": "pictures/2.jpg"})]
    save_dataset(tmp_path / "set", rows, SCHEMA)
    (tmp_path / "set" / "pictures").mkdir()
    (tmp_path / "set" / "pictures" / "2.jpg").write_bytes(b"content")
    contents = [one.path.read_bytes() for one in read(tmp_path / "set").splits["train"]]
    assert contents == [row(1)["image"]["bytes"], b"content"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"image": {"bytes": None, "path": "gone.jpg"}}, "gone.jpg is in none of|gone.jpg.* is in none of"),
        ({"image": {"bytes": None, "path": "/data/x.jpg"}}, "has an absolute path"),
        ({"image": {"bytes": None, "path": "../x.jpg"}}, "points outside its folder"),
        ({"image": {"bytes": None, "path": None}}, "row 1 has image None, which is not the name of a file"),
        ({"image": None}, "row 1 has image None, which is not the name of a file"),
        ({"image": {"bytes": b"other", "path": "1.jpg"}}, "row 1 has another image 1.jpg than row 0"),
        ({"captions": []}, "has no caption"),
        ({"captions": None}, "has captions None, which is no caption"),
        ({"captions": [" "]}, "is empty or only spaces"),
    ],
)
def test_a_faulty_row_is_told_and_set_aside_where_wanted(tmp_path, change, fault):
    save_dataset(tmp_path / "set", [row(1), row(2, **change), row(3)], SCHEMA)
    with pytest.raises(ValueError, match=fault):
        read(tmp_path / "set")
    assert [one.image_id for one in read(tmp_path / "set", skip_bad=True).splits["train"]] == ["1.jpg", "3.jpg"]


def cut(folder, share):
    file = folder / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def overwrite(folder):
    file = folder / "data-00000-of-00001.arrow"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : -8] = b"\xff" * (len(content) - len(content) // 2 - 8)
    file.write_bytes(content)


def compress(folder):
    file, options = folder / "data-00000-of-00001.arrow", pa.ipc.IpcWriteOptions(compression="zstd")
    table = pa.Table.from_pylist([row(number) for number in range(3)], SCHEMA)
    with pa.OSFile(str(file), "wb") as opened, pa.ipc.new_stream(opened, SCHEMA, options=options) as stream:
        stream.write_table(table)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda folder: cut(folder, 0.6), "00001.arrow is cut off, or no Arrow stream; fetch it again"),
        (lambda folder: cut(folder, 0), "is cut off, or no Arrow stream"),
        (overwrite, "arrow is damaged"),
        (compress, "is compressed; save the dataset again, without compression"),
        (lambda folder: (folder / "data-00000-of-00001.arrow").unlink(), "arrow is missing, which .*state.json names"),
        (lambda folder: (folder / "state.json").write_text("{"), "state.json is not JSON"),
        (lambda folder: (folder / "state.json").write_text("[]"), "state.json is not an object"),
        (lambda folder: (folder / "state.json").write_text("{}"), "has no list _data_files of names of files"),
        (
            lambda folder: (folder / "state.json").write_text('{"_data_files": [{"filename": "/etc/passwd"}]}'),
            "has no list _data_files of names of files",
        ),
        (
            lambda folder: (folder / "state.json").write_text(
                '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_indices_files": [1]}'
            ),
            "names an order of the rows apart from them",
        ),
    ],
)
def test_a_damaged_dataset_is_refused_by_name(tmp_path, damage, fault):
    save_dataset(tmp_path / "set", [row(1), row(2), row(3)], SCHEMA)
    damage(tmp_path / "set")
    with pytest.raises((ValueError, FileNotFoundError), match=fault) as refusal:
        read(tmp_path / "set", skip_bad=True)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_fault_of_the_disk_is_not_one_of_the_dataset(tmp_path, monkeypatch):
    save_dataset(tmp_path / "set", [row(1)], SCHEMA)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pyarrow.memory_map", fail)
    with pytest.raises(OSError, match=r"\[Errno 5\] Input/output error: '.*00001\.arrow'"):
        open_saved(tmp_path / "set")


def test_the_loss_of_a_batch_at_the_end_of_a_stream_is_noticed(tmp_path):
    save_dataset(tmp_path / "set", [row(number) for number in range(6)], SCHEMA)
    file = tmp_path / "set" / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:-8])  # the reader of Arrow takes this for the end
    with pytest.raises(ValueError, match="is cut off"):
        open_saved(tmp_path / "set")


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (
            [("picture", pa.string()), ("caption", pa.string())],
            "the image's file; name it with --image-column: picture",
        ),
        ([("image", IMAGE), ("label", pa.int64())], "the caption; name it with --caption-column: image, label"),
        ([("a", IMAGE), ("b", IMAGE), ("text", pa.string())], "the image's file; name it with --image-column: a, b"),
    ],
)
def test_a_missing_column_is_told(tmp_path, schema, fault):
    save_dataset(tmp_path / "set", [], pa.schema(schema))
    with pytest.raises(ValueError, match=fault):
        read(tmp_path / "set")


def test_columns_can_be_named(tmp_path):
    schema = pa.schema([("a", IMAGE), ("b", IMAGE), ("satz", pa.string())])
    save_dataset(tmp_path / "set", [{"a": row(1)["image"], "b": row(2)["image"], "satz": "A dog."}], schema)
    (image,) = read(tmp_path / "set", image_column="b", caption_column="satz").splits["train"]
    assert image.path.read_bytes() == row(2)["image"]["bytes"]


def test_a_dictionary_names_folders_in_it(tmp_path):
    save_dictionary(tmp_path / "set", {"train": [row(1)]}, SCHEMA)
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": ["../train"]}))
    with pytest.raises(ValueError, match=r"dataset_dict\.json has no list splits of names of folders"):
        read(tmp_path / "set")
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": ["test"]}))
    with pytest.raises(FileNotFoundError, match=r"set/test is missing, which dataset_dict\.json names; fetch it again"):
        read(tmp_path / "set")
    (tmp_path / "set" / "test").mkdir()
    with pytest.raises(FileNotFoundError, match=r"test/state\.json is missing; give a folder that save_to_disk wrote"):
        read(tmp_path / "set")


def test_another_folder_holds_no_dataset(tmp_path):
    assert (is_saved(tmp_path), find_saved(tmp_path)) == (False, [])
