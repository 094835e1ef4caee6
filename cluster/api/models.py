"""What is done with a trained model: ``evaluate``, ``load``, ``register`` and ``promote``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning.config import Precision
from captioning.generation.config import GenerationConfig
from captioning.serving.image_input import ImageInputConfig
from cluster.api.arguments import (
    as_location,
    connect_and_resolve,
    connect_tracker,
    search_settings,
    storage_or_default,
)
from cluster.config import StorageConfig, TrackingConfig
from cluster.promotion.gate_config import GateConfig
from cluster.resources.environment import set_library_defaults

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from cluster.evaluation.evaluate import Evaluation
    from cluster.evaluation.pictures import LoadedModel
    from cluster.promotion.promotion import Promotion


def evaluate(
    model: Path | str,
    shards: Path | str,
    *,
    split: str = "val",
    beam_size: int = 3,
    generation: GenerationConfig | None = None,
    batch_size: int = 32,
    storage: StorageConfig | None = None,
    tracking: TrackingConfig | None = None,
) -> "Evaluation":
    """Caption each image of a split, score the captions, and log the scores to the model's version and run.

    Args:
        model: ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``runs:/ID``, or the folder of a checkpoint or run.
        shards: shard set: a folder, or any URL that fsspec supports.
        split: split of the shard set.
        beam_size: beam size of the search for captions; 1 is greedy search.
        generation: all settings of the search, instead of the beam size alone.
        batch_size: number of images per batch.
        storage: storage with the home folder; None for CAPTIONING_HOME, or ``runs``.
        tracking: tracker and registry; None for MLFLOW_TRACKING_URI, or the database in the home folder.

    Raises:
        FileNotFoundError: there is no such checkpoint, or a shard is missing.
        ValueError: there is no such model or split, or a shard is damaged.
    """
    storage = storage_or_default(storage)
    client, found = connect_and_resolve(model, storage, tracking)
    from cluster.data.shard_set import ShardSet
    from cluster.promotion.pages import write_pages
    from cluster.registry.scores import evaluate_and_log

    shard_set = ShardSet(as_location(shards), cache_gib=storage.cache_gib)
    evaluation = evaluate_and_log(
        found,
        shard_set,
        split,
        client,
        storage=storage,
        generation=search_settings(beam_size, generation),
        batch_size=batch_size,
    )
    write_pages(found, evaluation, shard_set, client, storage)
    return evaluation


def mlflow_evaluation(
    shards: Path | str, *, split: str = "val", storage: StorageConfig | None = None
) -> dict[str, Any]:
    """Return the arguments with which ``mlflow.models.evaluate`` gives a registered version the scores of ``evaluate``.

    Example:
        mlflow.models.evaluate("models:/captioner/1", **mlflow_evaluation("shards"))

    Args:
        shards: shard set: a folder, or any URL that fsspec supports.
        split: split of the shard set, whose images are all held in memory.
        storage: storage with the home folder; None for CAPTIONING_HOME, or ``runs``.

    Raises:
        FileNotFoundError: a shard is missing.
        ValueError: there is no such split, or a shard is damaged.
    """
    set_library_defaults()
    from cluster.data.shard_set import ShardSet
    from cluster.registry.mlflow_evaluation import evaluation_arguments

    return evaluation_arguments(ShardSet(as_location(shards), cache_gib=storage_or_default(storage).cache_gib), split)


def load(
    model: Path | str,
    *,
    beam_size: int = 3,
    generation: GenerationConfig | None = None,
    batch_size: int = 32,
    storage: StorageConfig | None = None,
    tracking: TrackingConfig | None = None,
) -> "LoadedModel":
    """Load a model for captioning, on a GPU if there is one.

    Args:
        model: ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``runs:/ID``, or the folder of a checkpoint or run.
        beam_size: beam size of the search for captions; 1 is greedy search.
        generation: all settings of the search, instead of the beam size alone.
        batch_size: number of images per batch.
        storage: storage with the home folder; None for CAPTIONING_HOME, or ``runs``.
        tracking: tracker and registry; None for MLFLOW_TRACKING_URI, or the database in the home folder.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: there is no such model, version or run.
    """
    storage = storage_or_default(storage)
    set_library_defaults()
    from cluster.evaluation.evaluate import load_captioner
    from cluster.evaluation.pictures import LoadedModel
    from cluster.registry.models import resolve_to_read

    search = search_settings(beam_size, generation)
    found = resolve_to_read(str(model), lambda: connect_tracker(storage, tracking, only_reads=True))
    captioner = load_captioner(found.folder, generation=search, batch_size=batch_size, precision=found.precision)
    return LoadedModel(str(found), captioner)


def register(
    model: Path | str,
    name: str,
    *,
    beam_size: int = 3,
    generation: GenerationConfig | None = None,
    precision: Precision = "fp32",
    intake: ImageInputConfig | None = None,
    storage: StorageConfig | None = None,
    tracking: TrackingConfig | None = None,
) -> "ModelVersion":
    """Register a checkpoint in MLflow as a new version of a model, with the alias ``challenger``.

    Args:
        model: ``runs:/ID``, the folder of a checkpoint or run, or another registered version.
        name: name of the model in the registry.
        beam_size: beam size for requests to a server that give none.
        generation: all settings of the search for such requests, instead of the beam size alone.
        precision: precision in which the version serves, and in which ``promote`` judges it.
        intake: images that the served version accepts; None for the content of image files only.
        storage: storage with the home folder; None for CAPTIONING_HOME, or ``runs``.
        tracking: tracker and registry; None for MLFLOW_TRACKING_URI, or the database in the home folder.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the run that trained it is not in this tracker, or the name or the beam size is not valid.
    """
    client, found = connect_and_resolve(model, storage_or_default(storage), tracking)
    from cluster.registry import registration

    search = search_settings(beam_size, generation)
    return registration.register(found, name, client, generation=search, precision=precision, intake=intake)


def promote(
    name: str,
    *,
    version: int | None = None,
    shards: Path | str | None = None,
    split: str = "val",
    forced_because: str | None = None,
    gate: GateConfig | None = None,
    storage: StorageConfig | None = None,
    tracking: TrackingConfig | None = None,
) -> "Promotion":
    """Make a version the champion if the gate passes it; ``is_promoted`` of the result says whether it did.

    Args:
        name: name of the model in the registry.
        version: version to promote; None for the challenger.
        shards: shard set for the comparison; None for the one that the version was trained on.
        split: split of the shard set.
        forced_because: reason to promote the version whatever the gate decides; None if the gate decides.
        gate: criteria of the gate; None for the defaults.
        storage: storage with the home folder; None for CAPTIONING_HOME, or ``runs``.
        tracking: tracker and registry; None for MLFLOW_TRACKING_URI, or the database in the home folder.

    Raises:
        GateRefusal: the version is already the champion.
        ValueError: there is no such model or version, or the champion was deleted and the promotion is not forced.
    """
    storage = storage_or_default(storage)
    client = connect_tracker(storage, tracking)
    from cluster.promotion import promotion
    from cluster.promotion.gate import Gate
    from cluster.promotion.outcome import record_outcome
    from cluster.promotion.pages import write_promotion_page

    location = None if shards is None else as_location(shards)
    judge = Gate(config=gate or GateConfig(), shards=location, split=split, storage=storage)
    outcome = promotion.promote(name, client, judge, version=version, forced_because=forced_because)
    record_outcome(outcome, client)
    write_promotion_page(outcome, client, judge)
    return outcome
