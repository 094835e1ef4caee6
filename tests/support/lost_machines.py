"""A machine that is lost with a run's folder, before the run's end is on its bucket, where checkpoints are damaged."""

import shutil
from dataclasses import replace

from cluster.runs.record import RECORD_NAME


def lose_machine(folder, record, system, root):
    """Remove a finished run's folder; leave it unfinished on the bucket, with its two latest checkpoints damaged.

    Args:
        folder: folder of the run.
        record: record of the run.
        system: file system of the bucket.
        root: folder of the bucket below which the run's checkpoints are.
    """
    shutil.rmtree(folder)
    (copy,) = system.glob(f"{root}/**/{RECORD_NAME}")
    system.pipe(copy, replace(record, is_finished=False).content())
    latest_first = sorted(record.checkpoints, key=lambda checkpoint: -checkpoint.step)
    for name, checkpoint in zip(("model.safetensors", "optimizer.pt"), latest_first, strict=False):
        (damaged,) = system.glob(f"{root}/**/{checkpoint.name}/{name}")
        content = bytearray(system.cat(damaged))
        content[len(content) // 2] ^= 1
        system.pipe(damaged, bytes(content))
