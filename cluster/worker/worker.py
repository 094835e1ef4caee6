"""Entry point of a worker: the function that Ray Train runs on every rank."""

import ray.train
import ray.train.torch

from captioning.training.bad_samples import BadSampleError
from cluster.coordination.client import CoordinatorClient
from cluster.runs.bad_batches import save_bad_batch
from cluster.worker.async_validation import score_async
from cluster.worker.rank import Preempted, RankContext, WorkerConfig, start_rank, wait_for_all
from cluster.worker.rank_log import log_of_rank


def train_worker(loop_config: dict[str, WorkerConfig]) -> None:
    """Train this rank's share of every batch, from the last checkpoint that counts to the end."""
    config, context = loop_config["config"], _rank_context()
    rank = ray.train.get_context().get_world_rank()
    coordinator = CoordinatorClient(config.coordinator, rank, batch_size=config.run.training.batch_size)
    with log_of_rank(config.run.name, rank, lambda: coordinator.step):
        try:
            for _ in start_rank(config, coordinator, context).train():
                pass
        except Preempted:
            _report_preemption(coordinator, config)
            raise
        except Exception as error:
            _report(error, coordinator, config)
            raise
        finally:
            coordinator.close()


def _rank_context() -> RankContext:
    return RankContext(
        world_size=ray.train.get_context().get_world_size(),
        device=ray.train.torch.get_device(),
        is_preempted=lambda: ray.train.get_preemption_info() is not None,
        score_async=score_async,
    )


def _report_preemption(coordinator: CoordinatorClient, config: WorkerConfig) -> None:
    """Report that a node is about to be taken away, once all ranks have come so far."""
    try:
        if coordinator.rank == 0:
            coordinator.report_preemption()
        wait_for_all()
    except Exception as error:
        _report(error, coordinator, config)
        raise


def _report(error: Exception, coordinator: CoordinatorClient, config: WorkerConfig) -> None:
    """Report a failure of this rank, with the bad samples that caused it if there are any."""
    if isinstance(error, BadSampleError):
        hint = save_bad_batch(config.run.folder, error, writes=coordinator.rank == 0)
        coordinator.report_failure(error, is_agreed=True, hint=hint)
    else:
        coordinator.report_failure(error, is_agreed=isinstance(error, FloatingPointError))
