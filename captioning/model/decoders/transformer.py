"""A transformer that reads the words so far and attends over the regions of the image, with pre-normalized layers.

Shapes: B images, R regions, C channels, N captions, T words, P words without padding, H hidden units, A attention
units, V vocabulary words. Sources: Vaswani et al., 2017, Attention Is All You Need (https://arxiv.org/abs/1706.03762),
section 3; normalization before each sublayer as in Xiong et al., 2020 (https://arxiv.org/abs/2002.04745), section 3.2;
input and output embeddings are the same weights (Press and Wolf, 2017, https://arxiv.org/abs/1608.05859). Unlike in the
first, the embedded regions are keys and values of all layers alike, so that a search stores them once.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captioning.decoder_config import TransformerConfig
from captioning.hashing import DropoutKeys, dropout
from captioning.model.decoders.attention import attend
from captioning.model.decoders.interface import Decoder, DecoderState, score_rows
from captioning.model.packing import Packing, word_rows

_WIDENING = 4  # units of a layer's feed-forward part, as a multiple of H
_LONGEST_WAVE = 10_000.0
_INPUT_SITE, _SITES_PER_LAYER = 1, 3


class TransformerDecoder(Decoder):
    """A stack of layers of causal self-attention, attention over the regions, and a feed-forward part.

    Args:
        config: settings of the decoder.
        num_regions: R, the number of the encoder's regions.
        num_channels: C, the number of the encoder's channels.
        vocabulary_size: V, the number of words in the vocabulary.
    """

    feature_mean: Tensor
    feature_deviation: Tensor

    def __init__(self, config: TransformerConfig, *, num_regions: int, num_channels: int, vocabulary_size: int) -> None:
        super().__init__()
        self._dropout, self._num_heads = config.dropout, config.num_heads
        size, attention_size = config.hidden_size, config.attention_size
        self.register_buffer("feature_mean", torch.zeros(num_channels))
        self.register_buffer("feature_deviation", torch.ones(()))
        self.region_embedding = nn.Linear(num_channels, attention_size)
        self.region_position = nn.Parameter(torch.empty(num_regions, attention_size))
        self.region_norm = nn.LayerNorm(attention_size)
        self.layers = nn.ModuleList(_Layer(size, attention_size) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(size)
        self.output = nn.Linear(size, vocabulary_size)  # its weights embed the words, too
        nn.init.normal_(self.region_embedding.weight, std=num_channels**-0.5)
        nn.init.zeros_(self.region_embedding.bias)
        nn.init.normal_(self.region_position, std=0.1)
        nn.init.normal_(self.output.weight, std=size**-0.5)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        features: Tensor,
        tokens: Tensor,
        image_of_caption: Tensor,
        dropout_keys: DropoutKeys | None,
        packing: Packing | None = None,
    ) -> Tensor:
        """Compute the hidden states of captions; see the base class."""
        shape, rows = tokens.shape, word_rows(tokens, packing)
        caption, position = rows // shape[1], rows % shape[1]
        regions = self._embed_regions(features)[image_of_caption]  # (N, R, A)
        keys = dropout_keys and dropout_keys.of_words(caption, position)

        def drop(values: Tensor, site: int) -> Tensor:
            return dropout(values[:, None], self._dropout, keys, site=site)[:, 0]

        def read_words(joined: Tensor) -> Tensor:
            queries, keys, values = _padded(joined, rows, shape).chunk(3, dim=2)
            return self._attend(queries, keys, values, is_causal=True).flatten(0, 1)[rows]

        def read_regions(queries: Tensor) -> Tensor:
            return self._attend(_padded(queries, rows, shape), regions, regions).flatten(0, 1)[rows]

        waves = self._waves(torch.arange(shape[1], device=tokens.device))
        hidden = drop(self._embed_words(tokens.flatten()[rows]) + waves[position], _INPUT_SITE)  # (P, H)
        for number, layer in enumerate(self.layers):
            site = _INPUT_SITE + 1 + number * _SITES_PER_LAYER
            hidden = layer(
                hidden, read_words, read_regions, lambda values, part, first=site: drop(values, first + part)
            )
        return _padded(self.norm(hidden), rows, shape)

    def _embed_words(self, tokens: Tensor) -> Tensor:
        """Embed words: (P,) int64 -> (P, H)."""
        return F.embedding(tokens, self.output.weight) * self.output.in_features**0.5

    def _waves(self, positions: Tensor) -> Tensor:
        """Return the sines and cosines that mark positions, (P,) int64 -> (P, H); section 3.5 of the paper."""
        weight = self.output.weight
        powers = torch.arange(0, 1, 2 / self.output.in_features, device=weight.device, dtype=weight.dtype)
        angles = positions[:, None] * _LONGEST_WAVE**-powers
        return torch.cat([angles.sin(), angles.cos()], dim=1)[:, : self.output.in_features]

    def _embed_regions(self, features: Tensor) -> Tensor:
        """Embed the regions and their positions: (B, R, C) -> (B, R, A)."""
        regions = self.region_embedding((features - self.feature_mean) / self.feature_deviation)
        return self.region_norm(regions + self.region_position)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool = False) -> Tensor:
        """Return the weighted mean of values for each query: (N, T, A), (N, S, A) and (N, S, A) -> (N, T, A)."""
        return attend(queries, keys, values, num_heads=self._num_heads, is_causal=is_causal)

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Set the mean and deviation that standardize the regions; see the base class."""
        mean = features.mean((0, 1))
        self.feature_mean.copy_(mean)
        self.feature_deviation.copy_((features - mean).square().mean().sqrt().clamp(min=1e-6))

    def start(self, features: Tensor) -> DecoderState:
        """Embed the regions, (B, R, C).

        Returns:
            Embedded regions, (B, R, A), and for each layer the keys and values of the words so far, (B, T, 2 * A).
        """
        regions = self._embed_regions(features)
        return regions, *(regions.new_empty(len(regions), 0, 2 * regions.shape[2]) for _ in self.layers)

    def step(self, state: DecoderState, tokens: Tensor) -> tuple[Tensor, DecoderState]:
        """Read one word in each row; see the base class."""
        regions, *caches = state
        num_words = caches[0].shape[1]
        hidden = self._embed_words(tokens) + self._waves(torch.tensor([num_words], device=tokens.device))
        grown = []

        def read_words(joined: Tensor) -> Tensor:
            queries, word = joined[:, None].split([joined.shape[1] // 3, 2 * joined.shape[1] // 3], dim=2)
            grown.append(torch.cat([caches[len(grown)], word], dim=1) if num_words else word)
            return self._attend(queries, *grown[-1].chunk(2, dim=2))[:, 0]

        def read_regions(queries: Tensor) -> Tensor:
            return self._attend(queries[:, None], regions, regions)[:, 0]

        for layer in self.layers:
            hidden = layer(hidden, read_words, read_regions, lambda values, site: values)
        return score_rows(self.output, self.norm(hidden)), (regions, *grown)


class _Layer(nn.Module):
    """A layer of the decoder.

    Args:
        size: H, the number of hidden units.
        attention_size: A, the number of units of all heads together.
    """

    def __init__(self, size: int, attention_size: int) -> None:
        super().__init__()
        self.word_norm, self.region_norm, self.wide_norm = (nn.LayerNorm(size) for _ in range(3))
        self.words, self.word_output = nn.Linear(size, 3 * attention_size), nn.Linear(attention_size, size)
        self.query, self.region_output = nn.Linear(size, attention_size), nn.Linear(attention_size, size)
        self.widen, self.narrow = nn.Linear(size, _WIDENING * size), nn.Linear(_WIDENING * size, size)

    def forward(
        self,
        hidden: Tensor,
        read_words: Callable[[Tensor], Tensor],
        read_regions: Callable[[Tensor], Tensor],
        drop: Callable[[Tensor, int], Tensor],
    ) -> Tensor:
        """Compute the next layer's input.

        Args:
            hidden: (P, H) hidden states of words.
            read_words: attention over the words so far, from queries, keys and values, (P, 3 * A) -> (P, A).
            read_regions: attention over the regions of the image, from queries, (P, A) -> (P, A).
            drop: dropout of values, (P, H), at one of the layer's sites.

        Returns:
            (P, H) hidden states.
        """
        hidden = hidden + drop(self.word_output(read_words(self.words(self.word_norm(hidden)))), 0)
        hidden = hidden + drop(self.region_output(read_regions(self.query(self.region_norm(hidden)))), 1)
        return hidden + drop(self.narrow(F.gelu(self.widen(self.wide_norm(hidden)))), 2)


def _padded(values: Tensor, rows: Tensor, shape: torch.Size) -> Tensor:
    """Return words without padding, (P, H), at their places in (N, T, H), which are 0 elsewhere."""
    return values.new_zeros(shape.numel(), values.shape[1]).index_copy(0, rows, values).unflatten(0, shape)
