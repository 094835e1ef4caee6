"""Writer of shards: captioned images -> tar files of the WebDataset format; equal plans give equal bytes."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from shards.images import ImageSpec, store_image
from shards.imaging.codec import JpegCodec, codec_versions
from shards.order import shuffled
from shards.records import AnyShardPlan, record_name
from shards.samples import CaptionedImage, SetAside
from shards.source_files import SourceDigest, read_image, size_of
from shards.storage.files import replace_file, replacing, sha256_of
from shards.storage.folders import ShardFolder
from shards.table.shard_table import ShardRecord

_DEALING_DOMAIN = 3
_SPLIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardPlan:
    """The images of one shard, and how they are stored."""

    name: str
    split: str
    images: tuple[CaptionedImage, ...]
    spec: ImageSpec
    skip_bad: bool = False
    codec: JpegCodec | None = None

    def digest(self) -> str:
        """Return the sha256 of everything that determines the shard's bytes; source files count by name and size.

        Their contents count in the shard's record. ``skip_bad`` is left out: it makes no difference unless an image is
        faulty.

        Raises:
            ValueError: an image file cannot be accessed.
        """
        images = [
            # Columns count where there are any, so that sets of earlier releases keep their digests.
            (image.image_id, image.path.name, size_of(image), image.captions, *filter(None, [image.columns]))
            for image in self.images
        ]
        content = [self.name, self.split, asdict(self.spec), codec_versions(self.codec), images]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def plan_shards(
    split: str,
    images: Sequence[CaptionedImage],
    *,
    spec: ImageSpec,
    samples_per_shard: int,
    seed: int,
    skip_bad: bool = False,
    codec: JpegCodec | None = None,
) -> list[ShardPlan]:
    """Distribute the images of a split over shards by a seeded permutation.

    Raises:
        ValueError: ``samples_per_shard`` is below 1, or the split's name cannot be a file name.
    """
    if not _SPLIT_NAME.fullmatch(split):
        raise ValueError(f"split {split!r} cannot name a file; use letters, digits, underscores, dots and hyphens")
    if samples_per_shard < 1:
        raise ValueError(f"{samples_per_shard} samples per shard is too few; use 1 or more")
    ordered = sorted(images, key=lambda image: image.image_id)
    dealt = [ordered[index] for index in shuffled(np.arange(len(ordered)), seed=seed, epoch=0, domain=_DEALING_DOMAIN)]
    return [
        ShardPlan(
            name=f"{split}-{number:06d}.tar",
            split=split,
            images=tuple(dealt[start : start + samples_per_shard]),
            spec=spec,
            skip_bad=skip_bad,
            codec=codec,
        )
        for number, start in enumerate(range(0, len(dealt), samples_per_shard))
    ]


def write_shard(plan: ShardPlan, folder: ShardFolder) -> ShardRecord:
    """Write one shard, then its record, which marks the shard as finished.

    Raises:
        ValueError: an image cannot be read, or does not decode and the plan does not skip bad images.
    """
    plan_digest = plan.digest()  # before any file is read, so that the next run notices one that changes size
    set_aside: list[SetAside] = []
    source = SourceDigest(plan.images)
    samples = (sample for image in plan.images if (sample := _sample(image, plan, set_aside, source)))
    return write_samples(samples, plan, folder, plan_digest=plan_digest, set_aside=set_aside, source=source)


def write_samples(
    samples: Iterable[dict[str, str | bytes]],
    plan: AnyShardPlan,
    folder: ShardFolder,
    *,
    plan_digest: str,
    set_aside: Sequence[SetAside],
    source: SourceDigest | None = None,
) -> ShardRecord:
    """Write the samples of a shard, then its record, which marks the shard as finished.

    Args:
        samples: samples to store, each a mapping of ``__key__`` to its key and of suffixes to file contents.
        plan: plan of the shard.
        folder: folder of the shard set; a shard for a URL is first written to a temporary folder.
        plan_digest: digest of the plan, computed before the first sample is read.
        set_aside: list of faulty samples, which grows while ``samples`` is consumed.
        source: identity of the files that the samples are made of, gathered while ``samples`` is consumed.
    """
    if not isinstance(folder, Path):
        with TemporaryDirectory(prefix="shard-") as scratch:
            record = write_samples(
                samples, plan, Path(scratch), plan_digest=plan_digest, set_aside=set_aside, source=source
            )
            for name in (plan.name, record_name(plan.name)):
                folder.put(name, Path(scratch) / name)
        return record
    path, record_path = folder / plan.name, folder / record_name(plan.name)
    record_path.parent.mkdir(parents=True, exist_ok=True)  # marks the folder as a shard set's, in case of a kill
    from webdataset.writer import TarWriter  # imports torch, for which those who only plan shards need not wait

    num_samples = 0
    with replacing(path) as file, TarWriter(file, user="", group="", mtime=0, encoder=False) as tar:
        for sample in samples:
            tar.write(sample)
            num_samples += 1
    record = ShardRecord(
        name=plan.name,
        split=plan.split,
        num_samples=num_samples,
        num_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        plan_digest=plan_digest,
        set_aside=tuple(set_aside),
    )
    # Not in the manifest, whose bytes do not depend on the times of files.
    content = record.as_dict() | ({"source": source.as_dict()} if source else {})
    replace_file(record_path, json.dumps(content, indent=1).encode())
    return record


def _sample(
    image: CaptionedImage, plan: ShardPlan, set_aside: list[SetAside], source: SourceDigest
) -> dict[str, str | bytes] | None:
    content = read_image(image)
    source.add(content)
    try:
        stored = store_image(content, plan.spec, plan.codec)
    except ValueError as error:
        if not plan.skip_bad:
            raise ValueError(
                f"{image.path} (image {image.image_id}): {error}, or set it aside with --on-bad skip"
            ) from error
        set_aside.append(SetAside(key=image.key, reason=f"{image.path.name}: {error}"))
        return None
    description = {
        "image_id": image.image_id,
        "captions": list(image.captions),
        "width": stored.width,
        "height": stored.height,
        "file_name": image.path.name,
        **({"columns": image.columns} if image.columns else {}),
    }
    return {"__key__": image.key, "jpg": stored.jpeg, "json": json.dumps(description, ensure_ascii=False).encode()}
