"""The gallery: images with captions, scores and references, which a page sorts, filters and searches."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from captioning.pages.html import write_page
from captioning.pages.thumbnails import thumbnail

MOST_PICTURES = 300
"""Largest number of pictures in a page, so that it stays below 10 MB."""
_BYTES_OF_ALL, _BYTES_OF_ONE = 6_000_000, 90_000
_JPEG_START = b"\xff\xd8\xff"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryItem:
    """One image with its captions.

    Raises:
        ValueError: ``jpeg`` is not JPEG data, or there is no caption.
    """

    name: str
    """Name shown below the image: a file name or a key."""
    jpeg: bytes
    """Content of a JPEG file; the page embeds it, or a smaller copy."""
    captions: Sequence[str]
    """Captions, best first; the first is also the alternative text."""
    log_probability_nats: float | None = None
    """Log-probability of the first caption, in nats; None if unknown."""
    references: Sequence[str] = ()
    """Reference captions."""
    scores: Sequence[tuple[str, float]] = ()
    """Name and value of each score of the first caption; the same names in all items of a gallery."""
    verdict: bool | None = None
    """Whether the first caption is true of the image; None if unknown."""
    rival: str = ""
    """Caption of the model that the gallery compares with; empty for none."""
    gain: float | None = None
    """Value of the gallery's first score minus that of the rival's caption; None without a rival."""

    def __post_init__(self) -> None:
        """Check the image and the captions."""
        if not self.jpeg.startswith(_JPEG_START):
            found = f"begins with {self.jpeg[:8]!r}" if self.jpeg else "is empty"
            raise ValueError(
                f"{self.name} {found} and is not JPEG: a browser would show a broken picture; encode it as JPEG"
            )
        if not self.captions:
            raise ValueError(
                f"{self.name} has no caption, so there is nothing to show; give a caption, or leave the image out"
            )


class Names(NamedTuple):
    """Names of the two models whose captions a gallery compares.

    Attributes:
        own: name of the model of the first caption.
        rival: name of the model of the other caption.
    """

    own: str
    rival: str


def choose(ranked: Sequence[T], most: int = MOST_PICTURES) -> list[T]:
    """Return elements of a ranking: all, or the first third, the last third, and an even spread between.

    Args:
        ranked: elements in the order of their scores.
        most: largest number of elements to return.
    """
    if len(ranked) <= most:
        return [*ranked]
    end = most // 3
    middle, wanted = ranked[end : len(ranked) - end], most - 2 * end
    spread = [middle[len(middle) * number // wanted] for number in range(wanted)]
    return [*ranked[:end], *spread, *ranked[len(ranked) - end :]]


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryPage:
    """The content of a gallery's page, beside its images."""

    title: str
    kicker: str = "Captions"
    """Kind of the page, above its heading."""
    lead: str = ""
    """Sentence below the heading."""
    summary: Sequence[tuple[str, str]] = ()
    """Name and value of each figure at the top."""
    num_pictures: int = 0
    """Number of pictures of which the images are a selection; 0 for the number of images."""
    order: str = "in the given order"
    """Name of the order of the images."""
    scores: Sequence[dict[str, Any]] = ()
    """Rows of the table of scores, as ``score_rows`` returns them."""
    faults: Sequence[str] = ()
    """Message of each input that has no caption."""
    facts: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()
    """Name of each group of facts, and its pairs of name and value."""
    commands: Sequence[tuple[str, str]] = ()
    """What each command does, and the command, for the end of the page."""


def write_gallery(path: Path, items: Sequence[GalleryItem], page: GalleryPage) -> None:
    """Write a page of a summary and of images with their captions.

    The images are embedded, at most ``MOST_PICTURES`` and as small copies where they are large, so that the page stays
    below 10 MB. All text is escaped, and equal inputs give equal bytes.

    Args:
        path: HTML file to write, replaced atomically if it exists; its folder is created if absent.
        items: images in the order to show them.
        page: the rest of the content.
    """
    values = {
        "title": page.title,
        "kicker": page.kicker,
        "lead": page.lead,
        "summary": page.summary,
        "gallery": gallery_values(items, num_pictures=page.num_pictures, order=page.order),
        "faults": page.faults,
        "facts": page.facts,
        "commands": page.commands,
        "scores": page.scores,
        "rival": "",
    }
    write_page(path, "gallery.html.jinja", values)


def gallery_values(
    items: Sequence[GalleryItem],
    *,
    num_pictures: int = 0,
    order: str = "in the given order",
    names: Names | None = None,
) -> dict[str, Any]:
    """Return the template variables of a gallery; it shows at most ``MOST_PICTURES`` items.

    Args:
        items: images in the order to show them.
        num_pictures: number of pictures of which the items are a selection; 0 for the number of items.
        order: name of the order of the items.
        names: names of the two models, if the items have captions of a rival.
    """
    shown = items[:MOST_PICTURES]
    most_bytes = min(_BYTES_OF_ONE, _BYTES_OF_ALL // max(1, len(shown)))
    num_pictures = max(num_pictures, len(items))
    cards = [_card(number, item, most_bytes) for number, item in enumerate(shown)]
    return {
        "cards": cards,
        "orders": _orders(shown, order),
        "verdicts": any(item.verdict is not None for item in shown),
        "num_shown": len(shown),
        "num_pictures": num_pictures,
        "names": names,
    }


def picture_values(name: str, jpeg: bytes, *, most_bytes: int) -> dict[str, Any]:
    """Return the template variables of a picture."""
    return {"name": name, "jpeg": thumbnail(jpeg, most_bytes=most_bytes)}


def _card(number: int, item: GalleryItem, most_bytes: int) -> dict[str, Any]:
    values = [value for _, value in item.scores]
    values += [] if item.gain is None else [item.gain]
    values += [] if item.log_probability_nats is None else [item.log_probability_nats]
    finite = [round(value, 6) if math.isfinite(value) else -1e9 for value in values]
    return picture_values(item.name, item.jpeg, most_bytes=most_bytes) | {
        "item": item,
        "number": number,
        "values": json.dumps(finite),
        "verdict": {None: "", True: "true", False: "false"}[item.verdict],
    }


def _orders(items: Sequence[GalleryItem], given: str) -> list[tuple[str, str]]:
    """Return the value and the text of each order that the page offers; all items must have the same scores."""
    if not items:
        return []
    first = items[0]
    names = [name for name, _ in first.scores]
    orders = [("number up", given)]
    for index, name in enumerate(names):
        orders += [(f"{index} up", f"{name}, worst first"), (f"{index} down", f"{name}, best first")]
    index = len(names)
    if first.gain is not None:
        orders += [(f"{index} down", "most gained first"), (f"{index} up", "most lost first")]
        index += 1
    if first.log_probability_nats is not None:
        orders += [(f"{index} up", "least certain first"), (f"{index} down", "most certain first")]
    return orders
