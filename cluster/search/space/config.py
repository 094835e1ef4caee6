"""The settings of a hyperparameter search. Imports no torch, Ray or MLflow."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from captioning.bounds import raise_mistakes, too_large
from captioning.config import TrainingConfig
from cluster.config import TrainRun
from cluster.presets import TRAIN_PRESETS

METRIC_MODES: dict[str, Literal["min", "max"]] = {"validation_loss_nats": "min", "validation_cider_d": "max"}
"""For each metric that can compare trials, whether its lowest or its highest value is the best."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """The space, the sampler, the scheduler and the length of a search."""

    space: Annotated[Path | None, tyro.conf.arg(name="search", prefix_name=False)] = None
    """YAML file of the search space, with lines such as 'optimizer.learning_rate: loguniform(1e-4, 1e-2)'. Without it,
    the search varies learning rate and hidden size."""
    num_trials: Annotated[int, tyro.conf.arg(prefix_name=False)] = 20
    """Number of trials; a larger number continues a finished search."""
    max_epochs: Annotated[int, tyro.conf.arg(prefix_name=False)] = 10
    """Epochs of a trial that is not stopped early; the last ones are --training.self-critical-epochs."""
    sampler: Annotated[Literal["random", "grid", "tpe"], tyro.conf.arg(prefix_name=False)] = "random"
    """random: independent random points; grid: every combination in turn; tpe: Optuna's sampler, which learns from
    earlier trials."""
    scheduler: Annotated[Literal["asha", "none"], tyro.conf.arg(prefix_name=False)] = "asha"
    """asha: compares trials after 1 epoch and again later, and continues only the best (arXiv 1810.05934); none: all
    trials train for all epochs."""
    reduction_factor: Annotated[int, tyro.conf.arg(prefix_name=False)] = 4
    """With factor n, ASHA compares trials at epochs 1, n, n^2, ..., and continues one trial in n."""
    metric: Annotated[str, tyro.conf.arg(prefix_name=False)] = "validation_loss_nats"
    """Score of a trial: validation_loss_nats (the lowest is best), or validation_cider_d (the highest is best; each
    validation then generates captions)."""
    search_seed: Annotated[int, tyro.conf.arg(prefix_name=False)] = 0
    """Seed of the sampler; --training.seed is the seed of every trial."""
    max_failures: Annotated[int, tyro.conf.arg(prefix_name=False)] = 3
    """Restarts of a trial after its process or node is lost, before the trial counts as failed."""
    extract: Annotated[bool, tyro.conf.arg(prefix_name=False)] = True
    """Compute a frozen encoder's features once for all trials, unless the search changes the encoder."""
    views: Annotated[int, tyro.conf.arg(prefix_name=False)] = 1
    """Number of views of each image in these features: its center, the mirrored center, crops; a batch uses one of
    them."""
    then: Annotated[Literal["stop", "train"], tyro.conf.arg(prefix_name=False)] = "stop"
    """stop: end after the search; train: then train the best point at full length (--training.num-epochs), evaluate it
    and register it."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        if self.metric not in METRIC_MODES:
            yield f"metric {self.metric} is not reported by trials; use {' or '.join(METRIC_MODES)}"
        for name, least in (("num_trials", 1), ("max_epochs", 1), ("reduction_factor", 2), ("max_failures", 0)):
            if getattr(self, name) < least:
                yield f"{name} {getattr(self, name)} is too small; use {least} or more"
        yield from too_large(self, num_trials=1_000_000, max_epochs=1_000_000, views=1_000)
        if self.views < 1:
            yield f"views {self.views} is too small; use 1 or more"

    @property
    def mode(self) -> Literal["min", "max"]:
        """Return whether the lowest (min) or the highest (max) score is the best."""
        return METRIC_MODES[self.metric]


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneRun(TrainRun):
    """A whole search: the base configuration of every trial, and the settings of the search."""

    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = field(default_factory=SearchConfig)

    @property
    def folder(self) -> Path:
        """Return the search's folder."""
        return self.storage.home / "tuning" / self.name

    def _mistakes(self) -> Iterator[str]:
        yield from TrainRun._mistakes(self)  # dataclasses with slots have no super()
        if not self.training.self_critical_epochs:
            return
        if self.training.self_critical_epochs >= self.search.max_epochs:
            yield (
                f"{self.training.self_critical_epochs:g} self-critical epochs leave no other of the "
                f"{self.search.max_epochs} epochs of a trial; use fewer --training.self-critical-epochs, or more "
                "--max-epochs"
            )
        if self.search.metric != "validation_cider_d":
            yield (
                f"self-critical training raises CIDEr-D, but trials are compared by {self.search.metric}; use --metric "
                "validation_cider_d, or leave out --training.self-critical-epochs"
            )

    def base(self, **changes: Any) -> TrainRun:  # noqa: ANN401  fields of any type
        """Return the base configuration of all trials, with some fields changed."""
        return TrainRun(**{one.name: getattr(self, one.name) for one in fields(TrainRun)} | changes)


def trial_training(training: TrainingConfig, max_epochs: int) -> TrainingConfig:
    """Return the training settings of a trial that is not stopped early, the last epochs of which may be self-critical.

    Args:
        training: training settings of the search.
        max_epochs: number of epochs of a trial, self-critical ones included.
    """
    return replace(training, num_epochs=max_epochs - training.self_critical_epochs)


def _tune_run(name: str, preset: TrainRun) -> TuneRun:
    values = {one.name: getattr(preset, one.name) for one in fields(TrainRun)}
    # Many concurrent trials of one worker use a cluster better than one trial at a time with many workers.
    return TuneRun(**values | {"name": f"{name}-search", "cluster": replace(preset.cluster, num_workers=1)})


TUNE_PRESETS = {name: (what, _tune_run(name, preset)) for name, (what, preset) in TRAIN_PRESETS.items()}
