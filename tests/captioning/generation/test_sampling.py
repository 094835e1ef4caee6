import math
from collections import Counter

import pytest
import torch

from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.generation import sampling
from captioning.generation.constraints import Constraints
from captioning.generation.sampling import sample
from captioning.hashing import fold
from tests.support import tiny_models
from tests.support.case_table import each_case
from tests.support.table_decoders import VOCABULARY_SIZE, CountingDecoder, TableDecoder, log_probability, random_tables

NUM_DRAWS = 20_000


def keys(num_images, num_samples=1, seed=0):
    return fold(seed, torch.arange(num_images)[:, None], torch.arange(num_samples))


def written(ids):
    return tuple(token for token in ids if token != PAD)


def word_distribution(scores, temperature, top_p):
    """Return the probability of each possible next word, by plain arithmetic; ``scores`` are logits."""
    possible = {word: score / temperature for word, score in enumerate(scores) if word not in (PAD, BOS, UNK)}
    total = sum(math.exp(score) for score in possible.values())
    nucleus, reached = {}, 0.0
    for word in sorted(possible, key=lambda word: -possible[word]):
        if reached >= top_p:
            break
        nucleus[word] = math.exp(possible[word]) / total
        reached += nucleus[word]
    return {word: probability / reached for word, probability in nucleus.items()}


def caption_distribution(table, temperature, top_p, start=()):
    """Return the probability of each caption of a table (T, V, V), by following every word."""
    if len(start) == len(table) or start[-1:] == (EOS,):
        return {start: 1.0}
    last = start[-1] if start else BOS
    return {
        caption: probability * chance
        for word, chance in word_distribution(table[len(start), last].tolist(), temperature, top_p).items()
        for caption, probability in caption_distribution(table, temperature, top_p, (*start, word)).items()
    }


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.7), (1.5, 0.4)])
def test_captions_are_drawn_as_often_as_they_are_likely(temperature, top_p):
    features = random_tables(1, max_words=3, seed=3) / 2
    options = {"max_words": 3, "temperature": temperature, "top_p": top_p}
    drawn = sample(TableDecoder(), features, keys=keys(1, NUM_DRAWS), **options)
    found = Counter(written(ids) for ids in drawn.tokens[0].tolist())
    wanted = caption_distribution(features[0].unflatten(1, (VOCABULARY_SIZE,) * 2), temperature, top_p)
    assert found.keys() <= wanted.keys()
    for caption, chance in wanted.items():
        assert abs(found[caption] - NUM_DRAWS * chance) < 5 * math.sqrt(NUM_DRAWS * chance) + 1


def test_the_nucleus_of_a_flat_distribution_holds_more_words_than_are_sorted_first(monkeypatch):
    monkeypatch.setattr(sampling, "_NUCLEUS_WORDS", (1, 2))
    tables = torch.randn(1, 1, VOCABULARY_SIZE**2, generator=torch.Generator().manual_seed(1)) / 10
    drawn = sample(TableDecoder(), tables, keys=keys(1, 500), max_words=1, top_p=0.7)
    scores = tables[0, 0].unflatten(0, (VOCABULARY_SIZE,) * 2)[BOS].tolist()
    assert set(drawn.tokens.flatten().tolist()) == word_distribution(scores, 1.0, 0.7).keys()


def test_a_low_temperature_draws_the_likeliest_word():
    features = random_tables(2, seed=4)
    features.unflatten(2, (VOCABULARY_SIZE,) * 2)[..., [PAD, BOS, UNK]] = -torch.inf
    drawn = sample(TableDecoder(), features, keys=keys(2, 50), max_words=1, temperature=1e-30)
    likeliest = features.unflatten(2, (VOCABULARY_SIZE,) * 2)[:, 0, BOS].argmax(1)
    assert torch.equal(drawn.tokens[..., 0], likeliest[:, None].expand(2, 50))


def test_the_log_probability_is_the_models_own_at_any_temperature():
    features = random_tables(2)
    drawn = sample(TableDecoder(), features, keys=keys(2, 5), max_words=4, temperature=3.0, top_p=0.9)
    wanted = [[log_probability(features[row], written(ids)) for ids in drawn.tokens[row].tolist()] for row in range(2)]
    torch.testing.assert_close(drawn.log_probability, torch.tensor(wanted))


def test_a_sample_depends_on_its_key_alone():
    model = tiny_models.model(seed=2).eval()
    torch.nn.init.normal_(model.decoder.output.weight)
    features, drawn_by = model.encoder(tiny_models.batch(range(4)).images), keys(4, 3)
    together = sample(model.decoder, features, keys=drawn_by, max_words=6)
    for row, column in [(0, 0), (1, 2), (3, 1)]:
        alone = sample(model.decoder, features[row, None], keys=drawn_by[row, None, column, None], max_words=6)
        assert torch.equal(alone.tokens[0, 0], together.tokens[row, column])
    assert len({written(ids) for ids in together.tokens.flatten(0, 1).tolist()}) > 6


def test_a_complete_caption_leaves_the_batch():
    table, decoder = torch.full((2, 5, VOCABULARY_SIZE, VOCABULARY_SIZE), -torch.inf), CountingDecoder()
    table[0, :, :, 4], table[0, 1, :, 4], table[0, 1, :, EOS] = 0, -torch.inf, 0  # one word
    table[1, :, :, 5] = 0  # words without end
    drawn = sample(decoder, table.flatten(2), keys=keys(2, 3), max_words=4)
    assert decoder.num_rows == [2, 6, 3, 3]  # <bos> is read once for all samples of an image
    assert drawn.tokens.tolist() == [[[4, EOS, PAD, PAD]] * 3, [[5] * 4] * 3]


def test_sampling_ends_with_the_last_caption():
    table, decoder = torch.full((1, 9, VOCABULARY_SIZE, VOCABULARY_SIZE), -torch.inf), CountingDecoder()
    table[..., EOS] = 0
    drawn = sample(decoder, table.flatten(2), keys=keys(1, 2), max_words=9)
    assert (decoder.num_steps, drawn.log_probability.tolist()) == (1, [[0.0, 0.0]])


def test_a_caption_without_a_possible_word_ends():
    features = torch.zeros(1, 9, VOCABULARY_SIZE**2)
    drawn = sample(
        TableDecoder(), features, keys=keys(1, 20), max_words=9, constraints=Constraints(min_words=9, no_repeat_ngram=1)
    )
    # Three words in some order: each may come once, and only <eos> is left.
    assert {tuple(sorted(ids)) for ids in drawn.tokens[0].tolist()} == {(PAD,) * 5 + (EOS, 4, 5, 6)}


@each_case(
    "options",
    [
        {"max_words": 0},
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
    ],
)
def test_sampling_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=r"max_words .* allow no sampling; use at least 1 word, a temperature above 0"):
        sample(TableDecoder(), random_tables(1), keys=keys(1), **{"max_words": 3} | options)
