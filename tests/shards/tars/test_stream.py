"""Tars read once, as streams; what is no whole tar is told apart from a connection that fails."""

import gzip
import hashlib
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shards.storage import remote
from shards.tars.stream import TarError, read_members, stamp_of, with_tar
from tests.support.raw_tars import tar_samples, write_tar


@pytest.fixture
def tar(tmp_path):
    write_tar(tmp_path / "0.tar", tar_samples(["a", "b"]))
    return tmp_path / "0.tar"


def names_in(file):
    return [member.name for member in read_members(file)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_files_come_in_order_with_the_checksum_of_all_bytes(tmp_path, form):
    path, long = tmp_path / "0.tar", "d/" * 40 + "ü" * 9
    write_tar(path, [("x", None), *tar_samples([long, "b"])], form=form)
    found = with_tar(str(path), lambda file: (names_in(file), file.sha256.hexdigest(), file.num_bytes))
    content = path.read_bytes()
    names = [f"{long}.jpg", f"{long}.txt", "b.jpg", "b.txt"]
    assert found == (names, hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize("cut", [100, 512, 700, 3000])
def test_a_tar_that_was_cut_off_is_refused(tar, cut):
    tar.write_bytes(tar.read_bytes()[:cut])
    with pytest.raises(TarError, match="fetch it again"):
        with_tar(str(tar), names_in)


def with_size(content, size):
    """Return a tar with another size of its first file, in binary as GNU tar writes large ones."""
    header = bytearray(content[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content[512:]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda content: gzip.compress(content), "it is compressed, and a sample in the middle cannot be read alone"),
        (lambda content: b"", "it is empty; fetch it again"),
        (lambda content: b"<html>" * 500, "it is no whole tar"),
        (lambda content: content + content, "it goes on after the end of a tar, as tars joined by cat do; use them as"),
        (lambda content: content + b"more" * 200, "it goes on after the end of a tar"),
        (
            lambda content: with_size(content, b"\x80" + b"\xff" * 11),
            r"it is no whole tar \(a file in it is longer than the rest of it\); fetch it again",
        ),
    ],
)
def test_what_is_no_tar_is_told(tar, change, fault):
    tar.write_bytes(change(tar.read_bytes()))
    with pytest.raises(TarError, match=fault):
        with_tar(str(tar), names_in)


def test_a_stamp_changes_with_the_file(tar):
    before = stamp_of(str(tar))
    tar.write_bytes(tar.read_bytes() + bytes(512))
    assert before != stamp_of(str(tar))


def test_a_huge_text_is_not_read(tmp_path):
    write_tar(tmp_path / "0.tar", [("a.txt", bytes(17 * 2**20))])
    with pytest.raises(ValueError, match="it has a text of 17825792 bytes"):
        with_tar(str(tmp_path / "0.tar"), lambda file: [member.read() for member in read_members(file)])


class _Unsteady(BaseHTTPRequestHandler):
    """Redirects, and breaks off in the middle of its first answer."""

    content, num_answers = b"", 0

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.path != "/moved/0.tar":
            self.send_response(302)
            self.send_header("Location", "/moved/0.tar")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        if self.command == "GET":
            type(self).num_answers += 1
            self.wfile.write(self.content[: 3000 if self.num_answers == 1 else None])

    def log_message(self, format, *arguments):
        """Log nothing."""


def test_an_answer_that_breaks_off_is_asked_for_again(tar, monkeypatch):
    monkeypatch.setattr(remote, "_WAITS_SECONDS", (0.0, 0.0, 0.0))
    handler = type("Handler", (_Unsteady,), {"content": tar.read_bytes()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        location = f"http://127.0.0.1:{server.server_port}/0.tar"
        digest = with_tar(location, lambda file: (names_in(file), file.sha256.hexdigest())[1])
    finally:
        server.shutdown()
        server.server_close()
    assert (digest, handler.num_answers) == (hashlib.sha256(tar.read_bytes()).hexdigest(), 2)
