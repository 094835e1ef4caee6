"""Writer of shards: captioned images -> tar files of the WebDataset format; equal plans give equal bytes."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError
from webdataset.writer import TarWriter

from shards.images import ImageSpec, codec_versions, store_image
from shards.manifest import ShardRecord
from shards.order import shuffled
from shards.samples import CaptionedImage, SetAside
from shards.storage.files import replace_file, replacing, sha256_of
from shards.storage.folders import RemoteShards, ShardFolder, file_sizes, read_file

RECORDS_FOLDER = "records"
_DEALING_DOMAIN = 3
_NUM_READERS = 16  # threads that mostly wait for a URL or a disk
_SPLIT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SHARD_NAME = re.compile(r".+-\d{6,}\.tar")


class Named(Protocol):
    """Anything with the name of a shard's file, such as a plan or a record."""

    @property
    def name(self) -> str:
        """Return the name of the file."""
        ...


class AnyShardPlan(Named, Protocol):
    """A plan of one shard, of images or of features."""

    @property
    def split(self) -> str:
        """Return the shard's split."""
        ...

    @property
    def skip_bad(self) -> bool:
        """Return whether faulty samples are set aside; otherwise they are errors."""
        ...

    def digest(self) -> str:
        """Return the sha256 of everything that determines the shard's bytes."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardPlan:
    """The images of one shard, and how they are stored."""

    name: str
    split: str
    images: tuple[CaptionedImage, ...]
    spec: ImageSpec
    skip_bad: bool = False

    def digest(self) -> str:
        """Return the sha256 of everything that determines the shard's bytes; source files count by name and size.

        ``skip_bad`` is left out: it makes no difference unless an image is faulty.

        Raises:
            ValueError: an image file cannot be accessed.
        """
        images = [
            # Columns count where there are any, so that sets of earlier releases keep their digests.
            (image.image_id, image.path.name, _size_of(image), image.captions, *filter(None, [image.columns]))
            for image in self.images
        ]
        content = [self.name, self.split, asdict(self.spec), codec_versions(), images]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def plan_shards(
    split: str,
    images: Sequence[CaptionedImage],
    *,
    spec: ImageSpec,
    samples_per_shard: int,
    seed: int,
    skip_bad: bool = False,
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
    samples = (sample for image in plan.images if (sample := _sample(image, plan, set_aside)))
    return write_samples(samples, plan, folder, plan_digest=plan_digest, set_aside=set_aside)


def write_samples(
    samples: Iterable[dict[str, str | bytes]],
    plan: AnyShardPlan,
    folder: ShardFolder,
    *,
    plan_digest: str,
    set_aside: Sequence[SetAside],
) -> ShardRecord:
    """Write the samples of a shard, then its record, which marks the shard as finished.

    Args:
        samples: samples to store, each a mapping of ``__key__`` to its key and of suffixes to file contents.
        plan: plan of the shard.
        folder: folder of the shard set; a shard for a URL is first written to a temporary folder.
        plan_digest: digest of the plan, computed before the first sample is read.
        set_aside: list of faulty samples, which grows while ``samples`` is consumed.
    """
    if not isinstance(folder, Path):
        with TemporaryDirectory(prefix="shard-") as scratch:
            record = write_samples(samples, plan, Path(scratch), plan_digest=plan_digest, set_aside=set_aside)
            for name in (plan.name, _record_name(plan.name)):
                folder.put(name, Path(scratch) / name)
        return record
    path, record_path = folder / plan.name, folder / _record_name(plan.name)
    record_path.parent.mkdir(parents=True, exist_ok=True)  # marks the folder as a shard set's, in case of a kill
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
    replace_file(record_path, json.dumps(asdict(record), indent=1).encode())
    return record


def finished_records(plans: Sequence[AnyShardPlan], folder: ShardFolder) -> list[ShardRecord]:
    """Return the records of shards that were made from these plans and are still intact.

    Every byte of a local shard is read again, because a user may rerun the command after a report of damage. Of remote
    shards only sizes are compared: the folder is listed once, and the records are read in threads.
    """
    sizes = file_sizes(folder, [plan.name for plan in plans])
    present = [plan for plan in plans if plan.name in sizes]
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        found = pool.map(lambda plan: _finished_record(plan, folder, sizes[plan.name]), present)
        return [record for record in found if record]


def _finished_record(plan: AnyShardPlan, folder: ShardFolder, num_bytes: int) -> ShardRecord | None:
    try:
        content = json.loads(read_file(folder, _record_name(plan.name)))
        record = TypeAdapter(ShardRecord).validate_python(content)
    except (OSError, ValueError, ValidationError):
        return None
    is_of_plan = record.plan_digest == plan.digest() and (plan.skip_bad or not record.set_aside)
    if not is_of_plan or record.num_bytes != num_bytes:
        return None
    is_whole = not isinstance(folder, Path) or sha256_of(folder / plan.name) == record.sha256
    return record if is_whole else None


def remove_stale_shards(plans: Sequence[Named], folder: ShardFolder) -> None:
    """Remove shards, records and half-written files that a different, earlier plan left in the folder."""
    if not isinstance(folder, Path):
        _remove_stale_at(folder, {plan.name for plan in plans})
        return
    records = folder / RECORDS_FOLDER
    if not records.is_dir():
        return  # not a folder of shards, so its tar files belong to somebody else
    names = {plan.name for plan in plans}
    shards = [path for path in folder.glob("*.tar") if _SHARD_NAME.fullmatch(path.name) and path.name not in names]
    stale = [path for path in records.glob("*.json") if path.stem not in names]
    for path in [*shards, *stale, *folder.glob(".*.tmp"), *records.glob(".*.tmp")]:
        path.unlink(missing_ok=True)


def _remove_stale_at(folder: RemoteShards, names: set[str]) -> None:
    records = folder.sizes(RECORDS_FOLDER)
    shards = [name for name in folder.sizes() if _SHARD_NAME.fullmatch(name)] if records else []
    for name in shards:
        if name not in names:
            folder.remove(name)
    for name in records:
        if name.removesuffix(".json") not in names:
            folder.remove(f"{RECORDS_FOLDER}/{name}")


def _record_name(shard_name: str) -> str:
    return f"{RECORDS_FOLDER}/{shard_name}.json"


def _sample(image: CaptionedImage, plan: ShardPlan, set_aside: list[SetAside]) -> dict[str, str | bytes] | None:
    try:
        content = image.path.read_bytes()
    except OSError as error:  # never set aside: a temporary fault must not decide what a shard contains
        raise _unreadable(image, error) from error
    try:
        stored = store_image(content, plan.spec)
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


def _size_of(image: CaptionedImage) -> int:
    try:
        return image.path.stat().st_size
    except OSError as error:
        raise _unreadable(image, error) from error


def _unreadable(image: CaptionedImage, error: OSError) -> ValueError:
    return ValueError(
        f"{image.path} (image {image.image_id}) cannot be read ({error.strerror}); "
        "fix the source, then run the same command again"
    )
