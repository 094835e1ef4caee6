"""Settings of each decoder; ``ModelConfig.decoder`` names the one of a model. Imports neither torch nor Ray."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from captioning.bounds import not_positive, raise_mistakes, too_large

Pooling = Literal["mean", "none"]
"""Image features that Show and Tell reads: the mean of the regions, or all of them, concatenated."""
ImageInput = Literal["first", "every"]
"""Words at which Show and Tell reads the image: once before the first word, or also with each word."""
DecoderName = Literal["lstm", "attend", "transformer"]
"""Name of a decoder."""
_LARGEST_SIZE, _MOST_LAYERS, _MOST_HEADS = 16_384, 64, 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowAndTellConfig:
    """Settings of the decoder lstm."""

    pooling: Pooling = "mean"
    image_input: ImageInput = "first"
    embedding_size: int = 512
    hidden_size: int = 512
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(_out_of_bounds(self, "embedding_size", "hidden_size"))


@dataclass(frozen=True, kw_only=True, slots=True)
class AttendConfig:
    """Settings of the decoder attend."""

    embedding_size: int = 512
    hidden_size: int = 512
    num_heads: int = 8
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(_out_of_bounds(self, "embedding_size", "hidden_size", num_heads=_MOST_HEADS))

    @property
    def attention_size(self) -> int:
        """Return the number of units of all heads: hidden_size, or more if they cannot share it evenly."""
        return -(-self.hidden_size // self.num_heads) * self.num_heads


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """Settings of the decoder transformer."""

    hidden_size: int = 512
    num_layers: int = 3
    num_heads: int = 8
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(_out_of_bounds(self, "hidden_size", num_layers=_MOST_LAYERS, num_heads=_MOST_HEADS))

    @property
    def attention_size(self) -> int:
        """Return the number of units of all heads: hidden_size, or more if they cannot share it evenly."""
        return -(-self.hidden_size // self.num_heads) * self.num_heads


DecoderConfig: TypeAlias = ShowAndTellConfig | AttendConfig | TransformerConfig
"""Settings of any decoder."""
DECODERS: Mapping[DecoderName, type[DecoderConfig]] = {
    "lstm": ShowAndTellConfig,
    "attend": AttendConfig,
    "transformer": TransformerConfig,
}
"""Class of each decoder's settings."""
SETTINGS_OF_DECODERS = tuple(dict.fromkeys(field.name for kind in DECODERS.values() for field in fields(kind)))
"""Names of the settings that at least one decoder has."""


def foreign_settings(decoder: DecoderName, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each given setting that a decoder does not have."""
    own = {field.name for field in fields(DECODERS[decoder])}
    for name, value in given.items():
        if name not in own:
            owners = [one for one, kind in DECODERS.items() if name in {field.name for field in fields(kind)}]
            yield (
                f"{name} {value} is a setting of decoder{'s' if len(owners) > 1 else ''} {' and '.join(owners)}, "
                f"not of {decoder}; "
                "leave it out (None takes back a preset's)"
            )


def _out_of_bounds(config: Any, *sizes: str, **most: int) -> Iterator[str]:  # noqa: ANN401  any decoder's settings
    yield from not_positive(config, *sizes, *most)
    # Far above any sensible value: a registered version's sizes are read from a file that anyone may have written.
    yield from too_large(config, **dict.fromkeys(sizes, _LARGEST_SIZE), **most)
    if not 0 <= config.dropout < 1:
        yield f"dropout {config.dropout} is not a fraction of the units; use a value from 0 to below 1"
