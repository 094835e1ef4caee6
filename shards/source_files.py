"""Image files of a source: their content, and whether they are still those that a shard was written from."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from shards.file_part import FilePart, size_of_file
from shards.samples import CaptionedImage


class SourceDigest:
    """Identity of the files of a shard's images, gathered while they are read in order.

    Args:
        images: images of the shard, before the first is read: a file that changes meanwhile is noticed by the next run.

    Raises:
        ValueError: a file cannot be accessed.
    """

    def __init__(self, images: Sequence[CaptionedImage]) -> None:
        self._stamp, self._sha256 = _stamp_of(images), hashlib.sha256()

    def add(self, content: bytes) -> None:
        """Add the content of the next image's file."""
        self._sha256.update(hashlib.sha256(content).digest())

    def as_dict(self) -> dict[str, str]:
        """Return what a shard's record holds: a digest of the files' sizes and times, and one of their contents."""
        return {"stamp": self._stamp, "sha256": self._sha256.hexdigest()}


def has_changed(images: Sequence[CaptionedImage], recorded: Mapping[str, str]) -> bool:
    """Return whether a file has another content than the one that a shard was written from.

    Sizes and times are the cheap sign. Where they differ, as in a copy of the source, the files are read again: an
    image without compression keeps its size whatever it shows.

    Args:
        images: images of the shard.
        recorded: the shard's record of its source, as ``SourceDigest.as_dict`` returns it.

    Raises:
        ValueError: a file cannot be read.
    """
    if _stamp_of(images) == recorded.get("stamp"):
        return False
    digest = hashlib.sha256()
    for image in images:
        digest.update(hashlib.sha256(read_image(image)).digest())
    return digest.hexdigest() != recorded.get("sha256")


def read_image(image: CaptionedImage) -> bytes:
    """Return the content of an image's file.

    Raises:
        ValueError: the file cannot be read; it is never set aside, because a temporary fault must not decide what a
            shard holds.
    """
    try:
        return image.path.read_bytes()
    except OSError as error:
        raise _unreadable(image, error) from error


def size_of(image: CaptionedImage) -> int:
    """Return the size of an image's file, in bytes.

    Raises:
        ValueError: the file cannot be accessed.
    """
    try:
        return size_of_file(image.path)
    except OSError as error:
        raise _unreadable(image, error) from error


def _stamp_of(images: Sequence[CaptionedImage]) -> str:
    """Return a digest of the files' sizes and of the times of their last changes, of content and of name."""
    try:
        found = [image.path.stat() for image in images]
    except OSError as error:
        image = next(
            (
                image
                for image in images
                if str(error.filename) in (str(image.path), str(getattr(image.path, "file", "")))
            ),
            images[0],
        )
        raise _unreadable(image, error) from error
    sizes = [
        image.path.num_bytes if isinstance(image.path, FilePart) else one.st_size
        for image, one in zip(images, found, strict=True)
    ]
    rows = [(size, one.st_mtime_ns, one.st_ctime_ns) for size, one in zip(sizes, found, strict=True)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _unreadable(image: CaptionedImage, error: OSError) -> ValueError:
    return ValueError(
        f"{image.path} (image {image.image_id}) cannot be read ({error.strerror}); "
        "fix the source, then run the same command again"
    )
