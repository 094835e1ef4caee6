"""The trials of a search as a page shows them, and their ranking."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Value = bool | int | float | str | None
Mode = Literal["min", "max"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSummary:
    """One trial.

    Raises:
        ValueError: ``reported`` is neither empty nor of the length of ``curve``.
    """

    name: str
    point: Mapping[str, Value]
    """Value of each searched parameter, by key."""
    curve: Sequence[tuple[float, float]]
    """(epoch, score) of each validation, in order; a score that is not finite leaves a gap."""
    state: Literal["finished", "stopped", "failed", "running"]
    """State of the trial; stopped means that the search stopped it before its last epoch."""
    seconds: float
    """Training time of the trial, in seconds."""
    reason: str = ""
    """The error of a failed trial, or why a finished one stopped early."""
    link: str = ""
    """Address of the trial's page in the tracker; empty for none."""
    reported: Sequence[float] = ()
    """Time of each point of the curve, in seconds since the start of the search; empty if unknown."""

    def __post_init__(self) -> None:
        """Check that times and points belong together."""
        if len(self.reported) not in (0, len(self.curve)):
            raise ValueError(
                f"trial {self.name} has different numbers of curve points ({len(self.curve)}) and times "
                f"({len(self.reported)}); give one time per point, or none"
            )

    @property
    def num_epochs(self) -> float:
        """Return the number of epochs up to the last validation."""
        return max((epoch for epoch, _ in self.curve), default=0)

    def best(self, mode: Mode) -> float | None:
        """Return the best score; None if no score is finite."""
        scores = [score for _, score in self.curve if math.isfinite(score)]
        if not scores:
            return None
        return min(scores) if mode == "min" else max(scores)


def rank_trials(trials: Sequence[TrialSummary], mode: Mode) -> list[tuple[int | None, TrialSummary]]:
    """Return the trials with their ranks, best first.

    Ranks start at 1. Trials without a score come next, and failed trials last, both with rank None.
    """
    sign = 1 if mode == "min" else -1
    scored = [trial for trial in trials if trial.state != "failed" and trial.best(mode) is not None]
    scored.sort(key=lambda trial: sign * (trial.best(mode) or 0.0))
    others = [trial for trial in trials if trial.state != "failed" and trial.best(mode) is None]
    failed = [trial for trial in trials if trial.state == "failed"]
    return [*enumerate(scored, start=1), *((None, trial) for trial in [*others, *failed])]


def parameter_keys(trials: Sequence[TrialSummary]) -> list[str]:
    """Return the keys of all points, in the order in which they first occur."""
    return list(dict.fromkeys(key for trial in trials for key in trial.point))


def value_text(value: Value) -> str:
    """Return the full text of a value, with true, false and null as in YAML."""
    return value if isinstance(value, str) else json.dumps(value)
