"""Sampling of captions, word by word, from the model's distribution or from its nucleus.

The nucleus of a distribution is the smallest set of likeliest words whose probability reaches ``top_p`` (Holtzman,
Buys, Du, Forbes and Choi, 2020, https://arxiv.org/abs/1904.09751, section 3.1).

Shapes: B images, S samples of each, A partial captions that go on, T words, V vocabulary words.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.generation.constraints import Constraints
from captioning.hashing import splitmix64, uniform
from captioning.model.decoders.interface import Decoder, DecoderState

_NUCLEUS_WORDS = (64, 1_024)  # numbers of likeliest words among which a nucleus is looked for first


class Samples(NamedTuple):
    """S sampled captions of each of B images, in the order of their keys.

    Attributes:
        tokens: (B, S, T) int64 word ids, with <eos> and then <pad> after the last word.
        log_probability: (B, S) float32 log-probability of the words and <eos> in nats, by the model itself: at
            temperature 1, over the whole vocabulary, as teacher forcing computes it.
    """

    tokens: Tensor
    log_probability: Tensor


@torch.no_grad()
def sample(
    decoder: Decoder,
    features: Tensor,
    *,
    keys: Tensor,
    max_words: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    constraints: Constraints | None = None,
) -> Samples:
    """Sample captions of images; the same key draws the same caption in any batch.

    A caption's random numbers are hashes of its key and the number of the word, one for each word, so they depend
    neither on the other captions nor on the process. A complete caption leaves the batch.

    Args:
        decoder: decoder of the model, in eval mode.
        features: (B, R, C) region features of the images.
        keys: (B, S) int64 random key of each sample, such as ``fold(seed, position[:, None], torch.arange(S))``.
        max_words: T, the number of words at which an unfinished caption is cut.
        temperature: divisor of the logits; below 1 favours likely words.
        top_p: probability of the nucleus, at the given temperature; 1 samples from the whole vocabulary.
        constraints: constraints on every caption; None for <pad>, <bos> and <unk> alone, which are never generated.

    Returns:
        S captions of each image.

    Raises:
        ValueError: max_words is below 1, temperature is not positive and finite, or top_p is not a probability above 0.
    """
    if max_words < 1 or not 0 < temperature < math.inf or not 0 < top_p <= 1:
        raise ValueError(
            f"max_words {max_words}, temperature {temperature} and top_p {top_p} allow no sampling; use at least 1 "
            "word, a temperature above 0, and a top_p above 0, up to 1"
        )
    draw = partial(_draw, constraints=constraints or Constraints(), temperature=temperature, top_p=top_p)
    logits, state = decoder.step(decoder.start(features), keys.new_full((len(features),), BOS, device=features.device))
    # The samples of an image differ from the first word on, so that <bos> is read once for all of them.
    images = torch.arange(keys.numel(), device=features.device) // keys.shape[1]
    word_keys = splitmix64(keys.flatten())  # keys in a row, such as 0, 1 and 2, give unrelated numbers too
    tokens, log_probability = _draw_words(decoder, (logits, state, images), word_keys, max_words, draw)
    return Samples(tokens.view(*keys.shape, max_words), log_probability.view(keys.shape))


def _draw_words(
    decoder: Decoder,
    start: tuple[Tensor, DecoderState, Tensor],
    keys: Tensor,
    max_words: int,
    draw: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Draw the words of N captions, step by step.

    Args:
        decoder: decoder of the model.
        start: (B, V) logits of the first word, the state after <bos>, and the (N,) row of both that each caption begins
            with.
        keys: (N,) int64 random key of each caption.
        max_words: T, the number of words at which an unfinished caption is cut.
        draw: ``_draw`` with its settings.

    Returns:
        (N, T) int64 words, and (N,) float32 log-probabilities.
    """
    logits, state, parents = start
    tokens = torch.full((len(keys), max_words), PAD, dtype=torch.int64, device=logits.device)
    log_probability = torch.zeros(len(keys), device=logits.device)
    rows = torch.arange(len(keys), device=logits.device)  # (A,) captions that go on
    for length in range(max_words):
        scores = torch.log_softmax(logits.float(), dim=-1)
        if length == 0:
            scores = scores.index_select(0, parents)
        words = draw(scores, tokens[rows, :length], uniform(keys[rows] ^ length))
        tokens[rows, length] = words
        log_probability[rows] += scores.gather(1, words[:, None]).squeeze(1)
        goes_on = (words != EOS).nonzero().squeeze(1)
        if length == max_words - 1 or not len(goes_on):
            break
        if length == 0 or len(goes_on) < len(rows):
            state = tuple(part.index_select(0, parents[goes_on]) for part in state)
            rows, words = rows[goes_on], words[goes_on]
            parents = torch.arange(len(rows), device=rows.device)
        logits, state = decoder.step(state, words)
    return tokens, log_probability


def _draw(
    scores: Tensor, words: Tensor, numbers: Tensor, *, constraints: Constraints, temperature: float, top_p: float
) -> Tensor:
    """Draw a word in each row, by the inverse of its cumulative distribution.

    Args:
        scores: (A, V) float32 log-probabilities.
        words: (A, L) int64 words of each caption so far.
        numbers: (A,) float32 random number in [0, 1) of each row.
        constraints: constraints on the word.
        temperature: divisor of the scores.
        top_p: probability of the nucleus.

    Returns:
        (A,) int64 words; <eos> in a row in which no word may come.
    """
    scores = scores.clone()
    constraints.apply(scores, words)
    # Without the largest score, a low temperature would lead to minus infinity in all of them.
    scaled = scores if temperature == 1 else (scores - scores.amax(1, keepdim=True)) / temperature
    probability = torch.softmax(scaled, dim=-1)
    if top_p < 1:
        probability = probability.masked_fill(probability < _smallest_in_nucleus(probability, top_p), 0)
    cumulative = probability.cumsum(1)
    total = cumulative[:, -1:]
    # A product that rounds up to the total would select a word behind the last possible one.
    targets = torch.minimum(numbers[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = torch.searchsorted(cumulative, targets, right=True).squeeze(1)
    return torch.where(total.squeeze(1) > 0, drawn, EOS)  # the softmax of no possible word is not a number


def _smallest_in_nucleus(probability: Tensor, top_p: float) -> Tensor:
    """Return the probability of the least likely word of each row's nucleus, (A, 1)."""
    num_rows, num_words = probability.shape
    smallest = torch.empty_like(probability[:, :1])
    rows = torch.arange(num_rows, device=probability.device)
    for most in (*_NUCLEUS_WORDS, num_words):
        # A full sort takes a hundred times as long, and few rows need it.
        best = probability[rows].topk(min(most, num_words), dim=1).values
        is_inside = best.cumsum(1) - best < top_p  # a word is inside if those before it do not reach top_p
        smallest[rows] = best.gather(1, is_inside.sum(1, keepdim=True).clamp(min=1) - 1)
        rows = rows[is_inside[:, -1]]
        if not len(rows):
            break
    return smallest
