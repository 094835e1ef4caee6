"""What Ray Tune runs for every trial: an ordinary training run, told to Tune validation by validation.

Tune is told what is on disk already, and no checkpoint is given to it: a trial that starts again, on whatever node,
tells first what of its journal was not heard, and then goes on from its run's own record.
"""

import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.exceptions import RayError

from captioning.training.bad_samples import BadSampleError
from cluster.config import TrainRun
from cluster.coordination.local import LocalCoordinator
from cluster.data.shard_set import ShardSet
from cluster.errors import one_line
from cluster.runs.bad_batches import bad_batch_path, write_bad_batch
from cluster.runs.identity import config_text
from cluster.runs.journal import list_segments, read_segment
from cluster.runs.record import RunRecord, load_record
from cluster.search.space.config import TuneRun
from cluster.search.trials import load_trial, trial_run
from cluster.worker.rank import RankContext, Validation, WorkerConfig, start_rank
from cluster.worker.rank_log import log_of_rank

_LOOK_EVERY_SECONDS = 0.5
_STOP_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPlan:
    """What all trials of a search are told."""

    run: TuneRun
    tracking_uri: str
    num_samples: int
    """Of the training split."""
    lineage: dict[str, str]
    """Digests and commit, kept with every checkpoint."""
    shard_set: ShardSet | None = None
    """The shard set that trials read, checked when the search started."""


class TrialProcess(tune.Trainable):
    """A trial's own process: trains itself with one worker, or follows Ray Train with more.

    What no further attempt would mend ends the trial with a result that names it; anything else is raised, and Tune
    starts the trial again.
    """

    def setup(self, config: dict[str, Any], *, plan: TrialPlan) -> None:  # type: ignore[override]  with_parameters adds it
        """Learn what to train; building the model is part of the first step, so that its failure is the trial's."""
        self._plan = plan
        self._training: Generator[Validation] | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Train another trial in the same process, which has loaded what takes long."""
        self._end()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next validation."""
        started = time.monotonic()
        try:
            found = next(self._training, None) if self._training else None
        except (OSError, RayError):
            raise
        except Exception as error:
            self._end()
            return {"done": True, "failure": _reason(error, self._run)}
        if found is None:
            return {"done": True, "is_complete": True}
        step, metrics = found
        epoch = round(step * self._run.training.batch_size / self._plan.num_samples)
        is_compared = self._until <= epoch and self._until < self._plan.run.search.max_epochs
        result = {**metrics, "step": step, "epoch": epoch, "seconds": time.monotonic() - started}
        return result | ({"done": True} if is_compared else {})

    def cleanup(self) -> None:
        """Leave the trial's run to others."""
        self._end()

    def _begin(self, config: Mapping[str, Any]) -> None:
        trial = load_trial(self._plan.run.folder, config["number"])
        self._run = trial_run(self._plan.run, trial, tracking_uri=self._plan.tracking_uri)
        train = train_alone if self._run.cluster.max_workers == 1 else train_with_workers
        self._until = config["until"]
        self._training = train(self._run, self._plan, told=trial.reports[-1].step if trial.reports else 0)

    def _end(self) -> None:
        training, self._training = self._training, None
        if training:
            training.close()


def train_alone(run: TrainRun, plan: TrialPlan, *, told: int = 0) -> Generator[Validation]:
    """Train in this process; validations up to the step ``told`` are known."""
    coordinator = LocalCoordinator(run.folder, keep_best=run.training.keep_best, keep_last=run.training.keep_last)
    try:
        record = load_record(run.folder)
        if record is None:
            raise RuntimeError(f"{run.folder} holds no run.json; this is a fault of the program, report it")
        lineage = plan.lineage | {"run": run.name, "mlflow_run_id": record.mlflow_run_id}
        config = WorkerConfig(run=run, coordinator=None, config_text=config_text(run), lineage=lineage)
        yield from _journalled(run, after=told, until=record.latest_step)
        if record.is_finished:
            return
        device = torch.device("cuda" if run.cluster.use_gpu else "cpu")
        with log_of_rank(run.name, coordinator.rank, lambda: coordinator.step):
            rank = start_rank(config, coordinator, RankContext(device=device))
            for validation in rank.train():
                rank.saver.writer.wait()  # Tune is never told what a killed process would not know
                yield validation
    finally:
        coordinator.close()


def _journalled(run: TrainRun, *, after: int, until: int) -> Generator[Validation]:
    """Yield the validations that a run has journalled, after a step and up to another."""
    found: dict[int, dict[str, float]] = {}
    for segment in list_segments(run.folder / "journal"):
        for row in read_segment(segment):
            found.setdefault(row.step, {}).update(row.metrics)
    scored = [step for step, metrics in found.items() if after < step <= until and run.validation.best_by in metrics]
    for step in sorted(scored):
        yield Validation(step, found[step])


def train_with_workers(run: TrainRun, plan: TrialPlan, *, told: int = 0) -> Generator[Validation]:
    """Follow Ray Train, which runs in a thread of this process, by what the run's record says; ``told`` as above."""
    from cluster.training.trainer import fit

    outcome: list[BaseException] = []
    is_wanted = threading.Event()
    is_wanted.set()

    def train() -> None:
        try:
            fit(run, shard_set=plan.shard_set, is_wanted=is_wanted.is_set)
        except BaseException as error:  # of a thread, which nobody else hears
            outcome.append(error)

    thread = threading.Thread(target=train, name="captioning-trial", daemon=True)
    record = load_record(run.folder)
    for validation in _journalled(run, after=told, until=_latest_step(record)):
        told = validation.step
        yield validation
    thread.start()
    try:
        while True:
            is_over = not thread.is_alive()  # before looking, so that nothing it did last is missed
            before, record = record, load_record(run.folder)
            if record != before:  # and then by the journal, for a record forgets what others have surpassed
                for validation in _journalled(run, after=told, until=_latest_step(record)):
                    told = validation.step
                    yield validation
            if is_over:
                break
            thread.join(_LOOK_EVERY_SECONDS)
        if outcome:
            raise outcome[0]
    finally:
        is_wanted.clear()
        thread.join(_STOP_SECONDS)


def _latest_step(record: RunRecord | None) -> int:
    return record.latest_step if record else 0


def _reason(error: Exception, run: TrainRun) -> str:
    """Return why a trial failed, on one line, with the path of the file that says more if there is one."""
    hint = ""
    if isinstance(error, BadSampleError):
        path: Path = bad_batch_path(run.folder, error.step)
        write_bad_batch(path, error.step, error.bad, error.losses)
        hint = f"; the whole batch is described in {path}"
    return one_line(error) + hint
