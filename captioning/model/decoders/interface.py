"""Interface of the decoders: scores of the next word, from an image's region features and the words so far.

Shapes: B images, R regions, C channels, N captions, T words, H hidden units, V vocabulary words.
"""

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor, nn

from captioning.hashing import DropoutKeys
from captioning.model.packing import Packing

DecoderState: TypeAlias = tuple[Tensor, ...]

_FEW_ROWS = 16


class Decoder(nn.Module, ABC):
    """Interface of a decoder: ``forward`` and ``score`` for training, ``start`` and ``step`` for search.

    A state is a tuple of tensors with rows as their first dimension, so that a search can repeat, drop and reorder
    rows.

    Attributes:
        output: projection of hidden states to the vocabulary.
    """

    output: nn.Linear

    @abstractmethod
    def forward(
        self,
        features: Tensor,
        tokens: Tensor,
        image_of_caption: Tensor,
        dropout_keys: DropoutKeys | None,
        packing: Packing | None = None,
    ) -> Tensor:
        """Compute the hidden states of captions (teacher forcing).

        Args:
            features: (B, R, C) region features.
            tokens: (N, T) int64 word ids, <bos> first.
            image_of_caption: (N,) int64 row of ``features`` for each caption.
            dropout_keys: keys of the N captions; None drops nothing.
            packing: packing of the captions with the word that follows each of ``tokens``; None computes padding too.

        Returns:
            (N, T, H) hidden states; ``score`` of position t scores the word at t + 1.
        """

    def score(self, hidden: Tensor) -> Tensor:
        """Score every word of the vocabulary: (..., H) -> (..., V) logits."""
        return self.output(hidden)

    @abstractmethod
    def calibrate(self, features: Tensor) -> None:
        """Adapt to the statistics of some training images' features, (K, R, C); called once, before training."""

    @abstractmethod
    def start(self, features: Tensor) -> DecoderState:
        """Return the state before <bos>, with a row for each image of ``features``, (B, R, C)."""

    @abstractmethod
    def step(self, state: DecoderState, tokens: Tensor) -> tuple[Tensor, DecoderState]:
        """Read one word in each row.

        Args:
            state: state before the word.
            tokens: (B,) int64 id of the word in each row.

        Returns:
            (B, V) logits of the next word, and the state after reading the word.
        """


def score_rows(output: nn.Linear, hidden: Tensor) -> Tensor:
    """Score every word of the vocabulary: (B, H) -> (B, V) logits; fast for few rows."""
    if len(hidden) > _FEW_ROWS:
        return output(hidden)
    # On a CPU, a product with few columns takes a third of the time of one with few rows.
    return torch.addmm(output.bias[:, None], output.weight, hidden.t()).t()
