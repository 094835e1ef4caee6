from itertools import pairwise, product

import numpy as np

from captioning.evaluation.meteor.aligner import align
from captioning.evaluation.meteor.matchers import Match, Module
from tests.support.case_table import each_case


def exact(start, other_start):
    return Match(Module.EXACT, start, 1, other_start, 1)


def synonym(start, other_start):
    return Match(Module.SYNONYM, start, 1, other_start, 1)


def test_nothing_to_match_is_no_chunk():
    assert align([[], []]) == ((), 0)
    assert align([]) == ((), 0)


def test_each_word_is_matched_once():
    found = align([[exact(0, 0), exact(0, 1)], [exact(1, 0), exact(1, 1)]])
    assert found == ((exact(0, 0), exact(1, 1)), 1)


def test_of_as_many_words_the_fewest_chunks_count():
    # "a b a c" and "a c": the second "a" continues to "c".
    assert align([[exact(0, 0), exact(0, 2)], [exact(1, 3)]]) == ((exact(0, 2), exact(1, 3)), 1)


@each_case(
    ("matches", "expected"),
    [
        ([[synonym(0, 0), synonym(0, 0)]], ((), 0)),  # is worth less than the chunk that it makes
        ([[synonym(0, 0)]], ((synonym(0, 0),), 1)),  # has no alternative
        ([[exact(0, 0)], [synonym(1, 1), synonym(1, 1)]], ((exact(0, 0), synonym(1, 1)), 1)),  # makes no chunk
    ],
)
def test_a_synonym_counts_where_it_makes_no_chunk(matches, expected):
    assert align(matches) == expected


def test_a_phrase_may_cover_several_words_of_either_side():
    phrase = Match(Module.PARAPHRASE, 0, 3, 0, 2)
    assert align([[phrase, phrase], [], [], [exact(3, 2)]]) == ((phrase, exact(3, 2)), 1)


def test_the_search_finds_what_trying_all_alignments_finds():
    draws = np.random.Generator(np.random.Philox(7))
    for _ in range(200):
        words, others = draws.integers(0, 3, 5).tolist(), draws.integers(0, 3, 4).tolist()
        options = [[exact(i, j) for j, other in enumerate(others) if word == other] for i, word in enumerate(words)]
        found = align(options)
        assert quality(found.matches) == min(
            quality(tuple(match for match in chosen if match))
            for chosen in product(*([*some, None] for some in options))
            if len(taken := [match.other_start for match in chosen if match]) == len(set(taken))
        )
        assert quality(found.matches) == (-len(found.matches), found.num_chunks)


def quality(matches):
    runs = sum(
        (one.start + 1, one.other_start + 1) != (other.start, other.other_start) for one, other in pairwise(matches)
    )
    return -len(matches), runs + bool(matches)
