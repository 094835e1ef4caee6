"""Two training steps in this process; ``test_dry_run`` has those in a task of a cluster, and their failures."""

from dataclasses import replace

import pytest

from captioning.config import ModelConfig, TrainingConfig
from captioning.training.self_critical import SelfCritic
from cluster.checks import rehearsal
from cluster.checks.rehearsal import measure_step
from cluster.config import TrainRun, ValidationConfig
from cluster.data.shard_set import ShardSet


@pytest.fixture
def run(drawn_shards):
    model = ModelConfig(
        backbone="squeezenet1_1", weights="none", image_size_px=36, embedding_size=16, hidden_size=16, dropout=0.1
    )
    return TrainRun(shards=drawn_shards, model=model, training=TrainingConfig(batch_size=8))


def test_a_step_on_images_is_really_taken(run, drawn_shards):
    timing = measure_step(run, ShardSet(drawn_shards))
    assert (timing.seconds_per_step > 0, timing.seconds_per_image) == (True, 0.0)


def test_a_worker_among_many_takes_its_share_of_a_step(run, drawn_shards, monkeypatch):
    sizes, batches_of = [], rehearsal.training_batches

    def recorded(*arguments, **options):
        for parts in batches_of(*arguments, **options):
            sizes.append(sum(part.num_images for part in parts))
            yield parts

    monkeypatch.setattr(rehearsal, "training_batches", recorded)
    many = replace(run, training=replace(run.training, batch_size=96))
    measure_step(many, ShardSet(drawn_shards), num_workers=48)
    assert set(sizes) == {2}


def test_where_features_are_still_to_be_made_the_encoder_is_measured_apart(run, drawn_shards):
    timing = measure_step(run, ShardSet(drawn_shards), extracts=True)
    assert min(timing[:2]) > 0


def test_self_critical_steps_are_taken_if_the_run_has_some(run, drawn_shards, monkeypatch):
    resampled, resample = [], SelfCritic.resample
    monkeypatch.setattr(SelfCritic, "resample", lambda critic, part: resampled.append(1) or resample(critic, part))
    critical = replace(
        run,
        training=replace(run.training, self_critical_epochs=2.0, max_caption_words=3),
        validation=ValidationConfig(best_by="validation_cider_d"),
    )
    for one in (run, critical):
        assert measure_step(one, ShardSet(drawn_shards)).seconds_per_step > 0
    assert len(resampled) == 2
