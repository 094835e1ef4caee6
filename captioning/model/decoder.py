"""Decoders: scores of the next word, from an image's region features and the words so far.

Shapes: B images, R regions, C channels, N captions, T words, H hidden units, E embedding units, V vocabulary words.
Source: Vinyals, Toshev, Bengio and Erhan, 2015, Show and Tell (https://arxiv.org/abs/1411.4555), section 3.1.
"""

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor, nn

from captioning.config import ModelConfig
from captioning.hashing import DropoutKeys, dropout
from captioning.model.packing import Packing, run_packed

DecoderState: TypeAlias = tuple[Tensor, ...]

_INPUT_SITE, _OUTPUT_SITE = 1, 2
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

    @abstractmethod
    def score(self, hidden: Tensor) -> Tensor:
        """Score every word of the vocabulary: (..., H) -> (..., V) logits."""

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


class ShowAndTellDecoder(Decoder):
    """An LSTM that reads the image as if it were a word before <bos>.

    Args:
        config: settings of the model.
        num_regions: R, the number of the encoder's regions.
        num_channels: C, the number of the encoder's channels.
        vocabulary_size: V, the number of words in the vocabulary.
    """

    feature_mean: Tensor
    feature_deviation: Tensor

    def __init__(self, config: ModelConfig, *, num_regions: int, num_channels: int, vocabulary_size: int) -> None:
        super().__init__()
        self._dropout, self._is_pooled = config.dropout, config.pooling == "mean"
        self._reads_image_at_every_word = config.image_input == "every"
        input_size = num_channels if self._is_pooled else num_regions * num_channels
        self.image_embedding = nn.Linear(input_size, config.embedding_size)
        self.register_buffer("feature_mean", torch.zeros(input_size))
        self.register_buffer("feature_deviation", torch.ones(()))
        self.word_embedding = nn.Embedding(vocabulary_size, config.embedding_size)
        self.lstm = nn.LSTM(config.embedding_size, config.hidden_size, batch_first=True)
        self.output = nn.Linear(config.hidden_size, vocabulary_size)
        nn.init.uniform_(self.word_embedding.weight, -0.1, 0.1)
        nn.init.normal_(self.image_embedding.weight, std=input_size**-0.5)
        nn.init.zeros_(self.image_embedding.bias)
        # Forget gates start open; otherwise the image is forgotten after a few words (Jozefowicz et al., 2015, section
        # 2.2). torch stores the gates in the order input, forget, cell, output.
        with torch.no_grad():
            self.lstm.get_parameter("bias_ih_l0")[config.hidden_size : 2 * config.hidden_size] += 1

    def forward(
        self,
        features: Tensor,
        tokens: Tensor,
        image_of_caption: Tensor,
        dropout_keys: DropoutKeys | None,
        packing: Packing | None = None,
    ) -> Tensor:
        """Compute the hidden states of captions; see the base class."""
        images = self._embed_images(features)[image_of_caption]  # (N, E)
        words = self.word_embedding(tokens).to(images.dtype)
        if self._reads_image_at_every_word:
            words = words + images[:, None]
        inputs = torch.cat([images[:, None], words], dim=1)  # (N, 1 + T, E)
        inputs = dropout(inputs, self._dropout, dropout_keys, site=_INPUT_SITE)
        hidden = run_packed(self.lstm, inputs, packing) if packing is not None else self.lstm(inputs)[0]
        return dropout(hidden[:, 1:], self._dropout, dropout_keys, site=_OUTPUT_SITE)

    def _embed_images(self, features: Tensor) -> Tensor:
        """Embed images like words: (B, R, C) -> (B, E)."""
        return self.image_embedding((self._pool(features) - self.feature_mean) / self.feature_deviation)

    def _pool(self, features: Tensor) -> Tensor:
        """Return the features to embed: their mean over regions, (B, C), or all of them, (B, R * C)."""
        return features.mean(1) if self._is_pooled else features.flatten(1)

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Set the mean and deviation that standardize the features; see the base class."""
        pooled = self._pool(features)
        self.feature_mean.copy_(pooled.mean(0))
        self.feature_deviation.copy_((pooled - pooled.mean(0)).square().mean().sqrt().clamp(min=1e-6))

    def score(self, hidden: Tensor) -> Tensor:
        """Score every word of the vocabulary: (..., H) -> (..., V) logits."""
        return self.output(hidden)

    def start(self, features: Tensor) -> DecoderState:
        """Read the images, (B, R, C).

        Returns:
            Hidden state and cell state of the LSTM, (B, H) each, and the embedded images, (B, E).
        """
        images = self._embed_images(features)
        zeros = images.new_zeros(len(images), self.lstm.hidden_size)
        hidden, cell = self._read(images, zeros, zeros)
        return hidden, cell, images

    def step(self, state: DecoderState, tokens: Tensor) -> tuple[Tensor, DecoderState]:
        """Read one word in each row; see the base class."""
        hidden, cell, images = state
        words = self.word_embedding(tokens).to(images.dtype)
        if self._reads_image_at_every_word:
            words = words + images
        hidden, cell = self._read(words, hidden, cell)
        return self._score_rows(hidden), (hidden, cell, images)

    def _read(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step of the LSTM in each row: (B, E), (B, H) and (B, H) -> new hidden and cell state."""
        # ``nn.LSTM`` rearranges its weights at every call on a CPU, which takes longer than a step of few rows.
        return torch.lstm_cell(inputs, (hidden, cell), *self.lstm.parameters())

    def _score_rows(self, hidden: Tensor) -> Tensor:
        """Score every word of the vocabulary: (B, H) -> (B, V) logits; fast for few rows."""
        if len(hidden) > _FEW_ROWS:
            return self.output(hidden)
        # On a CPU, a product with few columns takes a third of the time of one with few rows.
        return torch.addmm(self.output.bias[:, None], self.output.weight, hidden.t()).t()


def build_decoder(config: ModelConfig, *, num_regions: int, num_channels: int, vocabulary_size: int) -> Decoder:
    """Return the decoder that ``config.decoder`` names."""
    decoders = {"lstm": ShowAndTellDecoder}
    return decoders[config.decoder](
        config, num_regions=num_regions, num_channels=num_channels, vocabulary_size=vocabulary_size
    )
