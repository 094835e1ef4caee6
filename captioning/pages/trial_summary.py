"""What is known of the trials of a search, and which are the better ones."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Value = bool | int | float | str | None
Mode = Literal["min", "max"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSummary:
    """One trial as far as it is known.

    Raises:
        ValueError: times of reports are not one a point.
    """

    name: str
    point: Mapping[str, Value]
    """Searched key -> value."""
    curve: Sequence[tuple[float, float]]
    """(epoch, score), in order; a score that is not finite leaves a gap."""
    state: Literal["finished", "stopped", "failed", "running"]
    """stopped: by the search, before its last epoch."""
    seconds: float
    """That the trial itself has trained."""
    reason: str = ""
    """Why it failed."""
    reported: Sequence[float] = ()
    """Seconds since the search's start at which each point of the curve was known; or none at all."""

    def __post_init__(self) -> None:
        """Refuse times that belong to no point."""
        if len(self.reported) not in (0, len(self.curve)):
            raise ValueError(
                f"trial {self.name} has {len(self.reported)} times for {len(self.curve)} points of its curve; "
                "give one a point, or none"
            )

    @property
    def num_epochs(self) -> float:
        """Return the epochs that it has trained, as far as it has reported."""
        return max((epoch for epoch, _ in self.curve), default=0)

    def best(self, mode: Mode) -> float | None:
        """Return its best score; None if it has none that is finite."""
        scores = [score for _, score in self.curve if math.isfinite(score)]
        if not scores:
            return None
        return min(scores) if mode == "min" else max(scores)


def ranking(trials: Sequence[TrialSummary], mode: Mode) -> list[tuple[int | None, TrialSummary]]:
    """Return all trials with their ranks from 1, best first; those without a score have none, the failed come last."""
    sign = 1 if mode == "min" else -1
    scored = [trial for trial in trials if trial.state != "failed" and trial.best(mode) is not None]
    scored.sort(key=lambda trial: sign * (trial.best(mode) or 0.0))
    others = [trial for trial in trials if trial.state != "failed" and trial.best(mode) is None]
    failed = [trial for trial in trials if trial.state == "failed"]
    return [*enumerate(scored, start=1), *((None, trial) for trial in [*others, *failed])]


def parameter_keys(trials: Sequence[TrialSummary]) -> list[str]:
    """Return the keys of all points, in the order of their first use."""
    return list(dict.fromkeys(key for trial in trials for key in trial.point))


def value_text(value: Value) -> str:
    """Return a parameter's value in full: true, false and null as in YAML."""
    return value if isinstance(value, str) else json.dumps(value)
