"""Extraction on a Ray cluster: a pool of actors that each hold an encoder."""

from collections.abc import Callable, Sequence
from typing import Any

import ray
import torch

from cluster.config import ClusterConfig
from cluster.data.actor_pool import ActorPool
from cluster.data.extractor import ExtractionWork, Extractor
from cluster.errors import portable
from cluster.log_text import clean_logs
from cluster.resources.capacity import check_capacity
from shards.features.writer import FeatureShardPlan
from shards.table.shard_table import ShardRecord


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
        PassingFault: the storage fails, or memory runs out even with one actor.
        RuntimeError: too many actors in a row are lost.
    """
    least = ClusterConfig(num_workers=1, use_gpu=use_gpu, cpus_per_worker=cpus_per_worker)
    check_capacity(least, flag="--num-workers")
    actor_class: Any = ray.remote(_Worker)
    # The second thread answers ``num_images_done`` while the first one writes.
    placed = actor_class.options(num_cpus=cpus_per_worker, num_gpus=int(use_gpu), max_concurrency=2)
    pool = ActorPool(shards, work.folder, lambda: placed.remote(work, use_gpu, cpus_per_worker))
    records: list[ShardRecord] = []
    for new in pool.write_all(num_workers):
        records += new
        progress(sum(record.num_samples for record in records) + pool.num_images_under_way())
    return records


class _Worker:
    """An extractor as an actor; returns the faults of the data, the storage and the weights."""

    def __init__(self, work: ExtractionWork, use_gpu: bool, num_threads: int) -> None:
        clean_logs()
        self._work, self._use_gpu, self._num_threads = work, use_gpu, num_threads
        self._extractor: Extractor | None = None

    def prepare(self) -> Exception | None:
        """Load the encoder; return the fault, or None if it loads."""
        try:
            self._extractor = Extractor(self._work, use_gpu=self._use_gpu, num_threads=self._num_threads)
        except (ValueError, OSError) as error:
            return portable(error)
        return None

    def write(self, shard: FeatureShardPlan) -> ShardRecord | Exception:
        """Write a shard; return its record, or a fault of its images."""
        if self._extractor is None:
            raise RuntimeError("an actor got a shard before it had an encoder; this is a bug, please report it")
        torch.set_num_threads(self._num_threads)  # applies to the calling thread
        try:
            return self._extractor.write(shard)
        except (ValueError, OSError) as error:
            return portable(error)

    def num_images_done(self) -> int:
        """Return the number of images done in the current shard."""
        return self._extractor.num_images_done if self._extractor else 0
