"""Transfer of batches to the device; on a GPU, one step ahead, so that the device waits for no copy."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from captioning.data.batches import CaptionBatch
from captioning.model.packing import Packing

_TENSORS = ("images", "tokens", "image_of_caption", "position", "caption", "target")


class LoadedPart(NamedTuple):
    """A part of a batch in CPU memory and on the device.

    Attributes:
        host: the part as it was read.
        batch: its copy on the device.
        packing: packing of its captions, for the device.
    """

    host: CaptionBatch
    batch: CaptionBatch
    packing: Packing


def load_part(part: CaptionBatch, device: torch.device) -> LoadedPart:
    """Copy a part of a batch to a device; on a GPU, by an asynchronous copy from pinned memory."""
    packing = Packing.of(part.tokens)
    if device.type == "cuda":
        part, packing = _pinned(part), packing._replace(rows=packing.rows.pin_memory())
    return LoadedPart(part, part.to(device), packing.to(device))


def _pinned(part: CaptionBatch) -> CaptionBatch:
    return part._replace(**{name: getattr(part, name).pin_memory() for name in _TENSORS})


class BatchStream:
    """The batches of a process, each as parts on the device.

    Args:
        batches: this process's share of each step's batch, in parts that fit into memory.
        device: device of the model.
        clock: monotonic clock, in seconds.
    """

    def __init__(
        self,
        batches: Iterable[Sequence[CaptionBatch]],
        device: torch.device,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._batches, self._device, self._clock = iter(batches), device, clock
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._ahead: list[LoadedPart] | None = None
        self.wait_seconds = 0.0
        """Time that the next batch was waited for, in seconds, unless the device was busy meanwhile."""

    def next(self) -> list[LoadedPart] | None:
        """Return the parts of the next batch; None at the end."""
        if self._ahead is None:
            started = self._clock()
            self._ahead = self._load()
            self.wait_seconds += self._clock() - started
        parts, self._ahead = self._ahead, None
        if self._stream and parts:
            _hand_over(parts, self._stream, torch.cuda.current_stream(self._device))
        return parts

    def prefetch(self) -> None:
        """Read the next batch and start its copy while a GPU computes; without a GPU, do nothing."""
        if self._stream is None:
            return
        started, computed = self._clock(), torch.cuda.current_stream(self._device).record_event()
        self._ahead = self._load()
        if computed.query():  # the device has been idle for some of the time, perhaps for all of it
            self.wait_seconds += self._clock() - started

    def _load(self) -> list[LoadedPart] | None:
        with torch.cuda.stream(self._stream):  # without a stream, it changes nothing
            parts = next(self._batches, None)
            return None if parts is None else [load_part(part, self._device) for part in parts]


def _hand_over(parts: Sequence[LoadedPart], copying: torch.cuda.Stream, computing: torch.cuda.Stream) -> None:
    """Let the computation wait for the copies, and keep their memory until it has used them."""
    computing.wait_stream(copying)
    for part in parts:
        for tensor in (*(getattr(part.batch, name) for name in _TENSORS), part.packing.rows):
            tensor.record_stream(computing)
