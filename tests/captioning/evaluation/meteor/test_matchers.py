import pytest

from captioning.evaluation.meteor.index import open_index
from captioning.evaluation.meteor.matchers import Match, Matcher, Module
from tests.support.case_table import each_case


@pytest.fixture(scope="module")
def matcher():
    return Matcher(open_index())


def kinds(matcher, candidate, reference):
    one, other = matcher.read([candidate.split(), reference.split()])
    return {Module(match.module).name for match in matcher.match(one, other)[0]}


@each_case(
    ("candidate", "reference", "expected"),
    [
        ("dog", "dog", {"EXACT"}),
        ("dogs", "dog", {"STEM", "SYNONYM", "PARAPHRASE"}),  # of one lemma are synonyms too
        ("blorging", "blorged", {"STEM"}),  # of no dictionary
        ("added", "adding", {"STEM", "SYNONYM", "PARAPHRASE"}),  # Snowball 3 stems "added" to "add"
        ("mice", "mouse", {"SYNONYM"}),  # an irregular form
        ("glass", "glas", set()),  # the s of ss is no ending
        ("bicycle", "bike", {"SYNONYM", "PARAPHRASE"}),
        ("dog", "cat", set()),
    ],
)
def test_two_words_match_by_these_kinds(matcher, candidate, reference, expected):
    assert kinds(matcher, candidate, reference) == expected


def test_phrases_match_by_paraphrases_of_either_side(matcher):
    one, other = matcher.read([["q", "a", "house", "x"], ["q", "w", "a", "home"]])
    assert matcher.match(one, other) == [
        [Match(Module.EXACT, 0, 1, 0, 1)],
        [],
        # "a home" is a paraphrase of "a house", and the other way round
        [
            Match(Module.EXACT, 2, 1, 1, 1),
            Match(Module.PARAPHRASE, 2, 2, 1, 2),
            Match(Module.PARAPHRASE, 2, 2, 1, 2),
        ],
        # "home" is one of "a house", which is none of "home"
        [
            Match(Module.SYNONYM, 3, 1, 2, 1),
            Match(Module.PARAPHRASE, 3, 1, 2, 1),
            Match(Module.PARAPHRASE, 3, 1, 1, 2),
            Match(Module.PARAPHRASE, 3, 1, 2, 1),
        ],
    ]


def test_sentences_without_words_match_nothing(matcher):
    empty, other = matcher.read([[], ["a", "dog"]])
    assert (matcher.match(empty, other), matcher.match(other, empty)) == ([[], []], [])
    assert matcher.read([]) == []
