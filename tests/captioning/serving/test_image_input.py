import base64
import os
import struct
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from captioning.serving.image_input import ImageInputConfig, read_image
from tests.support.case_table import each_case
from tests.support.pictures import encoded, noise, picture, with_scans

JPEG = encoded(picture(32, 24))
BYTES = ImageInputConfig()


def text(content):
    return base64.b64encode(content).decode()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    """Return a PNG of a few bytes with a header that announces many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def folder(tmp_path):
    """Return a folder with an image; another image, outside the folder, must not be readable."""
    (tmp_path / "open" / "deep").mkdir(parents=True)
    (tmp_path / "open" / "deep" / "a.jpg").write_bytes(JPEG)
    (tmp_path / "secret.jpg").write_bytes(JPEG)
    return tmp_path / "open"


def by_path(folder, name, **changes):
    return read_image({"image": None, "path": str(name)}, ImageInputConfig(allow_paths=folder, **changes))


@each_case("value", [JPEG, bytearray(JPEG), text(JPEG), base64.encodebytes(JPEG).decode()])
def test_bytes_and_base64_are_taken(value):
    assert read_image({"image": value}, BYTES) == JPEG


@each_case(
    ("row", "message"),
    [
        ({"image": None}, "the row is empty; give one value, in column image"),
        ({}, "the row is empty; give one value, in column image"),
        ({"image": "a" * 5}, r"the image is not base64 \(.*\); encode the file's bytes"),
        ({"image": "/etc/passwd!"}, "the image is not base64"),
        ({"image": "\u00e4\u00f6"}, "the image is not base64"),
        ({"image": ["a"]}, "the image has type list; give base64 text or bytes"),
        ({"image": 3.5}, "the image has type float; give base64 text or bytes"),
        ({"image": b""}, "the image is empty and is not a readable JPEG"),
        ({"image": b"%!PS-Adobe-3.0 EPSF-3.0\n"}, "begins with b'%!PS-Ado' and is not a readable JPEG, PNG"),
        ({"path": "/etc/hostname"}, "the row is empty; give one value, in column image"),  # paths are not allowed
        ({"url": "http://127.0.0.1/"}, "the row is empty; give one value, in column image"),
    ],
)
def test_what_is_no_image_is_refused(row, message):
    with pytest.raises(ValueError, match=message):
        read_image(row, BYTES)


def test_two_images_in_a_row_are_refused(folder):
    with pytest.raises(
        ValueError, match="the row has values in image and path; give one value, in column image or path"
    ):
        read_image({"image": JPEG, "path": "deep/a.jpg"}, ImageInputConfig(allow_paths=folder))


@each_case("value", [b"x" * (2**20 + 1), text(b"x" * (2**20 + 6)), "x" * 3 * 2**20])
def test_a_file_that_is_too_large_is_refused(value):
    with pytest.raises(ValueError, match="is larger than the allowed 1 MiB; shrink it first"):
        read_image({"image": value}, ImageInputConfig(max_mib=1))


def test_a_file_at_the_limit_is_taken():
    content = encoded(noise(64, 64))
    content += b"\0" * (2**20 - len(content))
    assert read_image({"image": text(content)}, ImageInputConfig(max_mib=1)) == content


@each_case(("width", "height"), [(1001, 1000), (9000, 10000), (60000, 60000)])
def test_an_image_of_too_many_pixels_is_refused_by_its_header(width, height):
    with pytest.raises(ValueError, match="has more than the allowed 1 million pixels; shrink it first"):
        read_image({"image": bomb(width, height)}, ImageInputConfig(max_megapixels=1))


def test_a_jpeg_that_takes_too_long_to_decode_is_refused():
    content = encoded(picture(40, 30), progressive=True)
    assert read_image({"image": with_scans(content, 100)}, BYTES)
    with pytest.raises(ValueError, match=r"^its 101 scans of 1200 pixels take too long; save it as a baseline JPEG"):
        read_image({"image": with_scans(content, 101)}, BYTES)


def test_an_image_at_the_limit_is_taken():
    assert read_image({"image": bomb(1000, 1000)}, ImageInputConfig(max_megapixels=1))


@each_case(
    ("settings", "message"),
    [
        ({"max_mib": 0}, "a limit of 0 MiB refuses every image; use --max-mib 1 or more"),
        ({"max_rows": 0}, "a limit of 0 rows refuses every request; use --max-rows 1 or more"),
        ({"max_megapixels": 0}, "a limit of 0 megapixels is out of range; use --max-megapixels 1 to 89"),
        ({"max_megapixels": 90}, "a limit of 90 megapixels is out of range; use --max-megapixels 1 to 89"),
    ],
)
def test_limits_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ImageInputConfig(**settings)


@pytest.mark.parametrize("name", ["deep/a.jpg", "deep/../deep/a.jpg", "link.jpg", "{folder}/deep/a.jpg"])
def test_a_path_below_the_folder_is_read(folder, name):
    (folder / "link.jpg").symlink_to(folder / "deep" / "a.jpg")
    assert by_path(folder, name.format(folder=folder)) == JPEG


@pytest.mark.parametrize(
    "name",
    ["../secret.jpg", "../nothing.jpg", "{folder}/../secret.jpg", "/etc/passwd", "/nowhere", "/proc/self/environ",
     "link.jpg", "up/secret.jpg", "circle", "a\0b"],
)  # fmt: skip
def test_a_path_that_leads_out_is_refused_whether_it_is_there_or_not(folder, name):
    (folder / "link.jpg").symlink_to(folder.parent / "secret.jpg")
    (folder / "up").symlink_to(folder.parent)
    (folder / "circle").symlink_to(folder / "circle")
    with pytest.raises(ValueError, match="the path is outside the image folder; give a path below it"):
        by_path(folder, name.format(folder=folder))


def test_a_path_that_is_not_there_is_named_as_the_cause(folder):
    with pytest.raises(OSError, match=r"the path cannot be read \(No such file or directory\); check its name"):
        by_path(folder, "deep/b.jpg")


def test_a_pipe_is_refused_and_nobody_waits_for_it(folder):
    os.mkfifo(folder / "pipe.jpg")
    with pytest.raises(ValueError, match="the path is not a file; give the path of an image"):
        by_path(folder, "pipe.jpg")


def test_a_folder_is_no_image(folder):
    with pytest.raises(ValueError, match="the path is not a file; give the path of an image"):
        by_path(folder, "deep")


def test_a_file_that_is_no_image_tells_nothing_but_its_first_bytes(folder):
    (folder / "notes.txt").write_text("password: hunter2")
    with pytest.raises(ValueError, match=r"begins with b'password' and is not a readable") as caught:
        by_path(folder, "notes.txt")
    assert "hunter2" not in str(caught.value)


def test_a_large_file_below_the_folder_is_refused_unread(folder):
    with (folder / "large.jpg").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="is larger than the allowed 1 MiB"):
        by_path(folder, "large.jpg", max_mib=1)


def test_a_path_that_is_no_text_is_refused(folder):
    with pytest.raises(ValueError, match="the path has type int; give text"):
        read_image({"path": 3}, ImageInputConfig(allow_paths=folder))


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(JPEG)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/a.jpg"
        server.shutdown()


def test_a_url_of_this_network_is_fetched_if_any_is_allowed(url):
    assert read_image({"url": url}, ImageInputConfig(allow_urls="any")) == JPEG


def test_a_url_of_this_network_is_refused_if_public_ones_are_allowed(url):
    with pytest.raises(ValueError, match="host has an address that is not allowed; give a public host"):
        read_image({"url": url}, ImageInputConfig(allow_urls="public"))
