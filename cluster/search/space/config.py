"""The settings of a hyperparameter search. Imports no torch, Ray or MLflow."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from captioning.config import raise_mistakes
from cluster.config import TrainRun
from cluster.presets import TRAIN_PRESETS

METRIC_MODES: dict[str, Literal["min", "max"]] = {"validation_loss_nats": "min", "validation_cider_d": "max"}
"""For each metric that trials can be compared by, whether its lowest or highest value is the best."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """The space, the sampler, the scheduler and the length of a search."""

    space: Annotated[Path | None, tyro.conf.arg(name="search", prefix_name=False)] = None
    """YAML file of the search space, with lines such as 'optimizer.learning_rate: loguniform(1e-4, 1e-2)'; learning
    rate and hidden size if not given."""
    num_trials: Annotated[int, tyro.conf.arg(prefix_name=False)] = 20
    """Trials in all; with a larger number, a finished search continues."""
    max_epochs: Annotated[int, tyro.conf.arg(prefix_name=False)] = 10
    """Epochs of a trial that is not stopped early."""
    sampler: Annotated[Literal["random", "grid", "tpe"], tyro.conf.arg(prefix_name=False)] = "random"
    """random; grid: every combination in turn; tpe: Optuna's, which learns from the trials before."""
    scheduler: Annotated[Literal["asha", "none"], tyro.conf.arg(prefix_name=False)] = "asha"
    """asha: trials are compared after 1 epoch and again later, and only the best train on (arXiv 1810.05934); none: all
    trials train for all epochs."""
    reduction_factor: Annotated[int, tyro.conf.arg(prefix_name=False)] = 4
    """ASHA compares trials at epoch 1 and again at each multiple by this factor, and lets one in so many train on."""
    metric: Annotated[str, tyro.conf.arg(prefix_name=False)] = "validation_loss_nats"
    """Score of a trial: validation_loss_nats (the lowest is best) or validation_cider_d (the highest is best; each
    validation then writes captions)."""
    search_seed: Annotated[int, tyro.conf.arg(prefix_name=False)] = 0
    """Seed of the points that are tried; --training.seed is the seed of every trial."""
    max_failures: Annotated[int, tyro.conf.arg(prefix_name=False)] = 3
    """Times that a trial starts again after its process or node was lost; then it has failed."""
    extract: Annotated[bool, tyro.conf.arg(prefix_name=False)] = True
    """Compute a frozen encoder's features once for all trials, unless the search changes the encoder."""
    views: Annotated[int, tyro.conf.arg(prefix_name=False)] = 1
    """Views of each image among these features: its centre, the mirrored centre, crops; a batch has one of them."""
    then: Annotated[Literal["stop", "train"], tyro.conf.arg(prefix_name=False)] = "stop"
    """train: then train the best point at full length (--training.num-epochs), evaluate and register it."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        if self.metric not in METRIC_MODES:
            yield f"metric {self.metric} is reported by no trial; use {' or '.join(METRIC_MODES)}"
        for name, least in (("num_trials", 1), ("max_epochs", 1), ("reduction_factor", 2), ("max_failures", 0)):
            if getattr(self, name) < least:
                yield f"{name} {getattr(self, name)} makes no search; use {least} or more"
        if self.views < 1:
            yield f"views {self.views} is too few; use 1 or more"

    @property
    def mode(self) -> Literal["min", "max"]:
        """Return whether the lowest or the highest score is best."""
        return METRIC_MODES[self.metric]


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneRun(TrainRun):
    """A whole search: the base configuration of every trial, and what is searched."""

    search: Annotated[SearchConfig, tyro.conf.arg(name="")] = field(default_factory=SearchConfig)

    @property
    def folder(self) -> Path:
        """Return the search's folder."""
        return self.storage.home / "tuning" / self.name

    def base(self, **changes: Any) -> TrainRun:  # noqa: ANN401  fields of any type
        """Return the configuration that all trials start from, with some fields changed."""
        return TrainRun(**{one.name: getattr(self, one.name) for one in fields(TrainRun)} | changes)


def _tune_run(name: str, preset: TrainRun) -> TuneRun:
    values = {one.name: getattr(preset, one.name) for one in fields(TrainRun)}
    # Many trials of one worker each waste less than one trial after the other with many workers.
    return TuneRun(**values | {"name": f"{name}-search", "cluster": replace(preset.cluster, num_workers=1)})


TUNE_PRESETS = {name: (what, _tune_run(name, preset)) for name, (what, preset) in TRAIN_PRESETS.items()}
