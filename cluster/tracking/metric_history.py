"""Metrics that the tracker has of a run, by step."""

from collections.abc import Iterable

from mlflow import MlflowClient


def metrics_by_step(
    client: MlflowClient, run_id: str, names: Iterable[str]
) -> tuple[dict[int, dict[str, float]], list[int]]:
    """Return the metrics of a run by step, and the times at which they were logged, in milliseconds.

    Args:
        client: client of the tracker.
        run_id: id of the MLflow run.
        names: names of the metrics; one that the run does not have is left out.

    Raises:
        MlflowException: the tracker does not have the run.
    """
    found: dict[int, dict[str, float]] = {}
    times = []
    for name in sorted(client.get_run(run_id).data.metrics.keys() & {*names}):
        for logged in client.get_metric_history(run_id, name):
            found.setdefault(logged.step, {})[name] = logged.value
            times.append(logged.timestamp)
    return dict(sorted(found.items())), times
