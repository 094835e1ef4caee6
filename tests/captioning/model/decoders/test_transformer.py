import math

import torch
import torch.nn.functional as F

from tests.support.tiny_decoders import forced, random_features, random_tokens, tiny_decoder
from tests.support.tiny_models import DECODERS

SIZE = 24


def attended(queries, keys, values, num_heads):
    """Return the context of the last query, head by head."""
    size = keys.shape[1] // num_heads
    parts = []
    for head in range(num_heads):
        units = slice(head * size, (head + 1) * size)
        weights = torch.stack([queries[-1, units] @ key[units] / math.sqrt(size) for key in keys]).softmax(0)
        parts.append(sum(weight * value[units] for weight, value in zip(weights, values, strict=True)))
    return torch.cat(parts)


def position_of(number):
    """Return the sines, then the cosines, of equation 3.5 of https://arxiv.org/abs/1706.03762."""
    angles = [number / 10_000 ** (2 * pair / SIZE) for pair in range(SIZE // 2)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)


def slowly(decoder, features, words, num_heads):
    """Return the scores of the word after some words, without anything that was computed before: (V,)."""
    regions = decoder.region_norm(
        decoder.region_embedding((features - decoder.feature_mean) / decoder.feature_deviation)
        + decoder.region_position
    )
    states = [decoder.output.weight[word] * math.sqrt(SIZE) + position_of(number) for number, word in enumerate(words)]
    for layer in decoder.layers:
        read = torch.stack([layer.words(layer.word_norm(state)) for state in states])
        grown = []
        for number, state in enumerate(states):
            state = state + layer.word_output(attended(*read[: number + 1].chunk(3, dim=1), num_heads))
            query = layer.query(layer.region_norm(state))[None]
            state = state + layer.region_output(attended(query, regions, regions, num_heads))
            grown.append(state + layer.narrow(F.gelu(layer.widen(layer.wide_norm(state)))))
        states = grown
    return decoder.output(decoder.norm(states[-1]))


@torch.no_grad()
def test_it_is_what_its_equations_say():
    decoder = tiny_decoder(**DECODERS["transformer"]).double()
    features, tokens = random_features().double(), random_tokens()
    decoder.calibrate(features)
    slow = [
        [slowly(decoder, image, words[: number + 1], num_heads=5) for number in range(len(words))]
        for image, words in zip(features[:2], tokens[:2], strict=True)
    ]
    wanted = torch.stack([torch.stack(one) for one in slow])
    torch.testing.assert_close(forced(decoder, features, tokens)[:2], wanted, rtol=1e-12, atol=1e-12)


def test_words_are_embedded_by_the_weights_that_score_them():
    decoder = tiny_decoder(**DECODERS["transformer"])
    shapes = [tuple(one.shape) for one in decoder.parameters()]
    assert shapes.count(tuple(decoder.output.weight.shape)) == 1


def test_an_odd_number_of_units_has_positions_too():
    decoder = tiny_decoder(**DECODERS["transformer"] | {"hidden_size": 7})
    assert forced(decoder, random_features(), random_tokens()).isfinite().all()
