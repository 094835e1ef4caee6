"""Health of a training run: what its captions have in common at each validation, and what goes wrong since when.

The limits come from runs on synthetic scenes and on photographs with five captions each: ten good ones, and some that
were spoiled on purpose by a learning rate 100 times too high, constant features, captions of other images, a vocabulary
of a few words, or too many epochs on too few images. Only what two validations in a row find is told, because the
captions of a good run's first validation may be as bad as any. The tests of this module have the measurements.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_PREFIX = "health_"
LOSS = "validation_loss_nats"
IMAGE_GAIN = "health_image_gain_nats"
"""Rise of the validation loss when captions are scored with images of others, in nats per word."""
UNKNOWN_SHARE = "health_unknown_word_share"
"""Share of the words of people's captions that the vocabulary does not have."""
NUM_EXCHANGED = 64
"""Number of validation images that are exchanged for the image gain."""

_LEAST_GAIN_NATS = 0.01
"""Good runs gain 0.04 or more at their first validation, and 0.11 at the second; the spoiled ones at most 0.006."""
_MOST_SAME = 0.8
"""At most 0.67 of a good run's captions are the same; with constant features, all are."""
_MOST_EMPTY = 0.2
"""At most 0.16 of a good run's captions are empty, and 0.05 after its first validation."""
_MOST_REPEATED = 0.8
_FEWEST_WORDS, _ENOUGH_CAPTIONS = 12, 50
_SLOW_FALL = 0.05
"""Good runs may begin with "a a a a", which is repetitions in all captions, of few words. So these count only once the
loss falls by less than this share from one validation to the next."""
_MOST_UNKNOWN = 0.25
"""Vocabularies of words that occur at least four times lack 0.05 to 0.09 of people's words, one of five words 0.83."""
_MOST_RISE = 1.1
"""Good runs end at most 2 % above their lowest loss."""


def scores_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a validation that are scores of a checkpoint, without those of its health."""
    return {name: value for name, value in metrics.items() if not name.startswith(_PREFIX)}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that goes wrong in a run."""

    text: str
    """What it is, at the latest validation, as a phrase."""
    since: int
    """Step of the first validation of those in a row that found it."""
    latest: int
    """Step of the latest of them."""


@dataclass(frozen=True, slots=True)
class Health:
    """What goes wrong in a run, from its validations so far."""

    findings: dict[str, Finding] = field(default_factory=dict)
    """What the latest validation found, by kind."""
    loss: float | None = None
    """Validation loss of the latest validation, in nats per word."""
    lowest_loss: float | None = None
    """Lowest validation loss so far, in nats per word."""
    step: int = -1
    """Step of the latest validation; -1 before the first."""

    def add(self, step: int, metrics: Mapping[str, float]) -> "Health":
        """Return the health after one more validation; one that is known, or of an earlier step, changes nothing.

        Args:
            step: number of steps done.
            metrics: metrics of the validation by name, as far as they were measured.
        """
        if step <= self.step:
            return self
        known = {name: value for name, value in metrics.items() if math.isfinite(value)}
        findings = {}
        for kind, text in _found(known, loss_before=self.loss, lowest_loss=self.lowest_loss):
            before = self.findings.get(kind)
            findings[kind] = Finding(text, before.since if before else step, step)
        loss = known.get(LOSS, self.loss)
        losses = [one for one in (loss, self.lowest_loss) if one is not None]
        return Health(findings, loss, min(losses, default=None), step)

    def told(self) -> dict[str, str]:
        """Return what to tell people, by kind: ``says one sentence of 93 % of the pictures since step 1,200``."""
        return {
            kind: f"{one.text} since step {one.since:,}"
            for kind, one in self.findings.items()
            if one.latest > one.since
        }


def _found(
    metrics: Mapping[str, float], *, loss_before: float | None, lowest_loss: float | None
) -> Iterator[tuple[str, str]]:
    """Yield kind and text of each fault that a validation finds."""
    num_captions = metrics.get("health_captions", 0.0)
    same = metrics.get("health_top_caption_share", 0.0)
    if same >= _MOST_SAME:
        yield "same", f"says one sentence of {_share_text(same, num_captions)}"
    gain = metrics.get(IMAGE_GAIN, math.inf)
    if gain < _LEAST_GAIN_NATS:
        yield "blind", f"scores captions as well with other pictures ({gain:+z.3f} nats/word), so it does not see them"
    empty = metrics.get("health_empty_share", 0.0)
    if empty >= _MOST_EMPTY:
        yield "empty", f"says nothing of {_share_text(empty, num_captions)}"
    repeated, loss = metrics.get("health_repeated_share", 0.0), metrics.get(LOSS, math.inf)
    is_slow = loss_before is not None and loss > (1 - _SLOW_FALL) * loss_before
    if repeated >= _MOST_REPEATED and is_slow and num_captions >= _ENOUGH_CAPTIONS:
        yield "repeats", f"repeats words in the captions of {_share_text(repeated, num_captions)}"
    words = metrics.get("health_different_words", math.inf)
    if words <= _FEWEST_WORDS and is_slow and num_captions >= _ENOUGH_CAPTIONS:
        yield "few words", f"uses only {words:.0f} different words"
    unknown = metrics.get(UNKNOWN_SHARE, 0.0)
    if unknown >= _MOST_UNKNOWN:
        yield "unknown words", f"knows only {100 * (1 - unknown):.0f} % of the words of people's captions"
    if lowest_loss is not None and math.isfinite(loss) and loss > _MOST_RISE * lowest_loss:
        yield "rising", f"has a validation loss of {loss:.3f} nats/word, {loss / lowest_loss - 1:.0%} above its lowest"


def _share_text(share: float, num_captions: float) -> str:
    """Return a share of the pictures as text: in percent, or as a number if only a few were captioned."""
    if num_captions < _ENOUGH_CAPTIONS:
        return f"{share * num_captions:.0f} of {num_captions:.0f} pictures"
    return f"{100 * share:.0f} % of the pictures"


def changes(before: Health, now: Health) -> list[str]:
    """Return a line for each fault that is told now and was not before, and the other way round."""
    told, known = now.told(), before.told()
    begun = [f"warning: the model {text}" for kind, text in told.items() if kind not in known]
    return begun + [f"no longer so: the model {text}" for kind, text in known.items() if kind not in told]
