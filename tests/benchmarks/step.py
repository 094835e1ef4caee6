"""A training step of this project, beside the barest loop of PyTorch on the same model and the same batch.

With two workers, a step under Ray Train, from one to the next, stands beside the same loop under ``torchrun``.
"""

import itertools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from captioning.data.batches import CaptionBatch
from captioning.model.caption_model import CaptionModel
from captioning.training.loop import TrainingState, train
from captioning.training.losses import cross_entropy_sum
from captioning.training.optimizer import build_optimizer
from cluster.runs.journal import list_segments, read_segment
from tests.benchmarks.measuring import Benchmark, Row, interleaved
from tests.benchmarks.starts import training
from tests.support import torchrun_training
from tests.support.drawn_shards import draw_shards
from tests.support.random_batch import random_batch, random_vocabulary
from tests.support.training_process import environment

_CPU = torch.device("cpu")
_OPTIMIZER = OptimizerConfig(warmup_steps=10)
_SHARE = "data_wait_share"


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
            itertools.repeat([self._batch]),
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


class WorkerSteps(NamedTuple):
    """Steps of two workers: the seconds from each to the next, and the share of each that they wait for data."""

    seconds: list[float]
    data_wait_shares: list[float]


def under_ray(home: Path, shards: Path, sizes: Sequence[int | str], num_steps: int) -> WorkerSteps:
    """Take steps by ``captioning train``, with its cluster, record and tracker.

    Args:
        home: new home folder.
        shards: folder of the shard set.
        sizes: torchvision model, side of an image in pixels, and images of a step.
        num_steps: number of steps.
    """
    backbone, size_px, batch_size = sizes
    flags = (
        f"--model.backbone {backbone} --model.weights none --model.image-size-px {size_px} --training.num-epochs 1000 "
        f"--training.batch-size {batch_size}"
    )

    def taken() -> list[tuple[float, float]]:
        segments = list_segments(home / "training" / "run" / "journal")
        rows = sorted((row for segment in segments for row in read_segment(segment)), key=lambda row: row.step)
        return [(row.timestamp_ms / 1000, row.metrics[_SHARE]) for row in rows if _SHARE in row.metrics]

    with training(home, shards, flags) as timeline:
        timeline.wait_for(lambda: 1.0 if len(taken()) >= num_steps else None, f"step {num_steps}")
    return _counted(taken()[:num_steps])


def under_torchrun(shards: Path, sizes: Sequence[int | str], num_steps: int) -> WorkerSteps:
    """Take the same steps by the same loop under ``torchrun``."""
    module = torchrun_training.__name__  # not its path: the folder of a script shadows modules of Python
    words = ["--standalone", "--nproc-per-node", "2", "-m", module, str(shards), *map(str, sizes), str(num_steps)]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words], env=environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("step ")]
    return _counted((float(at), float(share)) for _, at, share in lines)


def _counted(steps: Iterable[tuple[float, float]]) -> WorkerSteps:
    """Return the steps that count, from the time at the end of each, in seconds, and its share of waiting.

    In the first half, memory is allocated, loader processes are chosen, and Ray starts further processes.
    """
    taken = list(steps)
    times, shares = zip(*taken[len(taken) // 2 :], strict=True)
    return WorkerSteps([after - before for before, after in itertools.pairwise(times)], list(shares))


def _rows_of_workers(sizes: Sequence[int | str], num_steps: int, turns: int) -> Iterator[Row]:
    ours, peer = [], []
    with tempfile.TemporaryDirectory(prefix="step-") as name:
        folder = Path(name)
        shards = draw_shards(folder, num_train=120, num_val=15, size_px=256)
        for turn in range(turns):
            ours.append(under_ray(folder / f"home-{turn}", shards, sizes, num_steps))
            peer.append(under_torchrun(shards, sizes, num_steps))
    backbone, size_px, batch_size = sizes
    what = f"a step of {batch_size} images of {size_px} px, live {backbone}, two workers"
    yield Row(
        what=f"{what}, under Ray Train",
        unit="ms",
        ours=1000 * statistics.median(one for turn in ours for one in turn.seconds),
        peer=1000 * statistics.median(one for turn in peer for one in turn.seconds),
        peer_name="the same loop under torchrun",
        less_is_better=True,
    )
    share = statistics.median(one for turn in ours for one in turn.data_wait_shares)
    yield Row(what=f"data-wait share of {what}", unit="%", ours=100 * share, less_is_better=True)


def measure(
    *,
    backbones: tuple[str, ...] = ("resnet18", "mobilenet_v2"),
    image_size: int = 224,
    batch_size: int = 16,
    steps: int = 2,
    rounds: int = 7,
    worker_steps: int = 48,
    worker_turns: int = 3,
) -> Iterator[Row]:
    """Take steps of both in turns, with the encoder frozen.

    Args:
        backbones: torchvision models, with random weights.
        image_size: side of an image, in pixels.
        batch_size: images per step, with five captions of COCO's lengths each.
        steps: steps of a turn.
        rounds: number of turns.
        worker_steps: steps of two workers that read their batches, of twice as many images, for the first backbone; the
            second half counts.
        worker_turns: number of turns of two workers.
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
    yield from _rows_of_workers((backbones[0], image_size, 2 * batch_size), worker_steps, worker_turns)


BENCHMARK = Benchmark(
    measure,
    small={
        "backbones": ("squeezenet1_1",),
        "image_size": 64,
        "batch_size": 2,
        "steps": 1,
        "rounds": 1,
        "worker_steps": 9,
        "worker_turns": 1,
    },
)
