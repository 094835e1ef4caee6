"""Rehearsal of a job without starting it: where its workers would run, and how long a training step takes there."""

import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from captioning.data.batches import CaptionBatch
from captioning.model.caption_model import CaptionModel
from captioning.training.caption_reward import count_documents
from captioning.training.loop import StepResult, TrainingState, train
from captioning.training.optimizer import build_optimizer
from captioning.training.self_critical import SelfCritic
from cluster.config import TrainRun
from cluster.data.loading import training_batches
from cluster.data.shard_set import ShardSet
from cluster.errors import last_line, one_line
from cluster.resources.capacity import NodeCapacity, capacity_by_node, check_capacity, resources_per_worker
from cluster.resources.gcs import list_nodes
from cluster.resources.session import cluster_session, named_address

_NUM_STEPS = 2  # only the second is timed, because the first is slower than those that follow
_MEASURE_SECONDS = 600.0
_OWN_RESOURCES = ("CPU", "GPU")


class StepTiming(NamedTuple):
    """Duration of a training step.

    Attributes:
        seconds_per_step: duration, in seconds, of the second of two steps on one worker's share of the batch; if some
            epochs are self-critical, the mean with such a step, by the number of epochs.
        seconds_per_image: time, in seconds, to decode and encode an image if features are to be extracted; else 0.
        host: name of the host that took the steps.
    """

    seconds_per_step: float
    seconds_per_image: float
    host: str


class Rehearsal(NamedTuple):
    """Where a job's workers would run, and how long a step takes there.

    Attributes:
        nodes: capacity of each node of the cluster, in workers.
        max_workers: number of workers that fit on the cluster if nothing else runs on it.
        num_workers: number of workers of the run, or of one trial.
        timing: duration of a step; None if none was taken.
        why_not: reason why no step was taken; else empty.
    """

    nodes: list[NodeCapacity]
    max_workers: int
    num_workers: int
    timing: StepTiming | None
    why_not: str = ""


def rehearse(run: TrainRun, shard_set: ShardSet, *, extracts: bool = False) -> Rehearsal:
    """Count the workers that fit, and take two training steps as one of them would.

    The steps run in this process if it would start the cluster itself, otherwise in a task on the cluster.

    Args:
        run: training run, or base run of all trials.
        shard_set: shard set with the images, or features, to train on.
        extracts: whether features are still to be extracted, as in ``measure_step``.

    Raises:
        Unreachable: the cluster does not answer.
        Refusal: the workers do not fit.
        ValueError: a training step fails.
    """
    is_own = named_address(run.cluster) is None
    with cluster_session(run.cluster):
        capacity, nodes = check_capacity(run.cluster), capacity_by_node(list_nodes(), run.cluster)
        max_workers = max(capacity.total, capacity.autoscaled)
        num_workers = min(run.cluster.max_workers, max_workers)
        if not is_own:
            outcome = _measure_there(run, shard_set, extracts=extracts, num_workers=num_workers, free=capacity.free)
            return Rehearsal(nodes, max_workers, num_workers, *outcome)
    timing = measure_step(run, shard_set, extracts=extracts, num_workers=num_workers)
    return Rehearsal(nodes, max_workers, num_workers, timing)


def _measure_there(
    run: TrainRun, shard_set: ShardSet, *, extracts: bool, num_workers: int, free: int
) -> tuple[StepTiming | None, str]:
    """Measure in a task with a worker's resources; return the timing, or the reason why there is none."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError

    if not free:  # the task would wait, or make the autoscaler start a node
        return None, "no worker fits while other jobs use the cluster"
    needed = resources_per_worker(run.cluster)
    function: Any = ray.remote(max_retries=0)(measure_step)
    further = {name: amount for name, amount in needed.items() if name not in _OWN_RESOURCES}
    function = function.options(num_cpus=needed["CPU"], num_gpus=needed.get("GPU", 0.0), resources=further)
    task = function.remote(run, shard_set, extracts=extracts, num_workers=num_workers)
    try:
        return ray.get(task, timeout=_MEASURE_SECONDS), ""
    except RayTaskError as error:  # from the step itself, or because captioning is not installed there
        if isinstance(error.cause, ValueError | OSError):
            raise error.cause from None
        return None, f"a training step failed there: {last_line(error)}"
    except GetTimeoutError:
        ray.cancel(task, force=True)
        return None, f"two steps took more than {_MEASURE_SECONDS:g} s"
    except RayError as error:
        return None, f"the process that took the steps was lost ({one_line(error, with_kind=False)})"


def measure_step(run: TrainRun, shard_set: ShardSet, *, extracts: bool = False, num_workers: int = 1) -> StepTiming:
    """Take two training steps in this process, with a model that is then discarded.

    Args:
        run: training run, or base run of all trials.
        shard_set: shard set with the images, or features, to train on.
        extracts: whether trials read features that do not exist yet; images are then encoded first, as in extraction,
            and the steps are taken on their features.
        num_workers: number of workers that share a batch; the time that they wait for each other is not measured.
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
    encoding_seconds = time.perf_counter() - started if extracts else 0.0
    results = _take_steps(state, batches, run, device)
    seconds, num_epochs = results[-1].seconds, run.training.self_critical_epochs
    if num_epochs:  # the samples of an untrained model are as long as they can be
        critic = SelfCritic(model, count_documents([]), config=run.training, device=device)
        state.resample = critic.resample
        share = num_epochs / (num_epochs + run.training.num_epochs)
        seconds += share * (_take_steps(state, batches, run, device)[-1].seconds - seconds)
    num_images = sum(result.num_images for result in results)
    return StepTiming(seconds, encoding_seconds / max(1, num_images), socket.gethostname())


def _take_steps(
    state: TrainingState, batches: Iterable[Sequence[CaptionBatch]], run: TrainRun, device: torch.device
) -> list[StepResult]:
    steps = train(
        state,
        state.model,
        batches,
        optimizer_config=run.optimizer,
        config=run.training,
        num_steps=state.step + _NUM_STEPS,
        device=device,
    )
    return list(steps)


@torch.no_grad()
def _with_features(model: CaptionModel, part: CaptionBatch) -> CaptionBatch:
    return part._replace(images=model.encode(part.images).half())
