"""Verification of shards against the manifest; local shards are hashed once, not at every start."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shards.manifest import ShardRecord
from shards.reader import DamagedSampleError, ShardReader
from shards.storage.digest_cache import DigestCache
from shards.storage.files import sha256_of
from shards.storage.folders import ShardFolder, file_sizes

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
    sizes = file_sizes(folder, [shard.name for shard in shards])
    missing = [shard.name for shard in shards if shard.name not in sizes]
    remedy = f"run captioning {job} again, which rebuilds just these"
    if missing:
        raise FileNotFoundError(f"{folder} lacks {len(missing)} of {len(shards)} shards, first {missing[0]}; {remedy}")
    altered = {shard.name for shard in shards if sizes[shard.name] != shard.num_bytes}
    if read_all and isinstance(folder, Path):
        whole = [shard for shard in shards if shard.name not in altered]
        digests = _digests(folder, whole)
        altered |= {shard.name for shard in whole if digests[shard.name] != shard.sha256}
    if altered:
        first = next(shard.name for shard in shards if shard.name in altered)
        raise ValueError(
            f"{folder}: {len(altered)} of {len(shards)} shards differ from the manifest, first {first}; {remedy}"
        )


def find_faults(
    folder: ShardFolder,
    shards: Sequence[ShardRecord],
    *,
    check_image: Callable[[bytes], object] | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, list[str]]:
    """Return what is wrong with each damaged shard, by name; every byte is read, whatever was read before.

    Args:
        folder: folder of the shard set.
        shards: records of the shards to read.
        check_image: function that raises ValueError if an image does not decode; None reads no samples.
        progress: callback, called with the number of shards done.
    """
    faults: dict[str, list[str]] = {}
    with ThreadPoolExecutor() as pool:  # hashing and decoding release the GIL
        found = pool.map(lambda shard: _faults_of(folder, shard, check_image), shards)
        for number, (shard, reasons) in enumerate(zip(shards, found, strict=True), 1):
            if reasons:
                faults[shard.name] = reasons
            progress(number)
    return faults


def _faults_of(folder: ShardFolder, shard: ShardRecord, check_image: Callable[[bytes], object] | None) -> list[str]:
    sizes = file_sizes(folder, [shard.name])
    if shard.name not in sizes:
        return ["is missing"]
    if sizes[shard.name] != shard.num_bytes:
        return [f"has {sizes[shard.name]} bytes, its record says {shard.num_bytes}"]
    try:
        if isinstance(folder, Path):
            if (sha256 := sha256_of(folder / shard.name)) != shard.sha256:
                return [f"has sha256 {sha256[:12]}, its record says {shard.sha256[:12]}"]
        else:
            folder.open(shard).close()  # which fetches and hashes it
        return list(_sample_faults(ShardReader(folder, [shard]), check_image)) if check_image else []
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


def _digests(folder: Path, shards: Sequence[ShardRecord]) -> dict[str, str]:
    """Return the sha256 of shards, from the cache or computed in parallel threads (hashing releases the GIL)."""
    cache = DigestCache(folder)
    digests = {shard.name: sha256 for shard in shards if (sha256 := cache.known(shard.name))}
    unknown = [shard for shard in shards if shard.name not in digests]
    try:
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda shard: cache.compute(shard.name), unknown)  # an interrupt cancels the rest
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
