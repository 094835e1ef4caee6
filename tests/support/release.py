"""Home folder that was written by release 0.1, with the shard set that its runs were trained on.

Release 0.1 wrote ``release_0_1.tar.xz`` in a folder /tmp/fx, from 40 synthetic scenes. The encoder's weights take only
a few values, so that the archive is small. Below ``home`` it contains: run ``half`` of 160 steps, which was killed
after the checkpoint at step 20; run ``whole`` of 12 steps; search ``half-search``, killed when three of its four trials
had stopped once; and versions 1 (the champion) and 2 (the challenger) of ``captioner``, both from run ``whole``.
"""

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from cluster.config import ClusterConfig, StorageConfig, TrainRun

ARCHIVE = Path(__file__).with_name("release_0_1.tar.xz")
MADE_IN = "/tmp/fx"
SHARDS_DIGEST = "63947ca01c1bf83083beac64a7738405de8d98d6c5c6f9a3ae4639476e3cb909"


def unpack_release(folder: Path) -> Path:
    """Unpack the archive, and rewrite the paths in its MLflow database to the new folder; return the folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    with closing(sqlite3.connect(folder / "home" / "mlflow.db")) as database, database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for _, column, kind, *_ in database.execute(f"PRAGMA table_info({table})").fetchall():
                if kind.upper().startswith(("VARCHAR", "TEXT")):
                    database.execute(
                        f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE {column} LIKE ?",
                        (MADE_IN, str(folder), f"%{MADE_IN}%"),
                    )
    return folder


def half_run(folder: Path) -> TrainRun:
    """Return run ``half`` as it was started, in the unpacked folder."""
    return TrainRun(
        name="half",
        shards=folder / "shards",
        model=ModelConfig(
            backbone="squeezenet1_1",
            weights=str(folder / "backbone.safetensors"),
            image_size_px=64,
            embedding_size=8,
            hidden_size=8,
            dropout=0.3,
        ),
        optimizer=OptimizerConfig(warmup_steps=2),
        training=TrainingConfig(num_epochs=40.0, batch_size=8, checkpoint_every_steps=10, keep_best=1, keep_last=1),
        cluster=ClusterConfig(num_workers=1),
        storage=StorageConfig(home=folder / "home"),
    )
