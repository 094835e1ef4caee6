"""Training and captioning on one GPU: checks of exactness, and speed beside a plain PyTorch loop, in under 6 minutes.

Examples:
    python tests/benchmarks/gpu.py
    # on a CPU:
    python tests/benchmarks/gpu.py --backbone squeezenet1_1 --trainable-from features.12 --image-size 64 --steps 2 \
        --batch-size 4 --hidden-size 16

Needs only torch, torchvision, numpy, Pillow and rich, no Ray or MLflow. The peer is the loop of a typical tutorial: an
encoder without gradients, ``nn.LSTM`` over packed captions, mean cross-entropy and AdamW, on the same batch in the same
run. A ratio is this project's images per second divided by the peer's; above 1, this project is faster.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from captioning.config import ModelConfig, OptimizerConfig, Precision, TrainingConfig
from captioning.data.batches import CaptionBatch
from captioning.generation.beam_search import beam_search
from captioning.model.caption_model import CaptionModel
from captioning.model.precision import autocast
from captioning.training.ddp import replicate
from captioning.training.loop import StepResult, TrainingState, train
from captioning.training.optimizer import build_optimizer
from tests.support.random_batch import Case, cases, random_vocabulary
from tests.support.tutorial_peer import MOST_WORDS, Peer, train_step

CPU = torch.device("cpu")
_WARMUP_STEPS = 3
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_VOCABULARY = random_vocabulary()
_console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Print the results of the checks, and the tables of steps and of speeds."""
    arguments = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    _console.print(f"{name}, torch {torch.__version__}, {arguments.backbone}, {arguments.image_size} px, seed 0")
    config = ModelConfig(
        backbone=arguments.backbone,
        weights="none",
        trainable_from=arguments.trainable_from,
        image_size_px=arguments.image_size,
        embedding_size=arguments.hidden_size,
        hidden_size=arguments.hidden_size,
    )
    both = cases(config, batch_size=arguments.batch_size, num_steps=arguments.steps + _WARMUP_STEPS)
    for case in both:
        _check(case, device)
    _console.print(f"\n{'a step of ' + str(arguments.batch_size) + ' images, bf16':<40}{'resident, ms':>14}", end="")
    _console.print(f"{'loaded, ms':>12}{'data wait':>11}{'peak, MiB':>11}{'syncs':>7}")
    for case in both:
        _measure_steps(case, device, num_steps=arguments.steps)
    _console.print(f"\n{'what':<44}{'ours, images/s':>16}{'peer, images/s':>16}{'ratio':>8}")
    for case in both:
        for precision in _PRECISIONS:
            _compare_training(case, device, precision, num_steps=arguments.steps)
    _compare_captioning(both[0], device, num_batches=max(2, arguments.steps // 4))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--trainable-from", default="layer4", help="first encoder stage that is trained")
    parser.add_argument("--image-size", type=int, default=224, help="side of an image, in pixels")
    parser.add_argument("--batch-size", type=int, default=128, help="images per step")
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20, help="timed steps per row")
    return parser.parse_args()


def _state(case: Case, device: torch.device) -> TrainingState:
    torch.manual_seed(0)
    model = CaptionModel(case.config, vocabulary_size=len(_VOCABULARY)).to(device)
    with torch.no_grad():  # features of random weights reach 1e8
        model.decoder.calibrate(model.encode(case.batch.images[:32].to(device)))
    model.encoder.fold("bf16")
    return TrainingState(model, build_optimizer(model, OptimizerConfig(warmup_steps=1)))


def _steps(
    state: TrainingState,
    batches: Iterable[Sequence[CaptionBatch]],
    device: torch.device,
    precision: Precision,
    *,
    until: int = 10**6,
    replica: torch.nn.Module | None = None,
) -> Iterator[StepResult]:
    return train(
        state,
        replica or state.model,
        batches,
        optimizer_config=OptimizerConfig(warmup_steps=1),
        config=TrainingConfig(precision=precision),
        num_steps=until,
        device=device,
    )


def _losses(case: Case, device: torch.device, precision: Precision, *, num_steps: int = 2) -> list[float]:
    results = _steps(_state(case, device), repeat([case.batch], num_steps), device, precision, until=num_steps)
    return [result.loss_nats for result in results]


def _check(case: Case, device: torch.device) -> None:
    few = replace(case, batch=case.batch.without(range(8, case.batch.num_images)))
    exact = _losses(few, device, "fp32")
    for what, others in (
        ("on the CPU", _losses(few, CPU, "fp32")),
        ("in bf16", _losses(few, device, "bf16")),
        ("of two processes", _losses_of_two(few, device)),
    ):
        worst = max(abs(a - b) / a for a, b in zip(exact, others, strict=True))
        _console.print(f"{case.name}: loss of two fp32 steps, and {what}: relative difference {worst:.1e}")
    for precision in _PRECISIONS:
        difference = _resume_difference(case, device, precision)
        _console.print(f"{case.name}: weights of 2 + 2 resumed {precision} steps against 4: difference {difference:g}")


def _losses_of_two(case: Case, device: torch.device) -> list[float]:
    """Return the losses of two processes on the same device, each with half of the batch."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_train_half, (case, device, folder), nprocs=2)
        return torch.load(Path(folder) / "losses.pt")


def _train_half(rank: int, case: Case, device: torch.device, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    half = case.batch.num_images // 2
    mine = case.batch.without(range(half) if rank else range(half, case.batch.num_images))
    state = _state(case, device)
    replica = replicate(state.model, device)
    losses = [result.loss_nats for result in _steps(state, repeat([mine], 2), device, "fp32", until=2, replica=replica)]
    if rank == 0:
        torch.save(losses, Path(folder) / "losses.pt")
    dist.destroy_process_group()


def _resume_difference(case: Case, device: torch.device, precision: Precision) -> float:
    whole, first, second = (_state(case, device) for _ in range(3))
    _ = list(_steps(whole, repeat([case.batch], 4), device, precision, until=4))
    _ = list(_steps(first, repeat([case.batch], 2), device, precision, until=4))
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.step = first.step
    _ = list(_steps(second, repeat([case.batch], 2), device, precision, until=4))
    pairs = zip(second.model.parameters(), whole.model.parameters(), strict=True)
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


def _measure_steps(case: Case, device: torch.device, *, num_steps: int) -> None:
    state = _state(case, device)
    resident = _steps(state, repeat([case.batch]), device, "bf16")
    milliseconds = 1e3 / _rate(lambda: next(resident), num_steps, 1, device)
    num_syncs = _num_syncs(lambda: next(resident), device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    loader = DataLoader(case.loaded, batch_size=None, num_workers=min(12, os.cpu_count() or 1))
    loaded = _steps(state, loader, device, "bf16")
    results: list[StepResult] = []
    fed = 1e3 / _rate(lambda: results.append(next(loaded)), num_steps, 1, device)
    timed = results[_WARMUP_STEPS:]
    share = sum(one.data_wait_seconds for one in timed) / sum(one.seconds for one in timed)
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else float("nan")
    _console.print(f"{case.name:<40}{milliseconds:>14.1f}{fed:>12.1f}{share:>11.1%}{peak:>11.0f}{num_syncs:>7g}")


def _num_syncs(step: Callable[[], object], device: torch.device) -> float:
    """Return how often a step makes the host wait for the device, as counted by torch's sync debug mode."""
    if device.type != "cuda":
        return float("nan")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        for _ in range(4):
            step()
        torch.cuda.set_sync_debug_mode("default")
    for one in {f"{one.filename.rpartition('captioning/')[2]}:{one.lineno}" for one in caught}:
        _console.print(f"  the host waits at {one}")
    return len(caught) / 4


def _compare_training(case: Case, device: torch.device, precision: Precision, *, num_steps: int) -> None:
    steps, num_images = _steps(_state(case, device), repeat([case.batch]), device, precision), case.batch.num_images
    ours = _rate(lambda: next(steps), num_steps, num_images, device)
    peer = Peer(_state(case, device).model.encoder, case.config.hidden_size, len(_VOCABULARY)).to(device)
    optimizer = torch.optim.AdamW(parameter for parameter in peer.parameters() if parameter.requires_grad)
    step = partial(train_step, peer, optimizer, use_bf16=precision == "bf16")
    theirs = _rate(lambda: step(case.batch.to(device)), num_steps, num_images, device)
    _print_row(f"{case.name}, {precision}", ours, theirs)


@torch.no_grad()
def _compare_captioning(case: Case, device: torch.device, *, num_batches: int) -> None:
    model = _state(case, device).model
    images, num_images = case.batch.images.to(device), case.batch.num_images
    peer = Peer(model.encoder, case.config.hidden_size, len(_VOCABULARY)).to(device)
    theirs = _rate(lambda: peer.caption(images), num_batches, num_images, device)

    def caption(precision: Precision) -> None:
        with autocast(precision, device):
            beam_search(model.decoder, model.encode(images), beam_size=3, max_words=MOST_WORDS)

    for precision in _PRECISIONS:
        ours = _rate(partial(caption, precision), num_batches, num_images, device)
        _print_row(f"captioning, beam 3, {precision} (peer: greedy, fp32)", ours, theirs)


def _rate(step: Callable[[], object], num_steps: int, num_images: int, device: torch.device) -> float:
    """Return the images per second of ``num_steps`` steps, after warm-up steps that are not timed."""
    for _ in range(_WARMUP_STEPS):
        step()
    _wait(device)
    started = time.perf_counter()
    for _ in range(num_steps):
        step()
    _wait(device)
    return num_steps * num_images / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _print_row(what: str, ours: float, peer: float) -> None:
    _console.print(f"{what:<44}{ours:>16,.0f}{peer:>16,.0f}{ours / peer:>8.2f}")


if __name__ == "__main__":
    main()
