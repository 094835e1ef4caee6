"""From the bytes of a photograph to its pixels: in conversion, and in the loader of training.

OpenCV, which a peer and the loader's limit use, is no dependency of this project: install ``opencv-python-headless``.
"""

import gc
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import simplejpeg
import torch
import torchvision.transforms.v2 as transforms
import webdataset
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from captioning.config import ModelConfig, TrainingConfig
from captioning.data.pixels import Augmentation, draw_crops
from cluster.codec import TurboCodec
from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from cluster.data.loading import training_batches
from cluster.data.shard_set import ShardSet
from shards.images import ImageSpec, store_image
from tests.benchmarks.measuring import Benchmark, Row, UnavailableError, interleaved

logger = logging.getLogger(__name__)

_SIDE, _QUALITY, _CROP = 256, 90, 224
_AUGMENTATION = Augmentation(seed=0, crop_area=0.5, flip=True)
_CAPTION = "a {} dog runs over the green grass with a ball"
_HAS_OPENCV = find_spec("cv2") is not None


def convert_here(content: bytes) -> bytes:
    """Convert a photograph as ``captioning convert`` does."""
    return store_image(content, ImageSpec(shorter_side_px=_SIDE, quality=_QUALITY), TurboCodec()).jpeg


def convert_by_pillow(content: bytes) -> bytes:
    """Convert a photograph by Pillow, which decodes at a fraction of the size where that is enough."""
    with Image.open(io.BytesIO(content)) as image:
        width, height = _stored_size(*image.size)
        image.draft("RGB", (2 * width, 2 * height))
        buffer = io.BytesIO()
        image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def convert_by_torchvision(content: bytes) -> bytes:
    """Convert a photograph by torchvision's decoder, antialiased resizing and encoder."""
    pixels = cast(Tensor, decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB))
    width, height = _stored_size(pixels.shape[2], pixels.shape[1])
    small = transforms.functional.resize(pixels, [height, width], transforms.InterpolationMode.BICUBIC, antialias=True)
    return cast(Tensor, encode_jpeg(small, _QUALITY)).numpy().tobytes()


def convert_by_opencv(content: bytes) -> bytes:
    """Convert a photograph by simplejpeg, which decodes at a fraction of the size, and OpenCV."""
    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    size, cv2 = _stored_size(int(width), int(height)), import_module("cv2")
    pixels = simplejpeg.decode_jpeg(content, "rgb", min_width=size[0], min_height=size[1], min_factor=1)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return simplejpeg.encode_jpeg(small, _QUALITY, "rgb", "420")


def _stored_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _SIDE / min(width, height))
    return round(width * scale), round(height * scale)


def crop_by_opencv(contents: Sequence[bytes], first_position: int) -> np.ndarray:
    """Return (B, S, S, 3) crops of JPEGs, as a loader without captions, checks or files would make them."""
    batch, cv2 = np.empty((len(contents), _CROP, _CROP, 3), np.uint8), import_module("cv2")
    crops = draw_crops(_AUGMENTATION, range(first_position, first_position + len(contents)))
    for row, (content, crop) in enumerate(zip(contents, crops, strict=True)):
        pixels = simplejpeg.decode_jpeg(content, "rgb")
        height, width, _ = pixels.shape
        side = round(min(height, width) * math.sqrt(crop.area))
        y, x = round((height - side) * crop.top), round((width - side) * crop.left)
        cv2.resize(pixels[y : y + side, x : x + side], (_CROP, _CROP), batch[row])
        if crop.is_mirrored:
            batch[row] = batch[row, :, ::-1]
    return batch


def our_batches(shards: Path, batch_size: int) -> Iterator[object]:
    """Return the batches of this project's loader."""
    config = TrainingConfig(batch_size=batch_size, crop_area=_AUGMENTATION.crop_area)
    model = ModelConfig(backbone="resnet18", weights="none", image_size_px=_CROP)
    steps = range(1_000_000)
    return iter(training_batches(ShardSet(shards), "train", model=model, config=config, ranks=(0, 1), steps=steps))


def webdataset_batches(shards: Path, batch_size: int) -> Iterator[object]:
    """Return the batches of a stock WebDataset pipeline with torchvision's transforms, as its documentation has it."""
    word_ids: dict[str, int] = {}
    crop = transforms.Compose(
        [
            transforms.RandomResizedCrop(_CROP, scale=(_AUGMENTATION.crop_area, 1.0), antialias=True),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ]
    )

    def tokens(described: dict) -> list[list[int]]:
        words = (caption.lower().split() for caption in described["captions"])
        return [[word_ids.setdefault(word, len(word_ids)) for word in one] for one in words]

    urls = sorted(str(path) for path in shards.glob("train-*.tar"))
    dataset = webdataset.WebDataset(urls, shardshuffle=False).repeat().shuffle(200).decode("pil")  # type: ignore[attr-defined]
    samples = iter(dataset.to_tuple("jpg", "json").map_tuple(crop, tokens))
    while batch := list(islice(samples, batch_size)):
        yield torch.stack([image for image, _ in batch]), [one for _, one in batch]


def _conversion_rows(contents: Sequence[bytes], rounds: int) -> Iterator[Row]:
    ways: dict[str, Callable[[bytes], bytes]] = {
        "ours": convert_here,
        "Pillow": convert_by_pillow,
        "torchvision": convert_by_torchvision,
    }
    if _HAS_OPENCV:
        ways["simplejpeg + OpenCV"] = convert_by_opencv
    calls = {name: lambda way=way: [way(content) for content in contents] for name, way in ways.items()}
    seconds = interleaved(calls, rounds=rounds)  # type: ignore[arg-type]
    what = f"decode a photograph, shrink it to {_SIDE} px and encode it, one thread"
    for peer in list(ways)[1:]:
        yield Row.of_seconds(what, {"ours": seconds["ours"], peer: seconds[peer]}, unit="images/s", count=len(contents))


def _loader_row(folder: Path, contents: Sequence[bytes], batch_size: int, rounds: int) -> Row:
    shards = _shards_of(folder, contents)
    num_steps = max(1, len(contents) // batch_size)
    ours, stock = our_batches(shards, batch_size), webdataset_batches(shards, batch_size)
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: [next(ours) for _ in range(num_steps)],
        "stock webdataset, torchvision's transforms": lambda: [next(stock) for _ in range(num_steps)],
    }
    if _HAS_OPENCV:
        stored = [convert_here(content) for content in contents]
        parts = [stored[step * batch_size :][:batch_size] for step in range(num_steps)]
        calls["the pixels alone, simplejpeg + OpenCV"] = lambda: [
            crop_by_opencv(part, step * batch_size) for step, part in enumerate(parts)
        ]
    return Row.of_seconds(
        f"load a batch of {batch_size}: captions, and crops of {_CROP} px from JPEGs of {_SIDE} px, one process",
        interleaved(calls, rounds=rounds),
        unit="images/s",
        count=num_steps * batch_size,
    )


def _shards_of(folder: Path, contents: Sequence[bytes]) -> Path:
    """Convert photographs, with five captions each."""
    source = folder / "source"
    source.mkdir()
    for number, content in enumerate(contents):
        (source / f"{number:06}.jpg").write_bytes(content)
        words = ("small", "large", "brown", "white", "happy")
        (source / f"{number:06}.txt").write_text("\n".join(map(_CAPTION.format, words)))
    config = ConversionConfig(minimum_word_count=1)
    convert(plan_conversion(source, folder / "shards", config), num_workers=0)
    return folder / "shards"


def drawn_photographs(count: int) -> list[bytes]:
    """Return JPEGs of 640 by 480 px with about as many bytes as photographs have, the same at every call."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(count):
        coarse, fine = (generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((8, 6), (320, 240)))
        image, detail = (Image.fromarray(one).resize((640, 480), Image.Resampling.BICUBIC) for one in (coarse, fine))
        buffer = io.BytesIO()
        Image.blend(image, detail, 0.1).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def measure(
    *, photographs: Path | None = None, num_images: int = 128, batch_size: int = 32, rounds: int = 9
) -> Iterator[Row]:
    """Convert and load photographs.

    Args:
        photographs: folder of JPEGs; drawn ones by default.
        num_images: number of photographs.
        batch_size: images per batch of the loader.
        rounds: number of turns.
    """
    if photographs and not photographs.is_dir():
        raise UnavailableError(f"{photographs} is no folder; name one that holds JPEGs with --photographs")
    if not _HAS_OPENCV:
        logger.warning("without OpenCV, a peer and the loader's limit are left out; pip install opencv-python-headless")
    torch.set_num_threads(1)
    if photographs:
        contents = [path.read_bytes() for path in sorted(photographs.glob("*.jpg"))[:num_images]]
    else:
        contents = drawn_photographs(num_images)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="images-") as name:
        # Of the peers: torchvision's functions are deprecated, and webdataset leaves the files of its shards open.
        warnings.filterwarnings("ignore", "The image decoding and encoding capabilities", DeprecationWarning)
        warnings.simplefilter("ignore", ResourceWarning)
        yield from _conversion_rows(contents, rounds)
        yield _loader_row(Path(name), contents, batch_size, rounds)
        gc.collect()


BENCHMARK = Benchmark(measure, small={"num_images": 4, "batch_size": 2, "rounds": 1})
