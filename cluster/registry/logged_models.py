"""LoggedModels of MLflow: what a registered version points to, with the settings, scores and lineage of the model.

The source of a version is ``models:/m-...``, the address of its LoggedModel. A version that release 0.3 or an earlier
one registered points to files of its run instead, and has as tags what a LoggedModel has as parameters and tags.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _use_tracking_uri
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from cluster.errors import Refusal
from cluster.tracking.server import server_version

MODEL_TYPE = "image captioner"
STATUS_TAG = "validation_status"
"""Tag of a version: pending, approved by the gate, rejected by it, or forced past it."""
UNFINISHED_TAG = "registration"
"""Tag of a LoggedModel or version while it is registered; its value is the name of the registered model."""
_URI = "MLFLOW_TRACKING_URI"
_SOURCE = re.compile(r"models:/(m-\w+)")
_FORBIDDEN = re.compile(r"[/:.%\"']")  # by MLflow, in the name of a LoggedModel


def logged_model_id(found: ModelVersion) -> str | None:
    """Return the id of a version's LoggedModel; None if the version was registered without one."""
    # MLflow's SQL store keeps the id in the version's source alone.
    stored = _SOURCE.fullmatch(found.source or "")
    return found.model_id or (stored[1] if stored else None)


def logged_model_of(found: ModelVersion, client: MlflowClient) -> LoggedModel | None:
    """Return a version's LoggedModel; None if the version was registered without one.

    Raises:
        Refusal: the LoggedModel was deleted.
    """
    model_id = logged_model_id(found)
    if not model_id:
        return None
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        run = f"runs:/{found.run_id}" if found.run_id else "its checkpoint"
        raise Refusal(
            f"LoggedModel {model_id} of {found.name} version {found.version} was deleted",
            f"use another version, or register {run} again",
        ) from None


def record_of(found: ModelVersion, client: MlflowClient) -> dict[str, str]:
    """Return all that is recorded of a version, by name: its tags, and its LoggedModel's parameters and tags.

    Raises:
        Refusal: the LoggedModel was deleted.
    """
    model = logged_model_of(found, client)
    return {**(model.params or {}), **model.tags, **found.tags} if model else dict(found.tags)


def require_logged_models(client: MlflowClient, experiment: str) -> None:
    """Check that the tracker has LoggedModels.

    Raises:
        Refusal: it is older.
    """
    try:
        client.search_logged_models([experiment], max_results=1)
    except MlflowException as error:
        if error.get_http_status_code() != 404:
            raise
        found = server_version(client.tracking_uri)
        raise Refusal(
            f"MLflow at {client.tracking_uri}{f' has version {found}, which' if found else ''} has no LoggedModels",
            "use a server of MLflow 3.0 or newer",
        ) from None


def create_logged_model(
    name: str, run: Run, *, title: str, params: Mapping[str, str], tags: Mapping[str, str], client: MlflowClient
) -> LoggedModel:
    """Create the LoggedModel of a version, or return the one that a killed process has created and not registered.

    Args:
        name: name of the registered model.
        run: run that trained the model.
        title: name of the LoggedModel; characters that MLflow does not allow are replaced.
        params: settings and lineage; a LoggedModel with others is another model's.
        tags: further tags.
        client: client of the tracker.
    """
    experiment, run_id = run.info.experiment_id, run.info.run_id
    wanted = f"source_run_id = '{run_id}' AND tags.`{UNFINISHED_TAG}` = '{name}'"
    for found in client.search_logged_models([experiment], filter_string=wanted):
        if found.params == params and MLFLOW_MODEL_VERSIONS not in found.tags:
            client.set_logged_model_tags(found.model_id, {**tags})
            return found
    return client.create_logged_model(
        experiment,
        name=_FORBIDDEN.sub("-", title),
        source_run_id=run_id,
        tags={UNFINISHED_TAG: name, **tags},
        params={**params},
        model_type=MODEL_TYPE,
    )


@contextmanager
def default_tracker(client: MlflowClient) -> Iterator[None]:
    """Make a client's tracker MLflow's own default: its SQL registry looks a LoggedModel up there, and nowhere else."""
    before = os.environ.get(_URI)
    try:
        with _use_tracking_uri(client.tracking_uri):
            yield
    finally:
        if before is not None:  # MLflow removes the variable if it was the only one to say where the tracker is
            os.environ[_URI] = before
