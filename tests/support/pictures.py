"""Tiny real pictures, and folders of them in COCO layout."""

import io
import json
import struct
import zlib

import numpy as np
from PIL import Image

# Quarters of a picture: top left, top right, bottom left, bottom right.
QUARTERS = ((200, 40, 40), (40, 180, 60), (50, 70, 210), (230, 220, 60))


def picture(width, height, mode="RGB"):
    """Return a picture of four coloured quarters, which reveals any rotation or mirroring."""
    pixels = np.empty((height, width, 3), np.uint8)
    half_height, half_width = height // 2, width // 2
    pixels[:half_height, :half_width], pixels[:half_height, half_width:] = QUARTERS[:2]
    pixels[half_height:, :half_width], pixels[half_height:, half_width:] = QUARTERS[2:]
    return Image.fromarray(pixels).convert(mode)


def noise(width, height, mode="RGB", seed=0):
    """Return a picture that compresses badly, so that a truncated file lacks pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image, form="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(width, height, depth, colour, pixels, *chunks):
    """Return the bytes of a PNG of a kind that Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *(chunk(*one) for one in chunks), chunk(b"IDAT", zlib.compress(pixels))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def with_scans(jpeg, num_scans):
    """Return a JPEG whose last scan is repeated until there are as many."""
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * (num_scans + 1 - jpeg.count(b"\xff\xda")) + jpeg[-2:]


def decoded(content):
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image


def quarters(image):
    """Return the colours in the middle of the four quarters."""
    return [image.getpixel((image.width * x // 4, image.height * y // 4)) for y in (1, 3) for x in (1, 3)]


def write_coco(source, split="train", *, num_images=3, num_captions=2, folder="images", year=""):
    """Write pictures and captions in COCO layout; return the content of the annotation file."""
    images = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in range(1, num_images + 1)]
    (source / folder).mkdir(parents=True, exist_ok=True)
    for image in images:
        (source / folder / image["file_name"]).write_bytes(encoded(noise(24, 16, seed=image["id"])))
    annotations = [
        {"id": 10 * image["id"] + number, "image_id": image["id"], "caption": f"Caption {number} of {image['id']}."}
        for image in images
        for number in range(num_captions)
    ]
    content = {"images": images, "annotations": annotations}
    write_annotations(source, content, name=f"{split}{year}")
    return content


def write_annotations(source, content, name="train"):
    (source / "annotations").mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (source / "annotations" / f"captions_{name}.json").write_text(text)
