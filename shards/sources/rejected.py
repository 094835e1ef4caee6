"""Rejected images and captions of a source: how many may be set aside, and the file that lists them."""

import json
from collections.abc import Sequence
from pathlib import Path

from shards.samples import SetAside
from shards.storage.folders import ShardFolder, write_file

REJECTED_NAME = "rejected.jsonl"
_NUM_NAMED = 10


def refuse_many(rejected: Sequence[SetAside], num_images: int, *, share: float) -> None:
    """Check that no more is set aside than wanted; one is always allowed.

    Args:
        rejected: images and captions that are set aside.
        num_images: number of images of the source, those included.
        share: largest share of the images that may be set aside.

    Raises:
        ValueError: there are more.
    """
    limit = max(1, int(share * num_images))
    if len(rejected) <= limit:
        return
    named = "; ".join(one.reason for one in rejected[:_NUM_NAMED])
    more = f"; and {len(rejected) - _NUM_NAMED} more" if len(rejected) > _NUM_NAMED else ""
    raise ValueError(
        f"{len(rejected)} images or captions of {num_images} images are faulty, more than the {limit} that may be set "
        f"aside ({named}{more}); fix the source, or raise --max-rejected; what is written is kept"
    )


def list_rejected(rejected: Sequence[SetAside], folder: ShardFolder) -> None:
    """Write ``rejected.jsonl``, the key and the reason of each, an object a line; without any, remove the file.

    Raises:
        OSError: it cannot be written.
    """
    lines = [json.dumps({"key": one.key, "reason": one.reason}) for one in rejected]
    if lines:
        write_file(folder, REJECTED_NAME, "".join(f"{line}\n" for line in lines).encode())
    elif isinstance(folder, Path):
        (folder / REJECTED_NAME).unlink(missing_ok=True)
    else:
        folder.remove(REJECTED_NAME)
