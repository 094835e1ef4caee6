"""Tiny decoders, with random regions and words for them."""

from dataclasses import replace

import torch

from captioning.data.vocabulary import BOS
from captioning.model.decoders.factory import build_decoder
from tests.support.tiny_models import MODEL, VOCABULARY

NUM_IMAGES, NUM_REGIONS, NUM_CHANNELS = 3, 4, 6


def tiny_decoder(**changes):
    """Return a decoder with random weights; ``changes`` are changes of the model's settings."""
    torch.manual_seed(0)
    return build_decoder(
        replace(MODEL, **changes),
        num_regions=NUM_REGIONS,
        num_channels=NUM_CHANNELS,
        vocabulary_size=len(VOCABULARY),
    )


def random_features():
    return torch.randn(NUM_IMAGES, NUM_REGIONS, NUM_CHANNELS, generator=torch.Generator().manual_seed(1))


def random_tokens():
    """Return a caption of each image without its last word, (3, 7)."""
    words = torch.randint(4, len(VOCABULARY), (NUM_IMAGES, 7), generator=torch.Generator().manual_seed(2))
    words[:, 0] = BOS
    return words


def forced(decoder, features, tokens, keys=None):
    """Return the logits of teacher forcing: (N, T, V)."""
    return decoder.score(decoder(features, tokens, torch.arange(len(tokens)), keys))
