"""Write the pictures and captions of a shard set back into a folder in COCO layout, which convert reads.

Examples:
    captioning export data/coco-shards data/coco-again
    captioning export s3://captions/coco-shards data/val --splits val
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cluster.config import CacheConfig
from cluster.locations import Location
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.progress_bars import counting

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportJob:
    """The shard set to export, and where to."""

    shards: Annotated[tyro.conf.Positional[Location], tyro.conf.arg(metavar="SHARDS")]
    """Shard set to export: a folder, or a URL."""
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder to write: images/ and annotations/captions_<split>.json."""
    splits: tuple[str, ...] = ()
    """Splits to export; all splits if not given."""
    storage: Annotated[CacheConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=CacheConfig)


def main(invocation: Invocation[ExportJob]) -> None:
    """Write the pictures of each split, and then its captions."""
    job = invocation.settings
    from shards.export import export_split
    from shards.manifest import load_manifest
    from shards.storage.folders import open_folder
    from shards.verification import verify_shards

    source = open_folder(job.shards, cache_gib=job.storage.cache_gib)
    manifest = load_manifest(source)
    chosen = {split: manifest.of_split(split) for split in job.splits or manifest.splits}
    if invocation.dry_run:
        for split in chosen:
            logger.info("would write %d images of %s to %s", manifest.splits[split], split, job.folder)
        if invocation.json:
            write_json({split: manifest.splits[split] for split in chosen})
        return
    verify_shards(source, [record for records in chosen.values() for record in records])
    written = {}
    with counting() as show:
        for split in chosen:
            total = manifest.splits[split]
            written[split] = export_split(
                source,
                manifest,
                split,
                job.folder,
                progress=lambda count, split=split, total=total: show(f"{split} images", count, total),
                cache_gib=job.storage.cache_gib,
            )
    logger.info("%s: images %s", job.folder, ", ".join(f"{count} {split}" for split, count in written.items()))
    if invocation.json:
        write_json({"folder": job.folder, "splits": written})


JOB = Job(name="export", settings=ExportJob, run=main, description=__doc__)
