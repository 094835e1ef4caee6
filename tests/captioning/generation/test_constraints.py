import pytest
import torch

from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.generation.constraints import Constraints
from tests.support.case_table import each_case

NUM_WORDS = 9


def forbidden(words, **constraints):
    """Return the words that may not follow ``words``."""
    scores = torch.zeros(1, NUM_WORDS)
    Constraints(**constraints).apply(scores, torch.tensor([words], dtype=torch.int64).view(1, len(words)))
    return set(scores[0].isneginf().nonzero().flatten().tolist()) - {PAD, BOS, UNK}


def repeats(words, length):
    ngrams = [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]
    return len(set(ngrams)) < len(ngrams) and ngrams[-1] in ngrams[:-1]


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_no_ngram_comes_twice(length):
    generator = torch.Generator().manual_seed(length)
    for count in range(12):
        words = torch.randint(4, 7, (count,), generator=generator).tolist()
        wanted = {word for word in range(4, NUM_WORDS) if repeats([*words, word], length)}
        assert forbidden(words, no_repeat_ngram=length) == wanted


def test_rows_are_forbidden_their_own_words():
    scores = torch.zeros(2, NUM_WORDS)
    Constraints(no_repeat_ngram=2).apply(scores, torch.tensor([[4, 5, 4], [5, 4, 5]]))
    assert [scores[row].isneginf().nonzero().flatten().tolist()[3:] for row in range(2)] == [[5], [4]]


@each_case(("words", "is_forbidden"), [([], True), ([4], True), ([4, 5], False), ([4, 5, 6], False)])
def test_a_caption_does_not_end_before_its_smallest_number_of_words(words, is_forbidden):
    assert (EOS in forbidden(words, min_words=2)) == is_forbidden


def test_a_caption_ends_early_where_no_other_word_is_possible():
    assert forbidden([4, 5, 6, 7, 8], min_words=9, no_repeat_ngram=1) == {4, 5, 6, 7, 8}


def test_special_words_never_come():
    scores = torch.zeros(1, NUM_WORDS)
    Constraints().apply(scores, torch.zeros(1, 0, dtype=torch.int64))
    assert scores[0].isneginf().nonzero().flatten().tolist() == [PAD, BOS, UNK]
