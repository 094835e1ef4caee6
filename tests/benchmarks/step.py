"""A training step of this project, beside the barest loop of PyTorch on the same model and the same batch.

And what share of a step two workers wait for data, when they read and decode images themselves.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import torch

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from captioning.data.batches import CaptionBatch
from captioning.model.caption_model import CaptionModel
from captioning.training.loop import TrainingState, train
from captioning.training.losses import cross_entropy_sum
from captioning.training.optimizer import build_optimizer
from tests.benchmarks.measuring import Benchmark, Row, interleaved
from tests.support import torchrun_training
from tests.support.drawn_shards import draw_shards
from tests.support.random_batch import random_batch, random_vocabulary
from tests.support.training_process import environment

_CPU = torch.device("cpu")
_OPTIMIZER = OptimizerConfig(warmup_steps=10)
_NUM_UNCOUNTED = 2  # first steps, in which files are opened and memory is allocated


class Ours:
    """Steps of ``captioning.training.loop.train``, a few at a time.

    Args:
        model: model to train.
        batch: batch of each step.
    """

    def __init__(self, model: CaptionModel, batch: CaptionBatch) -> None:
        self._state, self._batch = TrainingState(model, build_optimizer(model, _OPTIMIZER)), batch

    def take(self, num_steps: int) -> None:
        """Take so many steps."""
        results = train(
            self._state,
            self._state.model,
            repeat([self._batch]),
            optimizer_config=_OPTIMIZER,
            config=TrainingConfig(),
            num_steps=self._state.step + num_steps,
            device=_CPU,
        )
        for _ in results:
            pass


class Barest:
    """Steps without logging, schedule, checks or requests: forward, backward, clip, update.

    Args:
        model: model to train.
        batch: batch of each step.
    """

    def __init__(self, model: CaptionModel, batch: CaptionBatch) -> None:
        self._model, self._optimizer, self._batch = model, build_optimizer(model, _OPTIMIZER), batch

    def take(self, num_steps: int) -> None:
        """Take so many steps."""
        targets = self._batch.targets()
        for _ in range(num_steps):
            self._optimizer.zero_grad(set_to_none=True)
            (cross_entropy_sum(self._model(self._batch), targets) / len(targets)).backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), _OPTIMIZER.max_gradient_norm)
            self._optimizer.step()


def data_wait_shares(shards: Path, sizes: Sequence[int | str], num_steps: int) -> list[float]:
    """Return the share of each step in which two workers under ``torchrun`` wait for data.

    Args:
        shards: folder of the shard set.
        sizes: torchvision model, side of an image in pixels, and images of a step.
        num_steps: number of steps.
    """
    module = torchrun_training.__name__  # not its path: the folder of a script shadows modules of Python
    words = ["--standalone", "--nproc-per-node", "2", "-m", module, str(shards), *map(str, sizes), str(num_steps)]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words], env=environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    return [float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("step ")]


def _data_wait(sizes: Sequence[int | str], num_steps: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="step-") as name:
        shards = draw_shards(Path(name), num_train=120, num_val=15, size_px=256)
        shares = data_wait_shares(shards, sizes, num_steps)
    backbone, size_px, batch_size = sizes
    return Row(
        what=f"data-wait share of a step of {batch_size} images of {size_px} px, live {backbone}, two workers",
        unit="%",
        ours=100 * statistics.median(shares[_NUM_UNCOUNTED:]),
        less_is_better=True,
    )


def measure(
    *,
    backbones: tuple[str, ...] = ("resnet18", "mobilenet_v2"),
    image_size: int = 224,
    batch_size: int = 16,
    steps: int = 2,
    rounds: int = 7,
    worker_steps: int = 30,
) -> Iterator[Row]:
    """Take steps of both in turns, with the encoder frozen.

    Args:
        backbones: torchvision models, with random weights.
        image_size: side of an image, in pixels.
        batch_size: images per step, with five captions of ten words each.
        steps: steps of a turn.
        rounds: number of turns.
        worker_steps: steps of two workers that read their batches, of twice as many images, for the first backbone.
    """
    torch.set_num_threads(1)
    vocabulary = random_vocabulary()
    for backbone in backbones:
        config = ModelConfig(backbone=backbone, weights="none", image_size_px=image_size)
        batch = random_batch(vocabulary, config, num_images=batch_size)
        turns = {}
        for name, kind in (("ours", Ours), ("the barest loop", Barest)):
            torch.manual_seed(0)
            turns[name] = kind(CaptionModel(config, vocabulary_size=len(vocabulary)), batch)
        seconds = interleaved(
            {name: lambda one=one: one.take(steps) for name, one in turns.items()},  # type: ignore[misc]
            rounds=rounds,
        )
        what = f"a step of {batch_size} images of {image_size} px, frozen {backbone}, one thread"
        yield Row.of_seconds(what, seconds, count=steps)
    yield _data_wait((backbones[0], image_size, 2 * batch_size), worker_steps)


BENCHMARK = Benchmark(
    measure,
    small={
        "backbones": ("squeezenet1_1",),
        "image_size": 64,
        "batch_size": 2,
        "steps": 1,
        "rounds": 1,
        "worker_steps": 3,
    },
)
