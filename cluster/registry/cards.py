"""Cards of versions and models, kept up to date in the registry."""

import json
import logging

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cluster.registry.champion import CHALLENGER, CHAMPION
from cluster.registry.evaluations import evaluations_of
from cluster.registry.logged_models import logged_model_id, record_of
from cluster.registry.model_card import CardDataset, is_card, version_card
from cluster.tracking.access import tracker_line
from cluster.tracking.pages import artifact_place

logger = logging.getLogger(__name__)

PAGE_TAG = "page"
"""Tag of a LoggedModel: path of the version's page among the artifacts of its run."""


def refresh_cards(name: str, version: str, client: MlflowClient) -> None:
    """Describe a version and its model again, after something about them has changed; a failure is a warning."""
    try:
        describe_version(client.get_model_version(name, version), client)
        describe_model(name, client)
    except (MlflowException, ValueError) as error:
        logger.warning("the description of %s could not be updated: %s", name, tracker_line(error))


def link_page(name: str, version: str, path: str, client: MlflowClient) -> None:
    """Link the page of a version from its card; a failure is a warning.

    Args:
        name: name of the registered model.
        version: number of the version; one that was registered without a LoggedModel has no card.
        path: path of the page among the artifacts of the run that trained the version.
        client: client of the tracker and registry.
    """
    try:
        if model_id := logged_model_id(client.get_model_version(name, version)):
            client.set_logged_model_tags(model_id, {PAGE_TAG: path})
            refresh_cards(name, version, client)
    except MlflowException as error:
        logger.warning("the page of %s version %s could not be linked: %s", name, version, tracker_line(error))


def describe_version(found: ModelVersion, client: MlflowClient) -> None:
    """Make the card of a version its description, unless somebody has written another, or it has no LoggedModel."""
    if not logged_model_id(found) or not is_card(found.description):
        return
    text = _card(f"{found.name} version {found.version}", f"models:/{found.name}/{found.version}", found, client)
    if text != found.description:
        client.update_model_version(found.name, f"{found.version}", description=text)


def describe_model(name: str, client: MlflowClient) -> None:
    """Make the card of the champion, or else of the challenger, the description of a model, unless it has another."""
    model = client.get_registered_model(name)
    alias = next((alias for alias in (CHAMPION, CHALLENGER) if alias in model.aliases), None)
    if alias is None or not is_card(model.description):
        return
    found = client.get_model_version(name, f"{model.aliases[alias]}")
    text = _card(f"{name}, {alias}: version {found.version}", f"models:/{name}@{alias}", found, client)
    if text != model.description:
        client.update_registered_model(name, text)


def _card(title: str, address: str, found: ModelVersion, client: MlflowClient) -> str:
    record, run = record_of(found, client), _run_of(found, client)
    datasets = [_dataset(one) for one in run.inputs.dataset_inputs] if run and run.inputs else []
    page = artifact_place(run, record[PAGE_TAG]) if run and PAGE_TAG in record else ""
    return version_card(title, address, record, evaluations_of(record), datasets, page=page)


def _run_of(found: ModelVersion, client: MlflowClient) -> Run | None:
    try:
        return client.get_run(found.run_id or "")
    except MlflowException:  # deleted, or none
        return None


def _dataset(found: DatasetInput) -> CardDataset:
    dataset = found.dataset
    source, profile = (_content(text) for text in (dataset.source, dataset.profile))
    num_rows = profile.get("num_rows")
    return CardDataset(
        name=dataset.name,
        digest=dataset.digest,
        use=next((tag.value for tag in found.tags), "input"),
        num_rows=num_rows if isinstance(num_rows, int) else None,
        source=f"{source.get('uri') or source.get('url') or 'unknown'}",
        licenses=tuple(map(str, licenses)) if isinstance(licenses := profile.get("licenses"), list) else (),
    )


def _content(text: str | None) -> dict[str, object]:
    try:
        content = json.loads(text or "{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
