"""The alignment of two sentences: which of their matches count, at most one for each word.

Denkowski and Lavie 2011, https://aclanthology.org/W11-2107, section 2: of all alignments the one with the most words
matched, then with the fewest chunks (runs of matches that are contiguous in both sentences), then with the least
distance between matched words; found by beam search over the reference's words.

METEOR 1.5 differs from the paper in three points, which are kept, since scores depend on them. A word that is not
matched exactly counts a half, and a match's words are rounded down: a synonym alone is worth nothing and must save a
chunk. The distance is that of the alternatives that were passed over at a word, in the order of ``matchers``. A match
whose words have no other is taken before the search.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from captioning.evaluation.meteor.matchers import Match, Module

_BEAM_SIZE = 40
# The cost of a path is one number, so that paths are sorted fast: words matched, then chunks, then distance.
_WORD, _CHUNK = 1 << 40, 1 << 20
_cost = itemgetter(0)

_Path = tuple[int, int, int, int, tuple[Match, ...]]
"""Cost; next word of the reference; the candidate's word that would continue a chunk, -1 outside a chunk; bit set of
the words that are taken, the reference's first; the matches."""


class _Option(NamedTuple):
    """A match with what the search needs of it."""

    match: Match
    words: int
    """Bit set of the words that it takes."""
    gain: int
    """Cost of its words, negative."""
    stop: int
    """The candidate's word after it."""
    distance: int
    """Cost of passing it over."""


class Alignment(NamedTuple):
    """An alignment of a candidate and a reference."""

    matches: tuple[Match, ...]
    """Matches by position in the reference."""
    num_chunks: int
    """Number of runs of matches that are contiguous in both sentences."""


def align(matches: Sequence[Sequence[Match]]) -> Alignment:
    """Return the best alignment.

    Args:
        matches: matches that start at each word of the reference, as ``Matcher.match`` returns them.
    """
    fixed = _without_alternative(matches)
    options = [[_option(match, len(matches)) for match in some] for some in matches]
    taken = sum(options[position][0].words for position in fixed)  # they have no word in common
    paths: list[_Path] = [(0, 0, -1, taken, ())]
    for position, some in enumerate(options):
        following: list[_Path] = []
        for path in paths[:_BEAM_SIZE]:
            if path[1] > position:  # within a phrase
                following.append(path)
            elif position in fixed:
                cost, _, chunk_end, taken, chosen = path
                match, _, gain, stop, _ = some[0]
                chunk = 0 if chunk_end in (-1, match.other_start) else _CHUNK
                following.append((cost + gain + chunk, position + match.length, stop, taken, (*chosen, match)))
            else:
                _extend(path, some, following)
        following.sort(key=_cost)
        paths = following
    ended = [(cost + (_CHUNK if chunk_end >= 0 else 0), chosen) for cost, _, chunk_end, _, chosen in paths[:_BEAM_SIZE]]
    cost, chosen = min(ended, key=_cost)  # the first of equals
    return Alignment(chosen, cost % _WORD // _CHUNK)


def _option(match: Match, num_words: int) -> _Option:
    module, start, length, other_start, other_length = match
    return _Option(
        match=match,
        words=((1 << length) - 1) << start | ((1 << other_length) - 1) << (num_words + other_start),
        gain=-_WORD * (length + other_length if module == Module.EXACT else length // 2 + other_length // 2),
        stop=other_start + other_length,
        distance=abs(start - other_start),
    )


def _without_alternative(matches: Sequence[Sequence[Match]]) -> set[int]:
    """Return the positions in the reference of the matches whose words all have no other match."""
    covered: dict[int, int] = {}
    other_covered: dict[int, int] = {}
    for options in matches:
        for _, start, length, other_start, other_length in options:
            for word in range(start, start + length):
                covered[word] = covered.get(word, 0) + 1
            for word in range(other_start, other_start + other_length):
                other_covered[word] = other_covered.get(word, 0) + 1
    return {
        position
        for position, (match, *rest) in ((position, options) for position, options in enumerate(matches) if options)
        if not rest
        and all(covered[word] == 1 for word in range(match.start, match.start + match.length))
        and all(other_covered[word] == 1 for word in range(match.other_start, match.other_start + match.other_length))
    }


def _extend(path: _Path, options: Sequence[_Option], following: list[_Path]) -> None:
    """Add the continuations of a path at a word: with each match that is still free, and with none.

    A chunk is counted when it ends.
    """
    cost, position, chunk_end, taken, chosen = path
    for match, words, gain, stop, distance in options:
        if taken & words:
            continue
        chunk = 0 if chunk_end in (-1, match.other_start) else _CHUNK
        following.append((cost + gain + chunk, position + match.length, stop, taken | words, (*chosen, match)))
        cost += distance
    following.append((cost if chunk_end < 0 else cost + _CHUNK, position + 1, -1, taken, chosen))
