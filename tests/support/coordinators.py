"""Settings of a run's coordinator, and what ranks report to it."""

from cluster.config import TrackingConfig
from cluster.coordination.messages import CoordinatorSettings
from cluster.runs.journal import Row
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.tracking.client import tracking_uri


def settings(home, **changes):
    """Return the settings, with the tracker of a home folder."""
    uri = tracking_uri(TrackingConfig(), home)
    return CoordinatorSettings(**{"tracking_uri": uri, "keep_best": 1, "keep_last": 1, "batch_size": 8, **changes})


def row(step, **metrics):
    return Row(step, 1000 + step, {"loss": 1.0, **metrics})


def metrics(loss):
    return {VALIDATION_LOSS: loss}
