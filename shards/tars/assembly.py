"""Assembly of the scans of tars to the records of a shard set: names, ids that are unique, and what is no sample."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.layout import CONVERTED, TarSource
from shards.samples import ImageId
from shards.storage.folders import ShardFolder
from shards.table.shard_table import ShardRecord
from shards.tars.scan import TarScan


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembled:
    """The shards of a set that is used in place, and what is to be told of them."""

    shards: tuple[ShardRecord, ...]
    others: Counter[str] = field(default_factory=Counter)
    """Number of files and keys that are no samples, by what they are."""
    shared_keys: str = ""
    """A sentence on keys that several tars have, so that ids begin with the tar's name; empty if there are none."""


def assemble(
    splits: Mapping[str, Sequence[str]], load: Callable[[str], TarScan], *, captions: str, folder: ShardFolder
) -> Assembled:
    """Make a shard of each tar; shards are numbered in the order of the tars' locations.

    Args:
        splits: locations of the tars of each split, sorted.
        load: function that returns the scan of a location.
        captions: where the captions are, as in ``TarSource``.
        folder: folder of the shard set.

    Raises:
        ValueError: two images that ``convert`` wrote have one id, two splits have a tar of the same content, or a
            split has no sample.
    """
    locations = [location for of_split in splits.values() for location in of_split]
    shared_keys = _shared_keys(locations, load, captions)
    prefixes = _names(locations) if shared_keys else {}
    shards: list[ShardRecord] = []
    others: Counter[str] = Counter()
    for split, of_split in splits.items():
        first, before = len(shards), others.copy()
        for number, location in enumerate(of_split):
            scan = load(location)
            source = TarSource(
                location=_stored_location(location, folder), captions=captions, id_prefix=prefixes.get(location, "")
            )
            shards.append(_record(scan, f"{split}-{number:06d}.tar", split, source))
            others.update(scan.others)
        _refuse_empty(split, shards[first:], others - before, captions)
    _refuse_leak(shards)
    return Assembled(shards=tuple(shards), others=others, shared_keys=shared_keys)


def _record(scan: TarScan, name: str, split: str, source: TarSource) -> ShardRecord:
    return ShardRecord(
        name=name,
        split=split,
        num_samples=len(scan.ids),
        num_bytes=scan.num_bytes,
        sha256=scan.sha256,
        plan_digest="",
        set_aside=scan.set_aside,
        tar=source,
    )


def _stored_location(location: str, folder: ShardFolder) -> str:
    """Return the location of a tar as the manifest holds it: relative if the tar is near, so that both can be moved."""
    if "://" in location or not isinstance(folder, Path):
        return location
    own = Path(os.path.normpath(folder.absolute()))
    return os.path.relpath(location, own) if Path(location).is_relative_to(own.parent) else location


def _shared_keys(locations: Sequence[str], load: Callable[[str], TarScan], captions: str) -> str:
    """Return a sentence on the ids that are in several tars, empty if there are none.

    Hashes of the ids are compared, 8 bytes each, and not the ids: there may be many millions.
    """
    hashes = [_hashes(load(location).ids) for location in locations]
    every = np.sort(np.concatenate([np.empty(0, np.int64), *hashes]))
    repeated = np.unique(every[1:][every[1:] == every[:-1]])
    if not len(repeated):
        return ""
    wanted = int(repeated[0])
    tars = [location for location, found in zip(locations, hashes, strict=True) if wanted in found]
    example = next(one for one in load(tars[0]).ids if hash(one) == wanted)
    where = f"{len(repeated)} of the samples, such as {example} in {tars[0]} and {tars[-1]}"
    if captions == CONVERTED:
        raise ValueError(f"image ids repeat: {where}; give each image once, or convert the source again")
    return f"tars share the keys of {where}"


def _hashes(ids: Sequence[ImageId]) -> np.ndarray:
    return np.fromiter(map(hash, ids), np.int64, len(ids))


def _names(locations: Sequence[str]) -> dict[str, str]:
    """Return a name of each tar that no other has: its path below the folder that all of them share."""
    parts = [location.split("/") for location in locations]
    folders = [one[:-1] for one in parts]
    num_shared = next((at for at, names in enumerate(zip(*folders, strict=False)) if len(set(names)) > 1), None)
    num_shared = min(map(len, folders)) if num_shared is None else num_shared
    names = ["/".join(one[num_shared:]).partition("?")[0].removesuffix(".tar") for one in parts]
    return {location: f"{name}/" for location, name in zip(locations, names, strict=True)}


def _refuse_empty(split: str, shards: Sequence[ShardRecord], others: Counter[str], captions: str) -> None:
    if any(shard.num_samples for shard in shards):
        return
    aside = [one for shard in shards for one in shard.set_aside]
    reasons = [f"{count} {what}" for what, count in others.items()]
    reasons += [f"{len(aside)} unusable, first {aside[0].key}: {aside[0].reason}"] if aside else []
    raise ValueError(
        f"the tars of split {split} have no image with captions in its {captions} ({'; '.join(reasons) or 'nothing'}); "
        "name where the captions are with --captions, such as txt or json.caption"
    )


def _refuse_leak(shards: Sequence[ShardRecord]) -> None:
    """Refuse tars of the same content in different splits."""
    first: dict[str, ShardRecord] = {}
    for shard in shards:
        other = first.setdefault(shard.sha256, shard)
        if other.split != shard.split and other.tar and shard.tar:
            raise ValueError(
                f"{other.tar.location} of {other.split} and {shard.tar.location} of {shard.split} have the same "
                "content, so scores would be too good; use one of them"
            )
