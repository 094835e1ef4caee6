"""Extraction on a Ray cluster: a pool of actors that hold the encoder; lost actors are replaced."""

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
    """Write feature shards by actors; a shard whose actor is lost is written again by another.

    Args:
        work: settings that all shards have in common.
        shards: the plans of the shards to write.
        num_workers: number of actors; those that the cluster has no room for yet join when it has.
        use_gpu: whether every actor gets a GPU.
        cpus_per_worker: number of CPUs of an actor.
        progress: function called with the number of images done.

    Raises:
        ValueError: an image does not decode, the weights do not fit, or there is no room for any actor.
        RuntimeError: actors die again and again.
    """
    least = ClusterConfig(num_workers=1, use_gpu=use_gpu, cpus_per_worker=cpus_per_worker)
    check_capacity(least, flag="--num-workers")
    actor_class: Any = ray.remote(_Worker)
    # The second thread answers how far the first is.
    placed = actor_class.options(num_cpus=cpus_per_worker, num_gpus=int(use_gpu), max_concurrency=2)
    pool = _ActorPool(shards, work.folder, lambda: placed.remote(work, use_gpu, cpus_per_worker))
    try:
        return pool.write_all(num_workers, progress)
    finally:
        pool.close()


class _Task(NamedTuple):
    """An actor's task: to write a shard, or at first to load the encoder."""

    actor: Any
    shard: FeatureShardPlan | None


class _ActorPool:
    """Actors, and the shards that they write or that wait for one.

    A shard is given only to an actor that has the encoder: one that finds no room on the cluster keeps none waiting.
    """

    def __init__(self, shards: Sequence[FeatureShardPlan], folder: ShardFolder, start: Callable[[], Any]) -> None:
        self._waiting = deque(shards)
        self._num_shards, self._folder = len(shards), folder
        self._start_actor = start
        self._tasks: dict[Any, _Task] = {}
        self._idle: list[Any] = []
        self._num_lost_in_a_row = 0

    def write_all(self, num_workers: int, progress: Callable[[int], None]) -> list[ShardRecord]:
        """Write all shards."""
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
        """Return the record of a shard that an actor has written, if it did, and give shards to idle actors."""
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
        """Start an actor in place of one that is lost, and put its shard first in the queue."""
        self._num_lost_in_a_row += 1
        what = f"over {task.shard.name}" if task.shard else "before its first shard"
        if self._num_lost_in_a_row >= _MAX_LOST_IN_A_ROW:
            reason = one_line(error, with_kind=False)
            raise RuntimeError(
                f"{self._num_lost_in_a_row} actors were lost one after another, the last {what} ({reason}); "
                "look at the cluster, then run the same command again to go on"
            )
        logger.warning("an actor was lost %s; another takes its place", what)
        ray.kill(task.actor)  # it may only be out of reach
        if task.shard:
            if isinstance(self._folder, Path):
                # An actor that is cut off and still writes loses its file by this, and so replaces no other's.
                remove_torn(self._folder, task.shard.name)
            self._waiting.appendleft(task.shard)
        self._start()

    def _num_under_way(self) -> int:
        """Return the images that are done of unfinished shards, as far as their actors answer."""
        asked = [task.actor.num_images_done.remote() for task in self._tasks.values() if task.shard]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=_POLL_SECONDS) if asked else ([], [])
        total = 0
        for answer in answered:
            with contextlib.suppress(RayError):
                total += int(ray.get(answer))
        return total


class _Worker:
    """An extractor as an actor; faults of the data are returned, for Ray would wrap an error in its own."""

    def __init__(self, work: ExtractionWork, use_gpu: bool, num_threads: int) -> None:
        self._work, self._use_gpu, self._num_threads = work, use_gpu, num_threads
        self._extractor: Extractor | None = None

    def prepare(self) -> str | None:
        """Load the encoder; return what is wrong with it."""
        try:
            self._extractor = Extractor(self._work, use_gpu=self._use_gpu, num_threads=self._num_threads)
        except (ValueError, OSError) as error:
            return str(error)
        return None

    def write(self, shard: FeatureShardPlan) -> ShardRecord | str:
        """Write a shard; return what is wrong with its images."""
        if self._extractor is None:
            raise RuntimeError("an actor was given a shard before it had an encoder; report this fault")
        torch.set_num_threads(self._num_threads)  # holds for the thread that calls it
        try:
            return self._extractor.write(shard)
        except (ValueError, OSError) as error:
            return str(error)

    def num_images_done(self) -> int:
        """Return the images that are done of the shard that is being written."""
        return self._extractor.num_images_done if self._extractor else 0
