"""Ledger of the samples that a run trained on, rank by rank: evidence that each was used exactly once per epoch.

Every rank of every attempt writes a file of JSON lines: first the step at which it resumed, then the keys of every
step. Steps of an attempt beyond the step at which a later attempt resumed were discarded and are counted separately.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from captioning.data.batches import CaptionBatch
from cluster.runs.identity import CONFIG_NAME
from cluster.runs.record import load_record
from cluster.yaml_file import read_mapping
from shards.manifest import load_manifest
from shards.storage.folders import open_folder

_LEDGER_NAME = "ledger"


class SampleLedger:
    """Writes the keys of the samples that one rank trains on in one attempt; opened again, it goes on.

    Args:
        folder: folder of the run's ledger; created if absent.
        attempt: number of the attempt.
        rank: the rank.
        resumed_at: number of steps done before this attempt; not read if the ledger is opened again.
    """

    def __init__(self, folder: Path, *, attempt: int, rank: int, resumed_at: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = (folder / f"attempt-{attempt:04d}-rank-{rank:04d}.jsonl").open("a", encoding="utf-8")
        if not self._file.tell():
            self._write({"resumed_at": resumed_at})

    def add(self, step: int, keys: Sequence[str]) -> None:
        """Write the keys of a step's samples."""
        self._write({"step": step, "keys": list(keys)})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: Mapping[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def record_samples(
    batches: Iterable[Sequence[CaptionBatch]], ledger: SampleLedger, *, first_step: int
) -> Iterator[Sequence[CaptionBatch]]:
    """Yield the batches; write each step's samples to the ledger before they train, so that none is missing from it.

    Args:
        batches: for each step, the parts of this rank's share of the batch.
        ledger: the rank's ledger; closed at the end.
        first_step: number of the first step.
    """
    try:
        for step, parts in enumerate(batches, start=first_step):
            ledger.add(step, _keys_of(parts))
            yield parts
    finally:  # also when training stops before the batches end
        ledger.close()


def _keys_of(parts: Sequence[CaptionBatch]) -> list[str]:
    """Return the keys of all samples of a rank's share in the order of their positions, skipped bad ones included."""
    named = [(position, key) for part in parts for position, key in zip(part.positions(), part.keys, strict=True)]
    bad = [(sample.position, sample.key) for part in parts for sample in part.bad]
    return [key for _, key in sorted([*named, *bad])]


class TrainedSamples(NamedTuple):
    """Samples that a run trained on, according to its ledger.

    Attributes:
        batches: keys of all ranks' samples, by step; without discarded steps.
        num_redone: number of samples in steps that were discarded and computed again.
        steps_redone: number of such steps, by attempt; the last one may be incomplete.
    """

    batches: dict[int, list[str]]
    num_redone: int
    steps_redone: dict[int, int]


class SampleAudit(NamedTuple):
    """Result of an audit: whether each sample was used exactly once per epoch, up to the last committed checkpoint.

    Attributes:
        num_steps: number of steps up to that checkpoint.
        num_epochs: number of complete epochs in these steps.
        num_samples: number of samples in the training split.
        num_lost: number of samples missing from an epoch, over all epochs.
        num_repeated: number of samples used again within an epoch, over all epochs.
        num_redone: number of samples in steps that were discarded and computed again after restarts; not an error.
    """

    num_steps: int
    num_epochs: int
    num_samples: int
    num_lost: int
    num_repeated: int
    num_redone: int

    @property
    def is_exact(self) -> bool:
        """Return whether no sample was lost or repeated."""
        return not self.num_lost and not self.num_repeated

    def __str__(self) -> str:
        """Return the counts on one line."""
        return (
            f"steps: {self.num_steps}, complete epochs of {self.num_samples} samples: {self.num_epochs}; samples lost: "
            f"{self.num_lost}, repeated: {self.num_repeated}, computed again after restarts: {self.num_redone}"
        )


def audit_samples(run_folder: Path) -> SampleAudit:
    """Compare a run's ledger with its shard set.

    Args:
        run_folder: folder of the run; holds its ``run.json``, ``config.yaml`` and ledger.

    Raises:
        FileNotFoundError: the folder holds no run, the run has no ledger, or its shard set does not exist.
    """
    record = load_record(run_folder)
    if record is None:
        raise FileNotFoundError(f"{run_folder} holds no run.json; give the folder of a run")
    if not (run_folder / _LEDGER_NAME).is_dir():
        raise FileNotFoundError(f"run {record.name} has no ledger of its samples; train with --ledger to record one")
    config = read_mapping(run_folder / CONFIG_NAME, f"{run_folder / CONFIG_NAME}")
    num_samples = load_manifest(open_folder(config["shards"])).splits[config["train_split"]]
    trained, batch_size = read_sample_ledger(run_folder / _LEDGER_NAME), config["training"]["batch_size"]
    return audit(trained, num_steps=record.latest_step, batch_size=batch_size, num_samples=num_samples)


def audit(trained: TrainedSamples, *, num_steps: int, batch_size: int, num_samples: int) -> SampleAudit:
    """Count the samples that were lost or repeated.

    Args:
        trained: samples according to the run's ledger.
        num_steps: number of steps up to the last committed checkpoint.
        batch_size: number of images per step.
        num_samples: number of samples in the training split.
    """
    # An epoch is a stretch of ``num_samples`` positions of the stream, and may end within a step. A step with too few
    # keys is filled with None, so that the epochs after it keep their positions.
    stream: list[str | None] = []
    num_lost = num_repeated = 0
    for step in range(1, num_steps + 1):
        keys = trained.batches.get(step, [])
        num_repeated += max(0, len(keys) - batch_size)
        stream += [*keys[:batch_size], *[None] * (batch_size - len(keys))]
    for start in range(0, len(stream), num_samples):
        epoch = stream[start : start + num_samples]
        times = Counter(key for key in epoch if key is not None)
        num_lost += len(epoch) - len(times)
        num_repeated += times.total() - len(times)
    num_epochs = len(stream) // num_samples
    return SampleAudit(num_steps, num_epochs, num_samples, num_lost, num_repeated, trained.num_redone)


def read_sample_ledger(folder: Path) -> TrainedSamples:
    """Read a run's ledger; ignore a last line that is incomplete because the rank was killed.

    Ranks hold contiguous shares of a batch in rank order, so a step's keys in rank order are its part of the stream.
    """
    attempts: dict[int, list[dict[int, list[str]]]] = {}
    resumed: dict[int, int] = {}
    for path in sorted(folder.glob("attempt-*-rank-*.jsonl")):
        attempt = int(path.name.split("-")[1])
        lines = list(_whole_lines(path))
        if not lines:  # killed before its first line was complete, and so before its first step
            continue
        resumed[attempt] = lines[0]["resumed_at"]
        attempts.setdefault(attempt, []).append({line["step"]: line["keys"] for line in lines[1:]})
    return _trained(attempts, resumed)


def _trained(attempts: Mapping[int, list[dict[int, list[str]]]], resumed: Mapping[int, int]) -> TrainedSamples:
    batches: dict[int, list[str]] = {}
    num_redone = 0
    steps_redone: Counter[int] = Counter()
    numbers = sorted(attempts)
    for attempt in numbers:
        # All later attempts, not only the next: one may resume even earlier, if a checkpoint turns out to be damaged.
        later = [resumed[other] for other in numbers if other > attempt]
        counts_until = min(later, default=None)
        for step in sorted({step for rank in attempts[attempt] for step in rank}):
            keys = [key for rank in attempts[attempt] for key in rank.get(step, [])]
            if counts_until is None or step <= counts_until:
                batches[step] = keys
            else:
                num_redone += len(keys)
                steps_redone[attempt] += 1
    return TrainedSamples(batches, num_redone, dict(steps_redone))


def _whole_lines(path: Path) -> Iterable[dict]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
