"""Pictures with texts beside them."""

import os

import pytest

from shards.sources.sidecars import has_sidecars, read_sidecars
from tests.support.pictures import encoded, noise


def put(folder, name, captions=None):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(noise(24, 16, seed=len(name))))
    if captions is not None:
        path.with_suffix(".txt").write_text(captions)


def test_each_line_is_a_caption_and_the_path_is_the_id(tmp_path):
    put(tmp_path, "a.jpg", "A dog.\r\n\nOne dog.\n")
    put(tmp_path, "cats/b.JPEG", "\ufeffA cat.")
    (tmp_path / ".hidden").mkdir()
    put(tmp_path, ".hidden/c.jpg")
    put(tmp_path, "._a.jpg")
    annotations = read_sidecars(tmp_path)
    found = {one.image_id: one.captions for one in annotations.splits["train"]}
    assert found == {"a.jpg": ("A dog.", "One dog."), "cats/b.JPEG": ("A cat.",)}
    assert (has_sidecars(tmp_path), annotations.has_splits) == (True, False)


def test_folders_named_by_splits_are_splits(tmp_path):
    put(tmp_path, "train/dogs/a.jpg", "A dog.")
    put(tmp_path, "valid/a.jpg", "A cat.")
    assert list(read_sidecars(tmp_path).splits) == ["train", "val"]


def test_a_text_may_be_named_in_upper_case(tmp_path):
    put(tmp_path, "A.JPG", "A dog.")
    (tmp_path / "A.txt").rename(tmp_path / "A.TXT")
    assert has_sidecars(tmp_path)
    assert [one.captions for one in read_sidecars(tmp_path).splits["train"]] == [("A dog.",)]


def test_a_picture_whose_name_is_not_utf_8_is_told(tmp_path):
    put(tmp_path, "a.jpg", "A dog.")
    put(tmp_path, os.fsdecode(b"\xe9t\xe9.jpg"), "A summer.")
    with pytest.raises(ValueError, match=r"'.udce9t.udce9\.jpg' has a name that is not UTF-8; rename it"):
        read_sidecars(tmp_path)
    assert len(read_sidecars(tmp_path, skip_bad=True).splits["train"]) == 1


@pytest.mark.parametrize(("captions", "fault"), [(None, "b.txt is missing"), (" \n", "b.txt has no caption")])
def test_a_picture_without_captions_is_told(tmp_path, captions, fault):
    put(tmp_path, "a.jpg", "A dog.")
    put(tmp_path, "b.jpg", captions)
    with pytest.raises(ValueError, match=fault):
        read_sidecars(tmp_path)
    annotations = read_sidecars(tmp_path, skip_bad=True)
    assert [one.image_id for one in annotations.splits["train"]] == ["a.jpg"]
    assert [one.key for one in annotations.set_aside] == ["b.jpg"]


def test_texts_in_another_encoding_are_told(tmp_path):
    put(tmp_path, "a.jpg", "")
    (tmp_path / "a.txt").write_bytes(b"\xe9t\xe9")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 in line 1"):
        read_sidecars(tmp_path)
