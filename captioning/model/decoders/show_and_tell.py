"""Show and Tell: an LSTM that reads the image as if it were a word before <bos>.

Shapes: B images, R regions, C channels, N captions, T words, H hidden units, E embedding units, V vocabulary words.
Source: Vinyals, Toshev, Bengio and Erhan, 2015, Show and Tell (https://arxiv.org/abs/1411.4555), section 3.1.
"""

import torch
from torch import Tensor, nn

from captioning.decoder_config import ShowAndTellConfig
from captioning.hashing import DropoutKeys, dropout
from captioning.model.decoders.interface import Decoder, DecoderState, score_rows
from captioning.model.packing import Packing, run_packed

_INPUT_SITE, _OUTPUT_SITE = 1, 2


class ShowAndTellDecoder(Decoder):
    """An LSTM that reads the image as if it were a word before <bos>.

    Args:
        config: settings of the decoder.
        num_regions: R, the number of the encoder's regions.
        num_channels: C, the number of the encoder's channels.
        vocabulary_size: V, the number of words in the vocabulary.
    """

    feature_mean: Tensor
    feature_deviation: Tensor

    def __init__(self, config: ShowAndTellConfig, *, num_regions: int, num_channels: int, vocabulary_size: int) -> None:
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
        return score_rows(self.output, hidden), (hidden, cell, images)

    def _read(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step of the LSTM in each row: (B, E), (B, H) and (B, H) -> new hidden and cell state."""
        # ``nn.LSTM`` rearranges its weights at every call on a CPU, which takes longer than a step of few rows.
        return torch.lstm_cell(inputs, (hidden, cell), *self.lstm.parameters())
