"""Attention over regions, between two LSTMs: one reads the words, the other writes the next one.

Shapes: B images, R regions, C channels, N captions, T words, H hidden units, A attention units, E embedding units,
V vocabulary words.
Source: Anderson, He, Buehler, Teney, Johnson, Gould and Zhang, 2018, Bottom-Up and Top-Down Attention
(https://arxiv.org/abs/1707.07998), section 3.2. Unlike there, the first LSTM does not read the state of the second, so
that all words of a caption are computed at once; attention is the scaled dot product of several heads (Vaswani et al.,
2017, https://arxiv.org/abs/1706.03762, section 3.2.2), whose keys are also its values.
"""

import torch
from torch import Tensor, nn

from captioning.decoder_config import AttendConfig
from captioning.hashing import DropoutKeys, dropout
from captioning.model.decoders.attention import attend
from captioning.model.decoders.interface import Decoder, DecoderState, score_rows
from captioning.model.packing import Packing, run_packed

_INPUT_SITE, _OUTPUT_SITE, _CONTEXT_SITE = 1, 2, 3


class AttendDecoder(Decoder):
    """Two LSTMs with attention between them; the first reads the image as if it were a word before <bos>.

    Args:
        config: settings of the decoder.
        num_regions: R, the number of the encoder's regions.
        num_channels: C, the number of the encoder's channels.
        vocabulary_size: V, the number of words in the vocabulary.
    """

    feature_mean: Tensor
    image_deviation: Tensor
    region_deviation: Tensor

    def __init__(self, config: AttendConfig, *, num_regions: int, num_channels: int, vocabulary_size: int) -> None:
        super().__init__()
        self._dropout, self._num_heads = config.dropout, config.num_heads
        embedding_size, hidden_size = config.embedding_size, config.hidden_size
        self.register_buffer("feature_mean", torch.zeros(num_channels))
        self.register_buffer("image_deviation", torch.ones(()))
        self.register_buffer("region_deviation", torch.ones(()))
        self.image_embedding = nn.Linear(num_channels, embedding_size)
        self.region_embedding = nn.Linear(num_channels, config.attention_size)
        self.region_position = nn.Parameter(torch.empty(num_regions, config.attention_size))
        self.word_embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size, batch_first=True)
        self.query = nn.Linear(hidden_size, config.attention_size)
        self.language_lstm = nn.LSTM(hidden_size + config.attention_size, hidden_size, batch_first=True)
        self.output = nn.Linear(hidden_size, vocabulary_size)
        self._initialize(num_channels)

    def _initialize(self, num_channels: int) -> None:
        nn.init.uniform_(self.word_embedding.weight, -0.1, 0.1)
        nn.init.normal_(self.region_position, std=0.1)
        for embedding in (self.image_embedding, self.region_embedding):
            nn.init.normal_(embedding.weight, std=num_channels**-0.5)
            nn.init.zeros_(embedding.bias)
        with torch.no_grad():
            for lstm in (self.lstm, self.language_lstm):
                # Forget gates start open, as in Show and Tell; torch's order is input, forget, cell, output.
                lstm.get_parameter("bias_ih_l0")[lstm.hidden_size : 2 * lstm.hidden_size] += 1

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
        inputs = torch.cat([images[:, None], words], dim=1)  # (N, 1 + T, E)
        inputs = dropout(inputs, self._dropout, dropout_keys, site=_INPUT_SITE)
        hidden = run_packed(self.lstm, inputs, packing) if packing is not None else self.lstm(inputs)[0]
        regions = self._embed_regions(features)[image_of_caption]  # (N, R, A)
        inputs = torch.cat([hidden, self._attend(hidden, regions)], dim=-1)  # (N, 1 + T, H + A)
        inputs = dropout(inputs, self._dropout, dropout_keys, site=_CONTEXT_SITE)
        lstm = self.language_lstm
        hidden = run_packed(lstm, inputs, packing) if packing is not None else lstm(inputs)[0]
        return dropout(hidden[:, 1:], self._dropout, dropout_keys, site=_OUTPUT_SITE)

    def _embed_images(self, features: Tensor) -> Tensor:
        """Embed images like words: (B, R, C) -> (B, E)."""
        return self.image_embedding((features.mean(1) - self.feature_mean) / self.image_deviation)

    def _embed_regions(self, features: Tensor) -> Tensor:
        """Embed the regions and their positions: (B, R, C) -> (B, R, A)."""
        regions = self.region_embedding((features - self.feature_mean) / self.region_deviation)
        return regions + self.region_position.to(regions.dtype)

    def _attend(self, hidden: Tensor, regions: Tensor) -> Tensor:
        """Return the weighted mean of the regions of each row: (N, T, H) and (N, R, A) -> (N, T, A)."""
        return attend(self.query(hidden), regions, regions, num_heads=self._num_heads)

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Set the mean and the deviations that standardize images and regions; see the base class."""
        pooled, mean = features.mean(1), features.mean((0, 1))
        self.feature_mean.copy_(mean)
        self.image_deviation.copy_((pooled - mean).square().mean().sqrt().clamp(min=1e-6))
        self.region_deviation.copy_((features - mean).square().mean().sqrt().clamp(min=1e-6))

    def start(self, features: Tensor) -> DecoderState:
        """Read the images, (B, R, C).

        Returns:
            Hidden state and cell state of the first and of the second LSTM, (B, H) each, and the embedded regions,
            (B, R, A).
        """
        images, regions = self._embed_images(features), self._embed_regions(features)
        zeros = images.new_zeros(len(images), self.lstm.hidden_size)
        return self._read(images, (zeros, zeros, zeros, zeros, regions))

    def step(self, state: DecoderState, tokens: Tensor) -> tuple[Tensor, DecoderState]:
        """Read one word in each row; see the base class."""
        state = self._read(self.word_embedding(tokens).to(state[0].dtype), state)
        return score_rows(self.output, state[2]), state

    def _read(self, inputs: Tensor, state: DecoderState) -> DecoderState:
        """Take one step of both LSTMs in each row, which read (B, E) inputs."""
        hidden, cell, language_hidden, language_cell, regions = state
        # ``nn.LSTM`` rearranges its weights at every call on a CPU, which takes longer than a step of few rows.
        hidden, cell = torch.lstm_cell(inputs, (hidden, cell), *self.lstm.parameters())
        context = self._attend(hidden[:, None], regions)[:, 0]
        inputs = torch.cat([hidden, context], dim=-1)
        language_state = torch.lstm_cell(inputs, (language_hidden, language_cell), *self.language_lstm.parameters())
        return hidden, cell, *language_state, regions
