"""Feature extraction: shard set -> features by a frozen encoder, computed once, by Ray actors or in this process."""

import math
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from captioning.config import ModelConfig
from captioning.model.encoder import Encoder
from captioning.model.weights import weights_identity
from cluster.data.extractor import ExtractionWork, Extractor
from cluster.data.output import require_owner
from cluster.data.shard_set import ShardSet
from shards.features.manifest import (
    FEATURES_NAME,
    FeatureEncoder,
    FeatureManifest,
    FeatureSettings,
    feature_digest,
    load_features,
)
from shards.features.writer import FeatureShardPlan
from shards.manifest import MANIFEST_NAME
from shards.records import RECORDS_FOLDER, finished_records, remove_stale_shards
from shards.storage.folders import ShardFolder, has_file, open_folder, refuse_foreign
from shards.table.shard_table import ShardRecord
from shards.table.table_file import TABLE_PATTERN
from shards.verification import verify_shards

_TAR_BYTES_PER_SAMPLE = 2560  # tar headers, the JSON, and padding to blocks of 512 bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionPlan:
    """A feature set to write."""

    shards: tuple[FeatureShardPlan, ...]
    """Plans of all shards of the splits to extract."""
    finished: tuple[ShardRecord, ...]
    """Records of finished shards, of all splits."""
    manifest: FeatureManifest
    """Manifest to write, without the records of its shards."""
    work: ExtractionWork

    @property
    def digest(self) -> str:
        """Return the digest that the feature set will have."""
        return self.manifest.digest

    @property
    def missing(self) -> tuple[FeatureShardPlan, ...]:
        """Return the shards that are still to be written."""
        done = {record.name for record in self.finished}
        return tuple(plan for plan in self.shards if plan.name not in done)

    @property
    def num_missing_images(self) -> int:
        """Return the number of images that are still to be encoded."""
        return sum(plan.source.num_samples for plan in self.missing)

    @property
    def num_missing_bytes(self) -> int:
        """Return the approximate number of bytes that are still to be written."""
        return self.num_missing_images * (_TAR_BYTES_PER_SAMPLE + 2 * math.prod(self.manifest.shape))

    def with_records(self, records: Sequence[ShardRecord]) -> FeatureManifest:
        """Return the manifest of the finished feature set."""
        return replace(self.manifest, shards=tuple(sorted(records, key=lambda record: record.name)))


def encoder_identity(model: ModelConfig, *, seed: int) -> FeatureEncoder:
    """Return the identity of a model's encoder, independent of the location of its weights.

    Args:
        model: model that has the encoder.
        seed: seed of the random values of an encoder without weights.

    Raises:
        FileNotFoundError: the weights file does not exist.
        ValueError: the encoder is trained, so its features change.
    """
    if model.trainable_from:
        raise ValueError(
            f"the encoder is trained from {model.trainable_from} on, so its features change with every step; "
            "use features with a frozen encoder, without --model.trainable-from"
        )
    weights = weights_identity(model.weights)
    return FeatureEncoder(
        backbone=model.backbone,
        weights=f"none (seed {seed})" if weights == "none" else weights,
        image_size_px=model.image_size_px,
    )


def digest_of_features(shard_set: ShardSet, *, model: ModelConfig, settings: FeatureSettings) -> str:
    """Return the digest of a feature set before it is computed; raises as ``encoder_identity``."""
    return feature_digest(shard_set.manifest.digest, encoder_identity(model, seed=settings.seed), settings)


def plan_extraction(
    shard_set: ShardSet,
    location: ShardFolder | str,
    *,
    model: ModelConfig,
    settings: FeatureSettings,
    splits: Sequence[str] = (),
    batch_size: int = 32,
    skip_bad: bool = False,
) -> ExtractionPlan:
    """Plan the feature shards to write; shards that an earlier call finished are kept.

    Args:
        shard_set: shard set with the images.
        location: folder or URL of the feature set.
        model: model that has the encoder.
        settings: features to compute and store for each image.
        splits: names of the splits to extract; all if empty. Other splits of the feature set are kept.
        batch_size: number of images to encode at once.
        skip_bad: whether an image that does not decode is stored without features; otherwise it is an error.

    Raises:
        FileNotFoundError: the weights file does not exist.
        ValueError: there is no such split, the encoder is trained or does not fit the images, or the folder has another
            set or files that an extraction does not write.
    """
    folder, encoder = open_folder(location), encoder_identity(model, seed=settings.seed)
    manifest = _manifest_of(shard_set, encoder, model=model, settings=settings)
    _refuse_another(folder, manifest)
    for split in splits:
        shard_set.manifest.of_split(split)  # raises if there is no such split
    chosen = set(splits or shard_set.manifest.splits)
    # Finished shards of other splits are kept, even if samples were set aside.
    skipping = set(shard_set.manifest.splits) - (set() if skip_bad else chosen)
    plans = list(_plans(shard_set, encoder=encoder, settings=settings, skipping=skipping))
    work = ExtractionWork(
        source=shard_set.folder,
        folder=folder,
        model=model,
        settings=settings,
        batch_size=batch_size,
        by_pillow=not shard_set.manifest.is_turbo,
        cache_gib=shard_set.files.cache_gib,
    )
    wanted = tuple(plan for plan in plans if plan.split in chosen)
    return ExtractionPlan(shards=wanted, finished=tuple(finished_records(plans, folder)), manifest=manifest, work=work)


def _manifest_of(
    shard_set: ShardSet, encoder: FeatureEncoder, *, model: ModelConfig, settings: FeatureSettings
) -> FeatureManifest:
    """Return the manifest of a feature set, without the records of its shards."""
    built = Encoder(model, load_weights=False)
    return FeatureManifest(
        shards=(),
        shards_digest=shard_set.manifest.digest,
        vocabulary_digest=shard_set.manifest.vocabulary_digest,
        encoder=encoder,
        settings=settings,
        num_regions=1 if settings.regions == "pooled" else built.num_regions,
        num_channels=built.num_channels,
    )


def _plans(
    shard_set: ShardSet, *, encoder: FeatureEncoder, settings: FeatureSettings, skipping: Container[str]
) -> Iterator[FeatureShardPlan]:
    """Yield the plans of all splits; of those in ``skipping``, images that do not decode have no features."""
    for split in shard_set.manifest.splits:
        first, skip_bad = 0, split in skipping
        for record in shard_set.manifest.of_split(split):
            yield FeatureShardPlan(source=record, first=first, encoder=encoder, settings=settings, skip_bad=skip_bad)
            first += record.num_samples


def _refuse_another(folder: ShardFolder, manifest: FeatureManifest) -> None:
    """Refuse a folder with a shard set, foreign files, or a finished feature set that was made from something else."""
    if has_file(folder, MANIFEST_NAME):
        raise ValueError(f"{folder} has a shard set; choose another folder for its features")
    refuse_foreign(folder, (FEATURES_NAME, TABLE_PATTERN, RECORDS_FOLDER, "*.tar"))
    if has_file(folder, FEATURES_NAME) and load_features(folder).digest != manifest.digest:
        raise ValueError(
            f"{folder} has a finished feature set from other images, another encoder or other settings; "
            "choose another folder, or delete this one"
        )


def extract(
    plan: ExtractionPlan,
    *,
    num_workers: int,
    use_gpu: bool = False,
    cpus_per_worker: int = 1,
    progress: Callable[[int], None] = lambda count: None,
) -> FeatureManifest:
    """Write the missing feature shards, then the manifest.

    Args:
        plan: plan of the feature set.
        num_workers: number of Ray actors, each with its own encoder; 0 computes in this process, without Ray.
        use_gpu: whether each actor computes on a GPU of its own.
        cpus_per_worker: number of CPUs of an actor, and of compute threads of an actor or of this process: features of
            another number of threads may be rounded differently.
        progress: callback, called with the number of images done.

    Raises:
        FileNotFoundError: a shard of the shard set is missing.
        ValueError: a shard has another size than its record, the weights do not fit, an image does not decode and the
            plan does not skip bad images, or the cluster has no room for an actor.
        RuntimeError: too many actors in a row are lost.
    """
    verify_shards(plan.work.source, [shard.source for shard in plan.missing], read_all=False)
    if isinstance(plan.work.folder, Path):
        plan.work.folder.mkdir(parents=True, exist_ok=True)
    require_owner()
    remove_stale_shards([*plan.shards, *plan.finished], plan.work.folder)
    records = list(plan.finished)
    if plan.missing and num_workers:
        from cluster.data.extraction_pool import extract_on_cluster

        records += extract_on_cluster(
            plan.work,
            plan.missing,
            num_workers=num_workers,
            use_gpu=use_gpu,
            cpus_per_worker=cpus_per_worker,
            progress=progress,
        )
    elif plan.missing:
        with _compute_threads(cpus_per_worker):
            records += _extract_here(plan, use_gpu=use_gpu, progress=progress)
    manifest = plan.with_records(records)
    # A node without the shared mount would have written to a local folder of the same name.
    verify_shards(plan.work.folder, manifest.shards, read_all=False, job="extract")
    require_owner()
    manifest.save(plan.work.folder)
    return manifest


@contextmanager
def _compute_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _extract_here(plan: ExtractionPlan, *, use_gpu: bool, progress: Callable[[int], None]) -> Iterator[ShardRecord]:
    extractor, num_done = Extractor(plan.work, use_gpu=use_gpu), 0
    for shard in plan.missing:
        yield extractor.write(shard, lambda count, before=num_done: progress(before + count))
        num_done += shard.source.num_samples
