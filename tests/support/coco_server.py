"""HTTP server on this machine that serves a COCO dataset of three pictures, and downloads from it."""

import hashlib
import io
import os
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shards.archives.download import DATASETS, Archive, download, plan_download
from shards.archives.unpack import Part

TRAIN = {"train2017/": b"", "train2017/000000000009.jpg": b"n" * 700, "train2017/000000000025.jpg": b"t" * 900}
VAL = {"val2017/": b"", "val2017/000000000139.jpg": bytes(range(256)) * 40}
CAPTIONS = {
    f"annotations/{kind}_{split}2017.json": b"{}" for kind in ("captions", "instances") for split in ("train", "val")
}


class Handler(BaseHTTPRequestHandler):
    """Serve ``server.files`` with the next of ``server.faults``; record the first byte or the error of each answer."""

    def do_GET(self):
        server, ranged = self.server, self.headers["Range"]
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int) or self.path not in server.files:
            server.requests.append((self.path.rpartition("/")[2], fault or 404))
            return self.send_error(fault or 404)
        content, tag = server.files[self.path], server.tag
        start = 0
        if ranged and fault != "ignores ranges" and self.headers["If-Range"] == tag:
            start = int(ranged[6:-1])
        server.requests.append((self.path.rpartition("/")[2], start))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header(
            "ETag" if tag.startswith(("W/", '"')) else "Last-Modified", '"other"' if fault == "other tag" else tag
        )
        if start:
            first = 0 if fault == "other range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: len(body) // 2] if fault == "breaks off" else body)
        return None

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """Server of the dataset ``tiny``; ``naps`` lists the seconds for which downloads would have slept."""

    def __init__(self, folder, monkeypatch):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files, self.faults, self.requests, self.naps, self.tag = {}, [], [], [], '"first"'
        self._folder, self._monkeypatch, self._archives = folder, monkeypatch, {}

    def offer(self, name, content, **targets):
        """Add or replace an archive, with its size, digest and parts in ``DATASETS``."""
        path = f"{'annotations' if 'ann' in name else 'zips'}/{name}.zip"
        parts = tuple(Part(split=split, target=target, num_bytes=2000) for split, target in targets.items())
        digest = hashlib.md5(content).hexdigest()
        self.files[f"/{path}"] = content
        self._archives[path] = Archive(path=path, num_bytes=len(content), md5=digest, parts=parts)
        self._monkeypatch.setitem(DATASETS, "tiny", tuple(self._archives.values()))

    def fetch(self, *, progress=lambda _: None, **options):
        """Download the dataset to the folder; return the plan of the download."""
        plan = plan_download("tiny", self._folder, base_url=self.url, **options)
        download(plan, progress=progress, sleep=self.naps.append)
        return plan


@contextmanager
def serving_coco(folder, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(os, "sync", lambda: None)  # it would wait for the writes of all processes
    captions = {split: f"annotations/captions_{split}2017.json" for split in ("train", "val")}
    with Server(folder, monkeypatch) as server:
        server.offer("annotations_trainval2017", zipped(CAPTIONS), **captions)
        server.offer("val2017", zipped(VAL), val="val2017")
        server.offer("train2017", zipped(TRAIN), train="train2017")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def layout(*contents):
    """Return the files that the folder must hold after archives of these members are unpacked, by path."""
    return {
        name: content
        for members in contents
        for name, content in members.items()
        if content and "instances" not in name
    }


def pictures_of(folder):
    """Return all files of a folder by path, except the records of finished downloads."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(".downloaded")}
