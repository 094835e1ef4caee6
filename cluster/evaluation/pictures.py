"""Pictures from outside a shard set, and their captions, as a notebook shows them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

from PIL import Image, ImageOps

from captioning.evaluation.captioner import Captioner
from captioning.pages.gallery import GalleryItem
from captioning.pages.notebook import captions_html
from cluster.codec import TurboCodec
from shards.images import ImageSpec, store_image, to_rgb

_SPEC = ImageSpec(shorter_side_px=512)  # more than any encoder reads, and small enough for a page

ImageInput = str | Path | bytes | Image.Image
"""A picture: the path of an image file, the content of one, or an image that Pillow has opened."""
T = TypeVar("T", bound=ImageInput)


class Picture(NamedTuple):
    """A picture to caption."""

    name: str
    jpeg: bytes
    references: tuple[str, ...] = ()
    """Captions by people, if there are any."""


class CaptionedPicture(NamedTuple):
    """A picture with a model's captions. As text, it is the best caption; in a notebook, the picture above them."""

    name: str
    captions: tuple[str, ...]
    """Captions, best first."""
    log_probability: float
    """Log-probability of the best caption, in nats."""
    jpeg: bytes

    @property
    def caption(self) -> str:
        """Return the best caption."""
        return self.captions[0]

    def __str__(self) -> str:
        """Return the best caption."""
        return self.caption

    def __repr__(self) -> str:
        """Return everything but the content of the image."""
        return f"CaptionedPicture({self.name!r}, {self.caption!r}, log_probability={self.log_probability:.2f})"

    def _repr_html_(self) -> str:
        return CaptionedPictures([self])._repr_html_()


class CaptionedPictures(tuple[CaptionedPicture, ...]):
    """Captioned pictures, in the order in which they were given; a notebook shows them side by side."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return captions_html([GalleryItem(name=one.name, jpeg=one.jpeg, captions=one.captions) for one in self])


def read_picture(image: ImageInput, name: str = "image") -> Picture:
    """Read a picture, and shrink it if it is large.

    Args:
        image: the path of an image file, the content of one, or an image that Pillow has opened.
        name: name of the picture; of a file, the path is its name.

    Raises:
        OSError: the file cannot be read.
        ValueError: the image does not decode.
    """
    if isinstance(image, str | Path):
        return Picture(str(image), store_image(Path(image).read_bytes(), _SPEC, TurboCodec()).jpeg)
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        to_rgb(ImageOps.exif_transpose(image)).save(buffer, "PNG")
        image = buffer.getvalue()
    return Picture(name, store_image(image, _SPEC, TurboCodec()).jpeg)


def read_pictures(images: Sequence[ImageInput]) -> list[Picture]:
    """Read pictures; those without a file are named by their number, from 0.

    Raises:
        OSError: a file cannot be read.
        ValueError: an image does not decode; the message names it.
    """
    pictures = []
    for number, image in enumerate(images):
        name = str(image) if isinstance(image, str | Path) else f"image {number}"
        try:
            pictures.append(read_picture(image, name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return pictures


class LoadedModel:
    """A trained model that captions pictures; ``load`` returns it.

    Args:
        title: version, step and run of the model, as text.
        captioner: captioner of the model's checkpoint.
    """

    def __init__(self, title: str, captioner: Captioner) -> None:
        self._title, self._captioner = title, captioner

    def __repr__(self) -> str:
        """Return version, step and run."""
        return f"LoadedModel({self._title})"

    @overload
    def caption(self, images: ImageInput) -> CaptionedPicture: ...
    @overload
    def caption(self, images: list[T] | tuple[T, ...]) -> CaptionedPictures: ...

    def caption(self, images: ImageInput | list[T] | tuple[T, ...]) -> CaptionedPicture | CaptionedPictures:
        """Caption one picture, or each of a list.

        Args:
            images: the path of an image file, the content of one, an image that Pillow has opened, or a list of these.

        Raises:
            OSError: a file cannot be read.
            ValueError: an image does not decode; the message names it.
        """
        if not isinstance(images, list | tuple):
            return self.caption([images])[0]
        pictures = read_pictures(images)
        written = self._captioner.caption(picture.jpeg for picture in pictures)
        return CaptionedPictures(
            CaptionedPicture(picture.name, one.captions, one.log_probability, picture.jpeg)
            for picture, one in zip(pictures, written, strict=True)
        )
