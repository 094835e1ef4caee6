"""Beam search for the most likely captions of images.

Shapes: B images, K beams, A partial captions that may go on, T words, V vocabulary words.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.generation.constraints import Constraints
from captioning.model.decoders.interface import Decoder


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
    decoder: Decoder,
    features: Tensor,
    *,
    beam_size: int,
    max_words: int,
    length_power: float = 1.0,
    constraints: Constraints | None = None,
) -> Captions:
    """Search the most likely captions, keeping the K best partial captions of each image at every step.

    A caption's score is its log-probability divided by L ** ``length_power``, where L counts its words and <eos>.

    Args:
        decoder: decoder of the model, in eval mode.
        features: (B, R, C) region features of the images.
        beam_size: K, the number of partial captions; 1 is greedy search.
        max_words: T, the number of words at which an unfinished caption is cut.
        length_power: exponent of the length; 0 ranks by log-probability, 1 by its mean over words.
        constraints: constraints on every caption; None for <pad>, <bos> and <unk> alone, which are never generated.

    Returns:
        K captions of each image.

    Raises:
        ValueError: beam_size or max_words is below 1.
    """
    if beam_size < 1 or max_words < 1:
        raise ValueError(f"beam_size {beam_size} with max_words {max_words} allows no caption; use at least 1 for each")
    beams, state = Beams(features.shape[0], beam_size, max_words, features.device), decoder.start(features)
    constraints = constraints or Constraints()
    for length in range(max_words):
        logits, state = decoder.step(state, beams.last_tokens())
        scores = torch.log_softmax(logits.float(), dim=-1)
        constraints.apply(scores, beams.words(length))
        # No more than K words of a row can be among the K best of its image.
        best = scores.topk(min(beam_size, scores.shape[1]), dim=1)
        parents = beams.extend(best.values, best.indices, length)
        if not len(parents):
            break
        state = tuple(part.index_select(0, parents) for part in state)
    return rank(beams.tokens, beams.log_probability, beams.num_scored, length_power)


def rank(tokens: Tensor, log_probability: Tensor, num_scored: Tensor, length_power: float) -> Captions:
    """Return the captions of each image, best first.

    Args:
        tokens: (B, K, T) int64 words of the captions.
        log_probability: (B, K) log-probabilities; minus infinity for no caption.
        num_scored: (B, K) int64 numbers of words, <eos> among them.
        length_power: exponent of the length.
    """
    tokens = tokens.masked_fill(log_probability.isneginf()[..., None], PAD)
    score = log_probability / num_scored.clamp(min=1) ** length_power
    score, order = score.sort(dim=1, descending=True)
    tokens = tokens.gather(1, order[..., None].expand_as(tokens))
    return Captions(tokens, log_probability.gather(1, order), score)


class Beams:
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

    def words(self, length: int) -> Tensor:
        """Return the first ``length`` words of the partial captions that the decoder reads, (A, L) int64."""
        return self.tokens.flatten(0, 1)[self._rows, :length]

    def images(self) -> Tensor:
        """Return the image of each partial caption that the decoder reads, (A,) int64."""
        return self._rows // self.log_probability.shape[1]

    def extend(self, scores: Tensor, words: Tensor, length: int, penalties: Tensor | None = None) -> Tensor:
        """Extend the beams by the best words.

        Args:
            scores: (A, W) log-probabilities of the best next words.
            words: (A, W) int64 ids of these words.
            length: number of words of each partial caption so far.
            penalties: (A, W) log-probability that each word loses in the choice, and only there; None for nothing.

        Returns:
            (A',) int64 row of the state that each partial caption that goes on extends.
        """
        (num_images, beam_size), num_words = self.log_probability.shape, scores.shape[1]
        totals = self._totals(scores)
        candidates = torch.full_like(totals, PAD, dtype=torch.int64)
        candidates[self._rows] = words
        ranks = totals if penalties is None else self._totals(scores - penalties)
        choice = ranks.view(num_images, -1).topk(beam_size, dim=1).indices
        self.log_probability = totals.view(num_images, -1).gather(1, choice)
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

    def _totals(self, scores: Tensor) -> Tensor:
        """Return the log-probability of each beam with each next word, (B * K, W), from the words' own, (A, W)."""
        before = self.log_probability.flatten()
        totals = torch.full((len(before), scores.shape[1]), -torch.inf, device=scores.device)
        totals[self._rows] = before[self._rows, None] + scores
        # A complete caption is extended by <pad> alone, which leaves its log-probability as it is.
        totals[:, 0] = torch.where(self.is_done.flatten(), before, totals[:, 0])
        return totals
