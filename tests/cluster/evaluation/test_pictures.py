import pytest
from PIL import Image

from cluster.evaluation.pictures import read_picture, read_pictures
from tests.support.case_table import each_case


def test_a_large_picture_is_shrunk_and_a_small_jpeg_is_kept(tmp_path):
    Image.new("RGB", (1200, 900), "teal").save(tmp_path / "large.png")
    Image.new("RGB", (80, 64), "teal").save(tmp_path / "small.jpg")
    large, small = read_pictures([tmp_path / "large.png", str(tmp_path / "small.jpg")])
    assert (large.jpeg[:2], small.jpeg == (tmp_path / "small.jpg").read_bytes()) == (b"\xff\xd8", True)


@each_case("mode", ["RGB", "RGBA", "L", "CMYK", "P", "I;16", "1"])
def test_an_image_of_any_mode_is_read(mode):
    assert read_picture(Image.new(mode, (8, 8))).jpeg.startswith(b"\xff\xd8")


def test_a_picture_without_a_file_is_named_by_its_number(tmp_path):
    image = Image.new("RGB", (8, 8))
    assert [one.name for one in read_pictures([image, image])] == ["image 0", "image 1"]


def test_a_file_that_does_not_decode_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.jpg: it begins with b'no image'"):
        read_pictures([tmp_path / "a.jpg"])
