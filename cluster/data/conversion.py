"""Conversion: captioned images of a source -> shard set, written by Ray actors or in this process."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from captioning.data.vocabulary import Vocabulary
from cluster.codec import TurboCodec
from cluster.config import ClusterConfig
from cluster.data.caption_words import tokenizer_of, vocabulary_captions, vocabulary_of, without_wordless
from cluster.data.conversion_config import ConversionConfig, changes_since, other_source
from cluster.data.output import require_owner
from cluster.errors import Refusal
from cluster.resources.session import cluster_session, named_address
from shards.imaging.codec import JpegCodec, codec_versions
from shards.manifest import MANIFEST_NAME, VOCABULARY_NAME, Manifest, load_manifest, remove_manifest
from shards.records import RECORDS_FOLDER, finished_records, other_sources, remove_stale_shards
from shards.sources.annotations import Annotations
from shards.sources.duplicates import Duplicate, find_duplicates, refuse_leaks
from shards.sources.recognition import PUBLISHED, read_source
from shards.sources.rejected import REJECTED_NAME, list_rejected, refuse_many
from shards.storage.folders import ShardFolder, has_file, open_folder, refuse_foreign, write_file
from shards.table.shard_table import ShardRecord
from shards.table.table_file import TABLE_PATTERN
from shards.verification import verify_shards
from shards.writer import ShardPlan, plan_shards, write_shard

logger = logging.getLogger(__name__)

_FEW_IMAGES = 500  # a core converts some 160 photographs a second, and Ray starts in some 5 s


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionPlan:
    """A shard set to write."""

    folder: ShardFolder
    shards: tuple[ShardPlan, ...]
    finished: tuple[ShardRecord, ...]
    form: str
    """Form of the source, such as ``coco``."""
    annotations: Annotations
    duplicates: tuple[Duplicate, ...]
    vocabulary: Vocabulary
    config: ConversionConfig
    difference: str = ""
    """What the finished shard set in the folder, which is to be written again, was made from, as a clause."""

    @property
    def missing(self) -> tuple[ShardPlan, ...]:
        """Return the shards that are still to be written."""
        done = {record.name for record in self.finished}
        return tuple(plan for plan in self.shards if plan.name not in done)

    def manifest(self, records: Sequence[ShardRecord]) -> Manifest:
        """Return the manifest of the finished shard set."""
        return Manifest(
            shards=tuple(sorted(records, key=lambda record: record.name)),
            image_spec=self.config.image,
            codec_versions=codec_versions(self.shards[0].codec),
            samples_per_shard=self.config.samples_per_shard,
            seed=self.config.seed,
            vocabulary_digest=self.vocabulary.digest,
            minimum_word_count=self.config.minimum_word_count,
            set_aside=self.annotations.set_aside,
            annotations=self.annotations.files,
            licenses=self.annotations.licenses,
        )


def plan_conversion(source: Path, location: ShardFolder | str, config: ConversionConfig) -> ConversionPlan:
    """Read the annotations and plan the shards to write; shards that an earlier call finished are kept.

    Args:
        source: folder of the images, in one of the forms of ``shards.sources.recognition``.
        location: shard set to write.
        config: settings of the conversion.

    Raises:
        FileNotFoundError: source, annotations or a split is missing.
        ValueError: the source is not recognized or faulty, splits share an image, there is no split or no word for the
            vocabulary, or the folder has other files, or another shard set and ``rebuild`` is off.
        OSError: the URL does not answer.
    """
    folder = open_folder(location)
    refuse_foreign(folder, (MANIFEST_NAME, VOCABULARY_NAME, RECORDS_FOLDER, REJECTED_NAME, TABLE_PATTERN, "*.tar"))
    found = read_source(source, config.source_options(), config.splits, skip_bad=config.on_bad == "skip")
    captions = vocabulary_captions(found.annotations.splits, config.vocabulary_split)
    tokenizer = tokenizer_of(captions, config.tokenizer, folder)
    annotations = without_wordless(found.annotations, tokenizer, skip_bad=config.on_bad == "skip")
    vocabulary = vocabulary_of(captions, config, tokenizer)
    duplicates = tuple(find_duplicates(annotations.splits))
    if (config.on_leak or ("keep" if found.form in PUBLISHED else "stop")) == "stop":
        refuse_leaks(duplicates)
    plan = ConversionPlan(
        folder=folder,
        shards=(),
        finished=(),
        form=found.form,
        annotations=annotations,
        duplicates=duplicates,
        vocabulary=vocabulary,
        config=config,
    )
    if not has_file(folder, MANIFEST_NAME):
        return _with_finished(replace(plan, shards=_shards(plan, TurboCodec())))
    finished = load_manifest(folder)
    # A finished shard set of an earlier release keeps its codec, so that it stays as it is.
    plan = replace(plan, shards=_shards(plan, TurboCodec() if finished.is_turbo else None))
    if not (difference := _difference(plan, finished)):
        plan = _with_finished(plan)
        if not (changed := other_sources(plan.missing, folder)):
            return plan
        difference = f"images (the content of some has changed, in {len(changed)} of {len(plan.shards)} shards)"
    if (reason := other_source(finished, annotations)) and not finished.is_in_place:
        raise Refusal(f"{folder} has a finished shard set {reason}", "choose another folder, or remove this one")
    if finished.is_in_place or not config.rebuild:
        remedy = "" if finished.is_in_place else ", or write it again with captioning convert --rebuild"
        raise Refusal(f"{folder} has a finished shard set from other {difference}", f"choose another folder{remedy}")
    return _with_finished(replace(plan, shards=_shards(plan, TurboCodec()), difference=difference))


def _shards(plan: ConversionPlan, codec: JpegCodec | None) -> tuple[ShardPlan, ...]:
    config = plan.config
    planned = (
        plan_shards(
            split,
            images,
            spec=config.image,
            samples_per_shard=config.samples_per_shard,
            seed=config.seed,
            skip_bad=config.on_bad == "skip",
            codec=codec,
        )
        for split, images in plan.annotations.splits.items()
    )
    return tuple(shard for of_split in planned for shard in of_split)


def _with_finished(plan: ConversionPlan) -> ConversionPlan:
    return replace(plan, finished=tuple(finished_records(plan.shards, plan.folder)))


def _difference(plan: ConversionPlan, finished: Manifest) -> str:
    """Return what a finished shard set was made from that a plan differs in, as a clause; empty if it does not."""
    present = {record.name: record.plan_digest for record in finished.shards}
    planned = {shard.name: shard.digest() for shard in plan.shards}
    if present == planned and finished.vocabulary_digest == plan.vocabulary.digest:
        return ""
    return f"images, captions, settings or codecs{changes_since(finished, plan.config, plan.annotations)}"


def default_workers(plan: ConversionPlan, cluster: ClusterConfig) -> int:
    """Return the number of actors for a plan, if none is given: 0 if this process is done before Ray has started."""
    num_images = sum(len(shard.images) for shard in plan.missing)
    return 0 if num_images < _FEW_IMAGES and named_address(cluster) is None else os.cpu_count() or 1


def convert(
    plan: ConversionPlan,
    *,
    num_workers: int,
    cluster: ClusterConfig | None = None,
    progress: Callable[[ShardRecord], None] = lambda record: None,
) -> Manifest:
    """Write the missing shards, then vocabulary and manifest.

    Args:
        plan: plan of the shard set.
        num_workers: number of Ray actors; 0 writes in this process, without Ray.
        cluster: Ray cluster of the actors; None uses this process's session, or starts an embedded cluster.
        progress: callback, called after each shard with its record.

    Raises:
        ValueError: an image does not decode, and the plan does not skip bad images; or no image of a split decodes.
        ClaimLostError: another process owns the URL.
        OSError: the storage fails, or memory runs out even with one actor.
        RuntimeError: too many actors in a row are lost.
    """
    if isinstance(plan.folder, Path):
        plan.folder.mkdir(parents=True, exist_ok=True)
    records = list(plan.finished)
    _limit_rejected(plan, records, is_listed=not plan.difference)
    with _writing(plan.missing, plan.folder, num_workers, cluster or ClusterConfig()) as written:
        _remove_former(plan)  # after all that can be refused
        _limit_rejected(plan, records)
        for record in written:
            records.append(record)
            progress(record)
            if record.set_aside:
                _limit_rejected(plan, records)
    _refuse_empty(plan, records)
    write_file(plan.folder, VOCABULARY_NAME, plan.vocabulary.content())
    manifest = plan.manifest(records)
    # A node without the shared mount would have written to a local folder of the same name.
    verify_shards(plan.folder, manifest.shards, read_all=False)
    require_owner()
    manifest.save(plan.folder)
    return manifest


def _remove_former(plan: ConversionPlan) -> None:
    """Remove what another plan left; first the manifest, because a set with a manifest is complete at any time."""
    require_owner()
    if plan.difference:
        logger.warning("%s is written again, and no job can read it until that is done", plan.folder)
        remove_manifest(plan.folder)
    remove_stale_shards(plan.shards, plan.folder)


def _limit_rejected(plan: ConversionPlan, records: Sequence[ShardRecord], *, is_listed: bool = True) -> None:
    """List what was set aside, and refuse to go on if it is too much; a finished set stays as it is."""
    rejected = [*plan.annotations.set_aside, *(one for record in records for one in record.set_aside)]
    if plan.missing:
        if is_listed:
            list_rejected(rejected, plan.folder)
        num_images = len(plan.annotations.set_aside) + sum(len(shard.images) for shard in plan.shards)
        refuse_many(rejected, num_images, share=plan.config.max_rejected)


def _refuse_empty(plan: ConversionPlan, records: Sequence[ShardRecord]) -> None:
    """Refuse to finish a shard set with a split all of whose images were set aside."""
    for split in plan.annotations.splits:
        found = [record for record in records if record.split == split]
        if not any(record.num_samples for record in found):
            aside = [one for record in found for one in record.set_aside]
            first = f" (first: {aside[0].reason})" if aside else ""
            raise Refusal(
                f"split {split} has no image that can be stored: {len(aside)} were set aside{first}",
                "fix the source, then run the same command again",
            )


@contextmanager
def _writing(
    plans: Sequence[ShardPlan], folder: ShardFolder, num_workers: int, cluster: ClusterConfig
) -> Iterator[Iterator[ShardRecord]]:
    """Connect to Ray if it is needed, and return an iterator that writes a shard at each step."""
    if num_workers == 0 or not plans:
        yield (write_shard(plan, folder) for plan in plans)
        return
    with cluster_session(cluster):
        from cluster.data.actor_pool import write_by_actors

        with closing(write_by_actors(plans, folder, num_workers)) as written:
            yield written
