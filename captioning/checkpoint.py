"""What a checkpoint folder holds: all that resuming and captioning need, and digests to tell whether it is whole."""

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file

from captioning.config import ModelConfig
from captioning.model import CaptionModel
from captioning.training import TrainingState
from captioning.vocabulary import Vocabulary, load_vocabulary

FORMAT_VERSION = 1
DESCRIPTION_NAME = "checkpoint.json"
_WEIGHTS, _OPTIMIZER, _VOCABULARY, _CONFIG = "model.safetensors", "optimizer.pt", "vocabulary.txt", "config.yaml"
_UNFINISHED_SUFFIX = ".unfinished"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointDescription:
    """What a checkpoint is."""

    step: int
    model: ModelConfig
    vocabulary_digest: str
    max_caption_words: int
    lineage: dict[str, str] = field(default_factory=dict)
    """Where it comes from: run, digests of data, commit."""
    metrics: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of each file."""
    format_version: int = FORMAT_VERSION


def save_checkpoint(
    folder: Path, state: TrainingState, vocabulary: Vocabulary, *, description: CheckpointDescription, config: str
) -> None:
    """Write a checkpoint into a new folder; its description comes last, by a rename: without it there is none.

    Args:
        folder: created; must not exist.
        state: of the bare model.
        vocabulary: of the model.
        description: all but the digests of the files.
        config: the resolved configuration of the run, YAML.
    """
    folder.mkdir(parents=True)
    weights = {name: tensor.contiguous() for name, tensor in state.model.state_dict().items()}
    save_file(weights, folder / _WEIGHTS)
    torch.save(state.optimizer.state_dict(), folder / _OPTIMIZER)
    (folder / _VOCABULARY).write_bytes(vocabulary.content())
    (folder / _CONFIG).write_text(config, encoding="utf-8")
    files = {path.name: _sync_and_digest(path) for path in sorted(folder.iterdir())}
    unfinished = folder / (DESCRIPTION_NAME + _UNFINISHED_SUFFIX)
    unfinished.write_text(json.dumps(asdict(description) | {"files": files}, indent=1) + "\n", encoding="utf-8")
    _sync_and_digest(unfinished)
    unfinished.rename(folder / DESCRIPTION_NAME)
    for changed in (folder, folder.parent):
        _sync_folder(changed)


def describe_checkpoint(folder: Path) -> CheckpointDescription:
    """Read what a checkpoint is, and check that its files are whole; a copy for captioning has no optimizer's.

    Raises:
        FileNotFoundError: the folder is no checkpoint.
        ValueError: a file is missing or altered, or the format is another version's.
    """
    path = folder / DESCRIPTION_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no {DESCRIPTION_NAME}; give a checkpoint's folder")
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{folder} has format version {version}, this release reads {FORMAT_VERSION}; use the one that wrote it"
            )
        description = TypeAdapter(CheckpointDescription).validate_python(content)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, ValidationError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())[:200]}); use another checkpoint") from None
    if unlisted := {_WEIGHTS, _VOCABULARY, _CONFIG} - description.files.keys():
        raise ValueError(f"{path} is damaged (it does not list {min(unlisted)}); use another checkpoint")
    for name, digest in description.files.items():
        file = folder / name
        if name == _OPTIMIZER and not file.exists():
            continue
        if not file.is_file() or _sync_and_digest(file, sync=False) != digest:
            raise ValueError(f"{file} is missing or altered; use another checkpoint")
    return description


def load_model(
    folder: Path, *, device: torch.device | None = None
) -> tuple[CaptionModel, Vocabulary, CheckpointDescription]:
    """Load a checkpoint's model for captioning, in eval mode, with its vocabulary and description.

    Raises:
        FileNotFoundError: the folder is no checkpoint.
        ValueError: the checkpoint is damaged.
    """
    description = describe_checkpoint(folder)
    vocabulary = load_vocabulary(folder / _VOCABULARY)
    model = CaptionModel(description.model, vocabulary_size=len(vocabulary), load_weights=False)
    model.load_state_dict(load_file(folder / _WEIGHTS))
    return model.to(device or torch.device("cpu")).eval(), vocabulary, description


def restore(state: TrainingState, folder: Path, vocabulary: Vocabulary) -> CheckpointDescription:
    """Put a checkpoint into the training state, in place.

    Raises:
        FileNotFoundError: the folder is no checkpoint.
        ValueError: the checkpoint is damaged, of another vocabulary, or a copy without the optimizer's state.
    """
    description = describe_checkpoint(folder)
    if description.vocabulary_digest != vocabulary.digest:
        raise ValueError(
            f"{folder} is of another vocabulary ({description.vocabulary_digest[:12]}) than the shard set's "
            f"({vocabulary.digest[:12]}); train under another --name"
        )
    if not (folder / _OPTIMIZER).is_file():
        raise ValueError(
            f"{folder} is a copy for captioning, without {_OPTIMIZER}; resume from the run's own checkpoint"
        )
    try:
        optimizer = torch.load(folder / _OPTIMIZER, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError:
        raise ValueError(f"{folder / _OPTIMIZER} holds more than tensors and numbers; use another checkpoint") from None
    state.model.load_state_dict(load_file(folder / _WEIGHTS))
    state.optimizer.load_state_dict(optimizer)
    state.step = description.step
    return description


def inference_files(folder: Path) -> Mapping[str, Path]:
    """Return the files of a checkpoint that captioning needs, by name: all but the optimizer's."""
    return {path.name: path for path in sorted(folder.iterdir()) if path.name != _OPTIMIZER}


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_and_digest(path: Path, *, sync: bool = True) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
    return digest
