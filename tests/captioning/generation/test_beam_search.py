from itertools import product

import pytest
import torch

from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.generation.beam_search import beam_search
from captioning.generation.constraints import Constraints
from tests.support import tiny_models
from tests.support.case_table import each_case
from tests.support.table_decoders import (
    NUM_WORDS,
    VOCABULARY_SIZE,
    CountingDecoder,
    TableDecoder,
    all_captions,
    log_probability,
    random_tables,
    written,
)


@each_case("length_power", [0.0, 0.5, 1.0, 2.0])
@each_case("seed", range(3))
def test_a_wide_beam_ranks_all_captions_as_exhaustive_search_does(length_power, seed):
    features, everything = random_tables(1, max_words=3, seed=seed), all_captions(3)
    found = beam_search(TableDecoder(), features, beam_size=len(everything), max_words=3, length_power=length_power)
    likelihood = {caption: log_probability(features[0], caption) for caption in everything}
    ranked = sorted(everything, key=lambda caption: -likelihood[caption] / len(caption) ** length_power)
    assert written(found) == ranked
    torch.testing.assert_close(found.log_probability[0], torch.tensor([likelihood[caption] for caption in ranked]))


@each_case(("min_words", "no_repeat_ngram"), [(2, 0), (0, 1), (0, 2), (3, 3), (4, 1)])
def test_a_wide_beam_finds_every_caption_that_the_constraints_allow(min_words, no_repeat_ngram):
    features, constraints = random_tables(1), Constraints(min_words, no_repeat_ngram)
    everything = [one for one in all_captions(4) if is_allowed(one, constraints)]
    found = beam_search(TableDecoder(), features, beam_size=len(everything), max_words=4, constraints=constraints)
    likelihood = {caption: log_probability(features[0], caption) for caption in everything}
    assert written(found) == sorted(everything, key=lambda caption: -likelihood[caption] / len(caption))
    torch.testing.assert_close(found.log_probability[0], torch.tensor([likelihood[one] for one in written(found)]))


def is_allowed(caption, constraints):
    words, length = [word for word in caption if word != EOS], constraints.no_repeat_ngram
    ngrams = [tuple(words[at : at + length]) for at in range(len(words) - length + 1)] if length else []
    # Three words cannot all differ in more than three places, where a caption may then end.
    least = min(constraints.min_words, NUM_WORDS if length == 1 else 4)
    return len(words) >= least and len(set(ngrams)) == len(ngrams)


def test_a_narrow_beam_finds_a_caption_that_greedy_search_misses():
    table = torch.full((2, VOCABULARY_SIZE, VOCABULARY_SIZE), -9.0)
    table[0, BOS, 4], table[0, BOS, 5] = 1.0, 0.9
    table[1, 4, 4:], table[1, 5, EOS] = 0.0, 5.0  # after the best first word, no word is likely
    features = table.flatten(1)[None]
    greedy = written(beam_search(TableDecoder(), features, beam_size=1, max_words=2))
    beam = written(beam_search(TableDecoder(), features, beam_size=2, max_words=2))
    assert (greedy[0][0], beam[0]) == (4, (5, EOS))


@each_case("seed", range(5))
def test_a_beam_of_one_is_greedy_and_takes_the_likeliest_word_at_every_step(seed):
    features = random_tables(1, seed=seed)
    table, words = features[0].unflatten(1, (VOCABULARY_SIZE, VOCABULARY_SIZE)).clone(), [BOS]
    table[..., [PAD, BOS, UNK]] = -torch.inf
    while words[-1] != EOS and len(words) <= 4:
        words.append(int(table[len(words) - 1, words[-1]].argmax()))
    assert written(beam_search(TableDecoder(), features, beam_size=1, max_words=4)) == [tuple(words[1:])]


@pytest.fixture(scope="module")
def model():
    model = tiny_models.model(seed=2).eval()
    torch.nn.init.normal_(model.decoder.word_embedding.weight)
    torch.nn.init.normal_(model.decoder.output.weight)
    return model


@pytest.fixture(scope="module")
def features(model):
    return model.encoder(tiny_models.batch(range(5)).images) * torch.arange(1, 6)[:, None, None]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_batch_gives_what_its_images_give_alone(model, features, beam_size):
    together = beam_search(model.decoder, features, beam_size=beam_size, max_words=6)
    alone = [beam_search(model.decoder, one[None], beam_size=beam_size, max_words=6) for one in features]
    assert together.tokens.tolist() == [one.tokens[0].tolist() for one in alone]
    torch.testing.assert_close(together.score, torch.cat([one.score for one in alone]))


def test_the_log_probability_is_that_of_teacher_forcing(model, features):
    found = beam_search(model.decoder, features, beam_size=3, max_words=6)
    for row, column in product(range(5), range(3)):
        caption = torch.tensor([written(found, row)[column]])
        tokens = torch.cat([torch.tensor([[BOS]]), caption[:, :-1]], dim=1)
        logits = model.decoder.score(model.decoder(features[row : row + 1], tokens, torch.tensor([0]), None))
        steps = torch.log_softmax(logits, dim=-1).gather(2, caption[..., None])
        torch.testing.assert_close(found.log_probability[row, column], steps.sum())


@each_case("length_power", [0.0, 0.7, 1.0])
def test_the_score_is_the_log_probability_over_a_power_of_the_length(length_power):
    found = beam_search(TableDecoder(), random_tables(2), beam_size=5, max_words=4, length_power=length_power)
    lengths = (found.tokens != PAD).sum(-1)
    torch.testing.assert_close(found.score, found.log_probability / lengths**length_power)
    assert torch.equal(found.score, found.score.sort(dim=1, descending=True).values)


@each_case("beam_size", [1, 2, 7, 200])
def test_special_words_are_never_written(beam_size):
    features = random_tables(3)
    features.unflatten(2, (VOCABULARY_SIZE, VOCABULARY_SIZE))[..., [PAD, BOS, UNK]] += 50  # the most likely by far
    found = beam_search(TableDecoder(), features, beam_size=beam_size, max_words=4)
    for row in range(3):
        assert {token for caption in written(found, row) for token in caption} <= {EOS, *range(4, VOCABULARY_SIZE)}


def test_only_padding_follows_eos():
    found = beam_search(TableDecoder(), random_tables(20), beam_size=3, max_words=4)
    is_after = (found.tokens == EOS).cumsum(-1) - (found.tokens == EOS).long()
    assert found.tokens[is_after > 0].unique().tolist() == [PAD]


def test_a_search_ends_when_all_captions_are_complete():
    features, decoder = random_tables(2, max_words=9), CountingDecoder()
    table = features.unflatten(2, (VOCABULARY_SIZE, VOCABULARY_SIZE))
    table[:, 0, BOS, EOS], table[:, 1:, :, EOS] = -50, 50
    beam_search(decoder, features, beam_size=3, max_words=9)
    assert decoder.num_steps == 2


def test_the_decoder_reads_only_captions_that_may_go_on():
    # The first image is complete after one word, one of the second one's two captions after two.
    table, decoder = torch.full((2, 9, VOCABULARY_SIZE, VOCABULARY_SIZE), -torch.inf), CountingDecoder()
    table[0, 0, BOS, EOS] = 0
    table[1, :, :, 4:6], table[1, 1:, 4, EOS] = 0, 50
    beam_search(decoder, table.flatten(2), beam_size=2, max_words=5)
    assert decoder.num_rows == [2, 2, 1, 1, 1]


def test_a_search_does_not_wait_for_captions_that_cannot_be():
    # Only <eos> is possible, so there is one caption; a beam of four would wait for three more.
    table, decoder = torch.full((1, 9, VOCABULARY_SIZE, VOCABULARY_SIZE), -torch.inf), CountingDecoder()
    table[..., EOS] = 0
    found = beam_search(decoder, table.flatten(2), beam_size=4, max_words=9)
    assert (written(found), found.log_probability.tolist(), decoder.num_steps) == (
        [(EOS,), (), (), ()],
        [[0.0, -torch.inf, -torch.inf, -torch.inf]],
        1,
    )


def test_a_caption_ends_at_the_largest_number_of_words():
    features = random_tables(2)
    features.unflatten(2, (VOCABULARY_SIZE, VOCABULARY_SIZE))[..., EOS] = -50
    found = beam_search(TableDecoder(), features, beam_size=2, max_words=3)
    assert [len(caption) for row in range(2) for caption in written(found, row)] == [3, 3, 3, 3]


def test_a_beam_wider_than_the_number_of_captions_holds_each_once():
    found = beam_search(TableDecoder(), random_tables(1), beam_size=30, max_words=2)
    everything = sorted(all_captions(2))
    assert (sorted(written(found))[-len(everything) :], found.log_probability.isfinite().sum()) == (everything, 13)


@each_case(("beam_size", "max_words"), [(0, 5), (3, 0), (-1, 5)])
def test_a_search_for_nothing_is_refused(beam_size, max_words):
    message = f"beam_size {beam_size} with max_words {max_words} allows no caption; use at least 1 for each"
    with pytest.raises(ValueError, match=message):
        beam_search(TableDecoder(), random_tables(1), beam_size=beam_size, max_words=max_words)
