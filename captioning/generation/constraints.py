"""Constraints on generated captions: words that may not come next.

Shapes: A partial captions, L words so far, V vocabulary words.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from captioning.data.vocabulary import BOS, EOS, PAD, UNK


class Constraints(NamedTuple):
    """Constraints on every generated caption; <pad>, <bos> and <unk> are never generated.

    Attributes:
        min_words: smallest number of words before <eos>; fewer only where no other word is possible.
        no_repeat_ngram: length in words of a sequence that no caption contains twice; 0 allows repetition.
    """

    min_words: int = 0
    no_repeat_ngram: int = 0

    def apply(self, scores: Tensor, words: Tensor) -> None:
        """Set the scores of words that may not come next to minus infinity, in place.

        Args:
            scores: (A, V) float scores of the next word.
            words: (A, L) int64 words of each partial caption so far.
        """
        for word in (PAD, BOS, UNK):
            scores[:, word] = -torch.inf
        if 0 < self.no_repeat_ngram <= words.shape[1]:
            _forbid_repeated_ngrams(scores, words, self.no_repeat_ngram)
        if words.shape[1] < self.min_words:
            others = torch.cat([scores[:, :EOS], scores[:, EOS + 1 :]], dim=1)
            scores[:, EOS].masked_fill_(others.amax(1) > -torch.inf, -torch.inf)


def _forbid_repeated_ngrams(scores: Tensor, words: Tensor, length: int) -> None:
    """Forbid the words that would complete an n-gram of ``length`` words for the second time."""
    followers = words[:, length - 1 :]  # (A, L - n + 1), the last word of each n-gram so far
    starts = words.unfold(1, length - 1, 1) if length > 1 else words[..., None, None][:, :, 0, :0]
    is_repeated = (starts[:, : followers.shape[1]] == words[:, None, words.shape[1] - length + 1 :]).all(-1)
    scores.scatter_add_(1, followers, torch.where(is_repeated, -torch.inf, 0.0).to(scores.dtype))
