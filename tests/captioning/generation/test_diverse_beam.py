from collections import Counter

import pytest
import torch

from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.generation.beam_search import beam_search
from captioning.generation.constraints import Constraints
from captioning.generation.diverse_beam import diverse_beam_search
from tests.support.case_table import each_case
from tests.support.table_decoders import (
    VOCABULARY_SIZE,
    CountingDecoder,
    TableDecoder,
    log_probability,
    random_tables,
    written,
)


def searched(features, decoder=None, **options):
    options = {"beam_size": 4, "groups": 2, "group_penalty": 0.5, "max_words": 4} | options
    return diverse_beam_search(decoder or TableDecoder(), features, **options)


def slow_search(table, beam_size, groups, penalty, max_words):
    """Return the captions that each group finds, for one image's table (T, V * V), by plain loops."""
    size = beam_size // groups
    found = [[()] for _ in range(groups)]
    for _ in range(max_words):
        taken = Counter()
        for number, beams in enumerate(found):
            extended = {}
            for words in beams:
                if words[-1:] == (EOS,):
                    extended[words] = log_probability(table, words)
                    continue
                for word in set(range(VOCABULARY_SIZE)) - {PAD, BOS, UNK}:
                    extended[*words, word] = log_probability(table, (*words, word)) - penalty * taken[word]
            best = sorted(extended, key=lambda words: -extended[words])[:size]
            taken.update(words[-1] for words in best if words not in beams)
            found[number] = best
    return found


@each_case(("beam_size", "groups"), [(2, 2), (4, 2), (6, 3), (6, 2), (3, 1)])
@each_case("penalty", [0.0, 0.4, 3.0])
def test_the_groups_find_what_plain_loops_find(beam_size, groups, penalty):
    features = random_tables(3, seed=beam_size)
    found = searched(features, beam_size=beam_size, groups=groups, group_penalty=penalty)
    for row in range(3):
        everything = {one for group in slow_search(features[row], beam_size, groups, penalty, 4) for one in group}
        likelihood = {caption: log_probability(features[row], caption) for caption in everything}
        ranked = sorted(everything, key=lambda caption: -likelihood[caption] / len(caption))
        assert written(found, row) == ranked + [()] * (beam_size - len(ranked))
        torch.testing.assert_close(
            found.log_probability[row, : len(ranked)], torch.tensor([likelihood[caption] for caption in ranked])
        )


def test_one_group_is_a_beam_search():
    features = random_tables(5)
    found, wanted = (
        searched(features, beam_size=3, groups=1),
        beam_search(TableDecoder(), features, beam_size=3, max_words=4),
    )
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_groups_without_a_penalty_find_the_same_captions_and_each_comes_once():
    found = searched(random_tables(2), beam_size=6, groups=3, group_penalty=0.0)
    wanted = beam_search(TableDecoder(), random_tables(2), beam_size=2, max_words=4)
    for row in range(2):
        assert written(found, row) == [*written(wanted, row), (), (), (), ()]


def test_a_batch_gives_what_its_images_give_alone():
    features = random_tables(6, seed=9)
    together, alone = searched(features), [searched(one[None]) for one in features]
    assert together.tokens.tolist() == [one.tokens[0].tolist() for one in alone]


def test_the_decoder_reads_bos_once_and_only_captions_that_go_on():
    table, decoder = torch.full((2, 9, VOCABULARY_SIZE, VOCABULARY_SIZE), -torch.inf), CountingDecoder()
    table[0, 0, BOS, EOS] = 0  # the first image is complete at once
    table[1, :, :, 4:6], table[1, 2:, :, 4:6], table[1, 2:, :, EOS] = 0, -torch.inf, 0
    searched(table.flatten(2), decoder, max_words=9)
    assert decoder.num_rows == [2, 4, 4]


def test_constraints_hold_in_every_group():
    found = searched(random_tables(20), constraints=Constraints(min_words=2, no_repeat_ngram=1), beam_size=6, groups=3)
    captions = [[word for word in one if word != EOS] for row in range(20) for one in written(found, row) if one]
    assert all(len(words) >= 2 and len(set(words)) == len(words) for words in captions)


@each_case(("beam_size", "groups", "max_words"), [(4, 3, 5), (4, 0, 5), (0, 1, 5), (4, 2, 0)])
def test_groups_that_cannot_be_are_refused(beam_size, groups, max_words):
    message = f"beam_size {beam_size} in {groups} groups with max_words {max_words} allows no caption; use at least 1"
    with pytest.raises(ValueError, match=message):
        searched(random_tables(1), beam_size=beam_size, groups=groups, max_words=max_words)
