"""Cache of captions and scores, keyed by digests of the model and of the data.

An entry may be deleted at any time; it is then computed again.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter

from captioning.config import Precision
from captioning.data.tokenizers import PTB
from captioning.evaluation.behaviour import CROPPED_PERCENT, REENCODED_QUALITY, Variant
from captioning.evaluation.metrics import ImageId
from captioning.generation.config import GenerationConfig
from captioning.training.checkpoint_description import VOCABULARY, WEIGHTS, CheckpointDescription
from cluster.data.shard_set import ShardSet
from cluster.errors import one_line
from cluster.evaluation.evaluate import Evaluation, caption_variants, evaluate_split
from shards.storage.document import adapter_of
from shards.storage.files import replace_file

logger = logging.getLogger(__name__)

CACHE_FOLDER = "evaluations"
"""Name of the cache's folder within the home folder."""
_VERSION = 2  # part of the key; increase it when the beam search, the tokenizer or the scores change

T = TypeVar("T")


class EvaluatedModel(Protocol):
    """A checkpoint whose captions are cached, such as the registry's ``ResolvedModel``."""

    @property
    def folder(self) -> Path:
        """Return the checkpoint's folder."""
        ...

    @property
    def description(self) -> CheckpointDescription:
        """Return the content of ``checkpoint.json``."""
        ...

    @property
    def precision(self) -> Precision:
        """Return the precision in which the model computes."""
        ...


def model_digest(description: CheckpointDescription) -> str:
    """Return the sha256 of everything that determines a checkpoint's captions, the same for its copy in a registry."""
    content = {
        "files": {name: description.files[name] for name in (VOCABULARY, WEIGHTS)},
        "model": description.model.resolved(),
        "max_caption_words": description.max_caption_words,
    }
    return _sha256(_encode(content))


def cached_evaluation(
    model: EvaluatedModel,
    shard_set: ShardSet,
    split: str,
    *,
    generation: GenerationConfig,
    batch_size: int,
    cache: Path,
    progress: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Return the result of ``evaluate_split``, from the cache if it was computed before.

    Args:
        model: checkpoint to evaluate.
        shard_set: shard set that has the split.
        split: name of the split.
        generation: settings of the search for captions.
        batch_size: number of images per batch; not part of the key.
        cache: folder of the cache.
        progress: callback, called with the number of images done.

    Raises:
        ValueError, FileNotFoundError: as ``evaluate_split``.
    """
    step = model.description.step
    evaluation = _cached(
        cache,
        "scores",
        _key(model, shard_set, split, generation),
        Evaluation,
        lambda: evaluate_split(
            model.folder,
            shard_set,
            split,
            step=step,
            generation=generation,
            batch_size=batch_size,
            precision=model.precision,
            progress=progress,
        ),
    )
    progress(len(evaluation.captions))
    _warn_of_left_out(evaluation)
    return _completed(evaluation, step, generation)


def _warn_of_left_out(evaluation: Evaluation) -> None:
    if evaluation.left_out:
        logger.warning(
            "split %s: %d of %d images are left out of the scores, because no human caption of theirs has a word "
            "(first: image %s)",
            evaluation.split,
            len(evaluation.left_out),
            len(evaluation.captions),
            evaluation.left_out[0],
        )


def find_evaluation(
    model: EvaluatedModel, shard_set: ShardSet, split: str, *, generation: GenerationConfig, cache: Path
) -> Evaluation | None:
    """Return the result of ``evaluate_split`` if it was computed before; arguments as in ``cached_evaluation``."""
    key = _key(model, shard_set, split, generation)
    try:
        found = _read(_path(cache, "scores", key), key, adapter_of(Evaluation))
    except (ValueError, OSError):
        return None
    return _completed(found, model.description.step, generation)


def _completed(found: Evaluation, step: int, generation: GenerationConfig) -> Evaluation:
    """Return a cached evaluation with what its content does not say for sure."""
    # The step is not part of the key: two steps may have the same weights. The settings are; an earlier release stored
    # a beam size alone.
    return replace(found, step=step, generation=generation)


def cached_variants(
    model: EvaluatedModel,
    shard_set: ShardSet,
    split: str,
    *,
    num_images: int,
    seed: int,
    generation: GenerationConfig,
    batch_size: int,
    cache: Path,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[Variant, dict[ImageId, str]]:
    """Return the result of ``caption_variants``, from the cache if it was computed before.

    Arguments are those of ``caption_variants`` and ``cached_evaluation``.
    """
    key = _key(model, shard_set, split, generation) | {
        "num_images": num_images,
        "seed": seed,
        "reencoded_quality": REENCODED_QUALITY,
        "cropped_percent": CROPPED_PERCENT,
    }
    return _cached(
        cache,
        "variants",
        key,
        dict[Variant, dict[ImageId, str]],
        lambda: caption_variants(
            model.folder,
            shard_set,
            split,
            num_images=num_images,
            seed=seed,
            generation=generation,
            batch_size=batch_size,
            precision=model.precision,
            progress=progress,
        ),
    )


def _key(model: EvaluatedModel, shard_set: ShardSet, split: str, generation: GenerationConfig) -> dict[str, Any]:
    tokenizer = shard_set.vocabulary.tokenizer
    return {
        "version": _VERSION,
        "scorers": package_version("pycocoevalcap"),
        "model": model_digest(model.description),
        "shards": shard_set.manifest.digest,
        "split": split,
        # Earlier releases had a beam size alone, as these settings have where the others say nothing new.
        **generation.summary(),
        # Earlier releases had one tokenizer and one precision, and no names for them.
        **({} if tokenizer is PTB else {"tokenizer": tokenizer.name}),
        **({} if model.precision == "fp32" else {"precision": model.precision}),
    }


def _cached(folder: Path, what: str, key: Mapping[str, Any], kind: type[T], compute: Callable[[], T]) -> T:
    path = _path(folder, what, key)
    adapter = adapter_of(kind)
    try:
        found = _read(path, key, adapter)
    except FileNotFoundError:
        pass
    except (ValueError, OSError) as error:
        logger.warning("%s is damaged (%s); computing it again", path, one_line(error, with_kind=False))
    else:
        logger.info("%s of model %s on split %s: read from %s", what, key["model"][:12], key["split"], path)
        return found
    value = compute()
    content = adapter.dump_python(value, mode="json")
    document = {"key": dict(key), "content": content, "digest": _digest(key, content)}
    try:
        replace_file(path, _encode(document))
    except OSError as error:
        logger.warning("%s cannot be written (%s); it will be computed again next time", path, error.strerror)
    return value


def _path(folder: Path, what: str, key: Mapping[str, Any]) -> Path:
    return folder / f"{what}-{_sha256(_encode(key))[:32]}.json"


def _read(path: Path, key: Mapping[str, Any], adapter: TypeAdapter[T]) -> T:
    document = json.loads(path.read_bytes())
    if not isinstance(document, dict) or document.get("digest") != _digest(key, document.get("content")):
        raise ValueError("its digest does not match its content")
    return adapter.validate_python(document["content"])


def _digest(key: Mapping[str, Any], content: object) -> str:
    return _sha256(_encode([key, content]))


def _encode(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
