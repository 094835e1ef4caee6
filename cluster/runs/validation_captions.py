"""Captions of the same few validation images at each validation of a run: a small file each, in the run's folder.

A validation that a restarted run repeats finds its file, and keeps it.
"""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cluster.errors import one_line
from shards.storage.files import replace_file

logger = logging.getLogger(__name__)

NUM_IMAGES = 16
"""Number of images: the first ones of the validation split."""
_FOLDER = "validation-captions"
_FILE_NAME = re.compile(r"step-(\d+)\.json")


class ValidationCaptions(NamedTuple):
    """The captions of one validation.

    Attributes:
        step: number of training steps done.
        captions: caption by the number of its image in the split; an image that cannot be read has none.
        intervals: confidence interval of each score of the whole split, by name; empty if there are no such scores.
    """

    step: int
    captions: Mapping[int, str]
    intervals: Mapping[str, tuple[float, float]]


def save_captions(run_folder: Path, found: ValidationCaptions) -> None:
    """Write the captions of the first images, unless those of this step are there; a full disk is a warning.

    Args:
        run_folder: folder of the run.
        found: captions of a validation, of these images or more.
    """
    path = run_folder / _FOLDER / f"step-{found.step:08d}.json"
    if path.exists():
        return
    document = {
        "step": found.step,
        "captions": {number: found.captions[number] for number in sorted(found.captions) if number < NUM_IMAGES},
        "intervals": {name: list(found.intervals[name]) for name in sorted(found.intervals)},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(document, indent=1).encode() + b"\n")
    except OSError as error:  # only the page of the run shows them
        logger.warning("%s cannot be written: %s", path, one_line(error, with_kind=False))


def load_captions(run_folder: Path) -> list[ValidationCaptions]:
    """Read the captions of all validations of a run, by step; a damaged file is left out, with a warning."""
    found = []
    folder = run_folder / _FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not _FILE_NAME.fullmatch(path.name):
            continue
        try:
            content = json.loads(path.read_bytes())
            captions = {int(number): str(caption) for number, caption in content["captions"].items()}
            intervals = {name: (float(low), float(high)) for name, (low, high) in content["intervals"].items()}
            found.append(ValidationCaptions(int(content["step"]), captions, intervals))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            logger.warning("%s is damaged (%s); the page of the run leaves it out", path, one_line(error))
    return sorted(found, key=lambda one: one.step)
