"""Shards with arbitrary members, as other programs write them."""

import io
import json
import tarfile
from dataclasses import replace

from shards.manifest import load_manifest
from shards.storage.files import sha256_of
from shards.table.shard_table import ShardRecord
from tests.support.pictures import encoded, noise


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


def tar_samples(names, *, suffix="jpg", captions=None, json_of=None, content=None):
    """Return members of a tar as img2dataset writes them: an image, a ``.txt`` and a ``.json`` of each key.

    Args:
        names: keys of the samples.
        suffix: suffix of the images.
        captions: text of each key's ``.txt``; no ``.txt`` if it returns None.
        json_of: fields of each key's ``.json``; no ``.json`` if it is None.
        content: content of the images; a drawn JPEG if None.
    """
    content = encoded(noise(24, 32)) if content is None else content
    members = []
    for name in names:
        members.append((f"{name}.{suffix}", content))
        text = f"A dog and {name}." if captions is None else captions(name)
        if text is not None:
            members.append((f"{name}.txt", text.encode()))
        if json_of is not None:
            members.append((f"{name}.json", json.dumps(json_of(name)).encode()))
    return members
