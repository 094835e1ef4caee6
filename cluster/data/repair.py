"""Repair of a shard set: damaged shards are written again from the source, to the same bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from cluster.data.shard_set import ShardSet
from cluster.errors import Refusal
from shards.table.shard_table import ShardRecord


def repair(
    shard_set: ShardSet, source: Path, *, progress: Callable[[ShardRecord], None] = lambda record: None
) -> list[str]:
    """Write the damaged shards of a set again, by the settings in its manifest; sound ones are left as they are.

    Args:
        shard_set: shard set to repair.
        source: folder that the set was made from, of a form that is recognized.
        progress: callback, called after each shard with its record.

    Returns:
        The names of the shards that were written.

    Raises:
        Refusal: the source gives other bytes than the manifest tells; the shards that were sound still are.
        FileNotFoundError, ValueError, OSError: as in ``plan_conversion`` and ``convert``.
    """
    manifest = shard_set.manifest
    has_set_aside = bool(manifest.set_aside) or any(shard.set_aside for shard in manifest.shards)
    config = ConversionConfig(
        splits=tuple(manifest.splits),
        image=manifest.image_spec,
        samples_per_shard=manifest.samples_per_shard,
        minimum_word_count=manifest.minimum_word_count,
        on_bad="skip" if has_set_aside else "stop",
        max_rejected=1.0,
        on_leak="keep",
        tokenizer=cast("Any", shard_set.vocabulary.tokenizer.name),
        seed=manifest.seed,
    )
    plan = plan_conversion(source, shard_set.folder, config)
    names = [shard.name for shard in plan.missing]
    repaired = convert(plan, num_workers=0, progress=progress)
    if repaired.digest != manifest.digest:
        raise Refusal(
            f"{shard_set.folder}: {source} gave other bytes than before ({repaired.digest[:12]}, and the set was "
            f"{manifest.digest[:12]})",
            "what was trained on the set before cannot be resumed on it; keep it, or restore a copy",
        )
    return names
