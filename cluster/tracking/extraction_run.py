"""The MLflow run of an extraction: the splits that it reads, and the feature set that it makes."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Metric
from mlflow.exceptions import MlflowException

from cluster.config import HomeConfig, TrackingConfig
from cluster.errors import Refusal
from cluster.git import git_state
from cluster.runs.claim import ClaimLostError
from cluster.tracking.access import tracker_line
from cluster.tracking.client import connect_before_start, create_run
from cluster.tracking.experiment import experiment_id
from cluster.tracking.markdown import escaped
from shards.features.manifest import FeatureManifest
from shards.storage.folders import ShardFolder

logger = logging.getLogger(__name__)

_OF_THE_TRACKER = (MlflowException, OSError, Refusal)


class Extraction(NamedTuple):
    """What is extracted."""

    shards: ShardFolder
    """Location of the shard set."""
    inputs: Sequence[DatasetInput]
    """Splits that are read."""
    features: ShardFolder
    """Location of the feature set."""
    plan: FeatureManifest
    """Manifest of the feature set, without the records of its shards."""


class ExtractionRun:
    """The MLflow run of an extraction.

    Args:
        client: client of the tracker.
        mlflow_run_id: id of the MLflow run.
    """

    def __init__(self, client: MlflowClient, mlflow_run_id: str) -> None:
        self._client = client
        self.mlflow_run_id = mlflow_run_id
        self._is_reached = True

    def log(self, manifest: FeatureManifest, *, num_images: int, seconds: float) -> None:
        """Log what the feature set has now, and how fast this start was.

        Args:
            manifest: manifest of the finished feature set.
            num_images: number of images that this start has encoded.
            seconds: time that this took, in seconds.
        """
        values = {f"images/{split}": float(count) for split, count in manifest.splits.items()}
        values["images_without_features"] = float(sum(len(shard.set_aside) for shard in manifest.shards))
        if num_images and seconds:
            values |= {"images_per_second": num_images / seconds, "seconds": seconds}
        now = time.time_ns() // 10**6
        metrics = [Metric(name, value, now, 0) for name, value in values.items()]
        self._try(lambda: self._client.log_batch(self.mlflow_run_id, metrics=metrics))

    def end(self, status: str) -> None:
        """Set the status with which the run ends."""
        self._try(lambda: self._client.set_terminated(self.mlflow_run_id, status=status))

    def _try(self, send: Callable[[], object]) -> None:
        if not self._is_reached:
            return  # each request that fails takes minutes
        try:
            send()
        except _OF_THE_TRACKER as error:  # the features are there, with or without the tracker
            self._is_reached = False
            logger.warning("the tracker may lack metrics and the end of this extraction: %s", tracker_line(error))


@contextmanager
def extraction_run(
    tracking: TrackingConfig, home: HomeConfig, extraction: Extraction, *, is_resumed: bool
) -> Iterator[ExtractionRun | None]:
    """Create the MLflow run of an extraction, or go on with that of an earlier start, and end it with the block.

    Args:
        tracking: settings of the tracker.
        home: home folder of the embedded tracker.
        extraction: what is extracted.
        is_resumed: whether an earlier start has written shards: then a tracker that does not answer is a warning, and
            the block has no run.

    Raises:
        Unreachable, Refusal, MlflowException: the tracker does not answer at the first start, or refuses this user.
    """
    try:
        run = _start(tracking, home, extraction)
    except _OF_THE_TRACKER as error:
        if not is_resumed:
            raise
        logger.warning("this extraction goes on without the tracker: %s", tracker_line(error))
        yield None
        return
    try:
        yield run
    except ClaimLostError:  # another process extracts now, in the same run
        raise
    except BaseException as error:
        run.end("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    run.end("FINISHED")


def _start(tracking: TrackingConfig, home: HomeConfig, extraction: Extraction) -> ExtractionRun:
    plan, features = extraction.plan, extraction.features
    client = connect_before_start(tracking, home)
    num_views, num_regions, num_channels = plan.shape
    run_id = create_run(
        client,
        experiment_id(client, tracking, home),
        key="extract-" + hashlib.sha256(f"{plan.digest} {features}".encode()).hexdigest(),
        name=f"extract-{features.name}",
        parameters=asdict(plan.encoder) | plan.settings.in_use() | {"shards_digest": plan.shards_digest},
        tags={"features": f"{features}", "features_digest": plan.digest, **git_state()},
        datasets=extraction.inputs,
        note=f"features of {escaped(plan.encoder.backbone)} for the images of {escaped(extraction.shards.name)}: "
        f"views {num_views}, regions {num_regions}, channels {num_channels}",
    )
    client.update_run(run_id, status="RUNNING")
    return ExtractionRun(client, run_id)
