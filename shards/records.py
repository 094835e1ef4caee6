"""Records of finished shards: which shards of a plan are done, and which files of a folder belong to no plan."""

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from shards.samples import CaptionedImage
from shards.source_files import has_changed
from shards.storage.files import sha256_of
from shards.storage.folders import RemoteShards, ShardFolder, file_sizes, read_file
from shards.table.shard_table import ShardRecord

RECORDS_FOLDER = "records"
_NUM_READERS = 16  # threads that mostly wait for a URL or a disk
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
        record = TypeAdapter(ShardRecord).validate_python(content)
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


def record_name(shard_name: str) -> str:
    """Return the path of a shard's record within the folder of the set."""
    return f"{RECORDS_FOLDER}/{shard_name}.json"
