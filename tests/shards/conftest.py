import hashlib

import pytest

from shards.images import ImageSpec
from shards.manifest import Manifest
from shards.samples import SetAside
from shards.table.shard_table import ShardRecord

_CONTENTS = {"train-000000.tar": b"first", "train-000001.tar": b"second", "val-000000.tar": b"third"}


@pytest.fixture
def three_shards(tmp_path):
    """Return a folder with three small files that a manifest names as shards, and the manifest."""
    records = []
    for name, content in _CONTENTS.items():
        path = tmp_path / name
        path.write_bytes(content)
        faults = (SetAside(key="000000000007", reason="7.jpg: it is empty; fetch it again"),)
        records.append(
            ShardRecord(
                name=name,
                split=name.partition("-")[0],
                num_samples=len(content),
                num_bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                plan_digest="0" * 64,
                set_aside=faults if name.startswith("val") else (),
            )
        )
    manifest = Manifest(
        shards=tuple(records),
        image_spec=ImageSpec(shorter_side_px=64),
        codec_versions={"pillow": "1.2", "libjpeg": "3.4"},
        samples_per_shard=10,
        seed=3,
        vocabulary_digest="1" * 64,
        minimum_word_count=2,
        set_aside=(SetAside(key="images[3]", reason="images[3] has no id"),),
    )
    manifest.save(tmp_path)
    return tmp_path, manifest
