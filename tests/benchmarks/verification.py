"""Time to verify a shard set at a job's first start and at later ones, compared to ``sha256sum`` of the same files.

The shards are tar files of random bytes in a temporary folder. They are read once before any measurement, so that all
three rows read from the page cache. Use --folder to write them to another disk.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from captioning.data.vocabulary import build_vocabulary
from cluster.checks.data import check_data
from cluster.config import TrainRun
from shards.images import ImageSpec
from shards.imaging.codec import codec_versions
from shards.manifest import VOCABULARY_NAME, Manifest
from shards.table.shard_table import ShardRecord
from shards.writer import ShardPlan, write_samples
from tests.benchmarks.measuring import Benchmark, Row

_IMAGE_BYTES = 2**15
_SPLITS = {"train": 0.9, "val": 0.1}


def write_set(folder: Path, *, gib: float, mib_per_shard: float) -> Manifest:
    """Write a shard set with random bytes instead of JPEG files."""
    num_samples = max(1, int(mib_per_shard * 2**20 / (_IMAGE_BYTES + 1536)))
    records: list[ShardRecord] = []
    for split, share in _SPLITS.items():
        for number in range(max(1, round(gib * share * 2**10 / mib_per_shard))):
            plan = ShardPlan(name=f"{split}-{number:06d}.tar", split=split, images=(), spec=ImageSpec())
            samples = random_samples(len(records) * num_samples, num_samples)
            records.append(write_samples(samples, plan, folder, plan_digest="", set_aside=()))
    vocabulary = build_vocabulary(["a photograph"], minimum_count=1)
    (folder / VOCABULARY_NAME).write_bytes(vocabulary.content())
    manifest = Manifest(
        shards=tuple(records),
        image_spec=ImageSpec(),
        codec_versions=codec_versions(),
        samples_per_shard=num_samples,
        seed=0,
        vocabulary_digest=vocabulary.digest,
        minimum_word_count=1,
    )
    manifest.save(folder)
    return manifest


def random_samples(first: int, count: int) -> Iterator[dict[str, str | bytes]]:
    """Yield samples with random bytes as their images."""
    for number in range(first, first + count):
        description = {"image_id": number, "captions": ["a photograph"]}
        yield {"__key__": f"{number:012d}", "jpg": os.urandom(_IMAGE_BYTES), "json": json.dumps(description).encode()}


def seconds_of(action: Callable[[], object]) -> float:
    """Return the wall time of a call, in seconds."""
    started = time.monotonic()
    action()
    return time.monotonic() - started


def measure(*, gib: float = 2.0, mib_per_shard: float = 32.0, folder: Path | None = None) -> Iterator[Row]:
    """Verify a shard set of random bytes at two starts of a job.

    Args:
        gib: size of the shard set, in GiB.
        mib_per_shard: size of a shard, in MiB.
        folder: folder to write the shard set in; else a temporary one.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch, remembering_in(Path(scratch) / "cache"):
        shards = Path(scratch) / "shards"
        manifest = write_set(shards, gib=gib, mib_per_shard=mib_per_shard)
        files = [str(shards / shard.name) for shard in manifest.shards]
        for file in files:  # load them into the page cache
            Path(file).read_bytes()
        time.sleep(2.5)  # the digest of a file that was just written is not cached, because it may still change
        run = TrainRun(name="verification", shards=shards)
        peer = seconds_of(lambda: subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL))
        found = {start: seconds_of(lambda: check_data(run)) for start in ("first", "second")}
    size = sum(shard.num_bytes for shard in manifest.shards) / 2**30
    for start, seconds in found.items():
        what = f"verify {size:.2f} GiB in {len(files)} shards before a job, {start} start"
        yield Row.of_seconds(what, {"ours": seconds, "sha256sum": peer}, unit="s")


@contextmanager
def remembering_in(folder: Path) -> Iterator[None]:
    """Keep what is remembered on this node in a folder, within the ``with`` block."""
    before = os.environ.get("CAPTIONING_CACHE")
    os.environ["CAPTIONING_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["CAPTIONING_CACHE"]
        os.environ |= {"CAPTIONING_CACHE": before} if before else {}


BENCHMARK = Benchmark(measure, small={"gib": 0.01, "mib_per_shard": 1.0})
