"""A full disk is named by its folder, and other errors stay as they are."""

import errno

import pytest
import torch

from tests.support.checkpoints import save
from tests.support.small_disk import small_disk

WRITTEN = ("model.safetensors", "optimizer.pt", "vocabulary.txt")


@pytest.mark.parametrize("last", range(len(WRITTEN)), ids=WRITTEN)
def test_a_full_disk_is_told_with_the_folder_whoever_writes(tmp_path, state, original, last):
    room = sum(-(-(original / name).stat().st_size // 4096) * 4 for name in WRITTEN[:last])
    with small_disk(tmp_path, kib=room + 4) as disk, pytest.raises(OSError, match="No space left on device") as error:
        save(disk / "checkpoint", state)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(disk / "checkpoint"))


def test_an_error_that_is_not_of_the_disk_stays_as_it_is(tmp_path, state, monkeypatch):
    def fail(*_):
        raise RuntimeError("no tensor")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="no tensor"):
        save(tmp_path / "checkpoint", state)
