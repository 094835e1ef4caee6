"""A disk that is soon full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, *, kib: int) -> Iterator[Path]:
    """Mount a disk of a size at an empty folder; skip the test where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def read_only(disk: Path) -> Iterator[Path]:
    """Let nobody write to a disk of ``small_disk``, as where permission is lacking; root may write anywhere else."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
