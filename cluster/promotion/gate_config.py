"""What a challenger must show to become the champion. Imports no torch, Ray or MLflow."""

import math
from dataclasses import dataclass, field
from typing import Literal

from captioning.evaluation.metrics import METRICS


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """What a challenger must show to become the champion."""

    metric: Literal["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"] = "CIDEr-D"
    """Score that decides."""
    min_gain: float = 0.0
    """The challenger must score higher than the champion by more than this: CIDEr-D counts to 10, the others to 1."""
    confidence: float = 0.95
    """Share of the resamples of the images in which it must do so (paired bootstrap)."""
    floors: dict[str, float] = field(default_factory=dict)
    """Least scores whoever the champion is, such as BLEU-4 0.2."""
    num_resamples: int = 10_000
    """Times that the images are drawn again."""
    seed: int = 0
    """Of the resamples, and of the images whose variants are captioned."""
    num_behaviour_images: int = 500
    """Images of the split whose variants, re-encoded and slightly cropped, are captioned; all if it has fewer."""
    max_same_caption_drop_points: float = 5.0
    """Percentage points by which the challenger may keep its captions of variants less often than the champion does."""
    beam_size: int = 3
    """Beginnings of a caption held at every step; 1 is greedy."""
    batch_size: int = 32
    """Images at once."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"a confidence of {self.confidence} proves nothing; use 0.5 up to below 1, such as 0.95")
        if not 0 <= self.min_gain < math.inf:
            raise ValueError(f"min_gain {self.min_gain} is no gain; use 0 or more")
        if not 0 <= self.max_same_caption_drop_points <= 100:
            raise ValueError(
                f"max_same_caption_drop_points {self.max_same_caption_drop_points} is no part of 100; use 0 to 100"
            )
        if unknown := sorted(self.floors.keys() - set(METRICS)):
            raise ValueError(f"no score is called {unknown[0]}; use floors of {', '.join(METRICS)}")
        if faulty := [name for name, floor in self.floors.items() if not math.isfinite(floor)]:
            raise ValueError(f"the floor {self.floors[faulty[0]]} of {faulty[0]} is no score; use a finite number")
        for name, least in (
            ("num_resamples", 100), ("seed", 0), ("num_behaviour_images", 1), ("beam_size", 1), ("batch_size", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} {getattr(self, name)} is too small; use {least} or more")
