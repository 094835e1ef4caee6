import shutil
from dataclasses import replace

import pytest

from cluster.config import StorageConfig, TrainRun
from cluster.data.shard_set import ShardSet
from cluster.evaluation.evaluate import Evaluation
from cluster.reports.run_page import Evaluated, page_at_the_end, write_run_page
from cluster.runs.journal import Journal, Row
from cluster.runs.record import CommittedCheckpoint, RunRecord, load_record
from cluster.runs.validation_captions import ValidationCaptions, save_captions
from tests.support.html import HOSTILE, Page


@pytest.fixture(scope="module")
def shard_set(drawn_shards):
    return ShardSet(drawn_shards)


@pytest.fixture
def folder(tmp_path, shard_set):
    """Return the folder of a finished run of two epochs."""
    folder = tmp_path / "my training" / "r"
    journal = Journal(folder / "journal")
    for step in (1, 2):
        metrics = {"train_loss_nats": 4.0 - step, "validation_loss_nats": 3.0, "epoch": float(step)}
        journal.append(Row(step, 60_000 * step, metrics))
        save_captions(folder, ValidationCaptions(step, {0: HOSTILE}, {}))
    journal.flush()
    best = CommittedCheckpoint(step=2, attempt=1, metrics={"validation_loss_nats": 2.5})
    identity = {"model.backbone": "squeezenet1_1", "data.shards": shard_set.manifest.digest}
    RunRecord(name="r", identity=identity, checkpoints=(best,), attempt=2, is_finished=True).save(folder)
    return folder


def test_the_page_tells_what_became_of_the_run(folder, shard_set):
    path = write_run_page(folder, shard_set=shard_set, lineage={"git_commit": "abc"})
    page = Page(path)
    assert path == folder / "run.html"
    start = page.texts.index("validation loss")
    assert [text for text in page.texts[start:] if text][:10] == [
        "validation loss", "2.500 nats per word", "best checkpoint", "step 2", "trained", "2 steps (2 epochs)",
        "time", "1 min 00 s", "restarts", "1",
    ]  # fmt: skip
    assert "Finished. Encoder squeezenet1_1." in page.texts
    averaged = replace(load_record(folder), identity={"training.ema_decay": 0.9}, stopped_early="no better")
    averaged.save(folder)
    expected = "Stopped early, at step 2: no better. Encoder unknown. Weights of checkpoints: moving average with decay"
    assert any(text.startswith(expected) for text in Page(write_run_page(folder, shard_set=None, lineage={})).texts)
    assert {"Loss", "Learning to caption", "Not evaluated yet.", "git commit", "abc"} <= set(page.texts)
    page.assert_only_own_script()
    assert {HOSTILE, f"captioning register '{folder}' NAME"} <= set(page.texts)


def test_the_images_are_shown_only_of_the_runs_own_shards(folder, shard_set, tmp_path):
    assert Page(write_run_page(folder, shard_set=shard_set, lineage={})).all("img")
    assert not Page(write_run_page(folder, shard_set=None, lineage={})).all("img")


def test_an_evaluation_adds_scores_and_captions(folder, shard_set):
    image = shard_set.reader("val").read(3)
    evaluation = Evaluation(
        split="val", shards_digest="d", step=2, scores={"CIDEr-D": 0.5},
        captions={image.image_id: "a caption"}, intervals={"CIDEr-D": (0.25, 0.75)},
    )  # fmt: skip
    page = Page(write_run_page(folder, shard_set=None, lineage={}, evaluated=Evaluated(evaluation, shard_set)))
    assert {"0.250 to 0.750", "a caption", image.key, *image.captions} <= set(page.texts)
    assert "Checkpoint at step 2, on 1 image of split val, with beam size 3." in page.texts


def test_a_page_that_cannot_be_written_is_a_warning(folder, caplog):
    (folder / "run.html.unfinished").mkdir()
    assert write_run_page(folder, shard_set=None, lineage={}) is None
    assert "the page of run r could not be written" in caplog.text
    assert write_run_page(folder / "none", shard_set=None, lineage={}) is None


def test_the_page_is_among_the_artifacts_of_the_run(folder, shard_set, home, client, tmp_path):
    run_id = client.create_run("0").info.run_id
    run = TrainRun(name="r", storage=StorageConfig(home=tmp_path))
    ends = [
        run,  # the tracker of this home folder does not know the run
        TrainRun(name="r", storage=home),  # and that one has no such folder
    ]
    for one in ends:
        with page_at_the_end(one, run_id, shard_set, {}):
            pass
    assert client.list_artifacts(run_id) == []
    (home.home / "training").mkdir()
    folder.rename(home.home / "training" / "r")
    with page_at_the_end(TrainRun(name="r", storage=home), run_id, shard_set, {}):
        pass
    assert [one.path for one in client.list_artifacts(run_id)] == ["run.html"]


@pytest.mark.parametrize(
    ("error", "lead"),
    [
        (RuntimeError("training failed on rank 1.\nlog"), "Not finished: training failed on rank 1. Encoder "),
        (KeyboardInterrupt("stopped"), "Not finished: stopped by a signal; the same command resumes it. Encoder "),
        (SystemExit(143), "Not finished: stopped by a signal; the same command resumes it. Encoder "),
    ],
    ids=["failed", "Ctrl-C", "SIGTERM"],
)
def test_a_run_that_does_not_finish_has_a_page_that_says_why(folder, shard_set, empty_tracker, tmp_path, error, lead):
    run = TrainRun(name="r", storage=StorageConfig(home=tmp_path))
    shutil.copy(empty_tracker, tmp_path)
    run.folder.parent.mkdir()
    folder.rename(run.folder)
    replace(load_record(run.folder), is_finished=False).save(run.folder)
    with pytest.raises(type(error)), page_at_the_end(run, "", shard_set, {}):
        raise error
    assert any(text.startswith(lead) for text in Page(run.folder / "run.html").texts)


def test_a_trial_that_its_search_has_stopped_has_no_page(folder, shard_set, tmp_path):
    run = TrainRun(name="r", storage=StorageConfig(home=tmp_path))
    run.folder.parent.mkdir()
    folder.rename(run.folder)
    with pytest.raises(SystemExit), page_at_the_end(run, "", shard_set, {}, is_wanted=lambda: False):
        raise SystemExit(128)
    assert not (run.folder / "run.html").exists()
