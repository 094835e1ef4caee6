import pytest
import torch

from captioning.generation.beam_search import beam_search
from captioning.generation.config import GenerationConfig
from captioning.generation.constraints import Constraints
from captioning.generation.diverse_beam import diverse_beam_search
from captioning.generation.generator import generate
from captioning.generation.sampling import sample
from captioning.hashing import fold
from tests.support.table_decoders import TableDecoder, random_tables
from tests.support.tiny_decoders import random_features, tiny_decoder
from tests.support.tiny_models import DECODERS

KEYS = torch.tensor([11, 12, 13])


def generated(**settings):
    return generate(TableDecoder(), random_tables(3), KEYS, config=GenerationConfig(**settings), max_words=4)


def test_every_setting_reaches_the_search():
    options = {"max_words": 4, "length_power": 0.5, "constraints": Constraints(2, 1)}
    settings = {"length_power": 0.5, "min_words": 2, "no_repeat_ngram": 1}
    beam = beam_search(TableDecoder(), random_tables(3), beam_size=5, **options)
    groups = {"beam_size": 4, "groups": 2, "group_penalty": 2.0}
    diverse = diverse_beam_search(TableDecoder(), random_tables(3), **groups, **options)
    for found, wanted in ((generated(beam_size=5, **settings), beam), (generated(**groups, **settings), diverse)):
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_samples_come_likeliest_first():
    found = generated(temperature=2.0, top_p=0.9, num_samples=6, sampling_seed=3, min_words=1)
    drawn = sample(
        TableDecoder(),
        random_tables(3),
        keys=fold(3, KEYS[:, None], torch.arange(6)),
        max_words=4,
        temperature=2.0,
        top_p=0.9,
        constraints=Constraints(min_words=1, no_repeat_ngram=3),
    )
    assert found.log_probability.sort().values.tolist() == drawn.log_probability.sort().values.tolist()
    assert torch.equal(found.score, found.score.sort(descending=True).values)


def test_a_sample_depends_on_the_images_number_alone():
    options = {"config": GenerationConfig(temperature=1.0, num_samples=2), "max_words": 4}
    features, order = random_tables(3), torch.tensor([2, 0, 1])
    together = generate(TableDecoder(), features, KEYS, **options)
    shuffled = generate(TableDecoder(), features[order], KEYS[order], **options)
    assert torch.equal(together.tokens[order], shuffled.tokens)


def test_more_words_than_captions_may_have_are_refused():
    with pytest.raises(
        ValueError, match="min_words 5 is more than the 4 words at which captions are cut; use at most 4"
    ):
        generated(min_words=5)


@pytest.mark.parametrize(
    "settings",
    [
        {"no_repeat_ngram": 2, "min_words": 3},
        {"beam_size": 4, "groups": 2, "group_penalty": 2.0},
        {"temperature": 1.0, "top_p": 0.9, "num_samples": 3},
    ],
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_batch_gives_what_its_images_give_alone_with_every_decoder(decoder, settings):
    model, features = tiny_decoder(**DECODERS[decoder]).eval(), random_features()
    options = {"config": GenerationConfig(**settings), "max_words": 6}
    together = generate(model, features, KEYS, **options)
    alone = [generate(model, features[row, None], KEYS[row, None], **options) for row in range(3)]
    assert together.tokens.tolist() == [one.tokens[0].tolist() for one in alone]
    torch.testing.assert_close(together.log_probability, torch.cat([one.log_probability for one in alone]))
