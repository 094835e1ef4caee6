"""Synthetic scenes of coloured shapes with captions, in COCO layout: data for the demo and the tests.

A scene is a pure function of (seed, index). It is simple enough to be learned from scratch in a minute, and a caption
can be checked against it: n-gram scores measure the wording, ``is_true`` measures whether the caption is correct.
"""

import json
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import combinations, permutations, product
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

from shards.order import splitmix64
from shards.storage.files import replace_file
from shards.synthetic.grammar import (
    COLOURS,
    SENTENCES_PER_STATEMENT,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    describe,
    is_true,
)

__all__ = ["SPLITS", "Scene", "SceneObject", "describe", "draw_scene", "is_true", "render", "scene_of", "write_scenes"]

SPLITS = ("train", "val", "unseen")

_JPEG_QUALITY = 90
_MIN_SIZE_PX = 32
_PAINT = {
    "red": (220, 30, 30),
    "yellow": (240, 220, 20),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "black": (20, 20, 20),
}
_HOLE, _BAR = 0.5, 0.3  # radius of a ring's hole, and half the width of a cross's bars, in radii of the shape
# As fractions of the side. Cells are 0.48 apart, which leaves a gap even between large objects at the largest jitter.
_RADII = {"small": (0.11, 0.12), "large": (0.19, 0.20)}
_CELLS = (0.26, 0.74)
_JITTER = 0.03
_NUMBERS_PER_SCENE = 32  # a scene uses at most 22

_Kind = tuple[str, str, str]  # size, colour, shape
_Placement = tuple[_Kind, tuple[float, float]]  # kind and centre, in fractions of the side
_T = TypeVar("_T")


def draw_scene(seed: int, index: int, *, size_px: int = 96) -> Scene:
    """Return the scene of one index, independent of all other scenes.

    Args:
        seed: seed of a sequence of scenes.
        index: index in that sequence; scenes less than 32,768 apart differ in background, so no two look the same.
        size_px: side of the square image in pixels; it scales the scene.

    Raises:
        ValueError: ``index`` is negative, or ``size_px`` is too small to tell the shapes apart.
    """
    if index < 0:
        raise ValueError(f"scene index {index} is negative; scenes are numbered from 0")
    if size_px < _MIN_SIZE_PX:
        raise ValueError(f"scenes of {size_px} px are too small to tell shapes apart; use {_MIN_SIZE_PX} px or more")
    numbers = _numbers(seed, index)
    wording = next(numbers)
    placements = _pair(numbers) if wording % 3 else _alone(numbers)
    objects = tuple(_object(placement, size_px, numbers) for placement in placements)
    return Scene(size_px=size_px, background=_background(index), objects=objects, wording=wording >> 2)


def scene_of(image_id: int, *, seed: int, size_px: int = 96) -> Scene:
    """Return the scene of an image that ``write_scenes`` wrote with this seed and size.

    Raises:
        ValueError: ``image_id`` is below 1.
    """
    if image_id < 1:
        raise ValueError(f"image id {image_id} has no scene; ids of synthetic scenes start at 1")
    return draw_scene(seed, image_id - 1, size_px=size_px)


def render(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB image."""
    # Drawn at twice the size and averaged, for smooth edges; this costs a tenth of a millisecond.
    image = Image.new("RGB", (2 * scene.size_px, 2 * scene.size_px), scene.background)
    draw = ImageDraw.Draw(image)
    for item in scene.objects:
        x, y, radius = 2 * item.centre_px[0], 2 * item.centre_px[1], 2 * item.radius_px
        if item.shape == "cross":
            for wide, high in ((radius, _BAR * radius), (_BAR * radius, radius)):
                draw.rectangle((x - wide, y - high, x + wide, y + high), fill=_PAINT[item.colour])
            continue
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_PAINT[item.colour])
        if item.shape == "ring":
            hole = _HOLE * radius
            draw.ellipse((x - hole, y - hole, x + hole, y + hole), fill=scene.background)
    return image.reduce(2)


def write_scenes(
    folder: Path, *, num_train: int, num_val: int, seed: int, size_px: int = 96, num_unseen: int = 0
) -> None:
    """Write splits of synthetic scenes in COCO layout; the same arguments give the same bytes.

    Image ids start at 1 and run through train, val and unseen; ``scene_of`` returns the scene of an id. A killed run
    leaves no annotations: run it again.

    Args:
        folder: folder for ``images/`` and ``annotations/captions_<split>.json``; created if absent.
        num_train: number of images in the split ``train``.
        num_val: number of images in the split ``val``; a split without images is not written.
        seed: seed of the sequence of scenes.
        size_px: side of the square images in pixels.
        num_unseen: number of images in the split ``unseen``, for an evaluation after training.

    Raises:
        ValueError: a number of images is negative, there is no training image, or ``size_px`` is too small.
    """
    counts = dict(zip(SPLITS, (num_train, num_val, num_unseen), strict=True))
    if num_train < 1 or min(counts.values()) < 0:
        raise ValueError(f"cannot write {counts} images; train needs 1 or more, the other splits 0 or more")
    draw_scene(seed, 0, size_px=size_px)  # refuses a bad size before any file is touched
    (folder / "images").mkdir(parents=True, exist_ok=True)
    # Annotations mark a split as complete: old ones are removed before any image is overwritten, new ones written last.
    for split in SPLITS:
        _annotations_path(folder, split).unlink(missing_ok=True)
    start = 1
    for split, count in counts.items():
        if count:
            _write_split(folder, split, range(start, start + count), seed=seed, size_px=size_px)
        start += count


def _write_split(folder: Path, split: str, image_ids: range, *, seed: int, size_px: int) -> None:
    images, annotations = [], []
    for image_id in image_ids:
        scene = scene_of(image_id, seed=seed, size_px=size_px)
        name = f"{image_id:012d}.jpg"
        (folder / "images" / name).write_bytes(_jpeg(render(scene)))
        images.append({"id": image_id, "file_name": name, "width": size_px, "height": size_px})
        for number, caption in enumerate(describe(scene)):
            annotation_id = SENTENCES_PER_STATEMENT * (image_id - 1) + number + 1
            annotations.append({"id": annotation_id, "image_id": image_id, "caption": caption})
    info = {"description": f"Drawn scenes, seed {seed}, {size_px} px", "version": "1"}
    content = {"info": info, "licenses": [], "images": images, "annotations": annotations}
    replace_file(_annotations_path(folder, split), json.dumps(content).encode())


def _annotations_path(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"captions_{split}.json"


def _jpeg(image: Image.Image) -> bytes:
    buffer = BytesIO()
    # Full colour resolution: the usual half resolution would blur the colours of small shapes.
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _alone(numbers: Iterator[int]) -> list[_Placement]:
    """Place one to four equal objects: a single one anywhere, more in different cells of four."""
    kind, count = _kind(numbers, _pick(numbers, COLOURS)), 1 + next(numbers) % 4
    if count == 1:
        return [(kind, (_between(numbers, *_CELLS), _between(numbers, *_CELLS)))]
    cells = _pick(numbers, list(combinations(product(_CELLS, _CELLS), count)))
    return [(kind, (_near(numbers, x, _JITTER), _near(numbers, y, _JITTER))) for x, y in cells]


def _pair(numbers: Iterator[int]) -> list[_Placement]:
    """Place two large objects of different colours, each in its half of the image."""
    is_vertical = next(numbers) % 2
    colours = _pick(numbers, list(permutations(COLOURS, 2)))
    placements: list[_Placement] = []
    for colour, half in zip(colours, _CELLS, strict=True):
        kind = "large", colour, _pick(numbers, tuple(SHAPES))
        # Both stay near the middle line, so that they never lie apart on the other axis as well.
        along, across = _near(numbers, half, _JITTER), _near(numbers, 0.5, 0.08)
        placements.append((kind, (across, along) if is_vertical else (along, across)))
    return placements


def _kind(numbers: Iterator[int], colour: str) -> _Kind:
    return _pick(numbers, SIZES), colour, _pick(numbers, tuple(SHAPES))


def _object(placement: _Placement, size_px: int, numbers: Iterator[int]) -> SceneObject:
    (size, colour, shape), (x, y) = placement
    return SceneObject(
        shape=shape,
        colour=colour,
        size=size,
        centre_px=(x * size_px, y * size_px),
        radius_px=_between(numbers, *_RADII[size]) * size_px,
    )


def _background(index: int) -> tuple[int, int, int]:
    tint = index * 23_149 % 2**15  # an odd factor, so each of the 32,768 light colours occurs once before any repeats
    return 224 + tint % 32, 224 + tint // 32 % 32, 224 + tint // 1024


def _pick(numbers: Iterator[int], options: Sequence[_T]) -> _T:
    return options[next(numbers) % len(options)]


def _between(numbers: Iterator[int], low: float, high: float) -> float:
    return low + (high - low) * next(numbers) / 2**64


def _near(numbers: Iterator[int], middle: float, jitter: float) -> float:
    return _between(numbers, middle - jitter, middle + jitter)


def _numbers(seed: int, index: int) -> Iterator[int]:
    """Return the random 64-bit numbers of a scene: hashes of a counter, so that scenes do not depend on each other."""
    state = splitmix64(splitmix64(np.array([seed % 2**64], np.uint64)) + np.uint64(index))
    return iter(splitmix64(state + np.arange(_NUMBERS_PER_SCENE, dtype=np.uint64)).tolist())
