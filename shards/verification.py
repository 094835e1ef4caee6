"""Verification of shards against the manifest; local shards are hashed once, not at every start."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shards.reader import DamagedSampleError, ShardReader
from shards.shard_files import ShardFiles
from shards.storage.cache import DEFAULT_CACHE_GIB
from shards.storage.digest_cache import DigestCache
from shards.storage.files import sha256_of
from shards.storage.folders import ShardFolder
from shards.storage.remote import UNKNOWN_SIZE
from shards.table.shard_table import ShardRecord

logger = logging.getLogger(__name__)

_FIRST_LINE_SECONDS = 3.0
_LINE_EVERY_SECONDS = 10.0


def verify_shards(
    folder: ShardFolder, shards: Sequence[ShardRecord], *, read_all: bool = True, job: str = "convert"
) -> None:
    """Check that shards exist and match their records.

    Args:
        folder: folder of the shard set.
        shards: records of the shards to check.
        read_all: whether to compare sha256 as well as sizes. A local shard is hashed once, and again after its size,
            modification time or inode changes; a remote shard is hashed when it is fetched into the node's cache.
        job: command that makes such shards, for error messages.

    Raises:
        FileNotFoundError: a shard is missing.
        ValueError: a shard differs from its record.
    """
    files = ShardFiles(folder)
    sizes = files.sizes(shards)
    missing = [shard for shard in shards if shard.name not in sizes]
    remedy = f"run captioning {job} again, which rebuilds just these"
    if any(shard.tar for shard in shards):
        remedy = "restore these tars, or run captioning index again with --rebuild"
    if missing:
        first = _name_of(missing[0], files)
        raise FileNotFoundError(f"{folder} lacks {len(missing)} of {len(shards)} shards, first {first}; {remedy}")
    altered = {shard.name for shard in shards if sizes[shard.name] not in (shard.num_bytes, UNKNOWN_SIZE)}
    if read_all:
        whole = [shard for shard in shards if shard.name not in altered]
        digests = _digests(files, whole)
        altered |= {shard.name for shard in whole if digests.get(shard.name, shard.sha256) != shard.sha256}
    if altered:
        first = next(_name_of(shard, files) for shard in shards if shard.name in altered)
        raise ValueError(
            f"{folder}: {len(altered)} of {len(shards)} shards differ from the manifest, first {first}; {remedy}"
        )


def find_faults(
    folder: ShardFolder,
    shards: Sequence[ShardRecord],
    *,
    check_image: Callable[[bytes], object] | None = None,
    progress: Callable[[int], None] = lambda count: None,
    cache_gib: float = DEFAULT_CACHE_GIB,
) -> dict[str, list[str]]:
    """Return what is wrong with each damaged shard, by name; every byte is read, whatever was read before.

    Args:
        folder: folder of the shard set.
        shards: records of the shards to read.
        check_image: function that raises ValueError if an image does not decode; None reads no samples.
        progress: callback, called with the number of shards done.
        cache_gib: size limit in GiB of this node's copies of tars at URLs.
    """
    files = ShardFiles(folder, cache_gib=cache_gib)
    faults: dict[str, list[str]] = {}
    with ThreadPoolExecutor() as pool:  # hashing and decoding release the GIL
        found = pool.map(lambda shard: _faults_of(files, shard, check_image), shards)
        for number, (shard, reasons) in enumerate(zip(shards, found, strict=True), 1):
            if reasons:
                faults[shard.name] = reasons
            progress(number)
    return faults


def _name_of(shard: ShardRecord, files: ShardFiles) -> str:
    return files.location(shard) if shard.tar else shard.name


def _faults_of(files: ShardFiles, shard: ShardRecord, check_image: Callable[[bytes], object] | None) -> list[str]:
    sizes = files.sizes([shard])
    if shard.name not in sizes:
        return ["is missing"]
    if sizes[shard.name] not in (shard.num_bytes, UNKNOWN_SIZE):
        return [f"has {sizes[shard.name]} bytes, its record says {shard.num_bytes}"]
    folder, name = files.find(shard)
    try:
        if isinstance(folder, Path):
            if (sha256 := sha256_of(folder / name)) != shard.sha256:
                return [f"has sha256 {sha256[:12]}, its record says {shard.sha256[:12]}"]
        else:
            files.open(shard).close()  # which fetches and hashes it
        return (
            list(_sample_faults(ShardReader(files.folder, [shard], cache_gib=files.cache_gib), check_image))
            if check_image
            else []
        )
    except PermissionError:
        raise  # that this user may not read a shard says nothing about its content
    except (OSError, ValueError) as error:
        return [f"cannot be read ({' '.join(str(error).split())})"]


def _sample_faults(reader: ShardReader, check_image: Callable[[bytes], object]) -> Iterator[str]:
    for number in range(len(reader)):
        try:
            sample = reader.read(number)
        except DamagedSampleError as error:
            yield f"sample {error.key}: {error.reason}"
            continue
        try:
            check_image(sample.jpeg)
        except ValueError as error:
            yield f"sample {sample.key}: {error}"
        if not any(caption.strip() for caption in sample.captions):
            yield f"sample {sample.key}: its captions are empty"


def _digests(files: ShardFiles, shards: Sequence[ShardRecord]) -> dict[str, str]:
    """Return the sha256 of the shards on this machine, from the cache or computed in parallel threads."""
    digests: dict[str, str] = {}
    for folder, names in files.local(shards).items():
        cache = DigestCache(folder)
        here = [shard for shard in shards if shard.name in names]
        digests |= {shard.name: sha256 for shard in here if (sha256 := cache.known(names[shard.name]))}
        unknown = [shard for shard in here if shard.name not in digests]
        try:
            with ThreadPoolExecutor() as pool:  # hashing releases the GIL
                found = pool.map(cache.compute, [names[shard.name] for shard in unknown])  # an interrupt ends the rest
                for shard, sha256 in zip(_with_progress(folder, unknown, cache), found, strict=True):
                    digests[shard.name] = sha256
        finally:
            cache.save()
    return digests


def _with_progress(folder: Path, shards: Sequence[ShardRecord], cache: DigestCache) -> Iterator[ShardRecord]:
    """Yield shards; now and then log progress and save the digests so far, in case the process is killed."""
    total, num_bytes = sum(shard.num_bytes for shard in shards) / 2**30, 0
    next_line = time.monotonic() + _FIRST_LINE_SECONDS
    for number, shard in enumerate(shards):
        if time.monotonic() >= next_line:
            next_line = time.monotonic() + _LINE_EVERY_SECONDS
            done = num_bytes / 2**30
            logger.info("verifying %s: %d of %d shards, %.1f of %.1f GiB", folder, number, len(shards), done, total)
            cache.save()
        yield shard
        num_bytes += shard.num_bytes
