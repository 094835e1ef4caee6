"""The model and the loop of a typical tutorial, as the peer of benchmarks: pooled features and packed captions."""

from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from captioning.config import ModelConfig
from captioning.data.batches import CaptionBatch
from captioning.model.backbone import cut_classifier, normalization

MOST_WORDS = 20


class PlainEncoder(nn.Module):
    """A torchvision model as a tutorial uses it: frozen, in torchvision's layout, layer by layer.

    Args:
        name: name of the torchvision model; its weights are random.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        classifier = torchvision.models.get_model(name, weights=None).eval()
        self.backbone, _, self.num_channels = cut_classifier(classifier, ModelConfig(backbone=name))
        self.requires_grad_(False)
        self.mean, self.deviation = (torch.tensor(one).view(3, 1, 1) for one in normalization(name))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the (B, R, C) features of (B, 3, S, S) uint8 images."""
        return self.backbone((images / 255 - self.mean) / self.deviation).flatten(2).transpose(1, 2)


class Peer(nn.Module):
    """A tutorial's model: pooled features, then an LSTM over packed captions.

    Args:
        encoder: this project's encoder, a ``PlainEncoder``, or anything with ``num_channels`` if batches hold features.
        size: number of units of the embedding and of the LSTM.
        num_words: size of the vocabulary.
    """

    def __init__(self, encoder: Any, size: int, num_words: int) -> None:
        super().__init__()
        self.encoder, self.project = encoder, nn.Linear(encoder.num_channels, size)
        self.embedding, self.lstm = nn.Embedding(num_words, size), nn.LSTM(size, size, batch_first=True)
        self.score = nn.Linear(size, num_words)

    def forward(self, batch: CaptionBatch, lengths: Tensor) -> Tensor:
        """Return the (M, V) float logits of the M packed target words."""
        regions = batch.images.float() if batch.images.is_floating_point() else self.encoder(batch.images)
        features = self.project(regions.mean(1))[batch.image_of_caption]
        words = torch.cat([features[:, None], self.embedding(batch.tokens[:, 1:-1])], dim=1)
        packed = nn.utils.rnn.pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        return self.score(self.lstm(packed)[0].data)

    @torch.no_grad()
    def caption(self, images: Tensor) -> Tensor:
        """Return (B, T) int64 word ids, by greedy search."""
        inputs, state, words = self.project(self.encoder(images).mean(1))[:, None], None, []
        for _ in range(MOST_WORDS):
            hidden, state = self.lstm(inputs, state)
            words.append(self.score(hidden[:, 0]).argmax(1))
            inputs = self.embedding(words[-1])[:, None]
        return torch.stack(words, 1)


def train_step(peer: Peer, optimizer: torch.optim.Optimizer, batch: CaptionBatch, *, use_bf16: bool) -> None:
    """Take one step of mean cross-entropy, as a tutorial does."""
    lengths = (batch.tokens[:, 1:] != 0).sum(1).cpu()
    packed = nn.utils.rnn.pack_padded_sequence(batch.tokens[:, 1:], lengths, batch_first=True, enforce_sorted=False)
    with torch.autocast(batch.tokens.device.type, dtype=torch.bfloat16, enabled=use_bf16):
        loss = nn.functional.cross_entropy(peer(batch, lengths), packed.data)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
