"""A record of which samples a run trained on, rank by rank: the proof that each came exactly once an epoch.

Every rank of every attempt writes a file of JSON lines: first the step at which it resumed, then the keys of every
step. What an attempt did beyond the step at which the next one resumed was thrown away and is counted apart.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from captioning.data.batches import CaptionBatch


class Ledger:
    """Writes what one rank of one attempt trains on.

    Args:
        folder: of the run's ledger; created if absent.
        attempt: number of it.
        rank: of the group.
        resumed_at: steps that were done before.
    """

    def __init__(self, folder: Path, *, attempt: int, rank: int, resumed_at: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = (folder / f"attempt-{attempt:04d}-rank-{rank:04d}.jsonl").open("w", encoding="utf-8")
        self._write({"resumed_at": resumed_at})

    def add(self, step: int, keys: Sequence[str]) -> None:
        """Note the samples of a step that is done."""
        self._write({"step": step, "keys": list(keys)})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: Mapping[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def noted(
    batches: Iterable[Sequence[CaptionBatch]], ledger: Ledger, *, first_step: int
) -> Iterator[Sequence[CaptionBatch]]:
    """Write each step's samples to the ledger before they train, so that none can train unnoted."""
    for step, parts in enumerate(batches, start=first_step):
        ledger.add(step, _keys_of(parts))
        yield parts
    ledger.close()


def _keys_of(parts: Sequence[CaptionBatch]) -> list[str]:
    """Return the keys of all samples of a share, those included that are left out."""
    named = [(position, key) for part in parts for position, key in zip(part.positions(), part.keys, strict=True)]
    bad = [(sample.position, sample.key) for part in parts for sample in part.bad]
    return [key for _, key in sorted([*named, *bad])]


class Account(NamedTuple):
    """What a run's ledger says.

    Attributes:
        batches: keys of each step that counts, over all ranks, by step.
        num_redone: samples of steps that were thrown away and computed again.
        steps_redone: how many steps of each attempt were; the last of them may not have been done to its end.
    """

    batches: dict[int, list[str]]
    num_redone: int
    steps_redone: dict[int, int]

    def samples_of_epoch(self, epoch: int, num_samples: int) -> Counter[str]:
        """Return how often each sample came at the positions of one epoch."""
        keys = [key for step in sorted(self.batches) for key in self.batches[step]]
        return Counter(keys[epoch * num_samples : (epoch + 1) * num_samples])


def read_ledger(folder: Path) -> Account:
    """Read a run's ledger; a last line that was torn by a kill is no step that counts.

    Ranks hold contiguous shares in their order, so that a step's keys, rank by rank, are its part of the stream.
    """
    attempts: dict[int, list[dict[int, list[str]]]] = {}
    resumed: dict[int, int] = {}
    for path in sorted(folder.glob("attempt-*-rank-*.jsonl")):
        attempt = int(path.name.split("-")[1])
        lines = list(_whole_lines(path))
        if not lines:  # killed before it could say where it resumed, and so before any step
            continue
        resumed[attempt] = lines[0]["resumed_at"]
        attempts.setdefault(attempt, []).append({line["step"]: line["keys"] for line in lines[1:]})
    return _account(attempts, resumed)


def _account(attempts: Mapping[int, list[dict[int, list[str]]]], resumed: Mapping[int, int]) -> Account:
    batches: dict[int, list[str]] = {}
    num_redone = 0
    steps_redone: Counter[int] = Counter()
    numbers = sorted(attempts)
    for attempt in numbers:
        later = [resumed[other] for other in numbers if other > attempt]
        counts_until = min(later, default=None)
        for step in sorted({step for rank in attempts[attempt] for step in rank}):
            keys = [key for rank in attempts[attempt] for key in rank.get(step, [])]
            if counts_until is None or step <= counts_until:
                batches[step] = keys
            else:
                num_redone += len(keys)
                steps_redone[attempt] += 1
    return Account(batches, num_redone, dict(steps_redone))


def _whole_lines(path: Path) -> Iterable[dict]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
