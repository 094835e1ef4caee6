"""Records of finished shards: which shards of a plan are done, and which files of a folder belong to no plan."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from shards.samples import CaptionedImage
from shards.source_files import has_changed
from shards.storage.document import adapter_of
from shards.storage.files import sha256_of
from shards.storage.folders import RemoteShards, ShardFolder, file_sizes, read_file
from shards.table.shard_table import ShardRecord

logger = logging.getLogger(__name__)

RECORDS_FOLDER = "records"
_NUM_READERS = 16  # threads that mostly wait for a URL or a disk
_NUM_NAMED = 3
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

    @property
    def images(self) -> Sequence[CaptionedImage]:
        """Return the images whose files the shard is made of; none if it is made of another shard."""
        ...

    def digest(self) -> str:
        """Return the sha256 of everything that determines the shard's bytes."""
        ...


def finished_records(plans: Sequence[AnyShardPlan], folder: ShardFolder) -> list[ShardRecord]:
    """Return the records of shards that were made from these plans and these images, and are still intact.

    Every byte of a local shard is read again, because a user may rerun the command after a report of damage. Of remote
    shards only sizes are compared: the folder is listed once, and the records are read in threads.
    """
    sizes = file_sizes(folder, [plan.name for plan in plans])
    present = [plan for plan in plans if plan.name in sizes]
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        found = pool.map(lambda plan: _finished_record(plan, folder, sizes[plan.name]), present)
        return [record for record in found if record]


def _finished_record(plan: AnyShardPlan, folder: ShardFolder, num_bytes: int) -> ShardRecord | None:
    content = _read_record(plan, folder)
    try:
        record = adapter_of(ShardRecord).validate_python(content)
    except ValidationError:
        return None
    is_of_plan = record.plan_digest == plan.digest() and (plan.skip_bad or not record.set_aside)
    if not is_of_plan or record.num_bytes != num_bytes:
        return None
    is_whole = not isinstance(folder, Path) or sha256_of(folder / plan.name) == record.sha256
    is_of_source = is_whole and not _has_other_images(plan, content)
    return record if is_of_source else None


def other_sources(plans: Sequence[AnyShardPlan], folder: ShardFolder) -> list[str]:
    """Return the names of shards whose records say that they were written from other images than the plans' files."""
    return [plan.name for plan in plans if _has_other_images(plan, _read_record(plan, folder))]


def _read_record(plan: AnyShardPlan, folder: ShardFolder) -> dict[str, Any]:
    """Return the content of a shard's record file; empty if it cannot be read."""
    try:
        content = json.loads(read_file(folder, record_name(plan.name)))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _has_other_images(plan: AnyShardPlan, content: Mapping[str, Any]) -> bool:
    """Return whether a plan's images have other contents than a record tells; False if an earlier release wrote it."""
    source = content.get("source")
    return isinstance(source, dict) and has_changed(plan.images, source)


def stale_shards(plans: Sequence[Named], folder: ShardFolder) -> list[str]:
    """Return the names of the shards that a different, earlier plan left in the folder, in their order."""
    if isinstance(folder, Path):
        has_records = (folder / RECORDS_FOLDER).is_dir()
        present = [path.name for path in folder.glob("*.tar")] if has_records else []
    else:
        present = [*folder.sizes()] if folder.sizes(RECORDS_FOLDER) else []
    # Without records it is not a folder of shards, so its tar files belong to somebody else.
    names = {plan.name for plan in plans}
    return sorted(name for name in present if _SHARD_NAME.fullmatch(name) and name not in names)


def remove_stale_shards(plans: Sequence[Named], folder: ShardFolder) -> None:
    """Remove shards, records and half-written files that a different, earlier plan left in the folder; log it."""
    shards, names = stale_shards(plans, folder), {plan.name for plan in plans}
    if shards:
        named = ", ".join(shards[:_NUM_NAMED]) + (", ..." if len(shards) > _NUM_NAMED else "")
        logger.warning("%s: removing the shards that an earlier plan wrote (%d): %s", folder, len(shards), named)
    if not isinstance(folder, Path):
        _remove_at(folder, shards, names)
        return
    records = folder / RECORDS_FOLDER
    if not records.is_dir():
        return
    stale = [path for path in records.glob("*.json") if path.stem not in names]
    for path in [*(folder / name for name in shards), *stale, *folder.glob(".*.tmp"), *records.glob(".*.tmp")]:
        path.unlink(missing_ok=True)


def _remove_at(folder: RemoteShards, shards: Sequence[str], names: set[str]) -> None:
    for name in shards:
        folder.remove(name)
    for name in folder.sizes(RECORDS_FOLDER):
        if name.removesuffix(".json") not in names:
            folder.remove(f"{RECORDS_FOLDER}/{name}")


def record_name(shard_name: str) -> str:
    """Return the path of a shard's record within the folder of the set."""
    return f"{RECORDS_FOLDER}/{shard_name}.json"
