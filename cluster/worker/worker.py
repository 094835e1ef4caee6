"""What Ray Train runs on every rank."""

import ray.train
import ray.train.torch

from captioning.training.bad_samples import BadSampleError
from cluster.coordination.client import CoordinatorClient
from cluster.runs.bad_batches import bad_batch_path, write_bad_batch
from cluster.worker.async_validation import score_async
from cluster.worker.rank import Preempted, Rank, RankContext, WorkerConfig
from cluster.worker.rank_log import log_of_rank


def train_worker(loop_config: dict[str, WorkerConfig]) -> None:
    """Train this rank's share of every batch, from the last checkpoint that counts to the end."""
    task, context = loop_config["task"], ray.train.get_context()
    rank = context.get_world_rank()
    context = RankContext(
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        is_preempted=lambda: ray.train.get_preemption_info() is not None,
        score_async=score_async,
    )
    link = CoordinatorClient(task.coordinator, rank, batch_size=task.run.training.batch_size)
    with log_of_rank(task.run.name, rank, lambda: link.step):
        _train(task, link, context)


def _train(task: WorkerConfig, link: CoordinatorClient, context: RankContext) -> None:
    try:
        Rank(task, link, context).train()
    except Preempted:
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
