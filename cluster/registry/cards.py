"""Cards of versions and models, kept up to date in the registry."""

import json
import logging
from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities import DatasetInput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cluster.registry.champion import CHALLENGER, CHAMPION
from cluster.registry.evaluations import evaluations_of
from cluster.registry.logged_models import logged_model_id, record_of
from cluster.registry.model_card import CardDataset, is_card, version_card
from cluster.tracking.access import tracker_line

logger = logging.getLogger(__name__)


def refresh_cards(name: str, version: str, client: MlflowClient) -> None:
    """Describe a version and its model again, after something about them has changed; a failure is a warning."""
    try:
        describe_version(client.get_model_version(name, version), client)
        describe_model(name, client)
    except (MlflowException, ValueError) as error:
        logger.warning("the description of %s could not be updated: %s", name, tracker_line(error))


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
    record = record_of(found, client)
    return version_card(title, address, record, evaluations_of(record), list(_datasets(found, client)))


def _datasets(found: ModelVersion, client: MlflowClient) -> Iterator[CardDataset]:
    try:
        run = client.get_run(found.run_id or "")
    except MlflowException:  # deleted, or none
        return
    for one in run.inputs.dataset_inputs if run.inputs else ():
        yield _dataset(one)


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
    )


def _content(text: str | None) -> dict[str, object]:
    try:
        content = json.loads(text or "{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
