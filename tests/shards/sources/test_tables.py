"""Images of tables: columns found by name, rows joined, splits and ids; and what is wrong with a table."""

import json

import pytest

from shards.sources.tables import find_tables, read_tables
from tests.support.pictures import encoded, noise


def pictures(folder, *names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(noise(24, 16, seed=number)))


def read(folder, content, *, name="captions.csv", splits=(), **options):
    (folder / name).write_text(content)
    return read_tables(folder, find_tables(folder), splits, **options)


def by_id(images):
    return {one.image_id: one.captions for one in images}


def test_rows_of_one_image_are_joined_and_its_other_columns_kept(tmp_path):
    pictures(tmp_path, "a.jpg", "images/b.jpg")
    table = "image,caption,licence,number\na.jpg,A dog.,CC,0\na.jpg,One dog.,CC,1\nb.jpg,A cat.,,0\n"
    annotations = read(tmp_path, table)
    first, second = annotations.splits["train"]
    assert (first.image_id, first.captions, first.columns) == ("a.jpg", ("A dog.", "One dog."), {"licence": "CC"})
    assert (second.path, second.columns) == (tmp_path / "images" / "b.jpg", {"number": "0"})
    assert (annotations.has_splits, list(annotations.files)) == (False, ["captions.csv"])


@pytest.mark.parametrize(
    "content",
    [
        'filename,raw\na.jpg,"[""A dog."", ""One dog.""]"\n',
        "image_name| comment_number| comment\na.jpg| 0| A dog.\na.jpg| 1| One dog.\n",
        "image_path;caption_1;caption_2\na.jpg;A dog.;One dog.\n",
        "file_name,text\na.jpg,A dog.\na.jpg,One dog.\n",
    ],
)
def test_columns_are_found_by_the_names_that_are_usual(tmp_path, content):
    pictures(tmp_path, "a.jpg")
    assert by_id(read(tmp_path, content).splits["train"]) == {"a.jpg": ("A dog.", "One dog.")}


def test_columns_of_other_names_are_named(tmp_path):
    pictures(tmp_path, "a.jpg")
    options = {"image_column": "datei", "caption_column": "satz"}
    assert by_id(read(tmp_path, "datei,satz,text\na.jpg,A dog.,no\n", **options).splits["train"]) == {
        "a.jpg": ("A dog.",)
    }


def test_splits_are_those_of_a_column(tmp_path):
    pictures(tmp_path, "a.jpg", "b.jpg")
    table = "image,caption,split\na.jpg,A dog.,training\nb.jpg,A cat.,validation\n"
    annotations = read(tmp_path, table)
    assert {split: [one.image_id for one in images] for split, images in annotations.splits.items()} == {
        "train": ["a.jpg"],
        "val": ["b.jpg"],
    }
    assert annotations.has_splits
    assert list(read(tmp_path, table, splits=["val"]).splits) == ["val"]


def test_an_imagefolder_has_a_table_in_the_folder_of_each_split(tmp_path):
    pictures(tmp_path, "train/a.jpg", "validation/a.jpg")
    for split in ("train", "validation"):
        line = json.dumps({"file_name": "a.jpg", "text": f"A dog of {split}."})
        (tmp_path / split / "metadata.jsonl").write_text(line)
    splits = read_tables(tmp_path, find_tables(tmp_path)).splits
    assert {split: by_id(images) for split, images in splits.items()} == {
        "train": {"a.jpg": ("A dog of train.",)},
        "val": {"a.jpg": ("A dog of validation.",)},
    }
    assert [splits[split][0].path.parent.name for split in ("train", "val")] == ["train", "validation"]


@pytest.mark.parametrize(
    ("ids", "expected"), [(("7", "12"), [7, 12]), (("007", "12"), ["007", "12"]), (("x1", "x2"), ["x1", "x2"])]
)
def test_ids_are_numbers_if_all_are(tmp_path, ids, expected):
    pictures(tmp_path, "a.jpg", "b.jpg")
    table = f"image,image_id,caption\na.jpg,{ids[0]},A dog.\nb.jpg,{ids[1]},A cat.\n"
    assert [one.image_id for one in read(tmp_path, table).splits["train"]] == expected


def test_two_tables_of_one_folder_are_refused(tmp_path):
    (tmp_path / "metadata.jsonl").touch()
    with pytest.raises(ValueError, match=r"captions\.csv and metadata\.jsonl both have captions; name the one to use"):
        read(tmp_path, "")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("bild,caption\n", "column whose name says that it is the image's file; .* --image-column: bild"),
        (
            "image,satz\n",
            "column whose name says that it is the caption; .* --caption-column: image, satz",
        ),
        ("image,caption\n,A dog.\n", "line 2 has image '', which is not the name of a file"),
        ("image,caption\na.jpg,A dog., wet\n", "line 2 has 3 columns, the header 2"),
        ("image,caption\na.jpg, \n", "a caption of image a.jpg .* is empty or only spaces"),
        ("image,caption\n/etc/a.jpg,A.\n", "has an absolute path"),
        ("image,caption\n../a.jpg,A.\n", "points outside its folder"),
        ("image,caption\ndogs\\a.jpg,A.\n", "Windows' backslashes"),
        ("image,caption\nA.jpg,A.\n", "holds a.jpg, which differs in upper and lower case"),
        ("image,caption,split\na.jpg,A.,\n", "line 2 has no split"),
        ("image,caption,split\na.jpg,A.,train\na.jpg,B.,val\n", "has split 'val' for a.jpg, line 2 'train'"),
        ("image,caption,image_id\na.jpg,A.,1\nb.jpg,B.,1\n", "image id 1 is used by 2 images: a.jpg, b.jpg"),
        ("image,caption\n", "no usable image"),
    ],
)
def test_what_is_wrong_is_told_and_set_aside_where_wanted(tmp_path, content, fault):
    pictures(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    with pytest.raises(ValueError, match=fault):
        read(tmp_path, content)
    if "column " in fault or not content.partition("\n")[2]:
        return
    last_column = content.split("\n")[0].split(",")[-1]
    rest = content + "c.jpg,A cat." + {"split": ",train", "image_id": ",9"}.get(last_column, "") + "\n"
    annotations = read(tmp_path, rest, skip_bad=True)
    assert [one.path.name for one in annotations.splits["train"]][-1] == "c.jpg"
    assert annotations.set_aside


@pytest.mark.parametrize("value", ["1.0", "[1]", '{"a": 1}', "true"])
def test_an_id_is_a_whole_number_or_a_text(tmp_path, value):
    pictures(tmp_path, "a.jpg")
    line = f'{{"image": "a.jpg", "text": "A dog.", "image_id": {value}}}'
    with pytest.raises(ValueError, match=r"line 1 has image_id .*, which is neither a whole number nor a text"):
        read(tmp_path, line, name="metadata.jsonl")


def test_images_in_a_table_itself_are_told(tmp_path):
    line = json.dumps({"image": {"bytes": "...", "path": "a.jpg"}, "caption": "A dog."})
    with pytest.raises(ValueError, match=r"line 1 has the image itself in image; load .* what save_to_disk writes"):
        read(tmp_path, line, name="metadata.jsonl")


def test_names_of_tables_may_be_in_upper_case(tmp_path):
    pictures(tmp_path, "a.jpg")
    assert by_id(read(tmp_path, "Image,Caption\na.jpg,A dog.\n", name="Captions.CSV").splits["train"]) == {
        "a.jpg": ("A dog.",)
    }


def test_a_wanted_column_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match="has no column satz; it has image, caption"):
        read(tmp_path, "image,caption\n", caption_column="satz")
