"""History of a run's validation scores, from the best one on: whether the score still improves."""

from dataclasses import dataclass

VALIDATION_LOSS = "validation_loss_nats"
LAST_VALIDATION_LOSS = "validation_loss_unaveraged_nats"
"""Validation loss of the last step's weights, of a run whose checkpoints have their moving average."""
MOST_VALIDATIONS = 1_000
"""Largest number of validations without a better score that are kept."""


def as_cost(score: float, best_by: str) -> float:
    """Return a score as a number of which the smaller is the better: only the validation loss is one already."""
    return score if best_by == VALIDATION_LOSS else -score


@dataclass(frozen=True, slots=True)
class ScoreHistory:
    """The best validation of a run and those after it; a step that is validated again counts once."""

    best_by: str
    """Name of the score: the lowest validation loss is the best, or the highest value of any other score."""
    scores: tuple[tuple[int, float], ...] = ()
    """Step and score of each validation, by step; the first one is the best."""

    def add(self, step: int, score: float) -> "ScoreHistory":
        """Return the history with one more validation; of two equal scores, the earlier step is the better."""
        known = dict(self.scores) | {step: score}
        best = min(known, key=lambda step: (as_cost(known[step], self.best_by), step))
        later = sorted((step, score) for step, score in known.items() if step > best)
        return ScoreHistory(self.best_by, ((best, known[best]), *later[-MOST_VALIDATIONS:]))

    def from_best(self) -> "ScoreHistory":
        """Return the history without the validations after the best one, such as for another phase of training."""
        return ScoreHistory(self.best_by, self.scores[:1])

    def stop_reason(self, stop_after: int) -> str:
        """Return why training stops early, as a phrase; empty while it goes on.

        Args:
            stop_after: number of validations in a row without a better score after which it stops; 0 for never.
        """
        num_stale = len(self.scores) - 1
        if not stop_after or num_stale < stop_after:
            return ""
        count = "1 validation" if num_stale == 1 else f"{num_stale} validations"
        best, score = self.scores[0]
        name = self.best_by.removesuffix("_nats").replace("_", " ").replace("cider d", "CIDEr-D")
        return f"{name} not better than {score:.3f} of step {best:,} in {count}"
