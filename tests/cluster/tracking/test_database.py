"""The embedded tracker's database: whole or absent, made once, and refused in one line if it is another's."""

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from cluster.config import StorageConfig, TrackingConfig
from cluster.tracking import database
from cluster.tracking.client import check_tracker, connect
from cluster.tracking.database import check_database, database_file, database_uri, open_database
from cluster.tracking.experiment import experiment_id
from tests.support.case_table import each_case
from tests.support.repository import ROOT


@pytest.fixture
def quick_fill(monkeypatch, empty_tracker):
    """Let databases be copies of an empty tracker; return the files that were filled."""
    filled = []

    def fill(file, artifacts):
        filled.append(file)
        shutil.copy(empty_tracker, file)

    monkeypatch.setattr(database, "_fill", fill)
    return filled


def alter(file, *statements):
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("name", ["plain", "r%20x", "q?x", "q#x", "a b", "ü", "x@y:z", "100%"])
def test_a_home_of_any_name_has_its_database_inside(tmp_path, name):
    file = tmp_path / name / "mlflow.db"
    assert database_file(database_uri(file)) == file


def test_homes_that_differ_after_a_question_mark_share_nothing(tmp_path, quick_fill):
    for name in ("q?x", "q?y", "r%20x"):
        storage = StorageConfig(home=tmp_path / name)
        client = connect(TrackingConfig(), storage)
        location = client.get_experiment(experiment_id(client, TrackingConfig(), storage)).artifact_location
        assert (len(client.search_experiments()), location.startswith(storage.home.as_uri())) == (2, True)
    assert {path.name for path in tmp_path.iterdir()} == {"q?x", "q?y", "r%20x"}


@each_case("uri", ["sqlite://", "sqlite:///:memory:", "http://host:5000", "postgresql://host/db", "databricks"])
def test_other_addresses_are_of_no_file(uri):
    assert database_file(uri) is None


def test_an_address_that_cannot_be_read_is_refused():
    with pytest.raises(
        ValueError, match="tracking address sqlite:runs is not an address of SQLite; use sqlite:///FILE"
    ):
        database_file("sqlite:runs")


def test_a_path_that_is_not_utf_8_is_refused():
    with pytest.raises(
        ValueError, match=r"the path '/h\\udcff/mlflow.db' is not UTF-8, as SQLite requires; use another"
    ):
        database_uri(Path(os.fsdecode(b"/h\xff/mlflow.db")))


def test_of_many_who_start_at_once_one_makes_the_database(tmp_path, quick_fill):
    file = tmp_path / "home" / "mlflow.db"
    starts = [threading.Thread(target=open_database, args=(file, tmp_path)) for _ in range(8)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert (len(quick_fill), check_database(file)) == (1, True)


def test_who_waits_says_for_what(tmp_path, quick_fill, monkeypatch, log_lines, caplog):
    caplog.set_level(logging.INFO)
    flock = database.fcntl.flock

    def taken(file, operation):
        if operation & database.fcntl.LOCK_NB:
            raise BlockingIOError
        flock(file, operation)

    monkeypatch.setattr(database.fcntl, "flock", taken)
    open_database(tmp_path / "mlflow.db", tmp_path)
    assert log_lines() == [f"waiting for another process, which is making {tmp_path}/mlflow.db"]


def test_a_full_disk_leaves_nothing_and_is_named(tmp_path):
    def fill_up(connection, _):
        connection.execute("PRAGMA max_page_count = 2")

    event.listen(Engine, "connect", fill_up)
    try:
        with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}'"):
            open_database(tmp_path / "mlflow.db", tmp_path)
    finally:
        event.remove(Engine, "connect", fill_up)
    assert [path.name for path in tmp_path.iterdir()] == [".mlflow.db.lock"]


HALF_MADE = {
    "nothing": [],
    "first tables": ["CREATE TABLE experiments (id INTEGER)", "CREATE TABLE runs (id INTEGER)"],
    "first migrations": [
        "CREATE TABLE experiments (id INTEGER)",
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES ('451aebb31d03')",
    ],
}


@pytest.mark.parametrize("statements", HALF_MADE.values(), ids=HALF_MADE)
@pytest.mark.parametrize("only_reads", [False, True])
def test_what_a_first_start_of_an_earlier_release_left_is_made_anew(tmp_path, quick_fill, statements, only_reads):
    file = tmp_path / "mlflow.db"
    file.touch()
    alter(file, *statements)
    (tmp_path / "mlflow.db-journal").write_bytes(b"")
    (tmp_path / ".mlflow.db.new").write_bytes(b"half")
    open_database(file, tmp_path, only_reads=only_reads)
    left = {path.name for path in tmp_path.iterdir()}
    assert (check_database(file), left) == (True, {"mlflow.db", ".mlflow.db.lock"})


def test_a_database_is_not_made_for_a_reader(tmp_path):
    with pytest.raises(ValueError, match=f"there is no tracker in {tmp_path}: nothing was trained"):
        open_database(tmp_path / "mlflow.db", tmp_path, only_reads=True)


OTHERS = {
    "older": ("0584bdc529eb", "an older MLflow wrote it: copy the file, then run mlflow db upgrade 'sqlite:///"),
    "newer": ("ffffffffffff", "a newer MLflow wrote it: install that one, or use another --home"),
}


@pytest.mark.parametrize(("revision", "remedy"), OTHERS.values(), ids=OTHERS)
def test_a_database_of_another_mlflow_is_refused_and_kept(empty_home, revision, remedy):
    file = empty_home.home / "mlflow.db"
    alter(file, f"UPDATE alembic_version SET version_num = '{revision}'")
    before = file.read_bytes()
    for ask in (connect, check_tracker):
        with pytest.raises(ValueError, match=rf"mlflow\.db has schema {revision}, and MLflow 3\S+ reads .*; {remedy}"):
            ask(TrackingConfig(), empty_home)
    assert file.read_bytes() == before


def test_another_programs_database_is_refused(tmp_path):
    alter(tmp_path / "mlflow.db", "CREATE TABLE cookies (id INTEGER)")
    with pytest.raises(ValueError, match=r"mlflow\.db is not a database of MLflow; move the file away"):
        open_database(tmp_path / "mlflow.db", tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(ValueError, match=r"mlflow\.db is no SQLite database \(file is not a database\); move the file"):
        open_database(tmp_path / "mlflow.db", tmp_path)


def test_a_folder_in_the_databases_place_is_refused(tmp_path):
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(ValueError, match=r"mlflow\.db is a folder, and the tracker is a database file; move the file"):
        open_database(tmp_path / "mlflow.db", tmp_path)


def test_a_file_that_another_process_locks_may_be_free_later(empty_home, monkeypatch):
    monkeypatch.setattr("cluster.tracking.database._LOCK_SECONDS", 0)
    with closing(sqlite3.connect(empty_home.home / "mlflow.db")) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConnectionError, match=r"mlflow\.db is locked by another process; end the program"):
            check_database(empty_home.home / "mlflow.db")


@pytest.mark.parametrize("kept", ["mlflow.db", "."])
def test_a_writer_is_refused_what_only_readers_may_open(empty_home, monkeypatch, kept):
    file, access = empty_home.home / "mlflow.db", os.access
    kept = (empty_home.home / kept).resolve()
    monkeypatch.setattr(os, "access", lambda path, mode: path != kept and access(path, mode))
    open_database(file, empty_home.home, only_reads=True)
    with pytest.raises(ValueError, match=f"{kept} cannot be written by this user; give the user write access, or use"):
        open_database(file, empty_home.home)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"folder .*/file/home cannot be made \(Not a directory\); use another --home"):
        open_database(tmp_path / "file" / "home" / "mlflow.db", tmp_path)


# Each first start kills itself before one of its SQL statements; the start after it goes through.
KILLED_STARTS = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from cluster.config import StorageConfig, TrackingConfig
from cluster.tracking.client import connect
import mlflow.store.tracking.sqlalchemy_store, mlflow.store.model_registry.sqlalchemy_store

home = StorageConfig(home=Path(sys.argv[1]))
event.listen(Engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
for last in (1, 4, 30, 200, 400):
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, (home.home / "mlflow.db").exists(), flush=True)
        continue
    count = iter(range(last))
    @event.listens_for(Engine, "before_cursor_execute")
    def strike(*_):
        if next(count, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
    connect(TrackingConfig(), home)
    os._exit(0)
client = connect(TrackingConfig(), home)
print([one.name for one in client.search_experiments()], list(client.search_registered_models()))
"""


@pytest.mark.cluster
def test_a_first_start_that_is_killed_anywhere_leaves_nothing_that_stops_the_next(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", KILLED_STARTS, tmp_path / "home"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["-9 False"] * 5 + ["['Default'] []"]
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"mlflow.db", ".mlflow.db.lock"}
