"""A tracked run that never trained, with checkpoints."""

from pathlib import Path

import torch

from captioning.config import ModelConfig, OptimizerConfig
from captioning.data.vocabulary import Vocabulary, load_vocabulary
from captioning.model.caption_model import CaptionModel
from captioning.training.checkpoint import save_checkpoint
from captioning.training.checkpoint_description import CheckpointDescription
from captioning.training.loop import TrainingState
from captioning.training.optimizer import build_optimizer
from cluster.config import StorageConfig, TrackingConfig
from cluster.runs.record import CommittedCheckpoint, RunRecord
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.tracking.client import connect, create_run
from cluster.tracking.datasets import dataset_input
from cluster.tracking.experiment import experiment_id

_MODEL = ModelConfig(
    backbone="squeezenet1_1", weights="none", image_size_px=36, embedding_size=8, hidden_size=8, dropout=0.0
)


def write_run(home: Path, shards: Path) -> Path:
    """Write the run ``r`` into a home folder with a tracker; return its folder."""
    folder = home / "training" / "r"
    run_id = _track(home, folder, shards)
    vocabulary = load_vocabulary(shards / "vocabulary.txt")
    torch.manual_seed(0)
    model = CaptionModel(_MODEL, vocabulary_size=len(vocabulary))
    state = TrainingState(model, build_optimizer(model, OptimizerConfig()))
    committed = [
        CommittedCheckpoint(step=step, attempt=1, metrics={VALIDATION_LOSS: loss})
        for step, loss in ((5, 1.0), (9, 2.0))
    ]
    for checkpoint in committed:
        description = _description(checkpoint, vocabulary, run_id)
        target = folder / "checkpoints" / checkpoint.name
        save_checkpoint(target, state, vocabulary, description=description, config="name: r\n")
    RunRecord(name="r", identity={}, mlflow_run_id=run_id, checkpoints=tuple(committed)).save(folder)
    return folder


def _track(home: Path, folder: Path, shards: Path) -> str:
    storage = StorageConfig(home=home)
    client = connect(TrackingConfig(), storage)
    experiment = experiment_id(client, TrackingConfig(), storage)
    datasets = [
        dataset_input(f"shards-{split}", f"{shards}", "d" * 64, context=use, index="manifest.json", num_rows=rows)
        for split, use, rows in (("train", "training", 120), ("val", "validation", 30))
    ]
    tags = {"run_folder": str(folder)}
    return create_run(client, experiment, key="tiny", name="r", parameters={}, tags=tags, datasets=datasets)


def _description(checkpoint: CommittedCheckpoint, vocabulary: Vocabulary, run_id: str) -> CheckpointDescription:
    return CheckpointDescription(
        step=checkpoint.step,
        model=_MODEL,
        vocabulary_digest=vocabulary.digest,
        max_caption_words=8,
        lineage={"run": "r", "mlflow_run_id": run_id, "shards_digest": "d" * 64, "git_commit": "c"},
        metrics=checkpoint.metrics,
    )
