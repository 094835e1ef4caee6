"""Time to verify a shard set at a job's first start and at later ones, compared to ``sha256sum`` of the same files.

Example:
    python tests/benchmarks/verification.py --gib 2

The shards are tar files of random bytes in a temporary folder. They are read once before any measurement, so that all
three rows read from the page cache. Use --folder to write them to another disk.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from captioning.data.vocabulary import build_vocabulary
from cluster.checks.data import check_data
from cluster.config import TrainRun
from shards.images import ImageSpec, codec_versions
from shards.manifest import VOCABULARY_NAME, Manifest, ShardRecord
from shards.writer import ShardPlan, write_samples

_IMAGE_BYTES = 2**15
_SPLITS = {"train": 0.9, "val": 0.1}


def parse() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the shard set, in GiB")
    parser.add_argument("--mib-per-shard", type=float, default=32.0, help="size of a shard, in MiB")
    parser.add_argument("--folder", type=Path, default=None, help="folder to write the shard set in; else temporary")
    return parser.parse_args()


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


def main() -> None:
    """Measure the times and print the table."""
    settings = parse()
    with tempfile.TemporaryDirectory(dir=settings.folder) as scratch:
        folder, os.environ["CAPTIONING_CACHE"] = Path(scratch) / "shards", str(Path(scratch) / "cache")
        manifest = write_set(folder, gib=settings.gib, mib_per_shard=settings.mib_per_shard)
        files = [str(folder / shard.name) for shard in manifest.shards]
        for file in files:  # load them into the page cache
            Path(file).read_bytes()
        time.sleep(2.5)  # the digest of a file that was just written is not cached, because it may still change
        run = TrainRun(name="verification", shards=folder)
        peer = seconds_of(lambda: subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL))
        first, second = (seconds_of(lambda: check_data(run)) for _ in range(2))
        gib = sum(shard.num_bytes for shard in manifest.shards) / 2**30
    table = Table("start", "seconds", "times sha256sum", title=f"{gib:.2f} GiB in {len(files)} shards")
    for name, seconds in (("first", first), ("second", second), ("sha256sum, one process", peer)):
        table.add_row(name, f"{seconds:.3f}", f"{seconds / peer:.4f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
