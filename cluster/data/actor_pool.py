"""A pool of actors that write shards: a lost actor is replaced, and one that ran out of memory is not.

Actors and not tasks: when a node is cut off, Ray reports its actors as dead, while a task on it never ends.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.config import ClusterConfig
from cluster.errors import PassingFault, is_out_of_memory, one_line, portable
from cluster.log_text import clean_logs
from shards.records import Named
from shards.storage.files import remove_torn
from shards.storage.folders import ShardFolder
from shards.table.shard_table import ShardRecord
from shards.writer import ShardPlan, write_shard

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_MAX_LOST_IN_A_ROW = 5


class _Task(NamedTuple):
    """A pending call of an actor: writing a shard, or its preparation if ``shard`` is None."""

    actor: Any
    shard: Named | None


class ActorPool:
    """A pool of actors, and the shards that they write or have yet to write.

    A shard is assigned only to an actor that is prepared, so an actor that does not fit on the cluster yet blocks no
    shard.

    Args:
        shards: plans of the shards to write.
        folder: folder of the shards.
        start: function that starts an actor; its methods ``prepare()`` and ``write(shard)`` return an error instead of
            raising it (see ``portable``), and ``num_images_done()`` counts in the current shard.
    """

    def __init__(self, shards: Sequence[Named], folder: ShardFolder, start: Callable[[], Any]) -> None:
        self._waiting = deque(shards)
        self._num_shards, self._folder = len(shards), folder
        self._start_actor = start
        self._tasks: dict[Any, _Task] = {}
        self._idle: list[Any] = []
        self._num_lost_in_a_row = 0

    def write_all(self, num_workers: int) -> Iterator[list[Any]]:
        """Write all shards; yield the records of the new ones at least once a second.

        Args:
            num_workers: number of actors; those that do not fit on the cluster yet join later.

        Raises:
            PassingFault: memory runs out, even with one actor.
            RuntimeError: too many actors in a row are lost.
        """
        try:
            for _ in range(min(num_workers, self._num_shards)):
                self._start()
            num_written = 0
            while num_written < self._num_shards:
                done, _ = ray.wait(list(self._tasks), timeout=_POLL_SECONDS)
                records = [record for task in done if (record := self._take(task))]
                num_written += len(records)
                yield records
        finally:
            for actor in [*self._idle, *(task.actor for task in self._tasks.values())]:
                ray.kill(actor)

    def num_images_under_way(self) -> int:
        """Return the number of images done in unfinished shards, of the actors that answer in time."""
        asked = [task.actor.num_images_done.remote() for task in self._tasks.values() if task.shard]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=_POLL_SECONDS) if asked else ([], [])
        total = 0
        for answer in answered:
            with contextlib.suppress(RayError):
                total += int(ray.get(answer))
        return total

    def _start(self) -> None:
        actor = self._start_actor()
        self._tasks[actor.prepare.remote()] = _Task(actor, None)

    def _take(self, reference: Any) -> Any:  # noqa: ANN401  Ray's references have no type
        """Return the record if the call wrote a shard, and assign waiting shards to idle actors."""
        task = self._tasks.pop(reference)
        result: Any = None
        try:
            result = ray.get(reference)
        except RayError as error:
            if isinstance(error, RayTaskError) and not is_out_of_memory(error):
                raise  # by the actor's own code
            self._lose(task, error)
        else:
            self._idle.append(task.actor)
        if isinstance(result, Exception):
            raise result
        if result:
            self._num_lost_in_a_row = 0
        while self._idle and self._waiting:
            actor, shard = self._idle.pop(), self._waiting.popleft()
            self._tasks[actor.write.remote(shard)] = _Task(actor, shard)
        return result

    def _lose(self, task: _Task, error: RayError) -> None:
        """Put a lost actor's shard first in the queue, and start another actor unless memory is short."""
        ray.kill(task.actor)  # it may be alive and only unreachable
        if task.shard:
            if isinstance(self._folder, Path):
                # If the lost actor is still writing, it loses its temporary file and cannot replace the new actor's.
                remove_torn(self._folder, task.shard.name)
            self._waiting.appendleft(task.shard)
        what = f"while writing {task.shard.name}" if task.shard else "before its first shard"
        num_left = len(self._idle) + len(self._tasks)
        if is_out_of_memory(error) and num_left:
            logger.warning("memory ran out, and an actor was lost %s; going on with %d at once", what, num_left)
            return
        self._num_lost_in_a_row += 1
        if self._num_lost_in_a_row >= _MAX_LOST_IN_A_ROW:
            self._give_up(what, error)
        logger.warning("an actor was lost %s; starting another", what)
        self._start()

    def _give_up(self, what: str, error: RayError) -> NoReturn:
        if is_out_of_memory(error):
            raise PassingFault(
                f"memory ran out {self._num_lost_in_a_row} times in a row with one actor at a time, the last time "
                f"{what}; free memory on the node, or use one with more, then run the same command again to resume"
            ) from error
        reason = one_line(error, with_kind=False)
        raise RuntimeError(
            f"{self._num_lost_in_a_row} actors were lost in a row, the last {what} ({reason}); "
            "check the cluster, then run the same command again to resume"
        )


def write_by_actors(
    plans: Sequence[ShardPlan], folder: ShardFolder, num_workers: int
) -> Generator[ShardRecord, None, None]:
    """Return a generator of the records of shards of images that actors write, in the order in which they are done.

    Nothing is written before its first step; its errors are those of ``cluster.data.conversion.convert``.

    Raises:
        ValueError: the cluster has no room for an actor.
    """
    from cluster.resources.capacity import check_capacity

    check_capacity(ClusterConfig(num_workers=1), flag="--num-workers")
    actor_class: Any = ray.remote(num_cpus=1)(_Worker)
    pool = ActorPool(plans, folder, lambda: actor_class.remote(folder))
    return (record for records in pool.write_all(num_workers) for record in records)


class _Worker:
    """The writer of an actor; returns the faults of the images and of the storage."""

    def __init__(self, folder: ShardFolder) -> None:
        clean_logs()
        self._folder = folder

    def prepare(self) -> None:
        """Do nothing: the actor has started."""

    def write(self, plan: ShardPlan) -> ShardRecord | Exception:
        """Write a shard; return its record, or a fault of its images or of the storage."""
        try:
            return write_shard(plan, self._folder)
        except (ValueError, OSError) as error:
            return portable(error)
