"""fsspec filesystem ``watched://``, which logs the files that are fetched, and delays each fetch.

``WATCHED_LOG`` is the log's path; ``WATCHED_SECONDS`` is the delay after half of the file is written.
"""

import os
import time
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Watched(LocalFileSystem):
    protocol = "watched"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("watched://"))

    def get_file(self, rpath, lpath, **options):
        with Path(os.environ["WATCHED_LOG"]).open("a") as log:
            log.write(f"{Path(rpath).name}\n")
        content = Path(rpath).read_bytes()
        Path(lpath).write_bytes(content[: len(content) // 2])
        time.sleep(float(os.environ["WATCHED_SECONDS"]))
        super().get_file(rpath, lpath, **options)


fsspec.register_implementation("watched", Watched)
