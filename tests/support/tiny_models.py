"""Tiny models, and batches of synthetic pictures with random captions."""

import io
from dataclasses import replace
from functools import cache, lru_cache
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
import torchvision
from PIL import Image
from torch import nn
from torch.multiprocessing.spawn import spawn

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from captioning.data.batches import BadSample, EncodedJpeg, EncodedSample, decode_batch, encode_captions
from captioning.data.pixels import Augmentation
from captioning.data.vocabulary import SPECIAL_WORDS, Vocabulary
from captioning.model.caption_model import CaptionModel
from captioning.training.averaging import WeightAverage
from captioning.training.caption_reward import count_documents
from captioning.training.checkpoint import restore, save_checkpoint
from captioning.training.checkpoint_description import CheckpointDescription
from captioning.training.collectives import Flags
from captioning.training.ddp import replicate
from captioning.training.loop import TrainingState, train
from captioning.training.optimizer import build_optimizer

WORDS = ("a", "two", "dog", "cat", "red", "blue", "on", "under", "the", "grass", "runs", "sits")
VOCABULARY = Vocabulary([*SPECIAL_WORDS, *WORDS])
MODEL = ModelConfig(
    backbone="squeezenet1_1", weights="none", image_size_px=36, embedding_size=16, hidden_size=24, dropout=0.5
)
DECODERS = {
    "lstm": {},
    "attend": {"decoder": "attend", "num_heads": 5},  # which 24 units do not divide into
    "transformer": {"decoder": "transformer", "embedding_size": None, "num_heads": 5, "num_layers": 2},
}
"""Changes of ``MODEL`` that give it each decoder."""
OPTIMIZER = OptimizerConfig(learning_rate=0.01, warmup_steps=3, max_gradient_norm=1.0)
TRAINING = TrainingConfig(batch_size=5, crop_area=0.5, max_caption_words=8, seed=7)
CPU = torch.device("cpu")
NUM_SAMPLES = 12
NUM_STEPS = 6  # of five images over a dozen: the stream runs past an epoch's end in the third step
WORLD_SIZES = (1, 2, 3)  # two and three processes have uneven shares of five images
STAGE = "features.12"
EMA_DECAY = 0.9
DELAYED = replace(OPTIMIZER, encoder_delay_steps=2)  # of runs to the end: the encoder does not learn in all steps


def encoded(image, form="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@cache
def jpeg(number, width=80, height=72):
    """Return a smooth picture as JPEG, different for each number."""
    corners = np.random.default_rng(number).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return encoded(Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC))


class CaptionedJpeg(NamedTuple):
    """One sample of the training stream, as it is stored."""

    key: str
    position: int
    jpeg: bytes
    captions: tuple[str, ...]
    shard: str


def make_batch(samples, *, max_caption_words=8, **options):
    """Encode the captions of samples, and make a batch of them."""

    def prepared(sample):
        if isinstance(sample, BadSample):
            return sample
        if not sample.captions:
            return BadSample(sample.key, sample.shard, sample.position, "it has no caption")
        words = encode_captions(sample.captions, VOCABULARY, max_words=max_caption_words)
        return EncodedJpeg(EncodedSample(sample.key, sample.position, sample.shard, words), sample.jpeg)

    return decode_batch([prepared(sample) for sample in samples], MODEL.image_size_px, **options)


def sample(position):
    """Return the image at a position of an endless stream over 12 samples, with one to three captions."""
    number = position % NUM_SAMPLES
    generator = np.random.default_rng([1, number])
    captions = tuple(" ".join(generator.choice(WORDS, generator.integers(2, 8))) for _ in range(1 + number % 3))
    return CaptionedJpeg(f"{number:03}", position, jpeg(number), captions, f"train-{number // 5:06}.tar")


def batch(positions=range(4), *, config=TRAINING, is_augmented=False, sample_at=sample):
    return make_batch(
        [sample_at(position) for position in positions],
        max_caption_words=config.max_caption_words,
        augmentation=Augmentation.of(config) if is_augmented else None,
    )


@cache
def all_frequencies():
    """Return the document frequencies of the captions of all samples."""
    found = (encode_captions(sample(number).captions, VOCABULARY, max_words=8) for number in range(NUM_SAMPLES))
    return count_documents(found)


def share(step, *, rank=0, world_size=1, size=TRAINING.batch_size):
    """Return the positions of a rank's share of a step's batch; low ranks take one more if the batch is uneven."""
    each, rest = divmod(size, world_size)
    start = step * size + rank * each + min(rank, rest)
    return range(start, start + each + (rank < rest))


def batches(steps, *, rank=0, world_size=1, num_parts=1, sample_at=sample):
    """Yield a rank's share of each step's batch, augmented, in parts."""
    for step in steps:
        positions = share(step, rank=rank, world_size=world_size)
        cuts = np.array_split(positions, min(num_parts, len(positions)))
        yield [batch([int(position) for position in cut], is_augmented=True, sample_at=sample_at) for cut in cuts]


def model(seed=0, **changes):
    """Return a model with small random weights; ``changes`` are changes of its configuration."""
    torch.manual_seed(seed)
    return CaptionModel(replace(MODEL, **changes), vocabulary_size=len(VOCABULARY))


def training_state(seed=0, *, is_double=False, optimizer=OPTIMIZER, ema_decay=None, **changes):
    built = model(seed, **changes)
    built = built.double() if is_double else built
    average = WeightAverage(built, ema_decay) if ema_decay else None
    return TrainingState(built, build_optimizer(built, optimizer), average=average)


_DRAWS = ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_", "xavier_uniform_")


@torch.no_grad()
def _fill(tensor, *_, **__):
    """Fill a weight with a few random values again and again, as many as no layer's width divides."""
    values = (2 * torch.rand(65_521) - 1) * (len(tensor) / tensor.numel()) ** 0.5
    if tensor.ndim == 1:
        values *= 0.01
    flat, width = tensor.view(-1), len(values)
    whole = len(flat) // width * width
    flat[:whole].view(-1, width).copy_(values)
    flat[whole:].copy_(values[: len(flat) - whole])
    return tensor


def quick_draws():
    """Let layers that are made have few random values, again and again; to draw all values takes up to a second."""
    return patch.multiple(nn.init, **dict.fromkeys(_DRAWS, _fill))


@lru_cache(maxsize=2)
def classifier_of(name, **options):
    """Return a classifier with random weights, and batch-norm statistics other than mean 0 and variance 1.

    Callers share it, so nobody changes it.
    """
    torch.manual_seed(0)
    with quick_draws():
        classifier = torchvision.models.get_model(name, weights=None, **options).eval()
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return classifier


def steps_of(state, batches, *, replica=None, num_steps=NUM_STEPS, config=TRAINING, optimizer=OPTIMIZER, flags=Flags):
    return train(
        state,
        replica or state.model,
        batches,
        optimizer_config=optimizer,
        config=config,
        num_steps=num_steps,
        device=CPU,
        flags=flags,
    )


def summary(results, state):
    """Return the steps' results, and the final weights with their averages, if they are averaged."""
    average = state.average.weights if state.average else {}
    tensors = state.model.state_dict() | {f"average of {name}": tensor for name, tensor in average.items()}
    return {
        "losses": [result.loss_nats for result in results],
        "norms": [result.gradient_norm for result in results],
        "counts": [(result.num_words, result.num_images) for result in results],
        "bad": [[tuple(sample) for sample in result.bad] for result in results],
        "weights": {name: tensor.clone() for name, tensor in tensors.items()},
    }


def trained(rank=0, world_size=1, *, decoder="lstm", optimizer=DELAYED, config=TRAINING, is_double=False, num_parts=1):
    """Train to the end; return the steps' results and the final weights, which callers share and do not change."""
    return _trained(rank, world_size, decoder, optimizer, config, is_double, num_parts)


@cache
def _trained(rank, world_size, decoder, optimizer, config, is_double, num_parts):
    state = training_state(is_double=is_double, trainable_from=STAGE, ema_decay=EMA_DECAY, **DECODERS[decoder])
    parts = batches(range(NUM_STEPS), rank=rank, world_size=world_size, num_parts=num_parts)
    replica = replicate(state.model, CPU)
    return summary(list(steps_of(state, parts, replica=replica, optimizer=optimizer, config=config)), state)


def resumed(folder, rank=0, world_size=1, *, decoder="lstm", optimizer=DELAYED):
    """Train half of the steps, then the rest in another model that is restored from a checkpoint."""
    first = training_state(trainable_from=STAGE, ema_decay=EMA_DECAY, **DECODERS[decoder])
    parts = batches(range(NUM_STEPS // 2), rank=rank, world_size=world_size)
    results = list(steps_of(first, parts, replica=replicate(first.model, CPU), optimizer=optimizer))
    if rank == 0:
        description = CheckpointDescription(
            step=first.step,
            model=replace(MODEL, **DECODERS[decoder]),
            vocabulary_digest=VOCABULARY.digest,
            max_caption_words=8,
        )
        save_checkpoint(folder, first, VOCABULARY, description=description, config="")
    if dist.is_initialized():
        dist.barrier()
    second = training_state(seed=9, trainable_from=STAGE, ema_decay=EMA_DECAY, **DECODERS[decoder])
    replica = replicate(second.model, CPU)
    restore(second, folder, VOCABULARY)
    parts = batches(range(second.step, NUM_STEPS), rank=rank, world_size=world_size)
    results += steps_of(second, parts, replica=replica, optimizer=optimizer)
    return summary(results, second)


def distance(weights, others):
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


def in_groups(see, folder):
    """Call a function in the processes of a group of each world size; return its results by world size and rank.

    Args:
        see: function of rank, world size and ``folder``.
        folder: folder for the results on their way between the processes.
    """
    spawn(_in_process, (see, folder), nprocs=max(WORLD_SIZES))
    return {size: [torch.load(folder / f"{size}-{rank}.pt") for rank in range(size)] for size in WORLD_SIZES}


def _in_process(rank, see, folder):
    """Run as one process, which takes part in the groups of all sizes above its rank."""
    torch.set_num_threads(1)
    for size in WORLD_SIZES[rank:]:
        dist.init_process_group("gloo", init_method=f"file://{folder}/group-{size}", rank=rank, world_size=size)
        torch.save(see(rank, size, folder), folder / f"{size}-{rank}.pt")
        dist.destroy_process_group()
