"""Settings of the gate. Imports no torch, Ray or MLflow."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from captioning.bounds import outside, raise_mistakes, too_large
from captioning.config import BATCH_SIZES, BEAM_SIZES
from captioning.evaluation.metrics import METRICS


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """Criteria that a challenger must meet to become the champion."""

    metric: Literal["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D", "METEOR"] = "CIDEr-D"
    """Score by which challenger and champion are compared; METEOR is of English captions alone."""
    min_gain: float = 0.0
    """Gain over the champion that the challenger must exceed; CIDEr-D ranges from 0 to 10, the other scores to 1."""
    confidence: float = 0.95
    """Share of the bootstrap resamples in which the challenger must exceed that gain."""
    floors: dict[str, float] = field(default_factory=dict)
    """Minimum scores, independent of the champion, such as BLEU-4 0.2."""
    num_resamples: int = 10_000
    """Number of paired bootstrap resamples of the images."""
    seed: int = 0
    """Seed of the resamples, and of the choice of images for the behaviour checks."""
    num_behaviour_images: int = 500
    """Number of images with variants (re-encoded, slightly cropped) to caption; all images if the split has fewer."""
    max_same_caption_drop_points: float = 5.0
    """Largest allowed drop, in percentage points, of the share of variants with an unchanged caption."""
    beam_size: int | None = None
    """Number of hypotheses kept at every step of the beam search; 1 is greedy search. If not given, the search of each
    version is the one that it was registered with."""
    batch_size: int = 32
    """Number of images per batch."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        yield from too_large(self, num_resamples=10_000_000, batch_size=BATCH_SIZES[1])
        yield from outside(self, beam_size=BEAM_SIZES)
        if not 0.5 <= self.confidence < 1:
            yield f"confidence {self.confidence} is out of range; use 0.5 up to below 1, such as 0.95"
        if not 0 <= self.min_gain < math.inf:
            yield f"min_gain {self.min_gain} is out of range; use a finite number, 0 or more"
        if not 0 <= self.max_same_caption_drop_points <= 100:
            yield (f"max_same_caption_drop_points {self.max_same_caption_drop_points} is out of range; use 0 to 100")
        if unknown := sorted(self.floors.keys() - set(METRICS)):
            yield f"floors names an unknown score, {unknown[0]}; use {', '.join(METRICS)}"
        if faulty := [name for name, floor in self.floors.items() if not math.isfinite(floor)]:
            yield f"floor {self.floors[faulty[0]]} of {faulty[0]} is not finite; use a finite number"
        for name, least in (
            ("num_resamples", 100), ("seed", 0), ("num_behaviour_images", 1), ("batch_size", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                yield f"{name} {getattr(self, name)} is too small; use {least} or more"
