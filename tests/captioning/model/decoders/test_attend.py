import math

import torch

from tests.support.tiny_decoders import forced, random_features, random_tokens, tiny_decoder
from tests.support.tiny_models import DECODERS


def lstm_step(lstm, inputs, hidden, cell):
    """Take one step of an LSTM, as in equation 5 of https://arxiv.org/abs/1411.4555, on vectors."""
    weight_ih, weight_hh, bias_ih, bias_hh = lstm.parameters()
    gates = weight_ih @ inputs + bias_ih + weight_hh @ hidden + bias_hh
    into, keep, new, out = gates.chunk(4)
    cell = keep.sigmoid() * cell + into.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


def attended(decoder, hidden, regions, num_heads):
    """Return the context of one state, head by head and region by region."""
    query, size = decoder.query.weight @ hidden + decoder.query.bias, regions.shape[1] // num_heads
    parts = []
    for head in range(num_heads):
        units = slice(head * size, (head + 1) * size)
        scores = [float(query[units] @ region[units]) / math.sqrt(size) for region in regions]
        total = sum(math.exp(score) for score in scores)
        weights = [math.exp(score) / total for score in scores]
        parts.append(sum(weight * region[units] for weight, region in zip(weights, regions, strict=True)))
    return torch.cat(parts)


def slowly(decoder, features, words, num_heads):
    """Return the scores of each next word of one caption, word by word: (T, V)."""
    regions = torch.stack(
        [
            decoder.region_embedding((region - decoder.feature_mean) / decoder.region_deviation) + position
            for region, position in zip(features, decoder.region_position, strict=True)
        ]
    )
    image = decoder.image_embedding((features.mean(0) - decoder.feature_mean) / decoder.image_deviation)
    first = second = (features.new_zeros(24), features.new_zeros(24))
    scores = []
    for inputs in (image, *decoder.word_embedding(words)):
        first = lstm_step(decoder.lstm, inputs, *first)
        joined = torch.cat([first[0], attended(decoder, first[0], regions, num_heads)])
        second = lstm_step(decoder.language_lstm, joined, *second)
        scores.append(decoder.output(second[0]))
    return torch.stack(scores[1:])


@torch.no_grad()
def test_it_is_what_its_equations_say():
    decoder, features, tokens = tiny_decoder(**DECODERS["attend"]).double(), random_features().double(), random_tokens()
    decoder.calibrate(features)
    slow = [slowly(decoder, image, words, num_heads=5) for image, words in zip(features, tokens, strict=True)]
    torch.testing.assert_close(forced(decoder, features, tokens), torch.stack(slow), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_it_sees_where_regions_are():
    decoder, features, tokens = tiny_decoder(**DECODERS["attend"]), random_features(), random_tokens()
    moved, original = (forced(decoder, one, tokens) for one in (features.flip(1), features))
    assert (moved != original)[:, 0].any(-1).all()
