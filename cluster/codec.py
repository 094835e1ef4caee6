"""The codec that conversion hands to ``shards``: that of ``captioning``, by which training and serving decode too."""

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np


@dataclass(frozen=True, slots=True)
class TurboCodec:
    """JPEG by libjpeg-turbo and torch's resizing. Imports torch at the first image, so that a plan needs none."""

    @property
    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries that determine the bytes of an encoded image."""
        return {"simplejpeg": version("simplejpeg"), "torch": version("torch").partition("+")[0]}

    def decode(self, content: bytes, *, at_least: tuple[int, int]) -> np.ndarray | None:
        """Decode a JPEG; see ``captioning.data.jpeg``."""
        from captioning.data.jpeg import decode_jpeg

        return decode_jpeg(content, at_least=at_least)

    def resize(
        self, pixels: np.ndarray, width: int, height: int, *, extent: tuple[float, float] | None = None
    ) -> np.ndarray:
        """Resize an image; see ``captioning.data.jpeg``."""
        from captioning.data.jpeg import resize_pixels

        return resize_pixels(pixels, width, height, extent=extent)

    def encode(self, pixels: np.ndarray, quality: int) -> bytes:
        """Encode an image; see ``captioning.data.jpeg``."""
        from captioning.data.jpeg import encode_jpeg

        return encode_jpeg(pixels, quality)
