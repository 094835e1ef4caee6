"""Description of a checkpoint (``checkpoint.json``), and verification of its folder. Imports no torch."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from captioning.config import LONGEST_CAPTION_WORDS, ModelConfig

_adapter: Callable[..., TypeAdapter[Any]] = functools.cache(TypeAdapter)  # to make one takes longer than to read

FORMAT_VERSION = 3
_WITHOUT_AVERAGE = 2
DESCRIPTION_NAME = "checkpoint.json"
_LARGEST_MIB = 16
WEIGHTS, OPTIMIZER, VOCABULARY, CONFIG = "model.safetensors", "optimizer.pt", "vocabulary.txt", "config.yaml"
LAST_WEIGHTS = "last.safetensors"
"""Trained weights of the last step, of a run whose model has their moving average; only training reads them."""
_FOR_TRAINING = (OPTIMIZER, LAST_WEIGHTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointDescription:
    """Content of ``checkpoint.json``."""

    step: int
    model: ModelConfig
    vocabulary_digest: str
    max_caption_words: int
    lineage: dict[str, str] = field(default_factory=dict)
    """Origin of the checkpoint: run, digests of data, commit."""
    metrics: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of each file, by name."""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Check the bounds: a registered version's description is a file that anyone may have written."""
        if not 0 < self.max_caption_words <= LONGEST_CAPTION_WORDS:
            raise ValueError(f"max_caption_words {self.max_caption_words} is not from 1 to {LONGEST_CAPTION_WORDS}")
        if outside := [name for name in self.files if Path(name).name != name]:
            raise ValueError(f"it lists {outside[0]}, which is not in its folder")


def describe_checkpoint(folder: Path, *, for_training: bool = False) -> CheckpointDescription:
    """Read the description of a checkpoint, and verify its files.

    A description in an earlier format version is upgraded to the current one.

    Args:
        folder: folder of the checkpoint.
        for_training: whether the files of training are required; a copy for captioning has none.

    Raises:
        FileNotFoundError: the folder is not a checkpoint.
        NewerFormatError: a later release wrote the checkpoint.
        ValueError: a file is missing, altered or not listed, or the format version is unknown.
    """
    path = folder / DESCRIPTION_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a checkpoint: it has no {DESCRIPTION_NAME}; give a checkpoint's folder"
        )
    content = _read(path)
    try:
        description = _adapter(CheckpointDescription).validate_python(content)
    except ValidationError as error:
        raise _damage(path, str(error)) from None
    if unlisted := {WEIGHTS, VOCABULARY, CONFIG} - description.files.keys():
        raise _damage(path, f"it does not list {min(unlisted)}")
    for name, digest in description.files.items():
        file = folder / name
        if name in _FOR_TRAINING and not file.exists() and not for_training:
            continue
        if not file.is_file() or file_digest(file) != digest:
            raise ValueError(f"{file} is missing or altered; use another checkpoint")
    # Hidden files are allowed: operating systems create them, such as .DS_Store.
    known = {DESCRIPTION_NAME, *description.files}
    if unknown := sorted(file.name for file in folder.glob("[!.]*") if file.name not in known):
        raise ValueError(f"{folder / unknown[0]} is not part of the checkpoint; remove it from the folder")
    return description


def inference_files(folder: Path) -> Mapping[str, Path]:
    """Return the files of a checkpoint that captioning needs, by name: all except those of training."""
    return {path.name: path for path in sorted(folder.glob("[!.]*")) if path.name not in _FOR_TRAINING}


def format_version_for(files: Mapping[str, str]) -> int:
    """Return the oldest format version that says all of a checkpoint with these files.

    A release that knows no average would take it for the weights of the last step, so it is to refuse the checkpoint.
    """
    return FORMAT_VERSION if LAST_WEIGHTS in files else _WITHOUT_AVERAGE


class NewerFormatError(ValueError):
    """The checkpoint has the format version of a later release; it is not damaged."""


def seal(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a description to store, with a digest of its content that reveals any altered bit."""
    digest = hashlib.sha256(_encode(content)).hexdigest()
    return _encode({**content, "digest": digest})


def _encode(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


def _read(path: Path) -> dict[str, Any]:
    """Read a description of any known format version, and upgrade it to the current one."""
    if (num_bytes := path.stat().st_size) > _LARGEST_MIB * 2**20:
        raise _damage(path, f"it has {num_bytes} bytes")
    stored = path.read_bytes()
    try:
        content = json.loads(stored)
    except (ValueError, RecursionError) as error:  # RecursionError: JSON that is nested too deep
        raise _damage(path, str(error)) from None
    if not isinstance(content, dict):
        raise _damage(path, "it is not a JSON object")
    version = content.get("format_version")
    if type(version) is not int or version < 1:
        raise _damage(path, f"it has format version {version}, which no release wrote")
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path.parent} has format version {version}, but this release reads only up to {FORMAT_VERSION}; "
            "use a newer release, such as the one that wrote it"
        )
    # Compared as bytes, because the parsed content would hide some changes, such as spaces between values.
    if version > 1 and stored != seal({name: value for name, value in content.items() if name != "digest"}):
        raise _damage(path, "its digest does not match")
    for earlier in range(version, FORMAT_VERSION):
        content = _UPGRADES[earlier](content)
    return content


def _upgrade_from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrade a description of version 1, which only lacks a digest of the description itself."""
    return content | {"format_version": 2}


def _upgrade_from_2(content: dict[str, Any]) -> dict[str, Any]:
    """Upgrade a description of version 2, whose model always has the weights of the last step."""
    return content | {"format_version": 3}


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _upgrade_from_1, 2: _upgrade_from_2}


def _damage(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is damaged ({' '.join(reason.split())[:200]}); use another checkpoint")


def file_digest(path: Path, *, sync: bool = False) -> str:
    """Return the sha256 of a file; with ``sync``, also flush the file to disk, so that it survives a power failure."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
    return digest
