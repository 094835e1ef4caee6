"""Construction of the decoder that the settings name."""

from collections.abc import Callable, Mapping
from typing import Any

from captioning.config import ModelConfig
from captioning.decoder_config import AttendConfig, ShowAndTellConfig, TransformerConfig
from captioning.model.decoders.attend import AttendDecoder
from captioning.model.decoders.interface import Decoder
from captioning.model.decoders.show_and_tell import ShowAndTellDecoder
from captioning.model.decoders.transformer import TransformerDecoder

_DECODERS: Mapping[type, Callable[..., Decoder]] = {
    ShowAndTellConfig: ShowAndTellDecoder,
    AttendConfig: AttendDecoder,
    TransformerConfig: TransformerDecoder,
}


def build_decoder(config: ModelConfig, *, num_regions: int, num_channels: int, vocabulary_size: int) -> Decoder:
    """Return the decoder that ``config.decoder`` names.

    Args:
        config: settings of the model.
        num_regions: R, the number of the encoder's regions.
        num_channels: C, the number of the encoder's channels.
        vocabulary_size: V, the number of words in the vocabulary.
    """
    own: Any = config.decoder_config
    return _DECODERS[type(own)](
        own, num_regions=num_regions, num_channels=num_channels, vocabulary_size=vocabulary_size
    )
