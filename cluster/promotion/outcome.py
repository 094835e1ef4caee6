"""What an attempt to promote leaves with the versions: scores, a status that people filter by, and new cards."""

import logging

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.promotion.promotion import Promotion
from cluster.registry.cards import refresh_cards
from cluster.registry.logged_models import STATUS_TAG
from cluster.registry.scores import keep_scores
from cluster.tracking.access import tracker_line

logger = logging.getLogger(__name__)

_STATUSES = {"promoted": "approved", "forced": "forced"}


def record_outcome(outcome: Promotion, client: MlflowClient) -> None:
    """Store scores and status with the versions that the gate compared; a failure is a warning, for it decided already.

    Args:
        outcome: promotion that succeeded or was refused, and no dry run.
        client: client of the registry.
    """
    name, version = outcome.name, outcome.change.version
    status = _STATUSES[outcome.change.kind] if outcome.is_promoted else "rejected"
    try:
        keep_scores(outcome.judgement.evidence, client)
        client.set_model_version_tag(name, version, STATUS_TAG, status)
    except MlflowException as error:
        logger.warning("scores and status of %s version %s could not be stored: %s", name, version, tracker_line(error))
    refresh_cards(name, version, client)
