"""What Ray Train runs on every rank."""

import ray.train
import ray.train.torch

from captioning.training.bad_samples import BadSampleError
from cluster.coordination.client import Link
from cluster.runs.bad_batches import bad_batch_path, write_bad_batch
from cluster.worker.async_validation import announce
from cluster.worker.rank import NodeLeaves, Rank, Surroundings, WorkerTask
from cluster.worker.rank_log import log_of_rank


def train_worker(loop_config: dict[str, WorkerTask]) -> None:
    """Train this rank's share of every batch, from the last checkpoint that counts to the end."""
    task, context = loop_config["task"], ray.train.get_context()
    rank = context.get_world_rank()
    surroundings = Surroundings(
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        is_leaving=lambda: ray.train.get_preemption_info() is not None,
        announce=announce,
    )
    link = Link(task.coordinator, rank, batch_size=task.run.training.batch_size)
    with log_of_rank(task.run.name, rank, lambda: link.step):
        _train(task, link, surroundings)


def _train(task: WorkerTask, link: Link, surroundings: Surroundings) -> None:
    try:
        Rank(task, link, surroundings).train()
    except NodeLeaves:
        raise
    except BadSampleError as error:
        path = bad_batch_path(task.run.folder, error.step)
        if link.rank == 0:
            write_bad_batch(path, error.step, error.bad, error.losses)
        link.fail(error, is_agreed=True, hint=f"; the whole batch is described in {path}")
        raise
    except Exception as error:
        link.fail(error, is_agreed=isinstance(error, FloatingPointError))
        raise
    finally:
        link.end()
