"""Settings of caption generation. Imports no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from captioning.bounds import outside, raise_mistakes
from captioning.config import BEAM_SIZES, LONGEST_CAPTION_WORDS

TEMPERATURES = (0.01, 100)
"""Smallest and largest temperature of sampling."""
UNRECORDED: Mapping[str, int] = {"no_repeat_ngram": 0}
"""Values of settings in a record that does not name them, because its release had another default than this one."""
_SEARCH_ONLY = ("beam_size", "groups", "group_penalty")
_SAMPLING_ONLY = ("top_p", "num_samples", "sampling_seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationConfig:
    """Settings of the search for captions, or of their sampling."""

    beam_size: int = 3
    """Number of partial captions that beam search keeps at every step; 1 is greedy search."""
    length_power: float = 1.0
    """Exponent of the length: captions rank by log-probability divided by length ** exponent; 0 favours short ones."""
    min_words: int = 0
    """Smallest number of words in a caption."""
    no_repeat_ngram: int = 3
    """Length in words of sequences that may come only once in a caption; 0 allows repetition."""
    groups: int = 1
    """Groups that the beam is divided into; each avoids the words of those before it (diverse beam search, arXiv
    1610.02424), so that the captions of an image differ more."""
    group_penalty: float = 0.5
    """Log-probability in nats that a word loses for each beam of the earlier groups that takes it at the same step."""
    temperature: float = 0.0
    """Temperature at which captions are sampled word by word instead of searched; below 1 favours likely words; 0
    searches."""
    top_p: float = 1.0
    """Probability of the likeliest words that sampling chooses from (nucleus sampling, arXiv 1904.09751); 1 is all."""
    num_samples: int = 1
    """Number of captions that are sampled for an image, of which the likeliest comes first."""
    sampling_seed: int = 0
    """Seed of the sampling; with it, an image's own content decides what is drawn, not its place among others."""

    def __post_init__(self) -> None:
        """Check the bounds, and that the settings fit together."""
        raise_mistakes(self._mistakes())

    def _mistakes(self) -> Iterator[str]:
        yield from outside(self, beam_size=BEAM_SIZES, groups=BEAM_SIZES, num_samples=BEAM_SIZES)
        yield from outside(self, length_power=(0, 10), group_penalty=(0, 1_000), sampling_seed=(0, 2**63 - 1))
        words = (0, LONGEST_CAPTION_WORDS)
        yield from outside(self, min_words=words, no_repeat_ngram=words)
        if not 0 < self.top_p <= 1:
            yield f"top_p {self.top_p} is not a probability above 0; use a value above 0, up to 1"
        if self.temperature != 0:
            yield from outside(self, temperature=TEMPERATURES)
        if self.groups > 0 and self.beam_size % self.groups:
            yield f"groups {self.groups} do not divide a beam_size of {self.beam_size}; use a divisor of the beam size"
        yield from self._idle()

    def _idle(self) -> Iterator[str]:
        """Yield a line for each setting that has no effect with the others."""
        changes, way = self.not_default(), "sampling" if self.is_sampling else "beam search"
        remedy = "a temperature of 0" if self.is_sampling else "a temperature above 0, such as 1"
        for name in _SEARCH_ONLY if self.is_sampling else _SAMPLING_ONLY:
            if name in changes and (name, changes[name]) != ("beam_size", 1):
                yield f"{name} {changes[name]} has no effect in {way}; leave it out, or use {remedy}"
        if "group_penalty" in changes and self.groups == 1 and not self.is_sampling:
            yield f"group_penalty {self.group_penalty} has no effect in one group; leave it out, or use groups above 1"

    @property
    def is_sampling(self) -> bool:
        """Return whether captions are sampled instead of searched."""
        return self.temperature != 0

    @property
    def num_captions(self) -> int:
        """Return the largest number of captions of an image."""
        return self.num_samples if self.is_sampling else self.beam_size

    def not_default(self) -> dict[str, int | float]:
        """Return the settings that differ from the defaults."""
        given = {one.name: (getattr(self, one.name), one.default) for one in fields(self)}
        return {name: value for name, (value, default) in given.items() if value != default}

    def summary(self) -> dict[str, Any]:
        """Return the settings as they are recorded with scores: the beam size, and what else a record must name."""
        unnamed = {one.name: UNRECORDED.get(one.name, one.default) for one in fields(self)}
        others = {name: getattr(self, name) for name, value in unnamed.items() if getattr(self, name) != value}
        others.pop("beam_size", None)
        return {"beam_size": self.beam_size} | ({"generation": others} if others else {})

    def check_words(self, max_words: int) -> None:
        """Check that captions of at most ``max_words`` words can have as many as they must.

        Raises:
            ValueError: they cannot.
        """
        if self.min_words > max_words:
            raise ValueError(
                f"min_words {self.min_words} is more than the {max_words} words at which captions are cut; use at "
                f"most {max_words}"
            )

    def changed(self, **values: float) -> "GenerationConfig":
        """Return these settings with other values.

        Where that turns a search into sampling or back, settings that would have no effect return to their defaults,
        unless their values are new.

        Raises:
            ValueError: a value is out of range, or does not fit the others.
        """
        new = {name: value for name, value in values.items() if value != getattr(self, name)}
        is_sampling = new.get("temperature", self.temperature) != 0
        if is_sampling != self.is_sampling:
            default = GenerationConfig()
            new = {name: getattr(default, name) for name in (_SEARCH_ONLY if is_sampling else _SAMPLING_ONLY)} | new
        return replace(self, **new)

    def describe(self) -> str:
        """Return the settings in words, such as ``beam size 3, no 3 words twice``."""
        parts = [f"beam size {self.beam_size}" + (f" in {self.groups} groups" if self.groups > 1 else "")]
        if self.is_sampling:
            nucleus = f" from the likeliest {self.top_p:g}" if self.top_p < 1 else ""
            several = f", {self.num_samples} an image" if self.num_samples > 1 else ""
            parts = [f"sampling at temperature {self.temperature:g}{nucleus}{several}, seed {self.sampling_seed}"]
        told = {
            "length_power": f"length power {self.length_power:g}",
            "min_words": f"at least {self.min_words} words",
            "no_repeat_ngram": f"no {self.no_repeat_ngram} words in a row twice"
            if self.no_repeat_ngram
            else "repetition allowed",
            "group_penalty": f"group penalty {self.group_penalty:g}",
        }
        return ", ".join(parts + [text for name, text in told.items() if name in self.not_default()])
