"""Diverse beam search: groups of beams, each of which avoids the words of the groups before it.

Source: Vijayakumar, Cogswell, Selvaraju, Sun, Lee, Crandall and Batra, 2018, Diverse Beam Search
(https://arxiv.org/abs/1610.02424), section 4, with Hamming diversity.

Shapes: B images, K beams in G groups, A partial captions of a group that may go on, T words, V vocabulary words.
"""

import torch
from torch import Tensor

from captioning.data.vocabulary import BOS
from captioning.generation.beam_search import Beams, Captions, rank
from captioning.generation.constraints import Constraints
from captioning.hashing import splitmix64
from captioning.model.decoders.interface import Decoder


@torch.no_grad()
def diverse_beam_search(
    decoder: Decoder,
    features: Tensor,
    *,
    beam_size: int,
    groups: int,
    group_penalty: float,
    max_words: int,
    length_power: float = 1.0,
    constraints: Constraints | None = None,
) -> Captions:
    """Search likely captions that differ: at every step, a group prefers words that no earlier group takes.

    A word loses ``group_penalty`` for each beam of the earlier groups of its image that takes it at the same step. The
    penalty decides which words a group takes; log-probabilities and scores are the model's own.

    Args:
        decoder: decoder of the model, in eval mode.
        features: (B, R, C) region features of the images.
        beam_size: K, the number of partial captions of an image, over all groups.
        groups: G, the number of groups, a divisor of K.
        group_penalty: penalty in nats.
        max_words: T, the number of words at which an unfinished caption is cut.
        length_power: exponent of the length, as in ``beam_search``.
        constraints: constraints on every caption; None for <pad>, <bos> and <unk> alone, which are never generated.

    Returns:
        The captions of all groups, best first; a caption that several groups find comes once.

    Raises:
        ValueError: beam_size, groups or max_words is below 1, or the groups do not divide the beam.
    """
    _check(beam_size, groups, max_words)
    beams = [Beams(len(features), beam_size // groups, max_words, features.device) for _ in range(groups)]
    constraints = constraints or Constraints()
    # All groups begin with <bos>, so that the decoder reads it once an image.
    logits, state = decoder.step(decoder.start(features), beams[0].last_tokens())
    scores = [torch.log_softmax(logits.float(), dim=-1)] * groups
    offsets = [0] * groups
    for length in range(max_words):
        kept = _extend_groups(beams, scores, length, group_penalty, constraints)
        sizes = [len(one) for one in kept]
        if length == max_words - 1 or not sum(sizes):
            break
        parents = torch.cat([one + offset for one, offset in zip(kept, offsets, strict=True)])
        state = tuple(part.index_select(0, parents) for part in state)
        logits, state = decoder.step(state, torch.cat([group.last_tokens() for group in beams]))
        scores = list(torch.log_softmax(logits.float(), dim=-1).split(sizes))
        offsets = [sum(sizes[:number]) for number in range(groups)]
    return _ranked(beams, length_power)


def _check(beam_size: int, groups: int, max_words: int) -> None:
    if min(beam_size, groups, max_words) < 1 or beam_size % groups:
        raise ValueError(
            f"beam_size {beam_size} in {groups} groups with max_words {max_words} allows no caption; use at least 1 "
            "for each, and a number of groups that divides the beam"
        )


def _extend_groups(
    beams: list[Beams], scores: list[Tensor], length: int, group_penalty: float, constraints: Constraints
) -> list[Tensor]:
    """Extend the groups one after the other, each with a penalty on the words that those before it take.

    Args:
        beams: beams of each group.
        scores: (A, V) log-probabilities of the next words of each group.
        length: number of words of each partial caption so far.
        group_penalty: penalty in nats.
        constraints: constraints on every caption.

    Returns:
        (A',) int64 row of the group's state that each of its partial captions that goes on extends, for each group.
    """
    num_images, group_size = beams[0].log_probability.shape
    num_taken = scores[0].new_zeros(num_images, scores[0].shape[1])  # (B, V) beams of earlier groups that take a word
    kept = []
    for group, own in zip(beams, scores, strict=True):
        allowed = own.clone()
        constraints.apply(allowed, group.words(length))
        penalties = num_taken[group.images()] * group_penalty
        best = (allowed - penalties).topk(min(group_size, own.shape[1]), dim=1).indices
        kept.append(group.extend(allowed.gather(1, best), best, length, penalties.gather(1, best)))
        is_possible = group.log_probability.isfinite()
        num_taken.scatter_add_(1, group.tokens[..., length], is_possible.to(num_taken.dtype))
    return kept


def _ranked(beams: list[Beams], length_power: float) -> Captions:
    """Return the captions of all groups, best first, each once."""
    tokens, log_probability, num_scored = (
        torch.cat(parts, dim=1)
        for parts in zip(*((one.tokens, one.log_probability, one.num_scored) for one in beams), strict=True)
    )
    return rank(tokens, _without_copies(tokens, log_probability), num_scored, length_power)


def _without_copies(tokens: Tensor, log_probability: Tensor) -> Tensor:
    """Return log-probabilities, (B, K), of captions, (B, K, T), with minus infinity for those that came before."""
    digest = torch.full_like(tokens[..., 0], BOS)
    for words in tokens.unbind(-1):
        digest = splitmix64(digest ^ words)
    is_same = digest[:, :, None] == digest[:, None]  # (B, K, K)
    is_copy = is_same.tril(-1).any(-1)
    return log_probability.masked_fill(is_copy, -torch.inf)
