"""Where a job's workers would run, and how long a step takes there, without starting the job."""

import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from captioning.data.batches import CaptionBatch
from captioning.model.caption_model import CaptionModel
from captioning.training.loop import TrainingState, train
from captioning.training.optimizer import build_optimizer
from cluster.config import TrainRun
from cluster.data.loading import training_batches
from cluster.data.shard_set import ShardSet
from cluster.errors import last_line, one_line
from cluster.resources.capacity import NodeCapacity, capacity_by_node, check_capacity, resources_per_worker
from cluster.resources.gcs import list_nodes
from cluster.resources.session import cluster_session, named_address

_NUM_STEPS = 2  # the first is slower than those to come
_MEASURE_SECONDS = 600.0
_OWN_RESOURCES = ("CPU", "GPU")


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


class Rehearsal(NamedTuple):
    """What is known of a job before it starts.

    Attributes:
        nodes: of the cluster.
        most: workers that fit in at once, were nothing else on it.
        num_workers: of the run, or of one trial.
        measured: None if nothing was.
        why_not: if nothing was.
    """

    nodes: list[NodeCapacity]
    most: int
    num_workers: int
    measured: Measured | None
    why_not: str = ""


def rehearse(run: TrainRun, shard_set: ShardSet, *, extracts: bool = False) -> Rehearsal:
    """Find room for the workers, and take two steps in the place of one: in this process if the cluster is its own.

    Args:
        run: what to train, or base of all trials.
        shard_set: of the images, or features, that are read.
        extracts: as ``measure`` takes it.

    Raises:
        ConnectionError: no cluster answers.
        ValueError: the cluster has no room for the workers, or a step cannot be taken.
    """
    is_own = named_address(run.cluster) is None
    with cluster_session(run.cluster):
        room, nodes = check_capacity(run.cluster), capacity_by_node(list_nodes(), run.cluster)
        most = max(room.total, room.autoscaled)
        num_workers = min(run.cluster.max_workers, most)
        if not is_own:
            found = _measure_there(run, shard_set, extracts=extracts, num_workers=num_workers, free=room.free)
            return Rehearsal(nodes, most, num_workers, *found)
    measured = measure(run, shard_set, extracts=extracts, num_workers=num_workers)
    return Rehearsal(nodes, most, num_workers, measured)


def _measure_there(
    run: TrainRun, shard_set: ShardSet, *, extracts: bool, num_workers: int, free: int
) -> tuple[Measured | None, str]:
    """Measure in a task that takes the place of a worker; or say why not."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError

    if not free:  # the task would wait, or have the autoscaler start a node
        return None, "no worker fits in now, as long as others are on the cluster"
    wanted = resources_per_worker(run.cluster)
    task: Any = ray.remote(max_retries=0)(measure)
    further = {name: amount for name, amount in wanted.items() if name not in _OWN_RESOURCES}
    place = task.options(num_cpus=wanted["CPU"], num_gpus=wanted.get("GPU", 0.0), resources=further)
    asked = place.remote(run, shard_set, extracts=extracts, num_workers=num_workers)
    try:
        return ray.get(asked, timeout=_MEASURE_SECONDS), ""
    except RayTaskError as error:  # of the task's own, or that our packages are not there
        if isinstance(error.cause, ValueError | OSError):
            raise error.cause from None
        return None, f"a step cannot be taken there: {last_line(error)}"
    except GetTimeoutError:
        ray.cancel(asked, force=True)
        return None, f"two steps took more than {_MEASURE_SECONDS:g} s"
    except RayError as error:
        return None, f"the process that took the steps is lost ({one_line(error, with_kind=False)})"


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
