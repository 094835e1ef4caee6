"""Arguments of the Python API, as the packages below it take them: locations, storage, search, tracker and model."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from captioning.generation.config import GenerationConfig
from cluster.config import StorageConfig, TrackingConfig, TrainRun
from cluster.resources.environment import set_library_defaults
from cluster.settings import with_absolute_paths
from shards.storage.location import parse_location

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from cluster.registry.models import ResolvedModel


def as_location(location: Path | str) -> Path | str:
    """Return a folder as an absolute path, and any other URL unchanged."""
    parsed = parse_location(location)
    return parsed.absolute() if isinstance(parsed, Path) else parsed


def with_locations(run: TrainRun) -> TrainRun:
    """Return a run whose shards and features are paths if they are folders, given as text or not."""
    shards, features = (None if one is None else parse_location(one) for one in (run.shards, run.features))
    return replace(run, shards=shards, features=features)


def storage_or_default(storage: StorageConfig | None) -> StorageConfig:
    """Return the storage, or the default one for None, with absolute paths."""
    return with_absolute_paths(storage or StorageConfig())


def search_settings(beam_size: int, generation: GenerationConfig | None) -> GenerationConfig:
    """Return the settings of the search.

    Raises:
        ValueError: a beam size is given beside them.
    """
    if generation is not None and beam_size not in (generation.beam_size, GenerationConfig().beam_size):
        raise ValueError(
            f"beam_size {beam_size} is given beside generation, whose beam size is {generation.beam_size}; give one"
        )
    return generation or GenerationConfig(beam_size=beam_size)


def connect_tracker(
    storage: StorageConfig, tracking: TrackingConfig | None, *, only_reads: bool = False
) -> "MlflowClient":
    """Return a client of the tracker, or of the default one for None."""
    set_library_defaults()
    from cluster.tracking.client import connect

    return connect(tracking or TrackingConfig(), storage, only_reads=only_reads)


def connect_and_resolve(
    model: Path | str, storage: StorageConfig, tracking: TrackingConfig | None
) -> "tuple[MlflowClient, ResolvedModel]":
    """Return a client of the tracker, and the checkpoint that a model names."""
    client = connect_tracker(storage, tracking)
    from cluster.registry.models import resolve_model

    return client, resolve_model(str(model), client)
