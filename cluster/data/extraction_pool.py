"""Extraction on a Ray cluster: a pool of actors that each hold an encoder; lost actors are replaced."""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch
from ray.exceptions import RayActorError, RayError

from cluster.config import ClusterConfig
from cluster.data.extractor import ExtractionWork, Extractor
from cluster.errors import one_line
from cluster.log_text import clean_logs
from cluster.resources.capacity import check_capacity
from shards.features.writer import FeatureShardPlan
from shards.manifest import ShardRecord
from shards.storage.files import remove_torn
from shards.storage.folders import ShardFolder

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_MAX_LOST_IN_A_ROW = 5


def extract_on_cluster(
    work: ExtractionWork,
    shards: Sequence[FeatureShardPlan],
    *,
    num_workers: int,
    use_gpu: bool,
    cpus_per_worker: int,
    progress: Callable[[int], None],
) -> list[ShardRecord]:
    """Write feature shards by actors; if an actor is lost, another one writes its shard again.

    Args:
        work: source, target and settings of all shards.
        shards: plans of the shards to write.
        num_workers: number of actors; those that do not fit on the cluster yet join later.
        use_gpu: whether each actor gets a GPU.
        cpus_per_worker: number of CPUs, and of compute threads, of an actor.
        progress: callback, called with the number of images done.

    Raises:
        ValueError: an image does not decode, the weights do not fit, or there is no room for any actor.
        RuntimeError: too many actors in a row are lost.
    """
    least = ClusterConfig(num_workers=1, use_gpu=use_gpu, cpus_per_worker=cpus_per_worker)
    check_capacity(least, flag="--num-workers")
    actor_class: Any = ray.remote(_Worker)
    # The second thread answers ``num_images_done`` while the first one writes.
    placed = actor_class.options(num_cpus=cpus_per_worker, num_gpus=int(use_gpu), max_concurrency=2)
    pool = _ActorPool(shards, work.folder, lambda: placed.remote(work, use_gpu, cpus_per_worker))
    try:
        return pool.write_all(num_workers, progress)
    finally:
        pool.close()


class _Task(NamedTuple):
    """A pending call of an actor: writing a shard, or loading the encoder if ``shard`` is None."""

    actor: Any
    shard: FeatureShardPlan | None


class _ActorPool:
    """A pool of actors, and the shards that they write or have yet to write.

    A shard is assigned only to an actor that has loaded its encoder, so an actor that does not fit on the cluster yet
    blocks no shard.
    """

    def __init__(self, shards: Sequence[FeatureShardPlan], folder: ShardFolder, start: Callable[[], Any]) -> None:
        self._waiting = deque(shards)
        self._num_shards, self._folder = len(shards), folder
        self._start_actor = start
        self._tasks: dict[Any, _Task] = {}
        self._idle: list[Any] = []
        self._num_lost_in_a_row = 0

    def write_all(self, num_workers: int, progress: Callable[[int], None]) -> list[ShardRecord]:
        """Write all shards; return their records."""
        for _ in range(min(num_workers, self._num_shards)):
            self._start()
        records: list[ShardRecord] = []
        while len(records) < self._num_shards:
            done, _ = ray.wait(list(self._tasks), timeout=_POLL_SECONDS)
            records += [record for task in done if (record := self._take(task))]
            progress(sum(record.num_samples for record in records) + self._num_under_way())
        return records

    def close(self) -> None:
        """Kill all actors."""
        for actor in [*self._idle, *(task.actor for task in self._tasks.values())]:
            ray.kill(actor)

    def _start(self) -> None:
        actor = self._start_actor()
        self._tasks[actor.prepare.remote()] = _Task(actor, None)

    def _take(self, reference: Any) -> ShardRecord | None:  # noqa: ANN401  Ray's references have no type
        """Return the record if the call wrote a shard, and assign waiting shards to idle actors."""
        task = self._tasks.pop(reference)
        try:
            result: Any = ray.get(reference)
        except RayActorError as error:
            self._replace(task, error)
            result = None
        else:
            self._idle.append(task.actor)
        if isinstance(result, str):
            raise ValueError(result)
        if result:
            self._num_lost_in_a_row = 0
        while self._idle and self._waiting:
            actor, shard = self._idle.pop(), self._waiting.popleft()
            self._tasks[actor.write.remote(shard)] = _Task(actor, shard)
        return result

    def _replace(self, task: _Task, error: RayActorError) -> None:
        """Start an actor in place of a lost one, and put the lost one's shard first in the queue."""
        self._num_lost_in_a_row += 1
        what = f"while writing {task.shard.name}" if task.shard else "before its first shard"
        if self._num_lost_in_a_row >= _MAX_LOST_IN_A_ROW:
            reason = one_line(error, with_kind=False)
            raise RuntimeError(
                f"{self._num_lost_in_a_row} actors were lost in a row, the last {what} ({reason}); "
                "check the cluster, then run the same command again to resume"
            )
        logger.warning("an actor was lost %s; starting another", what)
        ray.kill(task.actor)  # it may be alive and only unreachable
        if task.shard:
            if isinstance(self._folder, Path):
                # If the lost actor is still writing, it loses its temporary file and cannot replace the new actor's.
                remove_torn(self._folder, task.shard.name)
            self._waiting.appendleft(task.shard)
        self._start()

    def _num_under_way(self) -> int:
        """Return the number of images done in unfinished shards, of the actors that answer in time."""
        asked = [task.actor.num_images_done.remote() for task in self._tasks.values() if task.shard]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=_POLL_SECONDS) if asked else ([], [])
        total = 0
        for answer in answered:
            with contextlib.suppress(RayError):
                total += int(ray.get(answer))
        return total


class _Worker:
    """An extractor as an actor; returns data faults as text, because Ray would wrap an exception in its own."""

    def __init__(self, work: ExtractionWork, use_gpu: bool, num_threads: int) -> None:
        clean_logs()
        self._work, self._use_gpu, self._num_threads = work, use_gpu, num_threads
        self._extractor: Extractor | None = None

    def prepare(self) -> str | None:
        """Load the encoder; return the fault, or None if it loads."""
        try:
            self._extractor = Extractor(self._work, use_gpu=self._use_gpu, num_threads=self._num_threads)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    def write(self, shard: FeatureShardPlan) -> ShardRecord | str:
        """Write a shard; return its record, or a fault of its images."""
        if self._extractor is None:
            raise RuntimeError("an actor got a shard before it had an encoder; this is a bug, please report it")
        torch.set_num_threads(self._num_threads)  # applies to the calling thread
        try:
            return self._extractor.write(shard)
        except (ValueError, OSError) as error:
            return str(error)

    def num_images_done(self) -> int:
        """Return the number of images done in the current shard."""
        return self._extractor.num_images_done if self._extractor else 0
