"""Image files that would take Pillow long to read are recognized by their bytes."""

import pytest

from captioning import image_limits
from captioning.image_limits import (
    JpegHead,
    count_scans,
    opening_of,
    read_head,
    require_few_scans,
    without_metadata,
    without_text,
)
from tests.support.case_table import each_case
from tests.support.pictures import decoded, encoded, picture, png, with_scans

BASELINE, PROGRESSIVE = encoded(picture(40, 30)), encoded(picture(40, 30), progressive=True)
EXIF = b"\xff\xe1\0\x12Exif\0\0" + b"x" * 10


@each_case(
    ("content", "num_scans"),
    [
        (BASELINE, 1),
        (PROGRESSIVE, 10),
        (with_scans(PROGRESSIVE, 300), 300),
        (encoded(picture(40, 30), comment=b"\xff\xda" * 200) + b"\xff\xda" * 200, 1),  # metadata, and what follows
        (BASELINE[:2] + b"\xff\xd8\xff\x01" + BASELINE[2:], 1),  # markers without a length
        (BASELINE[:2], 0),
        (b"", 0),
        (encoded(picture(40, 30), "PNG") + BASELINE, 0),
        (encoded(picture(40, 30), "PPM"), 0),
        (encoded(picture(40, 30), "TIFF", compression="jpeg"), 1),
        (b"MM\0*\x01\x03\0\x03\0\0\0\x01\0\x07" + BASELINE + with_scans(PROGRESSIVE, 300), 300),
        (encoded(picture(40, 30), "TIFF") + PROGRESSIVE, 0),  # pixels may look like markers
    ],
)
def test_the_scans_of_a_jpeg_are_counted(content, num_scans):
    assert count_scans(content) == num_scans


def test_a_jpeg_in_as_many_pieces_as_no_camera_writes_is_refused():
    assert count_scans(BASELINE[:2] + EXIF * 400 + BASELINE[2:]) == 1
    with pytest.raises(ValueError, match="it has more than 500 segments; save it as a baseline JPEG without metadata"):
        count_scans(BASELINE[:2] + EXIF * 500 + BASELINE[2:])


@each_case("kind", [b"P1", b"P2", b"P3"])
def test_a_ppm_in_text_is_refused(kind):
    with pytest.raises(ValueError, match="it is a PPM of numbers in text; save it as PNG or JPEG"):
        count_scans(kind + b" 1 1 255 " + b"#\n" * 100 + b"1 1 1")


def test_a_larger_image_may_have_fewer_scans():
    largest = image_limits._MAX_SCAN_PIXELS
    require_few_scans(100, largest // 100)
    require_few_scans(10, largest // 10)
    for num_scans, num_pixels in ((101, 1), (11, largest // 10)):
        with pytest.raises(ValueError, match=f"its {num_scans} scans of {num_pixels} pixels take too long; save it as"):
            require_few_scans(num_scans, num_pixels)


@each_case(
    ("content", "head"),
    [
        (BASELINE, (True, False, (40, 30))),
        (encoded(picture(9, 9, "L")), (True, False, (9, 9))),
        (encoded(picture(9, 9, "CMYK")), (True, False)),
        (BASELINE.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), (True, False)),  # 12 bits
        (PROGRESSIVE, (False, False)),
        (BASELINE[:2] + EXIF + BASELINE[2:], (True, True, (40, 30))),
        (BASELINE[:2] + b"stray bytes" + EXIF + BASELINE[2:], (False, True)),
        (BASELINE[:200], (False, False)),
        (BASELINE[:2], (False, False)),
    ],
)
def test_what_stands_before_the_image_is_read(content, head):
    assert read_head(content) == JpegHead(*head)


def test_metadata_are_removed_but_not_what_says_how_colours_are_stored():
    plain = encoded(picture(9, 9, "CMYK"))
    content = plain[:2] + b"\0\0" + EXIF + b"\xff\xfe\0\x04ab" + plain[2:] + b"trailing"
    assert without_metadata(content) == plain + b"trailing"
    assert decoded(without_metadata(BASELINE)).tobytes() == decoded(BASELINE).tobytes()


def test_metadata_of_a_cut_file_are_removed():
    found = {length: without_metadata(BASELINE[:length]) for length in range(0, 700, 13)}
    assert [length for length, content in found.items() if not content.startswith(b"\xff\xd8")] == []


def test_texts_of_a_png_are_removed():
    plain = png(1, 1, 8, 2, bytes(4))
    assert without_text(png(1, 1, 8, 2, bytes(4), (b"tEXt", b"a\0b"), (b"iCCP", b"c"))) == plain
    assert [without_text(content) for content in (plain[:-9], BASELINE, b"")] == [plain[:-9], BASELINE, b""]


@pytest.mark.parametrize(("content", "said"), [(b"", "is empty"), (b"no image at all", "begins with b'no image'")])
def test_how_a_file_begins_is_told(content, said):
    assert opening_of(content) == said
