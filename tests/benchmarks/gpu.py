"""Training and captioning on one GPU: agreement with the CPU, and speed compared to a plain PyTorch loop.

Examples:
    python tests/benchmarks/gpu.py
    # on a CPU:
    python tests/benchmarks/gpu.py --backbone squeezenet1_1 --trainable-from features.12 --image-size 64 --steps 2

Needs only torch, torchvision, numpy, Pillow and rich, no Ray or MLflow. The peer is the loop of a typical tutorial: an
encoder without gradients, ``nn.LSTM`` over packed captions, mean cross-entropy and AdamW, on the same batch in the same
run. A ratio is this project's images per second divided by the peer's; above 1, this project is faster.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from captioning.data.batches import CaptionBatch
from captioning.data.vocabulary import Vocabulary
from captioning.generation.beam_search import beam_search
from captioning.model.caption_model import CaptionModel
from captioning.training.loop import TrainingState, train
from captioning.training.optimizer import build_optimizer
from tests.benchmarks.random_batch import random_batch, random_vocabulary
from tests.benchmarks.tutorial_peer import MOST_WORDS, Peer, train_step

_WARMUP_STEPS = 3
_console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Print the results of the checks, and the table of speeds."""
    arguments = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _console.print(
        f"{_name(device)}, torch {torch.__version__}, {arguments.backbone}, {arguments.image_size} px, seed 0"
    )
    vocabulary = random_vocabulary()
    batch = random_batch(vocabulary, _model_config(arguments), num_images=arguments.batch_size)
    _check_against_cpu(arguments, vocabulary, batch, device)
    _check_resume(arguments, vocabulary, batch, device)
    if device.type == "cuda":
        _console.print(f"synchronizations with the device: {_num_syncs(arguments, vocabulary, batch, device)} per step")
    _console.print(f"\n{'what':<44}{'ours, images/s':>16}{'peer, images/s':>16}{'ratio':>8}")
    for precision in ("fp32", "bf16"):
        for trainable_from in (None, arguments.trainable_from):
            _time_training(arguments, vocabulary, batch, device, precision=precision, trainable_from=trainable_from)
    _time_captioning(arguments, vocabulary, batch, device)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet152")
    parser.add_argument(
        "--trainable-from", default="layer4", help="first encoder stage that is trained, in every second row"
    )
    parser.add_argument("--image-size", type=int, default=224, help="side of an image, in pixels")
    parser.add_argument("--batch-size", type=int, default=128, help="images per step")
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20, help="timed steps per row")
    return parser.parse_args()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def _model_config(arguments: argparse.Namespace, *, trainable_from: str | None = None) -> ModelConfig:
    return ModelConfig(
        backbone=arguments.backbone,
        weights="none",
        trainable_from=trainable_from,
        image_size_px=arguments.image_size,
        hidden_size=arguments.hidden_size,
        embedding_size=arguments.hidden_size,
    )


def _state(config: ModelConfig, vocabulary: Vocabulary, batch: CaptionBatch, device: torch.device) -> TrainingState:
    torch.manual_seed(0)
    model = CaptionModel(config, vocabulary_size=len(vocabulary)).to(device)
    with torch.no_grad():  # features of random weights reach 1e8
        model.decoder.calibrate(model.encode(batch.images[:32].to(device)))
    return TrainingState(model, build_optimizer(model, OptimizerConfig(warmup_steps=1)))


def _losses(state: TrainingState, batch: CaptionBatch, device: torch.device, *, steps: int, until: int) -> list[float]:
    """Train for ``steps`` steps of a schedule of ``until`` steps; return their losses, in nats/word."""
    results = train(
        state,
        state.model,
        ([batch] for _ in range(steps)),
        optimizer_config=OptimizerConfig(warmup_steps=1),
        config=TrainingConfig(batch_size=batch.num_images),
        num_steps=until,
        device=device,
    )
    return [result.loss_nats for result in results]


def _check_against_cpu(
    arguments: argparse.Namespace, vocabulary: Vocabulary, batch: CaptionBatch, device: torch.device
) -> None:
    few = batch.without(range(8, batch.num_images))
    config = _model_config(arguments)
    here, there = (_losses(_state(config, vocabulary, few, one), few, one, steps=2, until=2) for one in (CPU, device))
    worst = max(abs(a - b) / a for a, b in zip(here, there, strict=True))
    _console.print(f"loss of two fp32 steps with dropout, device against CPU: relative difference {worst:.1e}")


def _check_resume(
    arguments: argparse.Namespace, vocabulary: Vocabulary, batch: CaptionBatch, device: torch.device
) -> None:
    config = _model_config(arguments, trainable_from=arguments.trainable_from)
    whole = _state(config, vocabulary, batch, device)
    _losses(whole, batch, device, steps=4, until=4)
    first = _state(config, vocabulary, batch, device)
    _losses(first, batch, device, steps=2, until=4)
    second = _state(config, vocabulary, batch, device)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.step = first.step
    _losses(second, batch, device, steps=2, until=4)
    differences = [
        float((tensor - whole.model.state_dict()[name]).abs().max()) if tensor.is_floating_point() else 0.0
        for name, tensor in second.model.state_dict().items()
    ]
    _console.print(f"weights of 2 + 2 resumed steps against 4 steps: largest difference {max(differences):.1e}")


def _num_syncs(
    arguments: argparse.Namespace, vocabulary: Vocabulary, batch: CaptionBatch, device: torch.device
) -> float:
    """Return how often a step makes the host wait for the device, as counted by torch's sync debug mode."""
    state = _state(_model_config(arguments), vocabulary, batch, device)
    _losses(state, batch, device, steps=2, until=100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        _losses(state, batch, device, steps=4, until=100)
        torch.cuda.set_sync_debug_mode("default")
    found = [str(one.filename).rpartition("captioning/")[2] + f":{one.lineno}" for one in caught]
    for place in sorted(set(found)):
        _console.print(f"  {found.count(place) / 4:g} per step at {place}")
    return len(found) / 4


def _time_training(
    arguments: argparse.Namespace,
    vocabulary: Vocabulary,
    batch: CaptionBatch,
    device: torch.device,
    *,
    precision: str,
    trainable_from: str | None,
) -> None:
    config = _model_config(arguments, trainable_from=trainable_from)
    state = _state(config, vocabulary, batch, device)
    settings = TrainingConfig(batch_size=batch.num_images, precision=precision)  # type: ignore[arg-type]
    steps = train(
        state,
        state.model,
        _endless(batch),
        optimizer_config=OptimizerConfig(),
        config=settings,
        num_steps=10**6,
        device=device,
    )
    ours = _rate(lambda: next(steps), arguments.steps, batch.num_images, device)
    peer = Peer(CaptionModel(config, vocabulary_size=len(vocabulary)).encoder, arguments.hidden_size, len(vocabulary))
    peer.to(device)
    optimizer = torch.optim.AdamW(parameter for parameter in peer.parameters() if parameter.requires_grad)
    theirs = _rate(
        lambda: train_step(peer, optimizer, batch.to(device), use_bf16=precision == "bf16"),
        arguments.steps,
        batch.num_images,
        device,
    )
    encoder = f"trained from {trainable_from}" if trainable_from else "frozen"
    _print_row(f"training, {precision}, encoder {encoder}", ours, theirs)


def _time_captioning(
    arguments: argparse.Namespace, vocabulary: Vocabulary, batch: CaptionBatch, device: torch.device
) -> None:
    model = _state(_model_config(arguments), vocabulary, batch, device).model
    peer = Peer(model.encoder, arguments.hidden_size, len(vocabulary)).to(device)
    images, num_batches = batch.images.to(device), max(2, arguments.steps // 4)

    @torch.no_grad()
    def caption(beam_size: int) -> None:
        beam_search(model.decoder, model.encode(images), beam_size=beam_size, max_words=MOST_WORDS)

    theirs = _rate(lambda: peer.caption(images), num_batches, len(images), device)
    for beam_size in (1, 3):
        ours = _rate(partial(caption, beam_size), num_batches, len(images), device)
        _print_row(f"captioning, beam {beam_size} (peer: greedy)", ours, theirs)


def _endless(batch: CaptionBatch) -> Iterator[Sequence[CaptionBatch]]:
    while True:
        yield [batch]


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


CPU = torch.device("cpu")

if __name__ == "__main__":
    main()
