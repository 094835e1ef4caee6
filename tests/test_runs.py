import json
from dataclasses import replace

import pytest

from captioning.config import ModelConfig, OptimizerConfig
from cluster.config import ClusterConfig, TrainRun
from cluster.runs import (
    VALIDATION_LOSS,
    CommittedCheckpoint,
    RunRecord,
    check_identity,
    checkpoint_folder,
    identity_of,
    load_record,
    remove_uncounted,
)
from shards.images import ImageSpec
from shards.manifest import Manifest

RUN = TrainRun(name="r", model=ModelConfig(weights="none"))


def manifest():
    return Manifest(
        shards=(), image_spec=ImageSpec(), codec_versions={}, samples_per_shard=1, seed=0, vocabulary_digest="v",
        minimum_word_count=4,
    )  # fmt: skip


def record(**changes):
    return RunRecord(**{"name": "r", "identity": {}, "mlflow_run_id": "m", **changes})


def checkpoint(step, loss=None, attempt=1):
    metrics = {} if loss is None else {VALIDATION_LOSS: loss}
    return CommittedCheckpoint(step=step, attempt=attempt, metrics=metrics)


def kept_after(losses, *, keep_best, keep_last):
    grown = record()
    for step, loss in enumerate(losses, start=1):
        grown = grown.with_checkpoint(checkpoint(step, loss), keep_best=keep_best, keep_last=keep_last)
    return [one.step for one in grown.checkpoints]


@pytest.mark.parametrize(
    ("losses", "keep_best", "keep_last", "steps"),
    [
        ([3.0, 2.0, 1.0], 1, 1, [3]),
        ([1.0, 2.0, 3.0], 1, 1, [1, 3]),
        ([1.0, 1.0, 1.0], 1, 1, [1, 3]),  # the earlier of two equals is the best
        ([4.0, 1.0, 3.0, 2.0, 5.0], 2, 2, [2, 4, 5]),
        ([2.0, 1.0], 0, 1, [2]),
        ([None, 2.0, None], 1, 1, [2, 3]),  # no score, never a best
    ],
)
def test_the_best_and_the_latest_are_kept(losses, keep_best, keep_last, steps):
    assert kept_after(losses, keep_best=keep_best, keep_last=keep_last) == steps


def test_the_best_is_by_loss_and_the_latest_by_step():
    two = record(checkpoints=(checkpoint(1, 0.5), checkpoint(2, 0.7)))
    assert (two.best.step, two.latest.step) == (1, 2)


def test_without_scores_the_latest_is_the_best():
    assert record(checkpoints=(checkpoint(1), checkpoint(2))).best.step == 2


def test_a_step_written_again_by_a_later_attempt_replaces_the_earlier():
    first = record().with_checkpoint(checkpoint(5, 1.0, attempt=1), keep_best=2, keep_last=2)
    second = first.with_checkpoint(checkpoint(5, 1.0, attempt=2), keep_best=2, keep_last=2)
    assert [one.attempt for one in second.checkpoints] == [2]


def test_a_record_survives_being_saved(tmp_path):
    saved = record(attempt=3, checkpoints=(checkpoint(1, 0.5),))
    saved.save(tmp_path)
    assert load_record(tmp_path) == saved


def test_a_run_that_never_started_has_no_record(tmp_path):
    assert load_record(tmp_path) is None


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"name": ')
    with pytest.raises(ValueError, match=r"run\.json is damaged .*train under another --name"):
        load_record(tmp_path)


def test_folders_that_do_not_count_are_removed(tmp_path):
    counted, orphan = checkpoint(1), checkpoint(2, attempt=9)
    for one in (counted, orphan):
        checkpoint_folder(tmp_path, one).mkdir(parents=True)
    remove_uncounted(tmp_path, record(checkpoints=(counted,)))
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == [counted.name]


def test_placement_is_no_part_of_the_identity():
    elsewhere = replace(RUN, cluster=ClusterConfig(num_workers=7), name="other")
    assert identity_of(RUN, manifest()) == identity_of(elsewhere, manifest())


def test_what_is_kept_of_a_run_is_no_part_of_the_identity():
    more = replace(RUN, training=replace(RUN.training, keep_last=9, keep_best=9))
    assert identity_of(RUN, manifest()) == identity_of(more, manifest())


def test_the_identity_survives_json():
    identity = identity_of(RUN, manifest())
    assert json.loads(json.dumps(identity)) == identity


def test_weights_are_identified_by_content_not_by_path(tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(b"weights")
    runs = [replace(RUN, model=ModelConfig(weights=str(tmp_path / name))) for name in ("a.pth", "b.pth")]
    assert identity_of(runs[0], manifest()) == identity_of(runs[1], manifest())


def test_other_settings_under_the_same_name_are_refused_with_the_difference():
    known = record(identity=identity_of(RUN, manifest()))
    changed = identity_of(replace(RUN, optimizer=OptimizerConfig(learning_rate=0.5)), manifest())
    with pytest.raises(ValueError, match=r"other settings \(optimizer\.learning_rate 0\.001 -> 0\.5\); restore them"):
        check_identity(known, changed)


def test_the_same_settings_are_accepted():
    check_identity(record(identity=identity_of(RUN, manifest())), identity_of(RUN, manifest()))


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_name_that_cannot_be_a_folder_is_refused(name):
    with pytest.raises(ValueError, match="cannot be a folder's"):
        TrainRun(name=name)


def test_a_batch_smaller_than_the_workers_is_refused():
    with pytest.raises(ValueError, match="a batch of 64 images leaves some of 65 workers"):
        TrainRun(cluster=ClusterConfig(num_workers=65))


def test_a_run_without_shards_is_refused():
    with pytest.raises(ValueError, match="no shard set was given; use --shards"):
        TrainRun().shards_folder()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_workers": 0}, "0 workers of 1 CPUs cannot train"),
        ({"cpus_per_worker": 0}, "2 workers of 0 CPUs cannot train"),
        ({"num_loader_processes": -1}, "num_loader_processes -1"),
        ({"max_restarts": -1}, "max_restarts -1"),
        ({"resources_per_worker": {"x": 0.0}}, "asks for none; use amounts above 0"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ClusterConfig(**settings)
