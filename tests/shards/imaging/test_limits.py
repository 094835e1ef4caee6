"""Image files that would take Pillow long to read, or whose texts it refuses."""

import zlib

import pytest

from shards.images import ImageSpec, store_image
from shards.imaging import limits
from shards.imaging.limits import without_text
from tests.support.case_table import each_case
from tests.support.pictures import encoded, picture, png, with_scans

SPEC = ImageSpec()
PLAIN_PNG = png(1, 1, 8, 2, bytes(4))


def test_a_jpeg_of_as_many_scans_as_no_encoder_writes_is_refused():
    content = encoded(picture(40, 30), progressive=True)
    assert store_image(with_scans(content, 100), SPEC)
    with pytest.raises(ValueError, match=r"^its 101 scans of 1200 pixels take too long to decode; save it as a baseli"):
        store_image(with_scans(content, 101), SPEC)


def test_scans_of_a_jpeg_in_a_tiff_count(monkeypatch):
    content = encoded(picture(40, 30), "TIFF", compression="jpeg")
    assert store_image(content, SPEC)
    monkeypatch.setattr(limits, "_MAX_SCANS", 0)
    with pytest.raises(ValueError, match="its 1 scans of 1200 pixels take too long to decode"):
        store_image(content, SPEC)


def test_a_larger_jpeg_may_have_fewer_scans(monkeypatch):
    monkeypatch.setattr(limits, "_MAX_SCAN_PIXELS", 1200 * 12)
    content = encoded(picture(40, 30), progressive=True)
    assert store_image(with_scans(content, 12), SPEC)
    with pytest.raises(ValueError, match="its 13 scans of 1200 pixels"):
        store_image(with_scans(content, 13), SPEC)


def test_scans_are_those_of_the_image_alone():
    thumbnail, film = b"\xff\xda" * 200, b"\xff\xda" * 200
    content = encoded(picture(40, 30), comment=thumbnail) + film
    assert store_image(content, SPEC).jpeg == content


@pytest.mark.parametrize("kind", ["zTXt", "iCCP"])
def test_a_text_or_profile_of_any_size_hides_no_picture(kind):
    # Small until it is decompressed, to more than Pillow accepts.
    content = png(1, 1, 8, 2, bytes(4), (kind.encode(), b"name\0\0" + zlib.compress(bytes(2 << 20))))
    assert without_text(content) == PLAIN_PNG
    assert store_image(content, SPEC) == store_image(PLAIN_PNG, SPEC)


@each_case("content", [PLAIN_PNG, PLAIN_PNG[:-20], PLAIN_PNG[:8], encoded(picture(4, 4)), b""])
def test_what_has_no_text_stays_as_it_is(content):
    assert without_text(content) == content


def test_damaged_exif_hides_no_png():
    content = png(1, 1, 8, 2, bytes(4), (b"eXIf", b"II*\0\xff\xff\xff\xff"))
    assert store_image(content, SPEC) == store_image(PLAIN_PNG, SPEC)
