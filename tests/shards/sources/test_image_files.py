import unicodedata

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
    ],
)
def test_the_file_that_was_meant_is_named(files, tmp_path, name, why):
    assert files.find([name]) is None
    assert files.why_not_found(name) == f"is in none of {tmp_path}/none, {tmp_path}{why.format(folder=tmp_path)}"


@pytest.mark.parametrize(
    ("name", "why"),
    [("/data/a.jpg", "has an absolute path; give its name below"), ("../a.jpg", "has a name that points")],
)
def test_a_name_outside_the_folder_is_not_looked_for(files, name, why):
    assert (files.find([name]), is_inside(name), why_outside(name).startswith(why)) == (None, False, True)
