"""Description of a batch with bad samples: a JSON file in the run's folder, for people to read."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from captioning.data.batches import BadSample
from captioning.training.bad_samples import BadSampleError
from shards.storage.files import replace_file


def bad_batch_path(run_folder: Path, step: int) -> Path:
    """Return the path of the description of a step's batch; step 0 stands for a validation."""
    return run_folder / "bad-samples" / (f"step-{step:08d}.json" if step else "validation.json")


def write_bad_batch(path: Path, step: int, bad: Sequence[BadSample], losses: Mapping[str, float]) -> None:
    """Write which samples of a step are bad and why, and the losses of its batch.

    Args:
        path: file to write.
        step: number of the step that failed; 0 for a validation.
        bad: the bad samples.
        losses: loss of each image by key, in nats, mean over its words; a value that is not finite becomes null.
    """
    document = {
        "step": step,
        "bad": [sample._asdict() for sample in bad],
        "losses_nats": {key: loss if math.isfinite(loss) else None for key, loss in losses.items()},
    }
    replace_file(path, json.dumps(document, indent=1).encode() + b"\n")


def save_bad_batch(run_folder: Path, error: BadSampleError, *, writes: bool = True) -> str:
    """Write the description of an error's batch; return a hint with its path, to append to the error's message.

    Args:
        run_folder: folder of the run.
        error: error that names the bad samples.
        writes: whether this process writes the file; when several ranks raise the same error, only one should.
    """
    path = bad_batch_path(run_folder, error.step)
    if writes:
        write_bad_batch(path, error.step, error.bad, error.losses)
    return f"; the whole batch is described in {path}"
