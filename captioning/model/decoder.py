"""Decoders: region features and the words so far -> scores of the next word.

Shapes: B images, R regions, C channels, N captions, T words, H hidden units, E embedding units, V words known.
Source: Vinyals, Toshev, Bengio and Erhan, 2015, Show and Tell (https://arxiv.org/abs/1411.4555), section 3.1.
"""

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor, nn

from captioning.config import ModelConfig
from captioning.hashing import DropoutKeys, dropout

DecoderState: TypeAlias = tuple[Tensor, ...]

_INPUT_SITE, _OUTPUT_SITE = 1, 2


class Decoder(nn.Module, ABC):
    """What teacher forcing and every search ask of a decoder.

    A state is a tuple of tensors whose first dimension is the row: a search may repeat, drop and reorder rows.
    """

    @abstractmethod
    def forward(
        self, features: Tensor, tokens: Tensor, image_of_caption: Tensor, dropout_keys: DropoutKeys | None
    ) -> Tensor:
        """Read captions with teacher forcing.

        Args:
            features: (B, R, C).
            tokens: (N, T) int64, <bos> first.
            image_of_caption: (N,) int64, the row of ``features`` that a caption is about.
            dropout_keys: of the N captions; None where nothing is to be dropped.

        Returns:
            (N, T, H); ``score`` of position t scores the word at t + 1.
        """

    @abstractmethod
    def score(self, hidden: Tensor) -> Tensor:
        """Score every word of the vocabulary: (..., H) -> (..., V) logits."""

    @abstractmethod
    def calibrate(self, features: Tensor) -> None:
        """Prepare for features like those of some training images, (K, R, C); done once, before training."""

    @abstractmethod
    def start(self, features: Tensor) -> DecoderState:
        """Return the state before <bos>, a row for each image of ``features`` (B, R, C)."""

    @abstractmethod
    def step(self, state: DecoderState, tokens: Tensor) -> tuple[Tensor, DecoderState]:
        """Read one word in each row: tokens (B,) int64 -> logits (B, V) of the next word, and the state after it."""


class ShowAndTellDecoder(Decoder):
    """An LSTM that reads the image once, as if it were the word before the first.

    Args:
        config: sizes and dropout.
        num_regions: R.
        num_channels: C.
        vocabulary_size: V.
    """

    feature_mean: Tensor
    feature_deviation: Tensor

    def __init__(self, config: ModelConfig, *, num_regions: int, num_channels: int, vocabulary_size: int) -> None:
        super().__init__()
        self._dropout, self._is_pooled = config.dropout, config.pooling == "mean"
        self._is_read_always = config.image_input == "every"
        num_read = num_channels if self._is_pooled else num_regions * num_channels
        self.image_embedding = nn.Linear(num_read, config.embedding_size)
        self.register_buffer("feature_mean", torch.zeros(num_read))
        self.register_buffer("feature_deviation", torch.ones(()))
        self.word_embedding = nn.Embedding(vocabulary_size, config.embedding_size)
        self.lstm = nn.LSTM(config.embedding_size, config.hidden_size, batch_first=True)
        self.output = nn.Linear(config.hidden_size, vocabulary_size)
        nn.init.uniform_(self.word_embedding.weight, -0.1, 0.1)
        nn.init.normal_(self.image_embedding.weight, std=num_read**-0.5)
        nn.init.zeros_(self.image_embedding.bias)
        # Else the image is forgotten after a few words (Jozefowicz et al., 2015, section 2.2).
        with torch.no_grad():
            self.lstm.get_parameter("bias_ih_l0")[config.hidden_size : 2 * config.hidden_size] += 1

    def forward(
        self, features: Tensor, tokens: Tensor, image_of_caption: Tensor, dropout_keys: DropoutKeys | None
    ) -> Tensor:
        """Read captions with teacher forcing; see the base class."""
        images = self._read(features)[image_of_caption]  # (N, E)
        words = self.word_embedding(tokens).to(images.dtype)
        if self._is_read_always:
            words = words + images[:, None]
        inputs = torch.cat([images[:, None], words], dim=1)  # (N, 1 + T, E)
        hidden, _ = self.lstm(dropout(inputs, self._dropout, dropout_keys, site=_INPUT_SITE))
        return dropout(hidden[:, 1:], self._dropout, dropout_keys, site=_OUTPUT_SITE)

    def _read(self, features: Tensor) -> Tensor:
        """Embed images as if they were words: (B, R, C) -> (B, E)."""
        read = features.mean(1) if self._is_pooled else features.flatten(1)
        return self.image_embedding((read - self.feature_mean) / self.feature_deviation)

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Centre and scale the features that are read, by those of some images; see the base class."""
        read = features.mean(1) if self._is_pooled else features.flatten(1)
        self.feature_mean.copy_(read.mean(0))
        self.feature_deviation.copy_((read - read.mean(0)).square().mean().sqrt().clamp(min=1e-6))

    def score(self, hidden: Tensor) -> Tensor:
        """Score every word of the vocabulary: (..., H) -> (..., V) logits."""
        return self.output(hidden)

    def start(self, features: Tensor) -> DecoderState:
        """Read the images: (B, R, C) -> the LSTM's hidden and cell state, (B, H) each, and what was read, (B, E)."""
        images = self._read(features)
        _, (hidden, cell) = self.lstm(images[:, None])
        return hidden[0], cell[0], images

    def step(self, state: DecoderState, tokens: Tensor) -> tuple[Tensor, DecoderState]:
        """Read one word in each row; see the base class."""
        hidden, cell, images = state
        words = self.word_embedding(tokens).to(hidden.dtype)
        if self._is_read_always:
            words = words + images
        _, (hidden, cell) = self.lstm(words[:, None], (hidden[None].contiguous(), cell[None].contiguous()))
        return self.output(hidden[0]), (hidden[0], cell[0], images)


def build_decoder(config: ModelConfig, *, num_regions: int, num_channels: int, vocabulary_size: int) -> Decoder:
    """Return the decoder that ``config.decoder`` names."""
    decoders = {"lstm": ShowAndTellDecoder}
    return decoders[config.decoder](
        config, num_regions=num_regions, num_channels=num_channels, vocabulary_size=vocabulary_size
    )
