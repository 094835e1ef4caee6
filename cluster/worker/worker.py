"""Entry point of a worker: the function that Ray Train runs on every rank."""

import ray.train
import ray.train.torch

from captioning.training.bad_samples import BadSampleError
from cluster.coordination.client import CoordinatorClient
from cluster.coordination.messages import WorkerConfig
from cluster.runs.bad_batches import save_bad_batch
from cluster.runs.claim import ClaimLostError
from cluster.worker.async_validation import score_async
from cluster.worker.rank import Preempted, RankContext, wait_for_all
from cluster.worker.rank_log import log_of_rank
from cluster.worker.start import start_rank


def train_worker(loop_config: dict[str, WorkerConfig]) -> None:
    """Train on this rank's share of every batch, from the last committed checkpoint to the last step."""
    config, context = loop_config["config"], _rank_context()
    rank = ray.train.get_context().get_world_rank()
    coordinator = CoordinatorClient(config.coordinator, rank, batch_size=config.run.training.batch_size)
    with log_of_rank(config.run.name, rank, lambda: coordinator.step):
        try:
            for _ in start_rank(config, coordinator, context).train():
                pass
        except Preempted:  # re-raised: if the workers returned, Ray Train would take the run for finished
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
    """Report that a node is about to be preempted, then wait for all ranks."""
    try:
        if coordinator.rank == 0:
            coordinator.report_preemption()
        wait_for_all()  # a rank that raised earlier would end the group before rank 0 has reported
    except Exception as error:
        _report(error, coordinator, config)
        raise


def _report(error: Exception, coordinator: CoordinatorClient, config: WorkerConfig) -> None:
    """Report a failure of this rank; if bad samples caused it, describe their batch in a file."""
    if isinstance(error, BadSampleError):
        hint = save_bad_batch(config.run.folder, error, writes=coordinator.rank == 0)
        coordinator.report_failure(error, is_agreed=True, hint=hint)
    else:
        # Losses are all-reduced, so a loss that is not finite raises on every rank. A lost claim does not come back.
        coordinator.report_failure(error, is_agreed=isinstance(error, FloatingPointError | ClaimLostError))
