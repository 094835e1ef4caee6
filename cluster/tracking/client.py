"""Client of the tracker. Uses ``MlflowClient`` with explicit run ids only, and sets none of MLflow's globals."""

import getpass
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Param, RunTag
from mlflow.entities.model_registry import ModelVersion

from cluster.config import EMBEDDED_TRACKER, HomeConfig, TrackerConfig
from cluster.errors import Refusal
from cluster.tracking.access import explain_retries
from cluster.tracking.database import check_database, database_file, database_uri, open_database
from cluster.tracking.server import USABLE, require_server
from shards.storage.location import refuse_credentials

logger = logging.getLogger(__name__)

_PAGE_LENGTH = 1000
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_KEY_TAG = "run_key"
_NOTE_TAG = "mlflow.note.content"
_FILE_AT_HOME = re.compile(r"^(sqlite(?:\+\w+)?:///)~/")


def tracking_uri(config: TrackerConfig, storage: HomeConfig) -> str:
    """Return the tracker's address: the configured one, MLFLOW_TRACKING_URI, or a database in the home folder.

    Raises:
        ValueError: MLFLOW_TRACKING_URI contains credentials.
    """
    given = config.uri
    if not given:
        given = os.environ.get("MLFLOW_TRACKING_URI")
        refuse_credentials(given, "MLFLOW_TRACKING_URI")
    uri = (given or "").strip() or database_uri(storage.home.absolute() / EMBEDDED_TRACKER)
    return _FILE_AT_HOME.sub(lambda found: f"{found[1]}{Path.home()}/", uri)  # SQLite would look for a folder named ~


def connect(config: TrackerConfig, storage: HomeConfig, *, only_reads: bool = False) -> MlflowClient:
    """Connect to the tracker; the embedded tracker is created if it does not exist.

    Args:
        config: settings of the tracker.
        storage: settings of the storage, for the home folder of the embedded tracker.
        only_reads: whether to refuse an embedded tracker that does not exist, instead of creating it.

    Raises:
        Unreachable: no server answers at the address.
        Refusal: the address is not one that MLflow understands, what is there is not MLflow's or cannot be written, or
            there is no embedded tracker to read.
        OSError: the embedded tracker cannot be stored.
    """
    uri = check_tracker(config, storage)
    if file := database_file(uri):
        open_database(file, storage.home / "artifacts", only_reads=only_reads)
    explain_retries()
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def connect_before_start(config: TrackerConfig, storage: HomeConfig) -> MlflowClient:
    """Connect to the tracker that a job cannot start without, and make one request.

    A tracker that refuses this user is so told at once, and not after Ray has started.

    Raises:
        Unreachable, Refusal: as by ``connect``.
        MlflowException: the tracker refuses requests.
    """
    logger.info("connecting to the tracker")
    client = connect(config, storage)
    client.search_experiments(max_results=1)
    return client


def check_tracker(config: TrackerConfig, storage: HomeConfig) -> str:
    """Return the tracker's address; check that a server answers, and that a database file is one of this MLflow.

    Raises:
        Unreachable, Refusal: as by ``connect``.
    """
    uri = tracking_uri(config, storage)
    scheme = uri.partition(":")[0].lower()
    if scheme in ("http", "https"):
        require_server(uri)
    elif scheme.partition("+")[0] not in _DATABASES:
        raise Refusal(f"tracking address {uri} {_why_unusable(uri)}", USABLE)
    elif file := database_file(uri):
        check_database(file)
    else:
        _require_driver(uri)
    return uri


def _require_driver(uri: str) -> None:
    """Check that the driver of a database is installed here."""
    from sqlalchemy import make_url  # here, because clients of a server do without
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(uri).get_dialect().import_dbapi()
    except ImportError as error:
        raise Refusal(
            f"the database of tracking address {uri} needs the Python package {error.name}, which is not installed",
            "install it, or use the address of an MLflow server, http://HOST:PORT",
        ) from error
    except ArgumentError:
        raise Refusal(f"tracking address {uri} is not an address of a database", USABLE) from None


def _why_unusable(uri: str) -> str:
    """Return why an address of MLflow's is not one that this project can use, or that it is none."""
    if uri.startswith("databricks"):
        return "is Databricks, whose registry is not supported"
    if ":" not in uri or uri.startswith("file:"):
        return "is a folder, and MLflow keeps no registry in files any more"
    return "is not an MLflow address"


def create_run(
    client: MlflowClient,
    experiment: str,
    *,
    key: str,
    name: str,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
    datasets: Sequence[DatasetInput] = (),
    note: str = "",
) -> str:
    """Create the MLflow run of a training run, unless an earlier driver has created it; return its id.

    Args:
        client: client of the tracker.
        experiment: id of the experiment.
        key: unique key of the training run, stored as a tag, by which an existing MLflow run is found.
        name: name of the run.
        parameters: settings that affect the result, by dotted name.
        tags: further tags of the run.
        datasets: data that the run reads.
        note: description of the run, one line of Markdown.
    """
    known = client.search_runs([experiment], f"tags.{_KEY_TAG} = {quoted(key)}", max_results=1)
    tags = {_KEY_TAG: key, **_source_tags(), **tags, **({_NOTE_TAG: note} if note else {})}
    run = known[0] if known else client.create_run(experiment, run_name=name, tags=tags)
    run_id = run.info.run_id
    # A driver may have been killed at any line below; logging the same parameters and inputs again changes nothing.
    log_parameters(client, run_id, parameters)
    client.log_inputs(run_id, [*datasets])
    return run_id


def log_parameters(client: MlflowClient, run_id: str, parameters: Mapping[str, Any]) -> None:
    """Log settings by dotted name; those that are known already must be the same."""
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in parameters.items()])


def _source_tags() -> dict[str, str]:
    """Return MLflow's system tags for the user and the source of a run."""
    return {"mlflow.user": current_user(), "mlflow.source.name": "captioning", "mlflow.source.type": "JOB"}


def current_user() -> str:
    """Return the name of the tracker's user, else of the machine's user, else ``unknown``."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # in a container, a user id need not have a name
        return "unknown"


def utc(milliseconds: float | None) -> str:
    """Return a timestamp of the tracker, in milliseconds since 1970, as text in ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((milliseconds or 0) / 1000))


def quoted(text: str) -> str | None:
    """Return a text as a value in a filter of MLflow; None if it cannot be written there.

    MLflow knows both kinds of quotes, and no way to write a quote inside of its own kind.
    """
    quote = next((one for one in ("'", '"') if one not in text), None)
    return f"{quote}{text}{quote}" if quote and text.isprintable() and "\\" not in text else None


def versions_of(name: str, client: MlflowClient) -> list[ModelVersion]:
    """Return all versions of a registered model, oldest first, whatever characters its name contains; without aliases.

    Args:
        name: model's name in the registry.
        client: client of the registry.
    """
    value, found, token = quoted(name), [], None
    while True:
        page = client.search_model_versions(
            f"name = {value}" if value else None, _PAGE_LENGTH, order_by=["version_number ASC"], page_token=token
        )
        found += [one for one in page if one.name == name]
        token = page.token
        if not token:
            return found


def set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
