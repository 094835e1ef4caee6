"""Captioning and extraction of features, beside the encoder alone and the greedy search of a typical tutorial."""

import copy
import io
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captioning.config import ModelConfig, Precision
from captioning.data.pixels import Augmentation
from captioning.data.views import decode_views
from captioning.evaluation.captioner import Captioner
from captioning.model.caption_model import CaptionModel
from captioning.model.encoder import Encoder
from captioning.model.precision import autocast
from captioning.training.checkpoint_description import CheckpointDescription
from cluster.data.extractor import encode_views
from tests.benchmarks.measuring import Benchmark, Row, interleaved
from tests.support.random_batch import random_vocabulary
from tests.support.tutorial_peer import MOST_WORDS, Peer, PlainEncoder

_CPU = torch.device("cpu")
_CENTRE = Augmentation(seed=0, crop_area=1.0, flip=False)


@torch.no_grad()
def _alone(encoder: Encoder, images: Tensor, precision: Precision) -> None:
    with autocast(precision, _CPU):
        encoder(images)


def _captioners(config: ModelConfig) -> dict[Precision, Captioner]:
    """Return a captioner in each precision, of one model that was never trained: its captions have all words."""
    vocabulary = random_vocabulary()
    torch.manual_seed(0)
    model = CaptionModel(config, vocabulary_size=len(vocabulary)).eval()
    description = CheckpointDescription(
        step=0, model=config, vocabulary_digest=vocabulary.digest, max_caption_words=MOST_WORDS
    )
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    return {one: Captioner(copy.deepcopy(model), vocabulary, description, precision=one) for one in precisions}


def _jpegs(size_px: int, count: int) -> list[bytes]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        buffer = io.BytesIO()
        corners = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(corners).resize((size_px, size_px), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def _extraction(encoder: Encoder, jpegs: list[bytes], size_px: int) -> Callable[[], object]:
    def extract() -> None:
        views = [decode_views(jpeg, size_px, num_views=1, augmentation=_CENTRE, number=0) for jpeg in jpegs]
        encode_views(encoder, torch.stack(views), is_pooled=True, use_bf16=True)

    return extract


def measure(
    *,
    backbone: str = "resnet18",
    extracted: str = "resnet50",
    image_size: int = 224,
    batch_size: int = 64,
    rounds: int = 5,
) -> Iterator[Row]:
    """Caption with beam 3, and extract features.

    Args:
        backbone: torchvision model that captions, with random weights.
        extracted: torchvision model whose features are extracted.
        image_size: side of an image, in pixels.
        batch_size: images at once, except in the rows of one picture.
        rounds: number of turns; a fifth for whole batches.
    """
    torch.set_num_threads(1)
    config = ModelConfig(backbone=backbone, weights="none", image_size_px=image_size)
    captioners, encoder = _captioners(config), Encoder(config)
    peer = Peer(PlainEncoder(backbone), 512, len(random_vocabulary())).eval()
    for count in (1, batch_size):
        images = torch.randint(0, 256, (count, 3, image_size, image_size), dtype=torch.uint8)
        for precision, captioner in captioners.items():
            calls = {
                "ours": lambda captioner=captioner, images=images: captioner.caption_batch(images),
                "the tutorial's greedy search, fp32": lambda images=images: peer.caption(images),
                "the encoder alone": partial(_alone, encoder, images, precision),
            }
            seconds = interleaved(calls, rounds=rounds if count == 1 else max(1, rounds // 3))
            of_many = f" of a batch of {count}" if count > 1 else ""
            what = f"a picture{of_many}, {backbone}, beam 3, {MOST_WORDS} words, {precision}, one thread"
            yield Row.of_seconds(what, seconds, count=count)
    bare = Encoder(ModelConfig(backbone=extracted, weights="none", image_size_px=image_size))
    images = torch.randint(0, 256, (min(16, batch_size), 3, image_size, image_size), dtype=torch.uint8)
    ours = _extraction(copy.deepcopy(bare).fold("bf16"), _jpegs(256, len(images)), image_size)
    seconds = interleaved({"ours": ours, "the bare encoder": lambda: _alone(bare, images, "bf16")}, rounds=rounds)
    what = f"features of JPEGs of 256 px, {extracted}, bf16, one thread"
    yield Row.of_seconds(what, seconds, unit="images/s", count=len(images))


BENCHMARK = Benchmark(
    measure,
    small={
        "backbone": "resnet18",
        "extracted": "squeezenet1_1",
        "image_size": 64,
        "batch_size": 2,
        "rounds": 1,
    },
)
