"""Show what is in a shard set: samples, captions, words, sizes, and what its digest is made of.

Examples:
    captioning inspect data/coco-shards
    captioning inspect data/coco-shards --split val --html val.html   # a page of a hundred images with their captions
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cluster.config import CacheConfig
from cluster.locations import Location
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.output_files import require_output_files
from jobs.console.progress_bars import counting
from jobs.console.tables import show_table

if TYPE_CHECKING:
    from cluster.data.shard_set import ShardSet
    from shards.inspection import SplitSummary

logger = logging.getLogger(__name__)

_NUM_SHOWN = 100
_LARGEST_SHOWN = 90_000  # bytes of a picture in the page


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectJob:
    """The shard set to show."""

    shards: Annotated[tyro.conf.Positional[Location], tyro.conf.arg(metavar="SHARDS")]
    """Shard set to show: a folder, or a URL, whose shards are fetched into the cache."""
    split: str | None = None
    """Split to show; all splits if not given."""
    html: Path | None = None
    """HTML file for a page of a hundred images of each split; no page if not given."""
    storage: Annotated[CacheConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=CacheConfig)


def main(invocation: Invocation[InspectJob]) -> None:
    """Show the set, and write the page where wanted."""
    job = invocation.settings
    from cluster.data.shard_set import ShardSet
    from shards.inspection import inspect_split

    require_output_files(html=job.html)
    shard_set = ShardSet(job.shards, cache_gib=job.storage.cache_gib)
    splits = {split: num for split, num in shard_set.manifest.splits.items() if job.split in (None, split)}
    if not splits:
        shard_set.manifest.of_split(str(job.split))  # which says what there is
    found: dict[str, SplitSummary] = {}
    with counting() as show:
        for split, total in splits.items():
            found[split] = inspect_split(
                shard_set.reader(split),
                shard_set.manifest.of_split(split),
                tokenize=shard_set.vocabulary.tokenizer.tokenize,
                known_words=shard_set.vocabulary.words,
                progress=lambda count, split=split, total=total: show(f"{split} images", count, total),
            )
    if job.html:
        _write_page(job.html, shard_set, found)
    if invocation.json:
        write_json({**dict(_set_rows(shard_set)), "splits": {split: asdict(one) for split, one in found.items()}})
        return
    show_table(str(job.shards), ("what", "value"), list(_set_rows(shard_set)))
    for split, summary in found.items():
        show_table(f"split {split}", ("what", "value"), list(_split_rows(summary)))


def _set_rows(shard_set: "ShardSet") -> Iterator[tuple[str, str]]:
    manifest, spec = shard_set.manifest, shard_set.manifest.image_spec
    num_set_aside = len(manifest.set_aside) + sum(len(shard.set_aside) for shard in manifest.shards)
    size = manifest.samples_per_shard
    yield "digest", manifest.digest
    dealt = "tars of another program, used in place" if manifest.is_in_place else f"dealt by seed {manifest.seed}"
    yield "shards", f"{len(manifest.shards)}, up to {size} images each, {dealt}"
    if not manifest.is_in_place:
        yield "images", f"shorter side up to {spec.shorter_side_px} px, JPEG quality {spec.quality}"
    yield "vocabulary", f"{len(shard_set.vocabulary)} words that occur {manifest.minimum_word_count} times or more"
    yield "tokenizer", shard_set.vocabulary.tokenizer.name
    yield "codecs", ", ".join(f"{name} {version}" for name, version in manifest.codec_versions.items())
    yield "set aside", str(num_set_aside)
    if manifest.licenses:
        yield "licences", ", ".join(manifest.licenses)
    yield from ((f"sha256 of {name}", sha256) for name, sha256 in manifest.annotations.items())


def _split_rows(summary: "SplitSummary") -> Iterator[tuple[str, str]]:
    yield "shards", f"{summary.num_shards}, {summary.num_bytes / 2**20:,.1f} MiB"
    yield "images", f"{summary.num_samples:,}"
    yield "captions an image", _range(summary.captions_per_image)
    yield "words a caption", _range(summary.words_per_caption)
    yield "words", f"{summary.num_words:,}, {summary.num_different_words:,} different"
    yield "unknown words", f"{100 * summary.unknown_share:.2f} %"
    low, middle, high = summary.shorter_side_px
    yield "shorter side", f"{low} to {high} px, median {middle:g}" if high else "not told by the samples"


def _range(spread: tuple[int, float, int]) -> str:
    low, mean, high = spread
    return str(low) if low == high else f"{low} to {high}, {mean:.1f} on average"


def _write_page(path: Path, shard_set: "ShardSet", found: "dict[str, SplitSummary]") -> None:
    from captioning.pages.gallery import GalleryItem, GalleryPage, write_gallery
    from captioning.pages.thumbnails import thumbnail
    from shards.inspection import draw_samples

    items = []
    for split in found:
        for sample in draw_samples(shard_set.reader(split), num_drawn=_NUM_SHOWN):
            try:
                jpeg = thumbnail(sample.jpeg, most_bytes=_LARGEST_SHOWN)  # tars in place have other formats, too
            except ValueError as error:
                logger.warning("%s %s of %s is left out of the page: %s", split, sample.key, sample.shard, error)
                continue
            items.append(GalleryItem(name=f"{split} {sample.key}", jpeg=jpeg, captions=sample.captions))
    facts = [("Shard set", [*_set_rows(shard_set)])]
    facts += [(f"Split {split}", [*_split_rows(one)]) for split, one in found.items()]
    images = [(split, f"{one.num_samples:,} images") for split, one in found.items()]
    page = GalleryPage(title=str(shard_set.folder), kicker="Shard set", summary=images, facts=facts)
    write_gallery(path, items, page)
    logger.info("wrote %s: %d images", path, len(items))


JOB = Job(name="inspect", settings=InspectJob, run=main, description=__doc__, changes_nothing=True)
