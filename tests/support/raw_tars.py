"""Shards with arbitrary members, as other programs write them."""

import io
import json
import tarfile
from dataclasses import replace

from shards.manifest import ShardRecord, load_manifest
from shards.storage.files import sha256_of


def description(image_id, **changes):
    return json.dumps({"image_id": image_id, "captions": [f"Caption {image_id}."], **changes}).encode()


def write_tar(path, members, *, form=tarfile.PAX_FORMAT):
    """Write a tar of (name, content) members; a member with content None is a folder."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))


def record_of(path, num_samples):
    num_bytes, sha256 = path.stat().st_size, sha256_of(path)
    return ShardRecord(
        name=path.name, split="other", num_samples=num_samples, num_bytes=num_bytes, sha256=sha256, plan_digest=""
    )


def spoil_first_image(shards):
    """Make the first training image of a shard set no image, in a set that is whole by its manifest; return its key."""
    manifest = load_manifest(shards)
    record = next(shard for shard in manifest.shards if shard.name == "train-000000.tar")
    path = shards / record.name
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start : start + 9] = b"?" * 9
    path.write_bytes(content)
    altered = replace(record, sha256=sha256_of(path))
    replace(manifest, shards=tuple(altered if one == record else one for one in manifest.shards)).save(shards)
    return content[start - 512 : start].partition(b".jpg")[0].decode()
