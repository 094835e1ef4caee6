"""Training of the decoder, on features and with a frozen encoder, beside the loop of a typical tutorial."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from types import SimpleNamespace

import torch

from captioning.config import ModelConfig, OptimizerConfig, Precision, TrainingConfig
from captioning.data.batches import CaptionBatch
from captioning.model.caption_model import CaptionModel
from captioning.training.loop import TrainingState, train
from captioning.training.optimizer import build_optimizer
from tests.benchmarks.measuring import Benchmark, Row, interleaved, peak_mib
from tests.support.random_batch import random_batch, random_vocabulary
from tests.support.tutorial_peer import Peer, PlainEncoder, train_step

_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


class Trainer:
    """Steps of ``captioning.training.loop.train`` on one batch.

    Args:
        config: settings of the model.
        batch: batch of each step.
        precision: precision of the steps.
        arithmetic: version of the order of computation; 1 is that of earlier releases.
    """

    def __init__(self, config: ModelConfig, batch: CaptionBatch, *, precision: Precision, arithmetic: int = 2) -> None:
        torch.manual_seed(0)
        model = CaptionModel(config, vocabulary_size=len(random_vocabulary()))
        optimizer = OptimizerConfig(warmup_steps=10)
        model.encoder.fold(precision)
        self._steps = train(
            TrainingState(model, build_optimizer(model, optimizer), arithmetic=arithmetic),
            model,
            repeat([batch]),
            optimizer_config=optimizer,
            config=TrainingConfig(precision=precision),
            num_steps=10**6,
            device=torch.device("cpu"),
        )

    def step(self) -> float:
        """Take a step; return its loss in nats per word."""
        return next(self._steps).loss_nats


class Tutorial:
    """Steps of the tutorial: one caption is a sample, so that an image is encoded again for each of its captions.

    Args:
        encoder: frozen encoder; None if the batch holds features.
        batch: batch of each step, as for ``Trainer``.
    """

    def __init__(self, encoder: PlainEncoder | None, batch: CaptionBatch) -> None:
        torch.manual_seed(0)
        images = batch.images.index_select(0, batch.image_of_caption)
        self._batch = batch._replace(images=images, image_of_caption=torch.arange(len(images)))
        encoder_or_size = encoder or SimpleNamespace(num_channels=batch.images.shape[2])
        self._peer = Peer(encoder_or_size, 512, len(random_vocabulary()))
        self._optimizer = torch.optim.Adam(one for one in self._peer.parameters() if one.requires_grad)

    def step(self) -> None:
        """Take a step."""
        train_step(self._peer, self._optimizer, self._batch, use_bf16=False)


def _peak_mib(arithmetic: int, batch_size: int) -> float:
    """Return the peak memory of a fresh process that takes two steps, in MiB."""
    torch.set_num_threads(1)
    config, batch = _on_features(batch_size)
    trainer = Trainer(config, batch, precision="bf16", arithmetic=arithmetic)
    for _ in range(2):
        trainer.step()
    return peak_mib()


def _on_features(batch_size: int) -> tuple[ModelConfig, CaptionBatch]:
    """Return a model and a batch of features of ResNet-152."""
    config = ModelConfig(backbone="squeezenet1_1", weights="none", image_size_px=64)
    batch = random_batch(random_vocabulary(), config, num_images=batch_size)
    return config, batch._replace(images=torch.randn(batch_size, 1, 512).half())


def _memory_row(batch_size: int) -> Row:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        ours, earlier = (pool.submit(_peak_mib, one, batch_size).result() for one in (2, 1))
    return Row(
        what=f"peak memory of a process, {5 * batch_size} captions a step, bf16",
        unit="MiB",
        ours=ours,
        peer=earlier,
        peer_name="all words at once, as earlier releases",
        less_is_better=True,
    )


def measure(
    *,
    batch_size: int = 64,
    live: str = "resnet152",
    live_images: int = 8,
    image_size: int = 224,
    memory: bool = True,
    rounds: int = 5,
) -> Iterator[Row]:
    """Train the decoder of 512 units on captions of ten of 10,004 words, five an image.

    Args:
        batch_size: images per step, on features.
        live: torchvision model of the frozen encoder, with random weights.
        live_images: images per step, with the encoder.
        image_size: side of an image, in pixels.
        memory: whether to measure peak memory, in two further processes.
        rounds: number of turns.
    """
    torch.set_num_threads(1)
    config, batch = _on_features(batch_size)
    tutorial = Tutorial(None, batch)
    for precision in _PRECISIONS:
        trainer = Trainer(config, batch, precision=precision)
        seconds = interleaved({"ours": trainer.step, "the tutorial's loop, fp32": tutorial.step}, rounds=rounds)
        what = f"decoder on features, {precision}, one thread"
        yield Row.of_seconds(what, seconds, unit="captions/s", count=len(batch.tokens))
    if memory:
        yield _memory_row(2 * batch_size)
    config = ModelConfig(backbone=live, weights="none", image_size_px=image_size)
    batch = random_batch(random_vocabulary(), config, num_images=live_images)
    tutorial = Tutorial(PlainEncoder(live), batch)
    for precision in _PRECISIONS:
        trainer = Trainer(config, batch, precision=precision)
        calls = {"ours": trainer.step, "the tutorial's loop, fp32": tutorial.step}
        seconds = interleaved(calls, rounds=max(1, rounds // 3))
        what = f"frozen {live}, five captions an image, {precision}, one thread"
        yield Row.of_seconds(what, seconds, unit="captions/s", count=len(batch.tokens))


BENCHMARK = Benchmark(
    measure,
    small={"batch_size": 2, "live": "squeezenet1_1", "live_images": 1, "image_size": 64, "memory": False, "rounds": 1},
)
