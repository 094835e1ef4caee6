"""Ownership of the folder that a conversion or an extraction writes, so that two never write to one folder at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.storage.folders import ShardFolder, open_folder
from shards.storage.lock import sole_writer


@contextmanager
def writing_to(location: ShardFolder | str) -> Iterator[None]:
    """Own a folder; wait while another process owns it, and log which one. Plan inside, because that one may write.

    Args:
        location: folder to write; a URL is not locked.
    """
    folder = open_folder(location)
    if not isinstance(folder, Path):
        yield
        return
    with sole_writer(folder):
        yield
