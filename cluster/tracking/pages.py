"""Pages in the tracker: the address of a run, and HTML files among a run's artifacts."""

import logging
from pathlib import Path
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Run

from cluster.errors import one_line

logger = logging.getLogger(__name__)


def run_address(uri: str, mlflow_run_id: str) -> str:
    """Return the address of a run's page; empty if the tracker is no server, or the run is not in it.

    Args:
        uri: address of the tracker.
        mlflow_run_id: id of the MLflow run; empty if it has none.
    """
    if not mlflow_run_id or not uri.startswith(("http://", "https://")):
        return ""
    return f"{uri.rstrip('/')}/#/runs/{mlflow_run_id}"


def artifact_place(run: Run, path: str) -> str:
    """Return the place, below the tracker's address, of the page that shows an artifact of a run."""
    return f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/{quote(path)}"


def log_page(client: MlflowClient, mlflow_run_id: str, page: Path, folder: str = "") -> bool:
    """Store a page among the artifacts of a run; return whether the tracker has it.

    A page is for people to look at, so a tracker that does not take it is a warning.

    Args:
        client: client of the tracker.
        mlflow_run_id: id of the MLflow run.
        page: HTML file.
        folder: folder among the artifacts; empty for the top.
    """
    try:
        client.log_artifact(mlflow_run_id, str(page), folder or None)
    except Exception as error:  # which type depends on the tracker's artifact store
        logger.warning("the tracker does not accept %s: %s", page, one_line(error, with_kind=False))
        return False
    return True
