"""The process of a trial under Ray Tune: an ordinary training run that reports each validation to Tune.

A validation is reported only after it is in the run's journal and its checkpoint is committed; Tune gets no checkpoint.
So a trial that restarts, on any node, first reports the validations in the journal that the driver has not received,
and then resumes from the record of its training run.
"""

import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune
from ray.exceptions import RayError

from captioning.training.bad_samples import BadSampleError
from cluster.config import TrainRun
from cluster.coordination.local import LocalCoordinator
from cluster.coordination.messages import WorkerConfig
from cluster.data.shard_set import ShardSet
from cluster.errors import failure_line
from cluster.runs.bad_batches import save_bad_batch
from cluster.runs.claim import Claim
from cluster.runs.identity import config_text
from cluster.runs.journal import list_segments, read_segment
from cluster.runs.record import RunRecord, load_record
from cluster.search.space.config import TuneRun
from cluster.search.trials import load_trial, trial_run
from cluster.worker.rank import RankContext, Validation
from cluster.worker.rank_log import log_of_rank
from cluster.worker.start import start_rank

_POLL_SECONDS = 0.5
_STOP_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialContext:
    """Settings and data that all trials of a search share."""

    run: TuneRun
    """The search."""
    tracking_uri: str
    num_samples: int
    """Number of samples of the training split."""
    lineage: dict[str, str]
    """Digests of the data and commit of the code, stored in every checkpoint."""
    shard_set: ShardSet | None = None
    """The shard set that trials read; the start of the search has checked it."""
    claim: Claim | None = None
    """The search's claim on the checkpoints of its trials; None if they are in its folder."""


class TrialProcess(tune.Trainable):
    """The process of a trial: trains by itself if the run has one worker, and otherwise runs Ray Train in a thread.

    Errors of storage and of Ray are raised, and Tune restarts the trial. Any other error would recur in every attempt:
    it ends the trial with a result that contains the reason.
    """

    def setup(self, config: dict[str, Any], *, context: TrialContext) -> None:  # type: ignore[override]  with_parameters adds it
        """Read the trial's record.

        The first call of ``step`` builds the model, so that an error in it fails this trial and not Tune's actor.
        """
        self._context = context
        self._training: Generator[Validation] | None = None
        self._start_training(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Train another trial in the same process, which saves the time to import torch."""
        self._stop_training()
        self._start_training(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next validation."""
        started = time.monotonic()
        try:
            found = next(self._training, None) if self._training else None
        except (OSError, RayError):
            raise
        except Exception as error:
            self._stop_training()
            return {"done": True, "failure": _failure_reason(error, self._run)}
        if found is None:
            record = load_record(self._run.folder)
            return {"done": True, "is_complete": True, "stopped_early": record.stopped_early if record else ""}
        step, metrics = found
        epoch = round(step * self._run.training.batch_size / self._context.num_samples)
        is_at_rung = self._until <= epoch and self._until < self._context.run.search.max_epochs
        result = {**metrics, "step": step, "epoch": epoch, "seconds": time.monotonic() - started}
        return result | ({"done": True} if is_at_rung else {})

    def cleanup(self) -> None:
        """Stop training and release the run's lock."""
        self._stop_training()

    def _start_training(self, config: Mapping[str, Any]) -> None:
        trial = load_trial(self._context.run.folder, config["number"])
        self._run = trial_run(self._context.run, trial, tracking_uri=self._context.tracking_uri)
        self._until = config["until"]
        train = train_in_process if self._run.cluster.max_workers == 1 else train_with_workers
        self._training = train(self._run, self._context, after_step=trial.reports[-1].step if trial.reports else 0)

    def _stop_training(self) -> None:
        training, self._training = self._training, None
        if training:
            training.close()


def train_in_process(run: TrainRun, context: TrialContext, *, after_step: int = 0) -> Generator[Validation]:
    """Train with one worker in this process; yield each validation later than a step, journalled ones first."""
    coordinator = LocalCoordinator(
        run.folder,
        keep_best=run.training.keep_best,
        keep_last=run.training.keep_last,
        claim=context.claim,
        hang_seconds=run.cluster.hang_seconds,
    )
    try:
        record = load_record(run.folder)
        if record is None:
            raise RuntimeError(f"{run.folder} holds no run.json, which the driver should have written; report this bug")
        lineage = context.lineage | {"run": run.name, "mlflow_run_id": record.mlflow_run_id}
        config = WorkerConfig(
            run=run, coordinator=None, config_text=config_text(run), lineage=lineage, claim=context.claim
        )
        yield from _journalled_validations(run, after_step=after_step, last_step=record.latest_step)
        if record.is_finished:
            return
        device = torch.device("cuda" if run.cluster.use_gpu else "cpu")
        with log_of_rank(run.name, coordinator.rank, lambda: coordinator.step):
            rank = start_rank(config, coordinator, RankContext(device=device, keeps_captions=False))
            for validation in rank.train():
                rank.saver.writer.wait()  # report a validation only after its checkpoint is on disk
                coordinator.pause()  # the trial may wait for Tune as long as it likes
                yield validation
                coordinator.heartbeat(validation.step)
    finally:
        coordinator.close()


def _journalled_validations(run: TrainRun, *, after_step: int, last_step: int) -> Generator[Validation]:
    """Yield the validations of a run's journal in the order of their steps.

    Args:
        run: the trial's training run.
        after_step: last step to leave out, because it was reported before.
        last_step: last step to include: the latest checkpoint's.
    """
    found: dict[int, dict[str, float]] = {}
    for segment in list_segments(run.folder / "journal"):
        for row in read_segment(segment):
            found.setdefault(row.step, {}).update(row.metrics)
    scored = [
        step for step, metrics in found.items() if after_step < step <= last_step and run.validation.best_by in metrics
    ]
    for step in sorted(scored):
        yield Validation(step, found[step])


def train_with_workers(run: TrainRun, context: TrialContext, *, after_step: int = 0) -> Generator[Validation]:
    """Run Ray Train in a thread of this process; yield each validation later than a step once it is on record."""
    from cluster.training.trainer import fit

    outcome: list[BaseException] = []
    is_wanted = threading.Event()
    is_wanted.set()

    def train() -> None:
        try:
            fit(run, shard_set=context.shard_set, claim=context.claim, is_wanted=is_wanted.is_set)
        except BaseException as error:  # raised again below, in the thread of the caller
            outcome.append(error)

    thread = threading.Thread(target=train, name="captioning-trial", daemon=True)
    record = load_record(run.folder)
    for validation in _journalled_validations(run, after_step=after_step, last_step=_latest_step(record)):
        after_step = validation.step
        yield validation
    thread.start()
    try:
        while True:
            is_over = not thread.is_alive()  # read before the record, so that its last change is not missed
            before, record = record, load_record(run.folder)
            if record != before:  # the journal has every validation; the record drops those of pruned checkpoints
                for validation in _journalled_validations(run, after_step=after_step, last_step=_latest_step(record)):
                    after_step = validation.step
                    yield validation
            if is_over:
                break
            thread.join(_POLL_SECONDS)
        if outcome:
            raise outcome[0]
    finally:
        is_wanted.clear()
        thread.join(_STOP_SECONDS)


def _latest_step(record: RunRecord | None) -> int:
    return record.latest_step if record else 0


def _failure_reason(error: Exception, run: TrainRun) -> str:
    """Return the error on one line; for a bad sample, with the path of the file that describes its batch."""
    return failure_line(error) + (save_bad_batch(run.folder, error) if isinstance(error, BadSampleError) else "")
