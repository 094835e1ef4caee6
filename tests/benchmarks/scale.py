"""Sets of millions: the order of training, manifest and reader of five million shards, a million images planned.

The peer of the order is what PyTorch's ``DistributedSampler`` does in each process and epoch: a permutation of all
samples, as a list. It is measured on fewer samples, because its list of five billion numbers would take 200 GB. The
peer of the annotations is ``json.load``. All times are CPU times; memory is that of a process of its own.
"""

import gc
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from webdataset import WebDataset

from cluster.data.tars.indexing import scan_task
from cluster.data.tars.plan import TarTask
from shards.images import ImageSpec
from shards.order import SampleOrder
from shards.reader import ShardReader
from shards.storage.files import sha256_of
from shards.writer import ShardPlan, write_samples
from tests.benchmarks.measuring import Benchmark, Row, interleaved
from tests.support.large_sets import SAMPLES_PER_SHARD, write_manifest, write_source
from tests.support.raw_tars import tar_samples, write_tar

_WINDOW_SHARDS, _BATCH = 16, 1024
_MEASURED = """
import json, sys, time
from pathlib import Path
from tests.benchmarks.measuring import peak_mib
path = Path(sys.argv[1])
{imports}
before, started = peak_mib(), time.process_time()
{work}
print(json.dumps([time.process_time() - started, peak_mib(), before]))
"""
_MANIFEST = (
    "from shards.manifest import load_manifest\nfrom shards.reader import ShardReader",
    "ShardReader(path, load_manifest(path).of_split('train'))",
)
_STREAMED = (
    "from shards.sources.json_lists import read_lists",
    "for entry in read_lists(path, ('images', 'annotations'), form=''): pass",
)
_LOADED = ("import json", "json.loads(path.read_bytes())")
_PLANNED = (
    "from cluster.data.conversion import plan_conversion\nfrom cluster.data.conversion_config import ConversionConfig",
    "plan_conversion(path, str(path.parent / 'shards'), ConversionConfig())",
)


def order_of(num_shards: int) -> SampleOrder:
    """Return the order of so many shards of 1,000 samples."""
    sizes = np.full(num_shards, SAMPLES_PER_SHARD)
    return SampleOrder(sizes, seed=0, window_shards=_WINDOW_SHARDS)


def first_batch(order: SampleOrder, start: int) -> np.ndarray:
    """Return the sample numbers of the batch at a position."""
    return order.at(start, start + _BATCH)


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU time of a call in seconds, and its result."""
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


def in_a_process(code: tuple[str, str], path: Path) -> tuple[float, float, float]:
    """Run code in a process of its own; return its CPU time in seconds, and its peak memory and that before, in MiB."""
    command = [sys.executable, "-c", _MEASURED.format(imports=code[0], work=code[1]), str(path)]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return found[0], found[1], found[2]


def orders(num_shards: int, num_shards_of_peer: int) -> Iterator[Row]:
    """Build an order, read its first batches, and send it to another process."""
    samples = f"{num_shards * SAMPLES_PER_SHARD:,} samples in {num_shards:,} shards"
    building, order = seconds_of(lambda: order_of(num_shards))
    yield Row(what=f"build the order of {samples}", unit="s", ours=building, less_is_better=True)
    sending, content = seconds_of(lambda: pickle.dumps(order))
    receiving, order = seconds_of(lambda: pickle.loads(content))
    note = f"{len(content) / 1e6:.2g} MB"
    yield Row(what="send it to another process", unit="s", ours=sending + receiving, less_is_better=True, note=note)
    tracemalloc.start()
    first_batch(order, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    note = f"{peak / 1e6:.0f} MB at its peak, besides the order"
    num_samples = num_shards * SAMPLES_PER_SHARD
    for where, start in (
        ("start of an epoch", 0),
        ("middle", num_samples // 2),
        ("end, where two epochs meet", num_samples - _BATCH // 2),
    ):
        fresh = pickle.loads(content)
        first, _ = seconds_of(lambda fresh=fresh, start=start: first_batch(fresh, start))
        what = f"its first batch at the {where}, in that process"
        yield Row(what=what, unit="s", ours=first, less_is_better=True, note=note)
        note = ""
    num_samples = num_shards_of_peer * SAMPLES_PER_SHARD
    fewer = order_of(num_shards_of_peer)
    starts = count(0, num_samples)
    seconds = interleaved(
        {
            "ours": lambda: first_batch(fewer, next(starts)),
            "torch.randperm, as DistributedSampler": lambda: torch.randperm(num_samples).tolist()[:_BATCH],
        },
        rounds=3,
    )
    yield Row.of_seconds(f"the first batch of an epoch of {num_samples:,} samples", seconds)


def manifests(num_shards: int, folder: Path) -> Iterator[Row]:
    """Open a manifest, and a reader of its training shards, in a process of its own."""
    write_manifest(folder, num_shards)
    seconds, peak, before = in_a_process(_MANIFEST, folder)
    what = f"manifest and reader of {num_shards:,} shards"
    yield Row(what=f"open {what}", unit="s", ours=seconds, less_is_better=True)
    note = f"{before:.0f} MiB before"
    yield Row(what=f"{what}, peak memory", unit="MiB", ours=peak, less_is_better=True, note=note)


def sources(num_images: int, folder: Path) -> Iterator[Row]:
    """Read the annotations of a source, and plan its conversion, each in a process of its own."""
    path = write_source(folder / "source", num_images)
    ours, peer = in_a_process(_STREAMED, path), in_a_process(_LOADED, path)
    what = f"read {5 * num_images:,} annotations of {num_images:,} images"
    yield Row.of_seconds(what, {"ours": ours[0], "json.load": peer[0]}, unit="s")
    memory = Row.of_seconds("its peak memory", {"ours": ours[1], "json.load": peer[1]}, unit="s")
    yield replace(memory, unit="MiB")
    seconds, peak, before = in_a_process(_PLANNED, folder / "source")
    yield Row(what=f"plan the conversion of {num_images:,} images", unit="s", ours=seconds, less_is_better=True)
    note = f"{before:.0f} MiB before"
    yield Row(what="its peak memory", unit="MiB", ours=peak, less_is_better=True, note=note)


def open_shards(num_shards: int, folder: Path) -> Iterator[Row]:
    """Read a sample of each of some shards through a window of 16, and look at what stays in memory."""
    records = []
    for number in range(num_shards):
        plan = ShardPlan(name=f"train-{number:06d}.tar", split="train", images=(), spec=ImageSpec())
        keys = [f"{at:012d}" for at in range(SAMPLES_PER_SHARD)]
        samples = ({"__key__": key, "jpg": b"x" * 64, "json": b'{"image_id": 1, "captions": ["a"]}'} for key in keys)
        records.append(write_samples(samples, plan, folder, plan_digest="", set_aside=()))
    reader = ShardReader(folder, records, most_open=_WINDOW_SHARDS)
    tracemalloc.start()
    for number in range(num_shards):
        reader.read(number * SAMPLES_PER_SHARD)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    what = f"memory of the indices of open shards, {num_shards} of 1,000 samples read in a window of {_WINDOW_SHARDS}"
    yield Row(what=what, unit="MiB", ours=kept / 2**20, less_is_better=True)


def scans(num_images: int, folder: Path) -> Iterator[Row]:
    """Scan a tar of images of 50 kB with captions; nobody can leave out the SHA-256 of its bytes."""
    path, content = folder / "0.tar", os.urandom(50_000)
    write_tar(path, tar_samples([f"{number:09d}" for number in range(num_images)], content=content))
    task = TarTask(str(path), "txt", "auto")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves the files of its shards open
        seconds = interleaved(
            {
                "ours": lambda: scan_task(task),
                "stock webdataset, no checksum": lambda: sum(1 for _ in WebDataset(str(path), shardshuffle=False)),
                "SHA-256 alone": lambda: sha256_of(path),
            },
            rounds=3,
        )
        gc.collect()
    megabytes = path.stat().st_size / 1e6
    yield Row.of_seconds(
        "scan a tar for an index, images of 50 kB, one process", seconds, unit="MB/s", count=round(megabytes)
    )


def measure(
    *,
    num_shards: int = 5_000_000,
    num_shards_of_peer: int = 10_000,
    num_images: int = 1_000_000,
    num_open: int = 64,
    num_scanned: int = 4000,
    folder: Path | None = None,
) -> Iterator[Row]:
    """Lay out, open, read and plan sets of millions.

    Args:
        num_shards: number of shards of 1,000 samples.
        num_shards_of_peer: the same where the peer is measured, too.
        num_images: number of images of a source, each with five captions; a million take 5 GB of disk.
        num_open: number of shards that are read one after another.
        num_scanned: number of images in a tar that is scanned.
        folder: folder to write in; else a temporary one.
    """
    yield from orders(num_shards, num_shards_of_peer)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for what, rows, number in (
            ("manifest", manifests, num_shards),
            ("source", sources, num_images),
            ("open", open_shards, num_open),
            ("scan", scans, num_scanned),
        ):
            (Path(scratch) / what).mkdir()
            yield from rows(number, Path(scratch) / what)


BENCHMARK = Benchmark(
    measure,
    small={"num_shards": 20_000, "num_shards_of_peer": 100, "num_images": 200, "num_open": 2, "num_scanned": 20},
    takes_minutes=True,
)
