"""Inspection of a shard set: what the samples of a split hold."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from shards.reader import Sample, ShardReader
from shards.table.shard_table import ShardRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSummary:
    """What the samples of a split hold."""

    num_shards: int
    num_samples: int
    num_bytes: int
    captions_per_image: tuple[int, float, int]
    """Smallest number, mean and largest number of captions of an image."""
    words_per_caption: tuple[int, float, int]
    """Smallest number, mean and largest number of words of a caption."""
    num_words: int
    num_different_words: int
    unknown_share: float
    """Share of the words that the vocabulary lacks, and which become <unk>."""
    shorter_side_px: tuple[int, float, int]
    """Smallest, median and largest shorter side of the stored images; zeros if the samples do not tell."""


def inspect_split(
    reader: ShardReader,
    shards: Sequence[ShardRecord],
    *,
    tokenize: Callable[[str], Sequence[str]],
    known_words: Collection[str],
    progress: Callable[[int], None] = lambda count: None,
) -> SplitSummary:
    """Read the captions and sizes of a split; no image is decoded.

    Args:
        reader: reader of the split.
        shards: records of its shards.
        tokenize: function that splits a caption into words.
        known_words: words of the vocabulary.
        progress: callback, called with the number of samples done.

    Raises:
        DamagedSampleError: a sample has no JSON.
        ValueError: a shard cannot be read.
    """
    num_captions, lengths, sides, words = [], [], [], Counter[str]()
    for number in range(len(reader)):
        captions, side = _described(reader.describe(number)[1])
        tokenized = [tokenize(caption) for caption in captions]
        num_captions.append(len(captions))
        lengths += [len(one) for one in tokenized]
        sides += [side] if side else []
        for one in tokenized:
            words.update(one)
        progress(number + 1)
    known = set(known_words)
    return SplitSummary(
        num_shards=len(shards),
        num_samples=len(reader),
        num_bytes=sum(shard.num_bytes for shard in shards),
        captions_per_image=_spread(num_captions),
        words_per_caption=_spread(lengths),
        num_words=words.total(),
        num_different_words=len(words),
        unknown_share=sum(count for word, count in words.items() if word not in known) / max(1, words.total()),
        shorter_side_px=(min(sides), float(median(sides)), max(sides)) if sides else (0, 0.0, 0),
    )


def draw_samples(reader: ShardReader, *, num_drawn: int) -> list[Sample]:
    """Return samples spread evenly over a split, whose order is random: at most ``num_drawn``."""
    step = max(1, -(-len(reader) // num_drawn))
    return [reader.read(number) for number in range(0, len(reader), step)]


def _described(content: bytes) -> tuple[list[str], int]:
    """Return the captions of a sample and its shorter side in pixels, 0 if it does not tell."""
    try:
        description = json.loads(content)
        captions = [str(caption) for caption in description["captions"]]
        return captions, min(description.get("width", 0), description.get("height", 0))
    except (ValueError, KeyError, TypeError, AttributeError):
        return [], 0  # captioning verify --deep names it


def _spread(values: Sequence[int]) -> tuple[int, float, int]:
    return (min(values), fmean(values), max(values)) if values else (0, 0.0, 0)
