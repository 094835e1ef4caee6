"""Check every byte of a shard set against its manifest; with --deep, decode every image too.

Damaged shards are named. --repair writes them again from the source, to the same bytes, and leaves the others alone.

Examples:
    captioning verify data/coco-shards
    captioning verify data/coco-shards --deep
    captioning verify data/coco-shards --repair data/coco
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from cluster.config import CacheConfig
from cluster.errors import Refusal
from cluster.locations import Location
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.progress_bars import counting

logger = logging.getLogger(__name__)

_NUM_NAMED = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyJob:
    """The shard set to check, and how thoroughly."""

    shards: Annotated[tyro.conf.Positional[Location], tyro.conf.arg(metavar="SHARDS")]
    """Shard set to check: a folder, or a URL, whose shards are fetched into the cache."""
    deep: bool = False
    """Decode every image and read every caption, as well as the checksums."""
    repair: Path | None = None
    """Source that the set was made from; damaged shards are written again from it. If not given,
    they are only named."""
    storage: Annotated[CacheConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=CacheConfig)


def main(invocation: Invocation[VerifyJob]) -> None:
    """Check the shards; name the damaged ones, and write them again where wanted."""
    job = invocation.settings
    from cluster.codec import TurboCodec
    from cluster.data.shard_set import ShardSet
    from shards.images import store_image
    from shards.verification import find_faults

    shard_set = ShardSet(job.shards, cache_gib=job.storage.cache_gib)
    shards = shard_set.manifest.shards
    if invocation.dry_run:
        logger.info("would read %d shards, %.2f GiB", len(shards), sum(one.num_bytes for one in shards) / 2**30)
        if invocation.json:
            write_json([shard.name for shard in shards])
        return
    check_image = partial(store_image, spec=shard_set.manifest.image_spec, codec=TurboCodec()) if job.deep else None
    with counting() as show:
        faults = find_faults(
            shard_set.folder,
            shards,
            check_image=check_image,
            progress=lambda count: show("shards", count, len(shards)),
            cache_gib=job.storage.cache_gib,
        )
    _name(faults)
    repaired: Sequence[str] = ()
    if faults and job.repair and shard_set.manifest.is_in_place:
        raise Refusal(
            f"{job.shards} uses tars of another program, which --repair does not write",
            "restore the tars named above, or run captioning index again with --rebuild",
        )
    if faults and job.repair:
        from cluster.data.repair import repair

        repaired = repair(shard_set, job.repair)
        logger.info("wrote %d shards again: %s", len(repaired), ", ".join(repaired))
    if invocation.json:
        write_json({"shards": job.shards, "num_shards": len(shards), "faults": faults, "repaired": repaired})
    left = {name for name in faults if name not in repaired}
    if left:
        raise Refusal(
            f"{len(left)} of {len(shards)} shards of {job.shards} are damaged",
            _remedy(job, is_in_place=shard_set.manifest.is_in_place),
        )
    logger.info("%s: all %d shards are as the manifest says", job.shards, len(shards))


def _remedy(job: VerifyJob, *, is_in_place: bool) -> str:
    if is_in_place:
        return "restore the tars named above, or run captioning index again with --rebuild"
    if not job.repair:
        return "write them again with --repair SOURCE, or by captioning convert with the settings of the first time"
    return "the images named above were stored like that; set them aside by a conversion to another folder"


def _name(faults: Mapping[str, Sequence[str]]) -> None:
    lines = [f"{name}: {reason}" for name, reasons in faults.items() for reason in reasons]
    for line in lines[:_NUM_NAMED]:
        logger.error("%s", line)
    if len(lines) > _NUM_NAMED:
        logger.error("and %d more; --json lists all", len(lines) - _NUM_NAMED)


JOB = Job(name="verify", settings=VerifyJob, run=main, description=__doc__)
