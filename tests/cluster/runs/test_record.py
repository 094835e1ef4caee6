import json
from dataclasses import replace

import pytest

from captioning.config import ModelConfig, OptimizerConfig
from cluster.config import ClusterConfig, StorageConfig, TrainRun, ValidationConfig
from cluster.runs.identity import check_identity, config_text, identity_of
from cluster.runs.pruning import remove_uncounted
from cluster.runs.record import (
    CommittedCheckpoint,
    RunRecord,
    driving,
    load_record,
    local_checkpoint,
    recover_record,
    store_of,
)
from cluster.runs.score_history import VALIDATION_LOSS
from shards.images import ImageSpec
from shards.manifest import Manifest
from tests.support.case_table import each_case

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


@each_case(
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


@pytest.mark.parametrize(("version", "arithmetic"), [(None, 1), (1, 1), (2, 2), (3, 3)])
def test_a_run_keeps_the_arithmetic_that_it_began_with(tmp_path, version, arithmetic):
    content = {"name": "r", "identity": {}, **({"format_version": version} if version else {})}
    (tmp_path / "run.json").write_text(json.dumps(content))
    load_record(tmp_path).save(tmp_path)
    assert load_record(tmp_path).arithmetic == arithmetic


def test_a_record_of_a_newer_format_is_refused_by_its_number(tmp_path):
    (tmp_path / "run.json").write_text('{"format_version": 4}')
    with pytest.raises(ValueError, match=r"run\.json has format version 4, this release reads 1 to 3; use the release"):
        load_record(tmp_path)


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        ("step-00000004-attempt-2", True),  # counts
        ("step-00000004-attempt-1", False),  # the same step of an earlier attempt
        ("step-00000006-attempt-1", False),  # written by a worker that was cut off
        ("step-00000006-attempt-2", True),  # is being written
        ("step-00000002-attempt-2", False),  # no longer kept
        ("notes", True),  # not ours
    ],
)
def test_only_what_counts_or_is_being_written_stays(tmp_path, name, stays):
    folder = tmp_path / "checkpoints" / name
    folder.mkdir(parents=True)
    remove_uncounted(store_of(tmp_path, None), record(attempt=2, checkpoints=(checkpoint(4, attempt=2),)))
    assert folder.exists() == stays


def test_a_pinned_checkpoint_is_kept_until_it_is_scored():
    grown = record()
    for step in range(1, 5):
        grown = grown.with_checkpoint(checkpoint(step), keep_best=1, keep_last=1, pinned={2})
    scored = grown.with_checkpoint(checkpoint(2, 0.5), keep_best=1, keep_last=1)
    assert ([one.step for one in grown.checkpoints], scored.best.step) == ([2, 4], 2)


def test_a_score_other_than_the_loss_is_best_when_highest():
    scores = {1: 0.3, 2: 0.8, 3: 0.5}
    many = tuple(
        CommittedCheckpoint(step=step, attempt=1, metrics={"validation_cider_d": score})
        for step, score in scores.items()
    )
    assert record(best_by="validation_cider_d", checkpoints=many).best.step == 2


def test_without_a_damaged_checkpoint_the_one_before_it_is_the_latest():
    two = record(checkpoints=(checkpoint(1), checkpoint(2)))
    assert two.without(checkpoint(2)).latest.step == 1


def test_checkpoints_elsewhere_are_copied_here(tmp_path):
    elsewhere = tmp_path / "bucket"
    folder = elsewhere / "r" / checkpoint(1).name
    folder.mkdir(parents=True)
    kept = record(checkpoints_at=elsewhere.as_uri(), checkpoints=(checkpoint(1),))
    with pytest.raises(FileNotFoundError, match=r"is no checkpoint: it has no checkpoint\.json"):
        local_checkpoint(tmp_path / "home" / "r", kept, kept.latest)
    (folder / "checkpoint.json").touch()
    assert local_checkpoint(tmp_path / "home" / "r", kept, kept.latest) == folder


def test_a_lost_machine_s_record_comes_back_from_where_the_checkpoints_lie(tmp_path):
    url = (tmp_path / "bucket").as_uri()
    run = replace(RUN, storage=StorageConfig(home=tmp_path / "home", checkpoints=url))
    lost = record(checkpoints=(checkpoint(1),))
    store_of(run.folder, url).put_file("run.json", lost.content())
    recover_record(run)
    assert load_record(run.folder) == lost


@pytest.mark.parametrize("copy", [record(attempt=6).content(), b"{"], ids=["older", "damaged"])
def test_an_older_or_a_damaged_copy_replaces_no_record(tmp_path, copy):
    url = (tmp_path / "bucket").as_uri()
    run = replace(RUN, storage=StorageConfig(home=tmp_path / "home", checkpoints=url))
    run.folder.mkdir(parents=True)
    record(attempt=7).save(run.folder)
    store_of(run.folder, url).put_file("run.json", copy)
    recover_record(run)
    assert load_record(run.folder).attempt == 7


def test_a_run_that_went_on_elsewhere_goes_on_from_there(tmp_path):
    url = (tmp_path / "bucket").as_uri()
    run = replace(RUN, storage=StorageConfig(home=tmp_path / "home", checkpoints=url))
    run.folder.mkdir(parents=True)
    record(attempt=7, num_starts=1).save(run.folder)
    elsewhere = record(attempt=7, num_starts=2, checkpoints=(checkpoint(1),))
    store_of(run.folder, url).put_file("run.json", elsewhere.content())
    recover_record(run)
    assert load_record(run.folder) == elsewhere


def test_a_run_has_one_driver(tmp_path):
    with (
        driving(tmp_path / "r"),
        pytest.raises(BlockingIOError, match=r"^run r has a live driver already, process \d+ on"),
    ):
        driving(tmp_path / "r").__enter__()


def test_a_recorded_configuration_takes_nothing_over():
    run = replace(RUN, storage=StorageConfig(checkpoints="memory://bucket", take_over=True))
    assert "take_over" not in config_text(run)


def test_placement_is_no_part_of_the_identity():
    elsewhere = replace(RUN, cluster=ClusterConfig(num_workers=7), name="other")
    assert identity_of(RUN, manifest()) == identity_of(elsewhere, manifest())


def test_what_is_kept_of_a_run_is_no_part_of_the_identity():
    more = replace(RUN, training=replace(RUN.training, keep_last=9, keep_best=9))
    assert identity_of(RUN, manifest()) == identity_of(more, manifest())


def test_a_run_that_a_bad_sample_stopped_may_go_on_without_it():
    skipping = replace(RUN, training=replace(RUN.training, on_bad_sample="skip"))
    assert identity_of(RUN, manifest()) == identity_of(skipping, manifest())


def test_a_setting_that_earlier_releases_did_not_have_is_part_of_the_identity_where_it_changes_the_run():
    averaged = replace(RUN, training=replace(RUN.training, ema_decay=0.9))
    found = [identity_of(run, manifest()).get("training.ema_decay") for run in (RUN, averaged)]
    assert found == [None, 0.9]
    critical = [
        replace(
            RUN,
            training=replace(RUN.training, self_critical_epochs=1.0, self_critical_captions=captions),
            validation=ValidationConfig(best_by="validation_cider_d"),
        )
        for captions in ("sampled", "beam")
    ]
    found = [identity_of(run, manifest()).get("training.self_critical_captions") for run in critical]
    assert found == [None, "beam"]


def known(run):
    return record(identity=identity_of(run, manifest()))


def test_self_critical_training_may_be_added_to_a_run_but_not_changed_or_taken_away():
    validation = ValidationConfig(best_by="validation_cider_d")
    plain, short, long = (
        replace(RUN, training=replace(RUN.training, self_critical_epochs=epochs), validation=validation)
        for epochs in (0.0, 1.0, 2.0)
    )
    check_identity(known(plain), identity_of(short, manifest()))
    for before, now in [(short, plain), (short, long)]:
        with pytest.raises(ValueError, match=r"training\.self_critical_epochs 1\.0 -> "):
            check_identity(known(before), identity_of(now, manifest()))
    other = replace(short, optimizer=replace(short.optimizer, learning_rate=0.5))
    with pytest.raises(ValueError, match=r"optimizer\.learning_rate"):
        check_identity(known(plain), identity_of(other, manifest()))


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
    with pytest.raises(ValueError, match="nothing was trained yet, so removing the run's folder loses nothing"):
        check_identity(known, changed)
    with pytest.raises(ValueError, match=r"choose another --name$"):
        check_identity(replace(known, checkpoints=(checkpoint(1),)), changed)


def test_the_same_settings_are_accepted():
    check_identity(record(identity=identity_of(RUN, manifest())), identity_of(RUN, manifest()))
