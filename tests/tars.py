""""""

import json

from shards.manifest import ShardRecord, sha256_of


def description(image_id, **changes):
    return json.dumps({"image_id": image_id, "captions": [f"Caption {image_id}."], **changes}).encode()


def record_of(path, num_samples):
    num_bytes, sha256 = path.stat().st_size, sha256_of(path)
    return ShardRecord(
        name=path.name, split="other", num_samples=num_samples, num_bytes=num_bytes, sha256=sha256, plan_digest=""
    )
