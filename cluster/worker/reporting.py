"""Reporter of a rank's steps: metrics for the journal and Prometheus, and samples that were left out."""

from captioning.training.bad_samples import describe
from captioning.training.loop import StepResult
from cluster.config import TrainRun
from cluster.coordination.interface import CoordinatorInterface
from cluster.runs.bad_batches import bad_batch_path, write_bad_batch
from cluster.worker.prometheus import MetricsExport


class StepReporter:
    """Reports the steps of a rank: to Prometheus from every rank, to the coordinator from rank 0, without waiting.

    Args:
        run: run that trains.
        coordinator: takes the rows and events.
        num_samples: size of the training split.
    """

    def __init__(self, run: TrainRun, coordinator: CoordinatorInterface, *, num_samples: int) -> None:
        self._run, self._coordinator = run, coordinator
        self._num_epochs_a_step = run.training.batch_size / num_samples
        self._export = MetricsExport(run.name, coordinator.rank)

    def report(self, result: StepResult, scores: dict[str, float], *, stall_seconds: float) -> None:
        """Report a step.

        Args:
            result: result of the step.
            scores: scores of the validation after it; none without one.
            stall_seconds: time that training has waited for checkpoints so far.
        """
        if self._coordinator.rank == 0:
            self._describe_bad(result)
            self._coordinator.add_row(result.step, self._metrics(result, stall_seconds) | scores)
        self._export.record(result, stall_seconds=stall_seconds)

    def end(self, *, stall_seconds: float) -> None:
        """Report the last steps to Prometheus."""
        self._export.end(stall_seconds=stall_seconds)

    def _describe_bad(self, result: StepResult) -> None:
        """Describe samples that were left out."""
        if result.bad:
            path = bad_batch_path(self._run.folder, result.step)
            write_bad_batch(path, result.step, result.bad, {})
            self._coordinator.log_event(f"step {result.step} leaves out {describe(result.bad)}; see {path}")

    def _metrics(self, result: StepResult, stall_seconds: float) -> dict[str, float]:
        return {
            "train_loss_nats": result.loss_nats,
            "gradient_norm": result.gradient_norm,
            "learning_rate": result.learning_rate,
            "images_per_second": result.num_images / result.seconds,
            "data_wait_share": result.data_wait_seconds / result.seconds,
            "compute_share": 1 - result.data_wait_seconds / result.seconds,
            "checkpoint_stall_seconds": stall_seconds,
            "epoch": result.step * self._num_epochs_a_step,
        }
