"""The alias challenger: it moves to each version that is registered.

MLflow creates a version in one request and moves an alias in another. In between, the version has the tag
``registration``; whoever finds it there, because the process that registered the version was killed, does the rest.
"""

import json
import logging
from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from cluster.registry.cards import describe_model, describe_version
from cluster.registry.champion import CHALLENGER
from cluster.registry.logged_models import UNFINISHED_TAG, logged_model_of
from cluster.tracking.access import tracker_line
from cluster.tracking.client import versions_of

logger = logging.getLogger(__name__)


def finish_registrations(
    name: str, client: MlflowClient, versions: Sequence[ModelVersion] | None = None
) -> list[ModelVersion]:
    """Finish what killed processes have begun to register; return these versions, oldest first.

    Args:
        name: name of the registered model.
        client: client of the registry.
        versions: all versions of the model, oldest first; None to look them up.
    """
    versions = versions_of(name, client) if versions is None else versions
    begun = [found for found in versions if UNFINISHED_TAG in found.tags]
    for found in begun:
        try:
            finish_registration(found, client, is_newest=found is versions[-1])
        except (MlflowException, ValueError) as error:
            reason = tracker_line(error)
            logger.warning("the registration of %s version %s is not finished: %s", name, found.version, reason)
    return begun


def finish_registration(found: ModelVersion, client: MlflowClient, *, is_newest: bool = True) -> None:
    """Describe a version, link its LoggedModel to it, and make it the challenger; each step may be done twice.

    Args:
        found: version that is registered.
        client: client of the registry.
        is_newest: whether it is the newest version, and so the challenger.

    Raises:
        Refusal: its LoggedModel was deleted.
    """
    model = logged_model_of(found, client)
    if model and UNFINISHED_TAG in model.tags:
        # A server writes the first of these tags by itself, the embedded tracker does not.
        versions = json.dumps([{"name": found.name, "version": int(found.version)}])
        client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: versions})
        client.delete_logged_model_tag(model.model_id, UNFINISHED_TAG)
    describe_version(found, client)
    if is_newest:
        client.set_registered_model_alias(found.name, CHALLENGER, found.version)
    describe_model(found.name, client)
    client.delete_model_version_tag(found.name, f"{found.version}", UNFINISHED_TAG)
