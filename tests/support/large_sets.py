"""Sources and manifests of millions of images, drawn within minutes: the pictures are none, and there are no shards."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shards.images import ImageSpec
from shards.manifest import Manifest
from shards.table.shard_table import ShardTable
from shards.table.table_file import table_schema

SAMPLES_PER_SHARD = 1000
_CAPTIONS_PER_IMAGE = 5
_SENTENCE = "a man woman dog cat train bus plate of food is sitting standing on in the with red large small street"


def write_manifest(folder: Path, num_shards: int) -> None:
    """Write the manifest of a set of so many shards of 1,000 samples, more than 10,000, which do not exist."""
    schema, rng = table_schema(), np.random.default_rng(0)

    def digests() -> Any:
        content = pa.py_buffer(rng.bytes(32 * num_shards))
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), num_shards, [None, content])

    splits = ["train"] * (num_shards - num_shards // 100) + ["val"] * (num_shards // 100)
    no_reasons = pa.array([], schema.field("set_aside").type.value_type)
    columns = {
        "name": [f"{split}-{number:06d}.tar" for number, split in enumerate(splits)],
        "split": splits,
        "num_samples": np.full(num_shards, SAMPLES_PER_SHARD),
        "num_bytes": np.full(num_shards, 30_000_000),
        "sha256": digests(),
        "plan_digest": digests(),
        "set_aside": pa.ListArray.from_arrays(np.zeros(num_shards + 1, np.int32), no_reasons),
        "tar": pa.nulls(num_shards, schema.field("tar").type),
    }
    Manifest(
        shards=ShardTable(pa.table(columns, schema=schema), digest="0" * 64),
        image_spec=ImageSpec(),
        codec_versions={},
        samples_per_shard=SAMPLES_PER_SHARD,
        seed=0,
        vocabulary_digest="0" * 64,
        minimum_word_count=5,
    ).save(folder)


def write_source(folder: Path, num_images: int) -> Path:
    """Write a source in COCO layout: five captions an image, and files of 50 to 250 kB, nearly all of it holes.

    Returns:
        The annotation file.
    """
    rng = random.Random(0)
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    path = folder / "annotations" / "captions_train.json"
    with path.open("w") as file:
        file.write('{"images": [')
        file.writelines(_separated(json.dumps(_image(number)) for number in range(num_images)))
        file.write('], "annotations": [')
        captions = ((number, _caption(rng)) for number in range(num_images) for _ in range(_CAPTIONS_PER_IMAGE))
        entries = ({"image_id": number, "id": at, "caption": text} for at, (number, text) in enumerate(captions))
        file.writelines(_separated(map(json.dumps, entries)))
        file.write("]}")
    for number in range(num_images):
        _write_file(folder / "images" / _image(number)["file_name"], number, rng.randrange(50_000, 250_000))
    return path


def _image(number: int) -> dict[str, Any]:
    url = f"http://images.cocodataset.org/train2017/{number:012d}.jpg"
    return {"id": number, "file_name": f"{number:012d}.jpg", "width": 640, "height": 480, "coco_url": url}


def _caption(rng: random.Random) -> str:
    return f"{' '.join(rng.choices(_SENTENCE.split(), k=10)).capitalize()}."


def _separated(texts: Iterator[str]) -> Iterator[str]:
    yield next(texts)
    for text in texts:
        yield f", {text}"


def _write_file(path: Path, number: int, num_bytes: int) -> None:
    """Write a file that differs from the others in the middle alone."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        os.pwrite(descriptor, b"%016d" % number, num_bytes // 2)
        os.ftruncate(descriptor, num_bytes)
    finally:
        os.close(descriptor)
