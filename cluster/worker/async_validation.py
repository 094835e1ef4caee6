"""Asynchronous validation: actors that score checkpoints on free resources while training continues.

A task of Ray Train on the driver's node starts an actor for each checkpoint, and another one if that is lost: when a
node is cut off, Ray reports its actors as dead, while a task on it never ends.

Ray Train receives a pointer for each checkpoint to score: a folder that holds only the step, because ``run.json``
decides which checkpoints are valid. When the tasks fall behind, all but the newest checkpoint are skipped.
"""

import json
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.exceptions import RayError

from captioning.evaluation.behaviour import caption_health
from captioning.evaluation.health import NUM_EXCHANGED
from captioning.evaluation.health_probe import probe_health
from captioning.generation.config import GenerationConfig
from captioning.training.checkpoint import load_model
from captioning.training.validation import validation_loss
from cluster.config import TrainRun
from cluster.coordination.messages import ANSWER_SECONDS
from cluster.data.loading import validation_batches
from cluster.data.shard_set import ShardSet
from cluster.errors import is_out_of_memory, one_line, passing_fault
from cluster.evaluation.evaluate import evaluate_split
from cluster.log_text import clean_logs
from cluster.resources.device import inference_device
from cluster.resources.placement import on_node
from cluster.runs.record import CommittedCheckpoint, store_of
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.runs.validation_captions import ValidationCaptions, save_captions
from cluster.worker.validation import SCORE_NAMES

_BATCH_SIZE = 32
_TRIES = 3
_LONGEST_TASK_SECONDS = 24 * 3600.0


def validation_config(run: TrainRun, coordinator: Any) -> ray.train.ValidationConfig | None:  # noqa: ANN401  Ray's handle
    """Return Ray Train's configuration of the validation tasks; None if the workers validate.

    Args:
        run: settings of the run.
        coordinator: Ray's handle of the coordinator.
    """
    if run.validation.where != "beside":
        return None
    score: Any = partial(score_pointer, run=run, coordinator=coordinator)
    here = on_node(ray.get_runtime_context().get_node_id())
    return ray.train.ValidationConfig(fn=score, ray_remote_kwargs={"num_cpus": 0, "scheduling_strategy": here})


def score_async(step: int, committed: Future[None] | None) -> None:
    """Start a validation task for the checkpoint of a step once it is committed; every rank must call it.

    Args:
        step: number of steps done in the checkpoint.
        committed: on rank 0, future that is done when the checkpoint is committed; None on the other ranks.
    """
    if committed is None:
        ray.train.report({"step": step}, checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC)
        return
    # Ray needs a folder now, but the pointer is written only once the checkpoint is committed. An empty folder does: by
    # default Ray deletes the given folder, with all files in it, after the upload.
    empty = Path(tempfile.mkdtemp(prefix="pointer-"))
    ray.train.report(
        {"step": step},
        checkpoint=ray.train.Checkpoint(str(empty)),
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
        delete_local_checkpoint_after_upload=False,
        checkpoint_upload_fn=lambda _, name: _write_pointer(step, committed, name, empty=empty),
        validation=ray.train.ValidationTaskConfig(fn_kwargs={"step": step}, timeout_s=_LONGEST_TASK_SECONDS),
    )


def _write_pointer(step: int, committed: Future[None], name: str, *, empty: Path) -> ray.train.Checkpoint:
    empty.rmdir()
    committed.result()
    storage: Any = ray.train.get_context().get_storage()
    folder = Path(storage.experiment_fs_path) / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pointer.json").write_text(json.dumps({"step": step}), encoding="utf-8")
    return ray.train.Checkpoint(str(folder), storage.storage_filesystem)


def score_pointer(pointer: ray.train.Checkpoint, *, run: TrainRun, coordinator: Any, step: int) -> dict[str, float]:  # noqa: ANN401
    """Score the checkpoint of a step and report to the coordinator; skip it if a newer one waits to be scored.

    Args:
        pointer: folder that Ray passes; unused, because ``step`` names the checkpoint.
        run: settings of the run.
        coordinator: Ray's handle of the coordinator.
        step: number of steps done in the checkpoint.

    Returns:
        The scores, by name; empty if the checkpoint was skipped or could not be scored.
    """
    clean_logs()
    checkpoint: Any = ray.get(coordinator.newest_unscored.remote(step), timeout=ANSWER_SECONDS)
    if checkpoint is None:
        return {}
    actor_class: Any = ray.remote(_Scorer)
    placed = actor_class.options(num_cpus=run.cluster.cpus_per_worker, num_gpus=1 if run.cluster.use_gpu else 0)
    found = score_with(placed.remote, run, checkpoint)
    if isinstance(found, str):  # a missing score must not end the run
        ray.get(coordinator.give_up_score.remote(step, found), timeout=ANSWER_SECONDS)
        return {}
    ray.get(coordinator.add_score.remote(step, found), timeout=ANSWER_SECONDS)
    return found


def score_with(start: Callable[[], Any], run: TrainRun, checkpoint: CommittedCheckpoint) -> dict[str, float] | str:
    """Score a checkpoint with an actor, and with another one if that is lost.

    Args:
        start: function that starts a ``_Scorer`` as an actor.
        run: settings of the run.
        checkpoint: checkpoint to score.

    Returns:
        The scores, by name; the reason, on one line, if there are none.
    """
    reason = ""
    for _ in range(_TRIES):
        actor = start()
        try:
            return ray.get(actor.score.remote(run, checkpoint), timeout=_LONGEST_TASK_SECONDS)
        except RayError as error:
            reason = passing_fault(error) or one_line(error)
        finally:
            ray.kill(actor)
    return f"{_TRIES} processes were lost in a row, the last with: {reason}"


class _Scorer:
    """An actor that scores one checkpoint."""

    def score(self, run: TrainRun, checkpoint: CommittedCheckpoint) -> dict[str, float] | str:
        """Return the scores, by name, or why there are none; raise if another try may have enough memory."""
        clean_logs()
        try:
            return score_checkpoint(run, checkpoint)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return one_line(error)


def score_checkpoint(run: TrainRun, checkpoint: CommittedCheckpoint) -> dict[str, float]:
    """Return the validation loss, in nats per word, and the caption scores of a checkpoint, by name."""
    shard_set = ShardSet(run.shards_folder(), cache_gib=run.storage.cache_gib)
    device = inference_device()
    with tempfile.TemporaryDirectory(prefix="score-") as scratch:
        store = store_of(run.folder, run.storage.checkpoints)
        folder = store.fetch(checkpoint.name, Path(scratch))
        model, *_ = load_model(folder, device=device)
        batches = validation_batches(
            shard_set, run.validation_split, model=run.model, config=run.training, ranks=(0, 1)
        )
        loss = validation_loss(model, batches, config=run.training, device=device)
        few = validation_batches(
            shard_set, run.validation_split, model=run.model, config=run.training, ranks=(0, 1), most=NUM_EXCHANGED
        )
        health = probe_health(model, few, config=run.training, device=device)
        found = evaluate_split(
            folder,
            shard_set,
            run.validation_split,
            step=checkpoint.step,
            # Repetition is allowed, so that a model that begins to repeat itself is noticed.
            generation=GenerationConfig(beam_size=run.validation.beam_size, no_repeat_ngram=0),
            batch_size=_BATCH_SIZE,
            skip_bad=run.training.on_bad_sample == "skip",
        )
    captions = dict(enumerate(found.captions.values()))  # in the order of the split
    intervals = {name: found.intervals[key] for key, name in SCORE_NAMES.items()}
    save_captions(run.folder, ValidationCaptions(checkpoint.step, captions, intervals))
    health |= caption_health(captions.values(), tokenizer=shard_set.vocabulary.tokenizer)
    return {VALIDATION_LOSS: loss} | health | {name: found.scores[key] for key, name in SCORE_NAMES.items()}
