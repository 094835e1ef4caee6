"""A file that is stored inside another, such as an image in a table."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FilePart:
    """The bytes of one file within another."""

    name: str
    """Name of the file, without folders."""
    file: Path
    """The file that holds it, uncompressed."""
    start: int
    """Position of its first byte."""
    num_bytes: int

    def __str__(self) -> str:
        """Return both names."""
        return f"{self.name} in {self.file}"

    def stat(self) -> os.stat_result:
        """Return the status of the file that holds it; its size is that of the whole.

        Raises:
            OSError: the file cannot be accessed.
        """
        return self.file.stat()

    def read_bytes(self) -> bytes:
        """Return the content.

        Raises:
            OSError: the file cannot be read.
        """
        return self.read_some(0, self.num_bytes)

    def read_some(self, start: int, num_bytes: int) -> bytes:
        """Return some bytes from a position on; fewer at the end of the content.

        Raises:
            OSError: the file cannot be read.
        """
        with self.file.open("rb") as file:
            file.seek(self.start + start)
            return file.read(min(num_bytes, self.num_bytes - start))


ImageFile = Path | FilePart
"""The file of an image: one of its own, or one inside another."""


def size_of_file(path: ImageFile) -> int:
    """Return a file's size, in bytes.

    Raises:
        OSError: the file cannot be accessed.
    """
    return path.num_bytes if isinstance(path, FilePart) else path.stat().st_size
