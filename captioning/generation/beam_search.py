"""Beam search for the most likely captions of images.

Shapes: B images, K beams, A partial captions that may go on, T words, V vocabulary words.
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
    beams, state = _Beams(features.shape[0], beam_size, max_words, features.device), decoder.start(features)
    for length in range(max_words):
        logits, state = decoder.step(state, beams.last_tokens())
        parents = beams.extend(*_best_words(logits, beam_size), length)
        if not len(parents):
            break
        state = tuple(part.index_select(0, parents) for part in state)
    return beams.ranked(length_power)


def _best_words(logits: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    """Return log-probability and id of the likeliest words of each row, without those that are never generated.

    Args:
        logits: (A, V) scores of the next word.
        beam_size: K, the largest number of words of a row that can be among the K best of its image.

    Returns:
        (A, W) float32 log-probabilities and (A, W) int64 ids, where W is the smaller one of K and V.
    """
    scores = torch.log_softmax(logits.float(), dim=-1)
    for word in (PAD, BOS, UNK):
        scores[:, word] = -torch.inf
    best = scores.topk(min(beam_size, scores.shape[1]), dim=1)
    return best.values, best.indices


class _Beams:
    """The partial captions of a search, K for each image.

    The decoder reads only the A partial captions that may go on, so that complete captions cost nothing, nor do images
    whose captions are all complete. They are the rows of the decoder's state, in the order of image and beam.
    """

    def __init__(self, num_images: int, beam_size: int, max_words: int, device: torch.device) -> None:
        shape = num_images, beam_size
        self.tokens = torch.full((*shape, max_words), PAD, dtype=torch.int64, device=device)
        # Only the first beam is possible at the start: K equal beams would find the same caption K times.
        self.log_probability = torch.full(shape, -torch.inf, device=device)
        self.log_probability[:, 0] = 0
        self.is_done = self.log_probability.isneginf()
        self.num_scored = torch.zeros(shape, dtype=torch.int64, device=device)
        self._first = torch.arange(num_images, device=device)[:, None] * beam_size  # (B, 1) first beam of each image
        self._rows = self._first.flatten()  # (A,) int64 place of each row of the state among the B * K beams
        self._last = torch.full((num_images,), BOS, dtype=torch.int64, device=device)

    def last_tokens(self) -> Tensor:
        """Return the last word of the partial captions that the decoder reads, (A,) int64."""
        return self._last

    def extend(self, scores: Tensor, words: Tensor, length: int) -> Tensor:
        """Extend the beams by the best words.

        Args:
            scores: (A, W) log-probabilities of the best next words.
            words: (A, W) int64 ids of these words.
            length: number of words of each partial caption so far.

        Returns:
            (A',) int64 row of the state that each partial caption that goes on extends.
        """
        (num_images, beam_size), num_words = self.log_probability.shape, scores.shape[1]
        totals = torch.full((num_images * beam_size, num_words), -torch.inf, device=scores.device)
        totals[self._rows] = self.log_probability.flatten()[self._rows, None] + scores
        # A complete caption is extended by <pad> alone, which leaves its log-probability as it is.
        totals[:, 0] = torch.where(self.is_done.flatten(), self.log_probability.flatten(), totals[:, 0])
        candidates = torch.full_like(totals, PAD, dtype=torch.int64)
        candidates[self._rows] = words
        self.log_probability, choice = totals.view(num_images, -1).topk(beam_size, dim=1)
        beam, token = choice // num_words, candidates.view(num_images, -1).gather(1, choice)
        self.tokens = self.tokens.gather(1, beam[..., None].expand_as(self.tokens))
        self.tokens[..., length] = token
        was_done = self.is_done.gather(1, beam)
        self.num_scored = self.num_scored.gather(1, beam) + ~was_done
        # A beam with no possible word is done; otherwise the search would continue to max_words.
        self.is_done = was_done | (token == EOS) | self.log_probability.isneginf()
        goes_on = (~self.is_done).flatten().nonzero().flatten()
        parents = torch.searchsorted(self._rows, (self._first + beam).flatten()[goes_on])
        self._rows, self._last = goes_on, token.flatten()[goes_on]
        return parents

    def ranked(self, length_power: float) -> Captions:
        """Return the captions of each image, best first."""
        self.tokens[self.log_probability.isneginf()] = PAD
        score = self.log_probability / self.num_scored.clamp(min=1) ** length_power
        score, order = score.sort(dim=1, descending=True)
        tokens = self.tokens.gather(1, order[..., None].expand_as(self.tokens))
        return Captions(tokens, self.log_probability.gather(1, order), score)
