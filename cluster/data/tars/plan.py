"""Plan of an index of tars in place: the tars of each split, and which of them are still to be scanned."""

import itertools
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cluster.data.conversion_config import IndexConfig
from cluster.errors import Refusal
from shards.manifest import MANIFEST_NAME, VOCABULARY_NAME, Manifest, load_manifest
from shards.records import RECORDS_FOLDER
from shards.shard_files import ShardFiles
from shards.sources.splits import deal_whole, parse_ratio
from shards.storage.folders import ShardFolder, has_file, open_folder, refuse_foreign
from shards.table.table_file import TABLE_PATTERN
from shards.tars.patterns import find_tars, split_of
from shards.tars.recognition import recognize_captions
from shards.tars.store import ScanStore
from shards.tars.stream import TarError

logger = logging.getLogger(__name__)

_NUM_LOOKED_AT = 20  # tars that are opened until one shows where its captions are
_NUM_REQUESTS = 16


class TarTask(NamedTuple):
    """A tar to scan."""

    location: str
    captions: str
    tokenizer: str

    @property
    def name(self) -> str:
        """Return the location, which messages name."""
        return self.location


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """The tars of a shard set, and those of them that are still to be scanned."""

    folder: ShardFolder
    splits: dict[str, tuple[str, ...]]
    """Locations of the tars of each split, sorted."""
    captions: str
    """Where a sample's captions are, as in ``TarSource``."""
    config: IndexConfig
    missing: tuple[TarTask, ...] = ()
    finished: Manifest | None = None
    """Manifest of an earlier call, of the same tars."""

    @property
    def store(self) -> ScanStore:
        """Return the scans that are done."""
        return ScanStore(self.folder, (self.captions, self.config.tokenizer))

    @property
    def locations(self) -> list[str]:
        """Return the locations of all tars."""
        return [location for locations in self.splits.values() for location in locations]


def plan_index(addresses: Sequence[str], location: ShardFolder | str, config: IndexConfig) -> IndexPlan:
    """Find the tars, and which of them an earlier call has scanned.

    Args:
        addresses: tars, folders, patterns or URLs, each as ``SPLIT=ADDRESS`` or alone.
        location: folder or URL of the shard set to write.
        config: settings of the index.

    Raises:
        FileNotFoundError: an address names no tar.
        ValueError: an address is faulty, no captions are recognized, or the folder has another shard set, an index of
            tars that have changed since, or other files.
        OSError: a URL does not answer.
    """
    folder = open_folder(location)
    refuse_foreign(folder, (MANIFEST_NAME, VOCABULARY_NAME, TABLE_PATTERN, RECORDS_FOLDER))
    splits = _splits(addresses, config)
    finished = load_manifest(folder) if has_file(folder, MANIFEST_NAME) else None
    if finished:
        _require_index(folder, finished)
        if not config.rebuild:
            _require_same(folder, finished, splits, config)
            captions = next(shard.tar.captions for shard in finished.shards if shard.tar)
            return IndexPlan(folder, splits, captions, config, finished=finished)
    captions = config.captions or _recognize([*splits[config.vocabulary_split], *itertools.chain(*splits.values())])
    plan = IndexPlan(folder, splits, captions, config)
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        done = zip(plan.locations, pool.map(plan.store.has, plan.locations), strict=True)
        missing = [location for location, is_done in done if not is_done]
    tasks = tuple(TarTask(location, captions, config.tokenizer) for location in missing)
    return replace(plan, missing=tasks)


def _splits(addresses: Sequence[str], config: IndexConfig) -> dict[str, tuple[str, ...]]:
    by_split: dict[str, list[str]] = {}
    for address in addresses:
        split, rest = split_of(address)
        by_split.setdefault(split, []).append(rest)
    if len(by_split) > 1 and "" in by_split:
        raise Refusal(f"{by_split[''][0]} has no split, and others have", "write SPLIT= before each address, or none")
    if config.split_by and "" not in by_split:
        raise Refusal(
            f"--split-by {config.split_by} deals tars that have a split already", "leave it out, or the SPLIT="
        )
    found = {split or "train": find_tars(rest) for split, rest in by_split.items()}
    if config.split_by:
        dealt = deal_whole(found["train"], parse_ratio(config.split_by))
        found = {
            split: [one for one in found["train"] if dealt[one] == split] for split in dict.fromkeys(dealt.values())
        }
    counts = Counter(location for locations in found.values() for location in locations)
    if twice := [location for location, count in counts.items() if count > 1]:
        raise Refusal(f"{twice[0]} is in two splits, so scores would be too good", "name each tar once")
    if config.vocabulary_split not in found:
        raise Refusal(
            f"the vocabulary is made of the words of split {config.vocabulary_split}, and there is only "
            f"{', '.join(sorted(found))}",
            "write train= before an address, or choose another split with --vocabulary-split",
        )
    return {split: tuple(found[split]) for split in sorted(found)}


def _recognize(locations: Sequence[str]) -> str:
    """Return where the captions are in the first tar that shows it."""
    looked_at, faults = list(dict.fromkeys(locations))[:_NUM_LOOKED_AT], []
    for location in looked_at:
        try:
            if captions := recognize_captions(location):
                return captions
        except TarError as error:
            if "--captions" in str(error):
                raise Refusal(f"{location}: {error}", "") from None
            faults.append(f"{location}: {error}")
    if len(faults) == len(looked_at):
        raise Refusal(faults[0], "") if len(faults) == 1 else Refusal(f"no tar can be read, first {faults[0]}", "")
    for fault in faults:
        logger.warning("%s", fault)
    raise Refusal(
        f"no captions are seen in {looked_at[0]}"
        + (f" and {len(looked_at) - 1} more" if len(looked_at) > 1 else "")
        + ": no .txt, and no .json with a caption, captions or text, beside its images",
        "name where they are with --captions, such as json.alt_text",
    )


def _require_index(folder: ShardFolder, finished: Manifest) -> None:
    if not finished.is_in_place:
        raise Refusal(f"{folder} has a shard set that convert wrote", "choose another folder")


def _require_same(
    folder: ShardFolder, finished: Manifest, splits: dict[str, tuple[str, ...]], config: IndexConfig
) -> None:
    """Refuse an index of other tars, or of tars that have changed since; by their sizes, which are quick to look up."""
    files = ShardFiles(folder)
    before = {_absolute(files.location(shard)): shard for shard in finished.shards}
    left_out = {one.key for one in finished.set_aside}
    now = {location: split for split, locations in splits.items() for location in locations}
    sizes = files.sizes(finished.shards)
    changes = {
        "not in it": [one for one in now if one not in before and one not in left_out],
        "no longer named": [one for one in before if one not in now],
        "in another split": [one for one in now if one in before and before[one].split != now[one]],
        "gone": [one for one in before if before[one].name not in sizes],
        "of another size": [
            one for one in before if sizes.get(before[one].name, -1) not in (-1, before[one].num_bytes)
        ],
    }
    found = [f"{len(tars)} {what} (first {tars[0]})" for what, tars in changes.items() if tars]
    has_other_settings = finished.minimum_word_count != config.minimum_word_count or (
        config.captions and any(shard.tar and shard.tar.captions != config.captions for shard in finished.shards)
    )
    if has_other_settings:
        found.append("other settings")
    if found:
        raise Refusal(
            f"{folder} is a finished index that does not fit: {', '.join(found)}",
            "choose another folder, or write it again with --rebuild",
        )


def _absolute(location: str) -> str:
    return location if "://" in location else os.path.normpath(Path(location).absolute())
