"""Which words and phrases of two sentences match: the same words, the same stems, synonyms, paraphrases.

Denkowski and Lavie 2011, https://aclanthology.org/W11-2107, section 2. The order of a reference word's matches is that
in which METEOR 1.5 finds them; the aligner decides ties by it.

Positions count words from 0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import numpy as np

from captioning.evaluation.meteor.hashed_lists import TextHasher, hash_text
from captioning.evaluation.meteor.index import MeteorIndex

# Endings of inflected forms and what stands for them in the lemma: Morphy's, of WordNet (Miller 1995).
_ENDINGS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
    ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""), ("er", ""), ("est", ""), ("er", "e"),
    ("est", "e"),
)  # fmt: skip


class Module(IntEnum):
    """A kind of match."""

    EXACT = 0
    STEM = 1
    SYNONYM = 2
    PARAPHRASE = 3


class Match(NamedTuple):
    """A word or phrase of a candidate that matches one of a reference."""

    module: int
    """Kind of the match, a ``Module``."""
    start: int
    """First word in the reference."""
    length: int
    """Number of words in the reference."""
    other_start: int
    """First word in the candidate."""
    other_length: int
    """Number of words in the candidate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """A sentence with all that matching needs to know of it."""

    words: tuple[str, ...]
    phrases: Mapping[int, Sequence[tuple[int, int]]]
    """First word and number of words of each phrase, by the phrase's hash."""
    paraphrased: Sequence[tuple[int, int, Mapping[int, int]]]
    """First word, number of words and paraphrases of each phrase that has some; the last are ranks by hash."""


class Matcher:
    """Matches of words and phrases by METEOR's data for English.

    Args:
        index: METEOR's data.
    """

    def __init__(self, index: MeteorIndex) -> None:
        from snowballstemmer.english_stemmer import EnglishStemmer

        self._index = index
        self._stem = cache(EnglishStemmer().stemWord)
        self._synsets = cache(self._find_synsets)
        self._paraphrases = cache(self._find_paraphrases)
        self._relations: dict[str, dict[str, tuple[Module, ...]]] = {}

    def read(self, sentences: Iterable[Sequence[str]]) -> list[Sentence]:
        """Look up the words and phrases of many sentences, which is faster at once than one by one.

        Args:
            sentences: normalized words of each sentence.
        """
        words = [tuple(sentence) for sentence in sentences]
        spans, hashes = self._hash_phrases(words)
        numbers = self._index.paraphrases.find(hashes).tolist()
        found = zip(spans, hashes.tolist(), numbers, strict=True)
        phrases: list[dict[int, list[tuple[int, int]]]] = [{} for _ in words]
        paraphrased: list[list[tuple[int, int, Mapping[int, int]]]] = [[] for _ in words]
        for (sentence, start, length), phrase, number in found:
            phrases[sentence].setdefault(phrase, []).append((start, length))
            if number >= 0:
                paraphrased[sentence].append((start, length, self._paraphrases(number)))
        rows = zip(words, phrases, paraphrased, strict=True)
        return [Sentence(words=one, phrases=all_, paraphrased=sorted(some, key=_place)) for one, all_, some in rows]

    def _hash_phrases(self, sentences: Sequence[Sequence[str]]) -> tuple[list[tuple[int, int, int]], np.ndarray]:
        """Return sentence, first word and length of every phrase that may have paraphrases, and its hash."""
        hasher = TextHasher(np.frombuffer(" ".join(word for words in sentences for word in words).encode(), np.uint8))
        lengths = np.array([len(words) for words in sentences], np.int64)
        sizes = np.array([len(word.encode()) for words in sentences for word in words], np.int64)
        starts = np.concatenate(([0], np.cumsum(sizes + 1)))[: len(sizes)]
        ends, owners = starts + sizes, np.repeat(np.arange(len(sentences)), lengths)
        places = np.arange(len(sizes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        spans, hashes = [], [np.zeros(0, np.uint64)]
        for length in range(1, self._index.longest_phrase + 1):
            first = np.flatnonzero(places + length <= lengths[owners])
            hashes.append(hasher.hash(starts[first], ends[first + length - 1]))
            spans += zip(owners[first].tolist(), places[first].tolist(), [length] * len(first), strict=True)
        return spans, np.concatenate(hashes)

    def match(self, candidate: Sentence, reference: Sentence) -> list[list[Match]]:
        """Return the matches that start at each word of a reference, by kind.

        Two phrases match twice if each is a paraphrase of the other.
        """
        found: list[list[Match]] = []
        for start, word in enumerate(reference.words):
            related = self._relations.setdefault(word, {})
            matches = []
            for position, other in enumerate(candidate.words):
                if other not in related:
                    related[other] = self._relate(word, other)
                matches += [Match(kind, start, 1, position, 1) for kind in related[other]]
            found.append(sorted(matches))  # by kind
        for match in _paraphrase_matches(candidate, reference):
            found[match.start].append(match)
        return found

    def _relate(self, word: str, other: str) -> tuple[Module, ...]:
        """Return the kinds of match of two words; the same words match in one way only."""
        if word == other:
            return (Module.EXACT,)
        stems = (Module.STEM,) if self._stem(word) == self._stem(other) else ()
        return stems if self._synsets(word).isdisjoint(self._synsets(other)) else (*stems, Module.SYNONYM)

    def _find_synsets(self, word: str) -> frozenset[int]:
        """Return the sets of synonyms of a word and of its lemma."""
        own = self._index.synsets.get(hash_text(word))
        lemmas = self._index.lemmas.get(hash_text(word))
        if lemmas:
            return frozenset(own).union(*map(self._index.synsets.get, lemmas))
        if len(word) < 3 or word.endswith("ss"):  # has no ending
            return frozenset(own)
        endings = [(ending, instead) for ending, instead in _ENDINGS if word.endswith(ending)]
        candidates = (self._index.synsets.get(hash_text(word.removesuffix(e) + instead)) for e, instead in endings)
        return frozenset(own).union(next(filter(None, candidates), ()))

    def _find_paraphrases(self, number: int) -> dict[int, int]:
        return {phrase: rank for rank, phrase in enumerate(self._index.paraphrases.list_of(number))}


def _place(phrase: tuple[int, int, object]) -> tuple[int, int]:
    return phrase[:2]


def _paraphrase_matches(candidate: Sentence, reference: Sentence) -> Iterator[Match]:
    """Yield the matches of paraphrases: first those of the reference's phrases, then those of the candidate's."""
    for start, length, ranks in reference.paraphrased:
        for other_start, other_length in _occurrences(ranks, candidate):
            yield Match(Module.PARAPHRASE, start, length, other_start, other_length)
    for other_start, other_length, ranks in candidate.paraphrased:
        for start, length in _occurrences(ranks, reference):
            yield Match(Module.PARAPHRASE, start, length, other_start, other_length)


def _occurrences(ranks: Mapping[int, int], sentence: Sentence) -> Iterable[tuple[int, int]]:
    """Return the places of some paraphrases in a sentence, in the paraphrases' order."""
    common = ranks.keys() & sentence.phrases.keys()
    if not common:
        return ()
    return [place for phrase in sorted(common, key=ranks.__getitem__) for place in sentence.phrases[phrase]]
