"""The experiment of this project's runs, and the places of its pages."""

from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.config import HomeConfig, TrackingConfig
from cluster.errors import Refusal
from cluster.tracking.access import restore_remedy
from cluster.tracking.charts import MODE, VIEW_TAG, view_page, view_tag
from cluster.tracking.database import database_file


def experiment_id(client: MlflowClient, config: TrackingConfig, storage: HomeConfig) -> str:
    """Return the experiment's id; create it if absent. The embedded tracker stores artifacts in the home folder.

    Raises:
        Refusal: the experiment was deleted.
    """
    found = client.get_experiment_by_name(config.experiment)
    if found and found.lifecycle_stage == "deleted":
        raise Refusal(
            f"experiment {config.experiment} was deleted in MLflow",
            f"{restore_remedy('experiment', found.experiment_id)}, or use another --tracking.experiment",
        )
    if found:
        for tag, value in _tags().items():
            if tag not in found.tags:  # an experiment of an earlier release, or of another program
                client.set_experiment_tag(found.experiment_id, tag, value)
        return found.experiment_id
    is_embedded = database_file(client.tracking_uri) is not None
    location = (storage.home.absolute() / "artifacts").as_uri() if is_embedded else None
    try:
        return client.create_experiment(config.experiment, artifact_location=location, tags=_tags())
    except MlflowException:  # another process may have created it in the meantime
        found = client.get_experiment_by_name(config.experiment)
        if not found:
            raise
        return found.experiment_id


def _tags() -> dict[str, str]:
    # The first makes MLflow's UI open the experiment on its runs and charts, not on traces of agents.
    return {"mlflow.experimentKind": "custom_model_development", VIEW_TAG: view_tag()}


class Places(NamedTuple):
    """Places of MLflow's pages of an experiment, below the tracker's address."""

    runs: str
    curves: str
    """The view with the losses of runs in one chart; empty if the experiment has none."""


def places_of_newest(client: MlflowClient) -> Places:
    """Return the places of the pages of the newest experiment; empty if there is none."""
    newest = client.search_experiments(max_results=1, order_by=["creation_time DESC"])
    if not newest:
        return Places("", "")
    experiment = newest[0].experiment_id
    curves = view_page(experiment) if VIEW_TAG in newest[0].tags else ""
    return Places(f"#/experiments/{experiment}/runs?{MODE}", curves)
