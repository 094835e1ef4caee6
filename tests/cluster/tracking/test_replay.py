import http.server
import shutil
import threading
import tracemalloc
from dataclasses import replace as changed

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.config import TrackingConfig
from cluster.runs.journal import Journal, Row, unshipped
from cluster.runs.record import load_record, lock_run
from cluster.tracking.client import connect
from cluster.tracking.metric_logging import log_metrics, metrics_of, ship
from cluster.tracking.replay import find_run, replay
from tests.support.unsent_runs import STEPS, history, run_id_of, truncate, unsent_run

pytestmark = pytest.mark.cluster


@pytest.fixture
def run(client, home):
    return unsent_run(client, home)


def alter(folder, **changes):
    changed(load_record(folder), **changes).save(folder)


def test_the_whole_journal_reaches_the_tracker_with_its_own_timestamps(client, run):
    replay(run, client)
    assert history(client, run) == [
        *(("loss", step, step / 2, 1_000_000 + step) for step in STEPS),
        *(("rate", step, 0.1, 1_000_000 + step) for step in STEPS),
    ]


def test_a_second_replay_adds_nothing(client, run):
    replay(run, client)
    before = history(client, run)
    sent = replay(run, client)
    assert (sent.rows, sent.num_lacking, len(before), history(client, run)) == (60, 0, 120, before)


@pytest.mark.parametrize(
    "there",
    [
        range(1, 31),  # a tracker restored from a backup
        [*range(1, 11), *range(51, 61)],  # and then trained on
        range(1, 61, 2),
        range(60, 61),
    ],
    ids=str,
)
@pytest.mark.parametrize("page", [1, 7])
def test_only_what_the_tracker_lacks_is_sent_however_its_pages_fall(client, run, there, page, monkeypatch):
    monkeypatch.setattr("cluster.tracking.replay._METRICS_PER_PAGE", page)
    monkeypatch.setattr("cluster.tracking.metric_logging._METRICS_PER_BATCH", 5)
    rows = [row for _, found in unshipped(run / "journal") for row in found if row.step in there]
    log_metrics(client, run_id_of(run), metrics_of(rows))
    sent = replay(run, client)
    steps = [step for key, step, *_ in history(client, run) if key == "loss"]
    assert (sent.num_lacking, steps) == (2 * (60 - len(there)), list(STEPS))


def test_rows_of_a_clock_that_was_set_back_are_stored_once(client, run):
    journal = Journal(run / "journal")
    journal.append(Row(61, 5, {"loss": 1.0, "rate": 0.1}))
    journal.append(Row(62, 1_000_100, {"loss": 2.0, "rate": 0.1}))
    journal.flush()
    for _ in range(2):
        replay(run, client)
    assert sorted(step for key, step, *_ in history(client, run) if key == "loss") == [*STEPS, 61, 62]


def test_a_value_that_is_no_number_is_stored_once(client, run):
    journal = Journal(run / "journal")
    journal.append(Row(61, 1_000_100, {"loss": float("nan"), "rate": float("inf")}))
    journal.flush()
    for _ in range(2):
        replay(run, client)
    assert len(history(client, run)) == 122


def test_a_replay_after_shipping_adds_nothing(client, run):
    ship(client, run_id_of(run), unshipped(run / "journal"))
    before = history(client, run)
    replay(run, client)
    assert (len(before), history(client, run)) == (120, before)


def test_a_tracker_restored_from_an_older_copy_gets_what_it_lost(client, home, run, tmp_path):
    shutil.copy(home.home / "mlflow.db", tmp_path / "restored.db")
    journal = Journal(run / "journal")
    ship(client, run_id_of(run), journal.unshipped())
    assert list(unshipped(journal.folder)) == []
    restored = connect(TrackingConfig(uri=f"sqlite:///{tmp_path}/restored.db"), home)
    before = history(restored, run)
    replay(run, restored)
    assert (before, history(restored, run)) == ([], history(client, run))


def test_a_finished_run_ends_when_its_last_row_was_journalled(client, run):
    replay(run, client)
    info = client.get_run(run_id_of(run)).info
    assert (info.status, info.end_time) == ("FINISHED", 1_000_060)


def test_the_tracker_learns_why_a_run_stopped_early(client, run):
    alter(run, stopped_early="no better")
    replay(run, client)
    assert client.get_run(run_id_of(run)).data.tags["stopped_early"] == "no better"


def test_the_end_that_the_tracker_knows_is_kept(client, run):
    client.set_terminated(run_id_of(run), "FINISHED", end_time=5)
    replay(run, client)
    assert client.get_run(run_id_of(run)).info.end_time == 5


def test_a_run_that_is_not_finished_is_not_ended(client, run):
    alter(run, is_finished=False)
    assert (replay(run, client).status, client.get_run(run_id_of(run)).info.status) == ("RUNNING", "RUNNING")


def test_a_run_without_rows_sends_none(client, run):
    shutil.rmtree(run / "journal")
    sent = replay(run, client)
    assert (sent.rows, sent.steps, sent.status) == (0, 0, "FINISHED")


@pytest.mark.parametrize("number", [1, 3, 6])  # the last one is where a journal that is written goes on
def test_a_damaged_segment_is_left_out_and_the_rest_is_sent(client, run, number):
    truncate(run / "journal" / f"00000{number}.0.jsonl")
    sent = replay(run, client)
    lost = range(number * 10 - 9, number * 10 + 1)
    assert ([step for key, step, *_ in history(client, run) if key == "loss"], len(sent.damaged)) == (
        [step for step in STEPS if step not in lost], 1,
    )  # fmt: skip


def test_a_journal_is_streamed(client, run, monkeypatch):
    journal = Journal(run / "journal")
    for step in range(61, 30_061):
        journal.append(Row(step, step, {"loss": float(step), "rate": 0.1}))
        if step % 100 == 0:
            journal.flush()
    journal.flush()

    sent = []
    monkeypatch.setattr(client, "log_batch", lambda run_id, metrics: sent.append(len(metrics)))
    tracemalloc.start()
    replay(run, client)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All rows at once take 19 MB, and as much again as metrics.
    assert (sum(sent), peak < 4e6) == (60_120, True), peak


def test_a_run_is_found_by_name_and_by_folder(home, run):
    assert (find_run(run.name, home.home), find_run(str(run), home.home / "other")) == (run, run)


def test_a_folder_that_is_no_run_is_refused(home, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"nothing is not a run: neither .*/training/nothing nor .* holds a run\."
    ):
        find_run("nothing", home.home)


def test_a_run_with_a_live_driver_is_refused(client, run):
    with (
        lock_run(run),
        pytest.raises(BlockingIOError, match=r"has a live driver already, process \d+ on .*; wait for it, or stop it"),
    ):
        replay(run, client)


def test_a_run_that_never_reached_the_tracker_is_refused(client, run):
    alter(run, mlflow_run_id="")
    with pytest.raises(ValueError, match="has no MLflow run yet; captioning train creates it"):
        replay(run, client)


def test_a_run_that_the_tracker_does_not_know_is_refused(client, run):
    alter(run, mlflow_run_id="f" * 32)
    with pytest.raises(ValueError, match=r"MLflow run f{32} of run run-.* is not in the tracker at sqlite:.*; pass"):
        replay(run, client)


def test_a_deleted_run_is_refused(client, run):
    client.delete_run(run_id_of(run))
    with pytest.raises(ValueError, match=r"MLflow run .* was deleted; restore it with mlflow runs restore --run-id"):
        replay(run, client)


def test_a_server_of_something_else_is_named(run):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        elsewhere = MlflowClient(tracking_uri=uri)
        with pytest.raises(ConnectionError, match=rf"the tracker answers 501 to .*its log says why \(at {uri}\)"):
            replay(run, elsewhere)
        server.shutdown()


def test_a_tracker_that_breaks_on_the_way_is_named(client, run, monkeypatch):
    def refuse(*arguments, **more):
        raise MlflowException("the disk\nis full")

    monkeypatch.setattr(client, "log_batch", refuse)
    with pytest.raises(
        RuntimeError, match=r"stopped accepting rows of run run-.* near row 60 \(the disk is full\); fix"
    ):
        replay(run, client)
