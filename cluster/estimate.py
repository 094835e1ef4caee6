"""How long a run or a search takes, from one training step that is really done."""

import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from captioning.batches import CaptionBatch
from captioning.model import CaptionModel
from captioning.training import TrainingState, build_optimizer, num_training_steps, train
from cluster.config import TrainRun
from cluster.data import ShardSet, training_batches
from cluster.halving import rungs_of
from cluster.search_config import SearchConfig

_NUM_STEPS = 2  # the first is slower than those to come


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchEstimate:
    """What a search would take."""

    trials_at_once: int
    seconds_per_step: float
    """Of the base configuration."""
    host: str
    """Where the step was measured."""
    steps_per_trial: int
    """Of one that is not stopped."""
    num_epochs: int
    """That all trials take together, if the scheduler stops as many as it means to."""
    num_views: int
    """Of images, whose features are still to be extracted."""
    extraction_seconds: float
    """For the features, once; 0 if there is nothing to extract."""
    seconds: float
    """For all trials, without their validations."""


class Measured(NamedTuple):
    """What was measured.

    Attributes:
        seconds_per_step: of training, the second of two steps, of a worker's share of the batch.
        seconds_per_image: of the encoder with decoding, where features are still to be extracted; else 0.
        host: where.
    """

    seconds_per_step: float
    seconds_per_image: float
    host: str


def estimate_search(
    search: SearchConfig,
    measured: Measured,
    *,
    run: TrainRun,
    splits: Mapping[str, int],
    num_trials: int,
    trials_at_once: int,
    extracts: bool,
) -> SearchEstimate:
    """Multiply a step by those of all trials.

    Args:
        search: says how long they are.
        measured: of their base.
        run: that base.
        splits: samples of each split.
        num_trials: of the search.
        trials_at_once: that the cluster has room for.
        extracts: whether the features that trials read are still to be made.
    """
    num_images = sum(splits[split] for split in {run.train_split, run.validation_split})
    num_views = search.views * num_images if extracts else 0
    training = replace(run.training, num_epochs=float(search.max_epochs))
    num_steps = num_training_steps(training, splits[run.train_split])
    num_epochs = expected_epochs(search, num_trials)
    num_slots = max(1, min(trials_at_once, num_trials))
    # No trial is faster than itself, however many run beside it.
    longest = max(num_epochs / num_slots, search.max_epochs)
    return SearchEstimate(
        trials_at_once=trials_at_once,
        seconds_per_step=measured.seconds_per_step,
        host=measured.host,
        steps_per_trial=num_steps,
        num_epochs=num_epochs,
        num_views=num_views,
        extraction_seconds=measured.seconds_per_image * num_views / max(1, trials_at_once),
        seconds=measured.seconds_per_step * num_steps / search.max_epochs * longest,
    )


def measure(run: TrainRun, shard_set: ShardSet, *, extracts: bool = False, num_workers: int = 1) -> Measured:
    """Take two training steps of a model that is thrown away, in this process.

    Args:
        run: what to train, or base of all trials.
        shard_set: of the images, or features, that are read.
        extracts: whether trials read features that are not there yet; images are then read once, as extraction does,
            and the steps are taken on what the encoder made of them.
        num_workers: among whom a batch is shared; their waiting for each other is not measured.
    """
    device = torch.device("cuda" if run.cluster.use_gpu and torch.cuda.is_available() else "cpu")
    torch.set_num_threads(run.cluster.cpus_per_worker)
    model = CaptionModel(run.model, vocabulary_size=len(shard_set.vocabulary)).to(device)
    state = TrainingState(model, build_optimizer(model, run.optimizer))
    batches: Iterable[Sequence[CaptionBatch]] = training_batches(
        shard_set,
        run.train_split,
        model=run.model,
        config=run.training,
        ranks=(0, num_workers),
        steps=range(_NUM_STEPS),
    )
    started = time.perf_counter()
    if extracts:
        batches = [[_with_features(model, part.to(device)) for part in parts] for parts in batches]
    looking = time.perf_counter() - started if extracts else 0.0
    results = list(
        train(
            state,
            model,
            batches,
            optimizer_config=run.optimizer,
            config=run.training,
            num_steps=_NUM_STEPS,
            device=device,
        )
    )
    num_images = sum(result.num_images for result in results)
    return Measured(results[-1].seconds, looking / max(1, num_images), socket.gethostname())


@torch.no_grad()
def _with_features(model: CaptionModel, part: CaptionBatch) -> CaptionBatch:
    return part._replace(images=model.look(part.images).half())


def expected_epochs(search: SearchConfig, num_trials: int) -> int:
    """Return the epochs of all trials, if one in ``reduction_factor`` goes on wherever they are compared."""
    total, done, going_on = 0, 0, num_trials
    for until in rungs_of(search):
        total += going_on * (until - done)
        done, going_on = until, max(1, going_on // search.reduction_factor)
    return total
