"""Reporter of a rank's steps: metrics for the journal and Prometheus, and skipped bad samples."""

import math

from captioning.training.bad_samples import describe
from captioning.training.loop import StepResult
from cluster.config import TrainRun
from cluster.coordination.interface import CoordinatorInterface
from cluster.runs.bad_batches import bad_batch_path, write_bad_batch
from cluster.worker.prometheus import MetricsExport


class StepReporter:
    """Reports steps without blocking training: every rank to Prometheus, rank 0 to the coordinator as well.

    Args:
        run: settings of the run.
        coordinator: coordinator that receives rows and log lines.
        num_samples: number of samples in the training split.
    """

    def __init__(self, run: TrainRun, coordinator: CoordinatorInterface, *, num_samples: int) -> None:
        self._run, self._coordinator = run, coordinator
        self._num_epochs_a_step = run.training.batch_size / num_samples
        self._export = MetricsExport(run.name, coordinator.rank)

    def report(self, result: StepResult, scores: dict[str, float], *, stall_seconds: float) -> None:
        """Report a step.

        Args:
            result: result of the step.
            scores: scores of the validation after the step, by name; empty without a validation.
            stall_seconds: time, in seconds, that training has waited for checkpoints so far.
        """
        if self._coordinator.rank == 0:
            self._describe_bad(result)
            self._coordinator.add_row(result.step, self._metrics(result, stall_seconds) | scores)
        self._export.record(result, stall_seconds=stall_seconds)

    def end(self, *, stall_seconds: float) -> None:
        """Report the last steps to Prometheus."""
        self._export.end(stall_seconds=stall_seconds)

    def _describe_bad(self, result: StepResult) -> None:
        """Write the step's skipped samples to a file, and log where."""
        if result.bad:
            path = bad_batch_path(self._run.folder, result.step)
            write_bad_batch(path, result.step, result.bad, {})
            self._coordinator.log_event(f"step {result.step} skips {describe(result.bad)}; see {path}")

    def _metrics(self, result: StepResult, stall_seconds: float) -> dict[str, float]:
        reward = {} if math.isnan(result.reward) else {"train_reward": result.reward}
        return reward | {
            "train_loss_nats": result.loss_nats,
            "gradient_norm": result.gradient_norm,
            "learning_rate": result.learning_rate,
            "images_per_second": result.num_images / result.seconds,
            "data_wait_share": result.data_wait_seconds / result.seconds,
            "compute_share": 1 - result.data_wait_seconds / result.seconds,
            "checkpoint_stall_seconds": stall_seconds,
            "epoch": result.step * self._num_epochs_a_step,
        }
