"""The codec of JPEG images: Pillow's, or a faster one that the caller of this package brings."""

from importlib.metadata import version
from typing import Protocol

import numpy as np
from PIL import features


class JpegCodec(Protocol):
    """A decoder and encoder of JPEG that notices damage, which Pillow passes over.

    Shapes: H rows, W columns.
    """

    @property
    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries that determine the bytes of an encoded image."""
        ...

    def decode(self, content: bytes, *, at_least: tuple[int, int]) -> np.ndarray | None:
        """Decode a JPEG without turning it by its EXIF tag.

        Args:
            content: content of the file.
            at_least: width and height that are enough; a larger image may be decoded at 1/2, 1/4 or 1/8 of its size.

        Returns:
            (H, W, 3) uint8 RGB; None if Pillow must decode it.

        Raises:
            ValueError: some of the pixels are missing or damaged.
        """
        ...

    def resize(
        self, pixels: np.ndarray, width: int, height: int, *, extent: tuple[float, float] | None = None
    ) -> np.ndarray:
        """Resize (H, W, 3) uint8 pixels; ``extent`` is the width and height of the part that the image spans."""
        ...

    def encode(self, pixels: np.ndarray, quality: int) -> bytes:
        """Encode (H, W, 3) uint8 pixels."""
        ...


def codec_versions(codec: JpegCodec | None = None) -> dict[str, str]:
    """Return the versions of the libraries that determine the bytes of an encoded image.

    Args:
        codec: codec of JPEG images; without one, Pillow does all.
    """
    libjpeg = features.version("libjpeg_turbo") or features.version("jpg") or "unknown"
    return {"pillow": version("pillow"), "libjpeg": libjpeg} | (codec.versions if codec else {})
