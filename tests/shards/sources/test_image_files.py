import os
import unicodedata
from pathlib import Path

import pytest

from shards.sources.image_files import ImageFiles, is_inside, why_outside


@pytest.fixture
def files(tmp_path):
    for name in ("a.JPG", unicodedata.normalize("NFD", "café.jpg"), "sub/a b.jpeg", "f\ng.jpg", "x%20y.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return ImageFiles([tmp_path / "none", tmp_path])


@pytest.mark.parametrize("name", ["a.JPG", "sub/a b.jpeg", "f\ng.jpg", "x%20y.jpg"])
def test_a_name_is_found_as_it_is(files, tmp_path, name):
    assert files.find(["b.jpg", name]) == tmp_path / name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("b.jpg", ""),
        ("a.jpg", ", but {folder} holds a.JPG, which differs in upper and lower case; rename one of them"),
        ("café.jpg", ", but {folder} holds cafe\u0301.jpg, which differs in its Unicode form; rename one of them"),
        (
            "sub/A B.jpeg",
            ", but {folder}/sub holds a b.jpeg, which differs in upper and lower case; rename one of them",
        ),
        ("sub\\a b.jpeg", ": the name has Windows' backslashes; write / instead"),
        *(
            (name, ": the name is an absolute path of Windows; write it below that folder, such as 1.jpg")
            for name in ("C:/pictures/1.jpg", "c:\\pictures\\1.jpg", "\\\\nas\\pictures\\1.jpg")
        ),
        *(
            (name, ": the name is a URL; download the images, and write the names of their files")
            for name in ("http://host/1.jpg", "s3://bucket/1.jpg", "file:///data/1.jpg", "http:/host/1.jpg")
        ),
    ],
)
def test_the_file_that_was_meant_is_named(files, tmp_path, name, why):
    assert files.find([name]) is None
    assert files.why_not_found(name) == f"is in none of {tmp_path}/none, {tmp_path}{why.format(folder=tmp_path)}"


def test_a_file_that_would_fill_the_memory_is_no_image(files, tmp_path):
    (tmp_path / "0.jpg").touch()
    os.truncate(tmp_path / "0.jpg", 2**30 + 1)  # which takes no disk
    assert files.find(["0.jpg"]) is None
    assert files.why_not_found("0.jpg") == "has 1073741825 bytes, more than 1073741824; shrink it first"


@pytest.mark.parametrize("name", ["", ".", "./"])
def test_what_names_no_file_is_told(files, name):
    assert (files.find([name]), files.why_not_found(name)) == (None, "has no name of a file")


def test_a_path_that_no_file_can_have_is_told(files, tmp_path):
    name = "ü/" * 2000 + "a.jpg"
    assert files.find([name]) is None
    longest = len(f"{tmp_path}/none/{name}".encode())
    assert files.why_not_found(name).endswith(f": its path has {longest} bytes, and a file's has at most 4095")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Path.mkdir, "a folder"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.symlink_to(path), "a link that leads nowhere"),
        (lambda path: path.symlink_to("none"), "a link that leads nowhere"),
    ],
    ids=["folder", "pipe", "circle", "dangling link"],
)
def test_what_has_the_name_and_is_no_file_is_named(files, tmp_path, make, kind):
    make(tmp_path / "0.jpg")
    assert files.find(["0.jpg"]) is None
    assert files.why_not_found("0.jpg").endswith(f", for {tmp_path}/0.jpg is {kind}; put the image in its place")


@pytest.mark.parametrize("name", ["ü" * 128 + ".jpg", "ü" * 130 + "/a.jpg"])
def test_a_name_that_no_file_can_have_is_told(files, name):
    longest = len(name.split("/")[0].encode())
    assert files.find([name]) is None
    assert files.why_not_found(name).endswith(f": the name has {longest} bytes, and a file's has at most 255")


@pytest.mark.parametrize(
    ("name", "why"),
    [("/data/a.jpg", "has an absolute path; give its name below"), ("../a.jpg", "has a name that points")],
)
def test_a_name_outside_the_folder_is_not_looked_for(files, name, why):
    assert (files.find([name]), is_inside(name), why_outside(name).startswith(why)) == (None, False, True)
