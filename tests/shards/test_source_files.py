import os

import pytest

from shards.file_part import FilePart, size_of_file
from shards.samples import CaptionedImage
from shards.source_files import SourceDigest, has_changed, read_image, size_of


@pytest.fixture
def images(tmp_path):
    found = [CaptionedImage(image_id=n, path=tmp_path / f"{n}.bmp", captions=("a dog",)) for n in range(3)]
    for image in found:
        image.path.write_bytes(b"pixels %d" % image.image_id)
    return found


@pytest.fixture
def recorded(images):
    digest = SourceDigest(images)
    for image in images:
        digest.add(read_image(image))
    return digest.as_dict()


def test_files_that_nobody_touched_are_not_read_again(images, recorded, monkeypatch):
    monkeypatch.setattr("shards.source_files.read_image", pytest.fail)
    assert not has_changed(images, recorded)


def test_another_time_alone_is_no_change(images, recorded):
    os.utime(images[1].path, ns=(1, 1))
    assert not has_changed(images, recorded)


def test_another_content_of_the_same_size_and_time_is_a_change(images, recorded):
    times = images[1].path.stat()
    images[1].path.write_bytes(b"pixels X")
    os.utime(images[1].path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert has_changed(images, recorded)


def test_two_files_that_change_places_are_a_change(images, recorded):
    images[0].path.rename(images[0].path.with_name("x"))
    images[1].path.rename(images[0].path)
    images[0].path.with_name("x").rename(images[1].path)
    assert has_changed(images, recorded)


@pytest.mark.parametrize("use", [read_image, size_of, lambda image: SourceDigest([image])])
def test_a_file_that_is_gone_is_named(images, use):
    images[2].path.unlink()
    with pytest.raises(
        ValueError, match=r"2\.bmp \(image 2\) cannot be read \(No such file or directory\); fix the source"
    ):
        use(images[2])


def test_an_image_inside_a_file_changes_with_it(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    image = CaptionedImage(image_id=1, path=FilePart("a.jpg", tmp_path / "file", 2, 5), captions=("a dog",))
    digest = SourceDigest([image])
    digest.add(read_image(image))
    assert (size_of(image), has_changed([image], digest.as_dict())) == (5, False)
    (tmp_path / "file").write_bytes(b"01X3456789")
    assert has_changed([image], digest.as_dict())
    (tmp_path / "file").unlink()
    with pytest.raises(ValueError, match=r"a\.jpg in .*file \(image 1\) cannot be read"):
        size_of(image) and has_changed([image], digest.as_dict())


@pytest.fixture
def part(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    return FilePart("a.jpg", tmp_path / "file", 2, 5)


def test_a_part_is_read_as_a_file_of_its_own(part):
    assert (part.read_bytes(), part.read_some(1, 2), part.read_some(3, 9)) == (b"23456", b"34", b"56")
    assert (size_of_file(part), size_of_file(part.file), part.stat().st_size) == (5, 10, 10)
    assert str(part) == f"a.jpg in {part.file}"
