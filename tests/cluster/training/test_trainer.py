import logging
import shutil
from dataclasses import replace

import pytest

from captioning.config import OptimizerConfig, TrainingConfig
from cluster.config import ClusterConfig, TrackingConfig, TrainRun
from cluster.coordination.messages import WorkerConfig
from cluster.data.shard_set import ShardSet
from cluster.training.trainer import build_trainer, fit, log_summary, warn_of_long_warmup
from tests.support.short_runs import short_run


@pytest.fixture(scope="module")
def run(drawn_shards, home):
    return short_run(drawn_shards, home.home, name="undisturbed")


def test_a_trainer_is_described_before_it_starts(run):
    wanted = replace(run, cluster=ClusterConfig(num_workers=3, cpus_per_worker=2, use_gpu=True))
    config = WorkerConfig(run=wanted, coordinator=None, config_text="", lineage={})
    trainer = build_trainer(config, start=4)
    scaling = trainer.scaling_config
    assert (scaling.num_workers, scaling.resources_per_worker, trainer.run_config.name) == (
        3, {"CPU": 2, "GPU": 1}, "start-4",
    )  # fmt: skip


def test_an_altered_shard_is_refused(run, drawn_shards, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(drawn_shards, folder)
    shard = folder / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"1 of 3 shards differ from the manifest, first train-000000\.tar"):
        fit(replace(run, name="altered", shards=folder))


def test_a_missing_shard_is_refused(run, drawn_shards, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(drawn_shards, folder)
    (folder / "val-000000.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 1 shards, first val-000000\.tar"):
        fit(replace(run, name="missing", shards=folder))


@pytest.mark.parametrize(("warmup_steps", "is_long"), [(6, False), (7, True)])
def test_a_warmup_longer_than_a_fifth_of_the_training_is_told(warmup_steps, is_long, caplog):
    run = TrainRun(
        optimizer=OptimizerConfig(warmup_steps=warmup_steps), training=TrainingConfig(num_epochs=3, batch_size=10)
    )
    warn_of_long_warmup(run, num_samples=100)
    told = "the warm-up of 7 steps is longer than a fifth of the training (30 steps)"
    assert (told in caplog.text, "use --optimizer.warmup-steps 3" in caplog.text) == (is_long, is_long)


def test_the_summary_names_images_steps_workers_parameters_folder_and_tracker(run, drawn_shards, caplog, log_lines):
    caplog.set_level(logging.INFO, "cluster")
    tracked = replace(run, tracking=TrackingConfig(uri="http://host:5000"))
    log_summary(tracked, ShardSet(drawn_shards))
    size, model, folder, tracker = log_lines()
    assert all(part in size for part in (" training images, ", " for validation, ", " steps of ", "on 2 workers"))
    assert (model.endswith(" parameters"), folder.endswith(f"{run.folder}")) == (True, True)
    assert tracker == "tracker: http://host:5000"
