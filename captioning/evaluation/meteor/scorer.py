"""Scores of METEOR: alignments to statistics of a caption, and their sums to the score of a corpus.

Lavie and Agarwal 2007, https://aclanthology.org/W07-0734, section 2; weights of kinds of matches and of function words:
Denkowski and Lavie 2011, https://aclanthology.org/W11-2107; parameters for English: Denkowski and Lavie 2014,
https://aclanthology.org/W14-3348.

A corpus's score is computed from the sums of its captions' statistics, each against its best reference; it is not the
mean of the captions' scores.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np

from captioning.data.tokenizers import PTB, Tokenizer
from captioning.evaluation.meteor.aligner import Alignment, align
from captioning.evaluation.meteor.index import MeteorIndex, open_index
from captioning.evaluation.meteor.matchers import Matcher, Sentence
from captioning.evaluation.meteor.normalizer import normalize

logger = logging.getLogger(__name__)

NUM_STATISTICS = 6
"""Number of a caption's statistics that are summed over a corpus."""
WEIGHTS = (1.0, 0.6, 0.8, 0.6)
"""Weight of a match by ``Module``."""
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
"""Weight of recall against precision; exponent and weight of the penalty for chunks; weight of content words."""
_IMAGES_AT_ONCE = 200  # limits memory: a caption's phrases take 10 kB
_NUM_LOOKED_AT = 1_000
_FEWEST_FUNCTION_WORDS = 0.25
"""Share of function words from which captions count as English: of COCO's it is 0.45, of other languages below 0.2."""


class MeteorStatistics(NamedTuple):
    """What METEOR sums over a corpus; words are weighted, content words by 0.75 and function words by 0.25."""

    matched: float
    """Weight of the candidate's matched words, times the weights of the kinds of matches."""
    length: float
    """Weight of the candidate's words."""
    reference_matched: float
    """Weight of the reference's matched words, times the weights of the kinds of matches."""
    reference_length: float
    """Weight of the reference's words."""
    chunks: float
    """Number of runs of contiguous matches; 0 if the whole sentence is one run."""
    matches: float
    """Number of matched words, the mean of candidate and reference."""


class Meteor:
    """Scorer of captions by METEOR 1.5 for English.

    Args:
        index: METEOR's data.
    """

    def __init__(self, index: MeteorIndex) -> None:
        self._index = index
        self._matcher = Matcher(index)
        self._normalized = cache(lambda caption: tuple(normalize(caption, index.abbreviations)))

    def statistics(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Iterator[MeteorStatistics]:
        """Yield the statistics of each caption against its best reference.

        Args:
            candidates: caption of each image, tokenized, joined by spaces.
            references: references of each image, likewise; at least one an image.
        """
        images = zip(candidates, references, strict=True)
        while batch := list(islice(images, _IMAGES_AT_ONCE)):
            texts = list(dict.fromkeys(text for one, others in batch for text in (one, *others)))
            sentences = self._matcher.read([self._normalized(text) for text in texts])
            by_text = dict(zip(texts, sentences, strict=True))
            for one, others in batch:
                found = [self._compare(by_text[one], by_text[other]) for other in others]
                yield max(found, key=_score_of)  # the first of equals

    def _compare(self, candidate: Sentence, reference: Sentence) -> MeteorStatistics:
        alignment = align(self._matcher.match(candidate, reference))
        return _statistics(candidate.words, reference.words, alignment, self._index.function_words)


def open_meteor(references: Iterable[str], tokenizer: Tokenizer = PTB) -> Meteor | None:
    """Return a scorer, or None, which is logged, if captions are not English or METEOR's data cannot be read.

    Args:
        references: untokenized references; the first thousand are looked at.
        tokenizer: tokenizer of captions and references.
    """
    if tokenizer is not PTB:
        logger.info(
            "METEOR is left out of the scores, because it is for English, by tokenizer %s; words are by %s",
            PTB.name,
            tokenizer.name,
        )
        return None
    try:
        index = open_index()
    except (OSError, ValueError) as error:
        logger.warning("METEOR is left out of the scores, because its data cannot be read: %s", error)
        return None
    words = [word for caption in islice(references, _NUM_LOOKED_AT) for word in tokenizer.tokenize(caption)]
    num_function_words = sum(word in index.function_words for word in words)
    if num_function_words < _FEWEST_FUNCTION_WORDS * len(words):
        logger.info(
            "METEOR is left out of the scores, because it is for English, and %.0f %% of the references' words are "
            "function words of English, where it needs %.0f %%",
            100 * num_function_words / len(words),
            100 * _FEWEST_FUNCTION_WORDS,
        )
        return None
    return Meteor(index)


def score_of_statistics(sums: np.ndarray) -> np.ndarray:
    """Return the scores, (...), from statistics of captions or their sums, (..., 6) float64; 0 without matches."""
    matched, length, reference_matched, reference_length, chunks, matches = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = matched / length, reference_matched / reference_length
        mean = precision * recall / (_ALPHA * precision + (1 - _ALPHA) * recall)
        scores = mean * (1 - _GAMMA * (chunks / matches) ** _BETA)
    return np.where((matched > 0) & (reference_matched > 0), scores, 0.0)


def _score_of(found: MeteorStatistics) -> float:
    """Return the score of one caption; the arithmetic of ``score_of_statistics`` without numpy, which is slow here."""
    if not (found.matched and found.reference_matched):
        return 0.0
    precision, recall = found.matched / found.length, found.reference_matched / found.reference_length
    mean = precision * recall / (_ALPHA * precision + (1 - _ALPHA) * recall)
    return mean * (1 - _GAMMA * (found.chunks / found.matches) ** _BETA)


def _statistics(
    candidate: Sequence[str], reference: Sequence[str], alignment: Alignment, function_words: Set[str]
) -> MeteorStatistics:
    def weigh(words: Sequence[str]) -> float:
        return sum(1 - _DELTA if word in function_words else _DELTA for word in words)

    matched = reference_matched = 0.0
    num_matched = num_reference_matched = 0
    for module, start, length, other_start, other_length in alignment.matches:
        matched += WEIGHTS[module] * weigh(candidate[other_start : other_start + other_length])
        reference_matched += WEIGHTS[module] * weigh(reference[start : start + length])
        num_matched, num_reference_matched = num_matched + other_length, num_reference_matched + length
    is_whole = num_matched == len(candidate) and num_reference_matched == len(reference) and alignment.num_chunks == 1
    return MeteorStatistics(
        matched=matched,
        length=weigh(candidate),
        reference_matched=reference_matched,
        reference_length=weigh(reference),
        chunks=0 if is_whole else alignment.num_chunks,
        matches=(num_matched + num_reference_matched) / 2,
    )
