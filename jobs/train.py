"""Train a captioning model on a Ray cluster. The same command again resumes the run.

Needs a shard set, which captioning convert makes. Without --cluster.address or RAY_ADDRESS, trains on this machine.

Examples:
    captioning train --shards data/coco-shards --name first                       # ResNet-152, LSTM, two CPU workers
    captioning train coco --shards data/coco-shards --name big --cluster.num-workers 8
    captioning train coco --shards data/coco-shards --name big --cluster.num-workers 2:8    # 2 to 8, as capacity allows
    captioning train --config run.yaml --optimizer.learning-rate 5e-4
    captioning train --shards data/coco-shards --name first --dry-run             # where it would run, and for how long
"""

import logging

from cluster.config import TrainRun
from cluster.coordination.messages import workers_text
from cluster.job_progress import duration
from cluster.presets import TRAIN_PRESETS
from cluster.settings import as_plain
from jobs.console.dry_run_view import show_rehearsal
from jobs.console.job import Invocation, Job
from jobs.console.output import log_next, write_json
from jobs.console.progress_bars import training_bar

logger = logging.getLogger(__name__)


def main(invocation: Invocation[TrainRun]) -> None:
    """Train the run to its end, or describe it with ``--dry-run``."""
    run = invocation.settings
    if invocation.dry_run:
        _describe(run, as_json=invocation.json)
        return
    from cluster.training.trainer import fit

    with training_bar() as show_step:
        outcome = fit(run, show_step=show_step)
    logger.info(
        "run %s %s at step %d%s; best validation loss %.3f nats/word, in checkpoint %s",
        outcome.name,
        "stopped early" if outcome.stopped_early else "finished",
        outcome.step,
        f" ({outcome.stopped_early})" if outcome.stopped_early else "",
        outcome.validation_loss_nats,
        outcome.best_checkpoint,
    )
    log_next("evaluate", outcome.best_checkpoint, "--shards", run.shards)
    if invocation.json:
        write_json(outcome)


def _describe(run: TrainRun, *, as_json: bool) -> None:
    """Check the data, then log what would be trained, where, and an estimate of the duration."""
    from captioning.training.loop import num_training_steps, steps_text
    from cluster.checks.data import check_data
    from cluster.checks.rehearsal import rehearse

    shard_set = check_data(run)
    num_samples = shard_set.manifest.splits[run.train_split]
    num_steps = num_training_steps(run.training, num_samples)
    logger.info(
        "would train run %s for %s of %d images on %s, with %d samples, into %s",
        run.name,
        steps_text(run.training, num_samples),
        run.training.batch_size,
        run.cluster.workers_text,
        num_samples,
        run.folder,
    )
    rehearsal = rehearse(run, shard_set)
    show_rehearsal(rehearsal)
    timing, estimate = rehearsal.timing, None
    if timing:
        estimate = {"seconds_per_step": timing.seconds_per_step, "seconds": timing.seconds_per_step * num_steps}
        logger.info(
            "about %s on %s, at %.2f s per step as measured on one worker on %s; validations, checkpoints and "
            "synchronization add to that",
            duration(estimate["seconds"]),
            workers_text(rehearsal.num_workers),
            timing.seconds_per_step,
            timing.host,
        )
    if as_json:
        plan = {
            "num_samples": num_samples,
            "num_steps": num_steps,
            "vocabulary_size": len(shard_set.vocabulary),
            "folder": str(run.folder),
            "settings": as_plain(run),
        }
        nodes = [node._asdict() for node in rehearsal.nodes]
        write_json(plan | {"nodes": nodes, "num_workers": rehearsal.num_workers, "estimate": estimate})


JOB = Job(
    name="train",
    settings=TrainRun,
    run=main,
    description=__doc__,
    presets=TRAIN_PRESETS,
    loads=("torch", "ray", "mlflow"),
)
