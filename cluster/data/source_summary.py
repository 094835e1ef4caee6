"""Summary of a source before it is converted: its captions, files and sizes, in a few lines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from statistics import fmean

from PIL import Image

from captioning.config import IMAGE_FORMATS
from cluster.data.conversion import ConversionPlan
from shards.file_part import FilePart, ImageFile
from shards.samples import CaptionedImage
from shards.source_files import size_of

_NUM_OPENED = 500  # images whose width and height are read


def summary_lines(plan: ConversionPlan) -> list[str]:
    """Return what was recognized, a line each: the captions, the files, the sizes in pixels, equal images."""
    splits = plan.annotations.splits
    images = [image for found in splits.values() for image in found]
    return [_captions(images, plan), _files(images), _pixels(images), *duplicate_lines(plan)]


def duplicate_lines(plan: ConversionPlan) -> list[str]:
    """Return a line on equal images within splits and one on those across splits, where there are any."""
    lines = []
    for is_across, where in ((False, "of one split"), (True, "of different splits, which makes scores too good")):
        found = [one for one in plan.duplicates if one.is_across_splits == is_across]
        if found:
            sets = "set" if len(found) == 1 else "sets"
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            lines.append(f"{len(found)} {sets} of equal images {where}: {'; '.join(map(str, found[:3]))}{more}")
    return lines


def counts_text(splits: Mapping[str, Sequence[CaptionedImage]]) -> str:
    """Return the number of images of each split."""
    return ", ".join(f"{len(images)} {split}" for split, images in splits.items())


def _captions(images: Sequence[CaptionedImage], plan: ConversionPlan) -> str:
    counts = [len(image.captions) for image in images]
    words = Counter[str]()
    for image in images:
        for caption in image.captions:
            words.update(plan.vocabulary.tokenizer.tokenize(caption))
    return f"captions an image: {_range(counts)}; {words.total():,} words, {len(words):,} different"


def _files(images: Sequence[CaptionedImage]) -> str:
    kilobytes = [size_of(image) / 1000 for image in images]
    return f"files: {_range(kilobytes)} kB"


def _pixels(images: Sequence[CaptionedImage]) -> str:
    opened = images[:: max(1, len(images) // _NUM_OPENED)]
    shorter, num_unreadable = [], 0
    for image in opened:
        try:
            with Image.open(_opened(image.path), formats=IMAGE_FORMATS) as picture:
                shorter.append(min(picture.size))
        except MemoryError:
            raise  # a fault of the machine, not of the image
        except Exception:  # Pillow's readers raise many types on damaged files: SyntaxError, struct.error, ...
            num_unreadable += 1
    of = f" of {len(opened):,} images drawn from {len(images):,}" if len(opened) < len(images) else ""
    unreadable = f"; {num_unreadable} cannot be opened" if num_unreadable else ""
    return f"shorter sides: {_range(shorter) if shorter else 'unknown'} px{of}{unreadable}"


def _opened(path: ImageFile) -> Path | BytesIO:
    return BytesIO(path.read_bytes()) if isinstance(path, FilePart) else path


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}, {fmean(values):,.1f} on average"
