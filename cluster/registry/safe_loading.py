"""Safe loading of a registered version: its list of files is checked before any is read, and may hold no pickle."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from captioning.training.checkpoint_description import DESCRIPTION_NAME
from cluster.formats import require_format
from cluster.registry.logged_models import logged_model_id, record_of

_CHECKPOINT = "artifacts/checkpoint"
FORMAT_VERSION = 1
FORMAT_TAG = "format_version"
_PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".dill"}


def stored_checkpoint(found: ModelVersion, client: MlflowClient) -> Path:
    """Return the folder of a version's checkpoint: the stored one if local, else a copy, deleted at exit.

    Raises:
        ValueError: as by ``require_safe``.
    """
    repository = require_safe(found, client)
    if isinstance(repository, LocalArtifactRepository):
        return Path(repository.download_artifacts(_CHECKPOINT))
    copy = tempfile.mkdtemp(prefix="captioning-")
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    return Path(repository.download_artifacts(_CHECKPOINT, dst_path=copy))


def require_safe(found: ModelVersion, client: MlflowClient) -> ArtifactRepository:
    """Return the repository of a version's files, after checking that it can be loaded safely.

    Raises:
        ValueError: the version holds a pickle, which would run code when loaded, or no checkpoint of this program, or
            has a format version that this release does not read, or its LoggedModel was deleted.
    """
    what = f"{found.name} version {found.version}"
    if not found.source:
        raise ValueError(f"{what} has no artifacts; register it again")
    stored = record_of(found, client).get(FORMAT_TAG)
    require_format(int(stored) if stored and stored.isdecimal() else stored, newest=FORMAT_VERSION, what=what)
    repository = get_artifact_repository(stored_at(found, client), tracking_uri=client.tracking_uri)
    files = sorted(_files(repository))
    if pickles := [file for file in files if not _PICKLES.isdisjoint(suffix.lower() for suffix in Path(file).suffixes)]:
        raise ValueError(f"{what} holds {pickles[0]}, a pickle, which can run any code; register its checkpoint again")
    if f"{_CHECKPOINT}/{DESCRIPTION_NAME}" not in files:
        raise ValueError(
            f"{what} holds no {_CHECKPOINT}/{DESCRIPTION_NAME}; use a version that captioning register created"
        )
    return repository


def stored_at(found: ModelVersion, client: MlflowClient) -> str:
    """Return the location of a version's files, which MLflow keeps apart from the address of its LoggedModel."""
    if logged_model_id(found):
        return client.get_model_version_download_uri(found.name, f"{found.version}")
    return found.source or ""


def _files(repository: ArtifactRepository, folder: str | None = None) -> Iterator[str]:
    for entry in repository.list_artifacts(folder):
        if entry.is_dir:
            yield from _files(repository, entry.path)
        else:
            yield entry.path
