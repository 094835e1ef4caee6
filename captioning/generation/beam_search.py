"""Beam search for the most likely captions of images.

Shapes: B images, K beams, T words, V vocabulary words.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.model.decoder import Decoder


class Captions(NamedTuple):
    """K captions of each of B images, best first.

    If fewer than K captions exist, the rows beyond them are empty, with a log-probability of minus infinity.

    Attributes:
        tokens: (B, K, T) int64 word ids, with <eos> and then <pad> after the last word.
        log_probability: (B, K) float, log-probability of the words and <eos> in nats.
        score: (B, K) float, length-normalized log-probability, in descending order.
    """

    tokens: Tensor
    log_probability: Tensor
    score: Tensor


@torch.no_grad()
def beam_search(
    decoder: Decoder, features: Tensor, *, beam_size: int, max_words: int, length_power: float = 1.0
) -> Captions:
    """Search the most likely captions, keeping the K best partial captions of each image at every step.

    A caption's score is its log-probability divided by L ** ``length_power``, where L counts its words and <eos>. The
    search never generates <unk>.

    Args:
        decoder: decoder of the model, in eval mode.
        features: (B, R, C) region features of the images.
        beam_size: K, the number of partial captions; 1 is greedy search.
        max_words: T, the number of words at which an unfinished caption is cut.
        length_power: exponent of the length; 0 ranks by log-probability, 1 by its mean over words.

    Returns:
        K captions of each image.

    Raises:
        ValueError: beam_size or max_words is below 1.
    """
    if beam_size < 1 or max_words < 1:
        raise ValueError(f"beam_size {beam_size} with max_words {max_words} allows no caption; use at least 1 for each")
    beams = _Beams(features.shape[0], beam_size, max_words, features.device)
    state = tuple(part.repeat_interleave(beam_size, dim=0) for part in decoder.start(features))
    for length in range(max_words):
        logits, state = decoder.step(state, beams.last_tokens())
        rows = beams.extend(_allowed_log_probability(logits), length)
        state = tuple(part[rows] for part in state)
        if beams.are_complete():
            break
    return beams.ranked(length_power)


def _allowed_log_probability(logits: Tensor) -> Tensor:
    """Return (B * K, V) log-probabilities; minus infinity for words that are never generated."""
    scores = torch.log_softmax(logits.float(), dim=-1)
    scores[:, [PAD, BOS, UNK]] = -torch.inf
    return scores


class _Beams:
    """The partial captions of a search, K for each image."""

    def __init__(self, num_images: int, beam_size: int, max_words: int, device: torch.device) -> None:
        shape = num_images, beam_size
        self.tokens = torch.full((*shape, max_words), PAD, dtype=torch.int64, device=device)
        # Only the first beam is possible at the start: K equal beams would find the same caption K times.
        self.log_probability = torch.full(shape, -torch.inf, device=device)
        self.log_probability[:, 0] = 0
        self.is_done = torch.zeros(shape, dtype=torch.bool, device=device)
        self.num_scored = torch.zeros(shape, dtype=torch.int64, device=device)
        self._last = torch.full((num_images * beam_size,), BOS, dtype=torch.int64, device=device)

    def last_tokens(self) -> Tensor:
        return self._last

    def extend(self, scores: Tensor, length: int) -> Tensor:
        """Extend the beams by the best words.

        Args:
            scores: (B * K, V) log-probabilities of the next word.
            length: number of words of each partial caption so far.

        Returns:
            (B * K,) int64 row of the partial caption that each new one extends.
        """
        num_images, beam_size = self.log_probability.shape
        vocabulary_size = scores.shape[-1]
        scores = scores.view(num_images, beam_size, vocabulary_size)
        # A complete caption may only be extended by <pad>, at log-probability 0, so that its own does not change.
        only_pad = torch.full_like(scores[0, 0], -torch.inf)
        only_pad[PAD] = 0
        scores = torch.where(self.is_done[..., None], only_pad, scores)
        totals = (self.log_probability[..., None] + scores).flatten(1)
        self.log_probability, choice = totals.topk(beam_size, dim=1)
        beam, token = choice // vocabulary_size, choice % vocabulary_size
        self.tokens = self.tokens.gather(1, beam[..., None].expand_as(self.tokens))
        self.tokens[..., length] = token
        was_done = self.is_done.gather(1, beam)
        self.num_scored = self.num_scored.gather(1, beam) + ~was_done
        # A beam with no possible word is done; otherwise the search would continue to max_words.
        self.is_done = was_done | (token == EOS) | self.log_probability.isneginf()
        self._last = token.flatten()
        images = torch.arange(num_images, device=scores.device)[:, None]
        return (images * beam_size + beam).flatten()

    def are_complete(self) -> bool:
        return bool(self.is_done.all())

    def ranked(self, length_power: float) -> Captions:
        self.tokens[self.log_probability.isneginf()] = PAD
        score = self.log_probability / self.num_scored.clamp(min=1) ** length_power
        score, order = score.sort(dim=1, descending=True)
        tokens = self.tokens.gather(1, order[..., None].expand_as(self.tokens))
        return Captions(tokens, self.log_probability.gather(1, order), score)
