"""Index of tars in place: the missing tars are scanned, by Ray actors or here, and a manifest is written of all."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captioning.data.vocabulary import Vocabulary
from cluster.codec import TurboCodec
from cluster.config import ClusterConfig
from cluster.data.caption_words import WordCounts
from cluster.data.output import require_owner
from cluster.data.tars.plan import IndexPlan, TarTask
from cluster.errors import Refusal, portable
from cluster.log_text import clean_logs
from cluster.resources.session import cluster_session, named_address
from shards.images import ImageSpec
from shards.imaging.codec import codec_versions
from shards.manifest import VOCABULARY_NAME, Manifest
from shards.samples import SetAside
from shards.storage.folders import ShardFolder, write_file
from shards.tars.assembly import Assembled, assemble
from shards.tars.scan import scan_tar
from shards.tars.store import StoredScan
from shards.tars.stream import TarError

logger = logging.getLogger(__name__)

_FEW_BYTES, _REMOTE_BYTES = 2**32, 2**29  # a core scans some 0.5 GB/s, and Ray starts in some 5 s
_NUM_NAMED = 10


class TarFault(NamedTuple):
    """A file that is no whole tar."""

    location: str
    reason: str


def default_scanners(plan: IndexPlan, cluster: ClusterConfig) -> int:
    """Return the number of actors for a plan, if none is given: 0 for so few tars that Ray would take longer."""
    sizes = (_REMOTE_BYTES if "://" in task.location else Path(task.location).stat().st_size for task in plan.missing)
    return 0 if sum(sizes) < _FEW_BYTES and named_address(cluster) is None else os.cpu_count() or 1


def index(
    plan: IndexPlan,
    *,
    num_workers: int,
    cluster: ClusterConfig | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Manifest:
    """Scan the missing tars, then write vocabulary and manifest.

    Args:
        plan: plan of the index.
        num_workers: number of Ray actors; 0 scans in this process, without Ray.
        cluster: Ray cluster of the actors; None uses this process's session, or starts an embedded cluster.
        progress: callback, called after each tar.

    Raises:
        Refusal: a file is no whole tar and the plan does not leave it out, a split has no sample, or image ids repeat;
            what was scanned is kept.
        ValueError: no word is frequent enough for the vocabulary.
        OSError: a tar cannot be read, or the folder cannot be written.
        RuntimeError: too many actors in a row are lost.
    """
    if plan.finished:
        return plan.finished
    if isinstance(plan.folder, Path):
        plan.folder.mkdir(parents=True, exist_ok=True)
    faults = _scan(plan, num_workers, cluster or ClusterConfig(), progress)
    splits = _splits_without(plan, faults)
    found = assemble(splits, lambda location: _stored(plan, location).scan, captions=plan.captions, folder=plan.folder)
    _log_left_out(found)
    vocabulary = _vocabulary_of(plan, splits[plan.config.vocabulary_split])
    write_file(plan.folder, VOCABULARY_NAME, vocabulary.content())
    manifest = Manifest(
        shards=tuple(sorted(found.shards, key=lambda shard: shard.name)),
        image_spec=ImageSpec(),
        codec_versions=codec_versions(TurboCodec()),
        samples_per_shard=max(shard.num_samples for shard in found.shards),
        seed=0,
        vocabulary_digest=vocabulary.digest,
        minimum_word_count=plan.config.minimum_word_count,
        set_aside=tuple(SetAside(key=fault.location, reason=fault.reason) for fault in faults),
    )
    require_owner()
    manifest.save(plan.folder)
    plan.store.clear()
    return manifest


def _splits_without(plan: IndexPlan, faults: Sequence[TarFault]) -> dict[str, list[str]]:
    """Return the locations of each split's tars, without those of the faults."""
    left_out = {fault.location for fault in faults}
    return {
        split: [location for location in locations if location not in left_out]
        for split, locations in plan.splits.items()
    }


def _vocabulary_of(plan: IndexPlan, locations: Sequence[str]) -> Vocabulary:
    words = WordCounts(plan.config.tokenizer)
    for location in locations:
        words.merge(_stored(plan, location).words)
    return words.vocabulary(minimum_count=plan.config.minimum_word_count)


def _log_left_out(found: Assembled) -> None:
    for what, count in found.others.items():
        logger.warning("%d %s are no samples, and are left out", count, what)
    aside = [(shard, one) for shard in found.shards for one in shard.set_aside]
    reasons = Counter(one.reason for _, one in aside)
    for reason, count in reasons.most_common(_NUM_NAMED):
        shard, first = next((shard, one) for shard, one in aside if one.reason == reason)
        where = shard.tar.location if shard.tar else shard.name
        logger.warning("%d samples are set aside: %s (first: %s of %s)", count, reason, first.key, where)
    if found.shared_keys:
        logger.warning("%s; so the ids of images begin with the names of their tars", found.shared_keys)


def _scan(plan: IndexPlan, num_workers: int, cluster: ClusterConfig, progress: Callable[[], None]) -> list[TarFault]:
    """Scan the missing tars; return those that are no whole tars, if they may be left out."""
    faults: list[TarFault] = []
    for found in _scanned(plan.missing, plan.folder, num_workers, cluster):
        if isinstance(found, TarFault):
            faults.append(found)
        else:
            plan.store.save(found.scan, found.words)
        progress()
    if faults and plan.config.on_bad == "stop":
        named = "; ".join(f"{one.location}: {one.reason}" for one in faults[:_NUM_NAMED])
        more = f"; and {len(faults) - _NUM_NAMED} more" if len(faults) > _NUM_NAMED else ""
        raise Refusal(
            f"{len(faults)} of {len(plan.locations)} files cannot be used ({named}{more})",
            "leave them out with --on-bad skip; what was scanned is kept",
        )
    return faults


def _scanned(
    tasks: Sequence[TarTask], folder: ShardFolder, num_workers: int, cluster: ClusterConfig
) -> Iterator[StoredScan | TarFault]:
    if not tasks:
        return
    if num_workers == 0:
        yield from map(scan_task, tasks)
        return
    with cluster_session(cluster):
        import ray

        from cluster.data.actor_pool import ActorPool
        from cluster.resources.capacity import check_capacity

        check_capacity(ClusterConfig(num_workers=1), flag="--num-workers")
        actor_class: Any = ray.remote(num_cpus=1)(_Scanner)
        for found in ActorPool(tasks, folder, lambda: actor_class.remote()).write_all(num_workers):
            yield from found


def scan_task(task: TarTask) -> StoredScan | TarFault:
    """Scan a tar.

    Raises:
        OSError: it cannot be read, even after retries.
    """
    words = WordCounts(task.tokenizer)
    try:
        scan = scan_tar(task.location, task.captions, has_word=words.has_word, add_captions=words.add)
    except TarError as error:
        return TarFault(task.location, str(error))
    return StoredScan(scan, words.as_dict())


class _Scanner:
    """The scanner of an actor; returns the faults of the storage."""

    def __init__(self) -> None:
        clean_logs()

    def prepare(self) -> None:
        """Do nothing: the actor has started."""

    def write(self, task: TarTask) -> StoredScan | TarFault | Exception:
        """Scan a tar; return what was found, or a fault of the storage."""
        try:
            return scan_task(task)
        except (ValueError, OSError) as error:
            return portable(error)


def _stored(plan: IndexPlan, location: str) -> StoredScan:
    stored = plan.store.load(location)
    if stored is None:
        raise Refusal(f"the scan of {location} is gone from {plan.folder}", "run the same command again")
    return stored
