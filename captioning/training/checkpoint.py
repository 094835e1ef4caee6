"""Checkpoint folders: all that resuming and captioning need, with digests that detect damage."""

import os
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from captioning.config import ModelConfig
from captioning.data.vocabulary import Vocabulary, load_vocabulary
from captioning.model.caption_model import CaptionModel, allocate, meta_model
from captioning.training.checkpoint_description import (
    CONFIG,
    DESCRIPTION_NAME,
    LAST_WEIGHTS,
    OPTIMIZER,
    VOCABULARY,
    WEIGHTS,
    CheckpointDescription,
    describe_checkpoint,
    file_digest,
    format_version_for,
    seal,
)
from captioning.training.full_disk import full_disk_names
from captioning.training.loop import TrainingState

_UNFINISHED_SUFFIX = ".unfinished"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSnapshot:
    """A copy of the training state at one step, so that training can continue while the copy is written."""

    step: int
    weights: dict[str, Tensor]
    """Tensors of the bare model, by name, averaged if the training averages them; frozen ones share memory with it."""
    last_weights: dict[str, Tensor]
    """Trained weights of the last step, by name, if ``weights`` has their average; else empty."""
    optimizer: dict[str, Any]
    """``state_dict`` of the optimizer."""


def snapshot(state: TrainingState) -> TrainingSnapshot:
    """Copy to the CPU what training changes: trainable weights, all buffers, and the optimizer's state.

    Frozen weights (``requires_grad`` off) are not copied, because training never changes them. Write the snapshot
    before loading other weights into the model or making frozen ones trainable.
    """
    frozen = {name for name, parameter in state.model.named_parameters() if not parameter.requires_grad}
    tensors = state.model.state_dict()
    average = state.average.weights if state.average else {}
    weights = {name: tensor if name in frozen else _copy(average.get(name, tensor)) for name, tensor in tensors.items()}
    taken = TrainingSnapshot(
        step=state.step,
        weights=weights,
        last_weights={name: _copy(tensors[name]) for name in average},
        optimizer=_copy(state.optimizer.state_dict()),
    )
    for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
        torch.cuda.synchronize(device)  # the copies are asynchronous; the next step would overwrite their source
    return taken


def checkpoint_bytes(config: ModelConfig, *, vocabulary_size: int, is_averaged: bool = False) -> int:
    """Estimate the size of a checkpoint in bytes, weights and AdamW's two moments, without allocating the model.

    Args:
        config: settings of the model.
        vocabulary_size: number of words in the vocabulary.
        is_averaged: whether the training keeps a moving average of the weights.
    """
    model = meta_model(config, vocabulary_size=vocabulary_size)
    trained = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
    return sum(tensor.nbytes for tensor in model.state_dict().values()) + (2 + is_averaged) * trained


def save_checkpoint(
    folder: Path,
    state: TrainingState | TrainingSnapshot,
    vocabulary: Vocabulary,
    *,
    description: CheckpointDescription,
    config: str,
) -> None:
    """Write a checkpoint into a new folder. The description comes last, by a rename, and marks the checkpoint complete.

    A snapshot may be written by a thread other than the training thread; the bytes are the same.

    Args:
        folder: new folder, which must not exist.
        state: training state of the bare model, or a snapshot of it.
        vocabulary: vocabulary of the model.
        description: description of the checkpoint, without the digests of its files.
        config: resolved configuration of the run, as YAML.

    Raises:
        OSError: the folder cannot be written; of a full disk, the error names the folder.
    """
    taken = state if isinstance(state, TrainingSnapshot) else snapshot(state)
    folder.mkdir(parents=True)
    with full_disk_names(folder):
        _write(folder, taken, vocabulary, description=description, config=config)
    for changed in (folder, folder.parent):
        _sync_folder(changed)


def _write(
    folder: Path, taken: TrainingSnapshot, vocabulary: Vocabulary, *, description: CheckpointDescription, config: str
) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in taken.weights.items()}, folder / WEIGHTS)
    if taken.last_weights:
        save_file({name: tensor.contiguous() for name, tensor in taken.last_weights.items()}, folder / LAST_WEIGHTS)
    torch.save(taken.optimizer, folder / OPTIMIZER)
    (folder / VOCABULARY).write_bytes(vocabulary.content())
    (folder / CONFIG).write_text(config, encoding="utf-8")
    files = {path.name: file_digest(path, sync=True) for path in sorted(folder.iterdir())}
    unfinished = folder / (DESCRIPTION_NAME + _UNFINISHED_SUFFIX)
    changed = {"model": description.model.resolved(), "files": files, "format_version": format_version_for(files)}
    content = asdict(description) | changed
    unfinished.write_bytes(seal(content))
    file_digest(unfinished, sync=True)
    unfinished.rename(folder / DESCRIPTION_NAME)


def load_model(
    folder: Path, *, device: torch.device | None = None
) -> tuple[CaptionModel, Vocabulary, CheckpointDescription]:
    """Load a checkpoint's model for captioning, in eval mode, with its vocabulary and description.

    Raises:
        FileNotFoundError: the folder is not a checkpoint.
        ValueError: the checkpoint is damaged.
    """
    description = describe_checkpoint(folder)
    vocabulary = load_vocabulary(folder / VOCABULARY)
    model = meta_model(description.model, vocabulary_size=len(vocabulary))
    _require_shapes(folder / WEIGHTS, model)
    allocate(model)
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model.to(device or torch.device("cpu")).eval(), vocabulary, description


def restore(
    state: TrainingState, folder: Path, vocabulary: Vocabulary, *, description: CheckpointDescription | None = None
) -> CheckpointDescription:
    """Load a checkpoint into a training state, in place.

    Args:
        state: training state of a model of the same shape.
        folder: folder of the checkpoint.
        vocabulary: vocabulary of the model.
        description: description of the checkpoint, if its folder is verified already; None verifies it here.

    Raises:
        FileNotFoundError: the folder is not a checkpoint.
        ValueError: the checkpoint is damaged, has another vocabulary, is a copy without the files of training, or only
            one of checkpoint and state has a moving average.
    """
    description = description or describe_checkpoint(folder)
    if description.vocabulary_digest != vocabulary.digest:
        raise ValueError(
            f"{folder} has another vocabulary ({description.vocabulary_digest[:12]}) than the shard set "
            f"({vocabulary.digest[:12]}); train under another --name"
        )
    is_averaged = LAST_WEIGHTS in description.files
    for name in (OPTIMIZER, LAST_WEIGHTS) if is_averaged else (OPTIMIZER,):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder} has no {name}, so it is a copy for captioning; resume from the run's own checkpoint"
            )
    if is_averaged != (state.average is not None):
        raise ValueError(
            f"{folder} {'has a' if is_averaged else 'has no'} moving average of the weights; resume with the "
            "--training.ema-decay that the run began with"
        )
    try:
        optimizer = torch.load(folder / OPTIMIZER, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError:
        raise ValueError(
            f"{folder / OPTIMIZER} is unsafe: it holds more than tensors and numbers; use another checkpoint"
        ) from None
    restore_weights(state.model, folder)
    if state.average:
        state.average.restore(load_file(folder / LAST_WEIGHTS))
    state.optimizer.load_state_dict(optimizer)
    state.step = description.step
    return description


def restore_weights(model: CaptionModel, folder: Path) -> None:
    """Load the weights of a verified checkpoint into a model of the same shape, in place.

    Raises:
        ValueError: the weights do not fit the model.
    """
    _require_shapes(folder / WEIGHTS, model)
    model.load_state_dict(load_file(folder / WEIGHTS))


def _require_shapes(path: Path, model: CaptionModel) -> None:
    """Check by its header that a file of weights has the model's tensors, before memory is allocated for any.

    Raises:
        ValueError: the file is damaged, or a tensor is missing, unknown or of another shape.
    """
    wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); use another checkpoint") from None
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != wanted.get(name):
            what = f"has shape {found.get(name, 'none')} and not {wanted.get(name, 'none')}"
            raise ValueError(f"{path} does not fit the model: {name} {what}; use another checkpoint")


def _copy(value: Any) -> Any:  # noqa: ANN401  an optimizer's state is a tree of dicts, lists, tensors and numbers
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True, non_blocking=True)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that new names survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
