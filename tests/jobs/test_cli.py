import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import GateRefusal, Mistakes
from jobs.cli import JOBS, exit_after, run_command_line, run_job
from tests.support.case_table import each_case

CONSOLE_SCRIPT = Path(sys.executable).with_name("captioning")


def captioning(*arguments):
    return subprocess.run([CONSOLE_SCRIPT, *arguments], capture_output=True, text=True, check=False)


def run_in_process(arguments):
    """Run a job as ``captioning`` does, but in this process, which saves a start of Python; return the exit code."""
    job, *rest = arguments
    with pytest.raises(SystemExit) as ended:
        run_job(job, rest)
    return ended.value.code


def test_help_lists_every_job():
    usage = captioning("--help").stdout
    assert [job for job in JOBS if f"\n  {job} " not in usage] == []


@pytest.fixture
def captioning_home(tmp_path, monkeypatch):
    """Return a home folder that does not exist, without another tracker."""
    importlib.import_module("cluster.presets")  # which has the home folder of its import, also in later tests
    monkeypatch.setenv("CAPTIONING_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "home"


@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "name"],
        ["history", "name"],
        ["lineage", "models:/name@champion"],
        ["promote", "name", "--dry-run"],
        ["rollback", "name", "--dry-run"],
        ["register", "models:/name@champion", "name", "--dry-run"],
    ],
)
def test_what_only_reads_creates_no_tracker(arguments, captioning_home, capsys):
    code = run_in_process(arguments)
    told = capsys.readouterr().err
    assert (code, captioning_home.exists()) == (2, False)
    assert told.startswith(f"error: there is no tracker in {captioning_home}: nothing was trained or registered")


def test_a_list_of_models_without_a_tracker_is_empty_and_creates_none(captioning_home, capsys):
    code = run_in_process(["models", "--json"])
    assert (code, *capsys.readouterr()) == (0, "[]\n", f"nothing was registered in {captioning_home} yet\n")


def test_a_tracker_that_was_named_and_is_not_there_is_no_empty_registry(captioning_home, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_job("models", ["--tracking.uri", f"sqlite:///{captioning_home}/none/m.db"])
    assert f"there is no tracker in {captioning_home}/none: nothing was trained" in capsys.readouterr().err


def test_an_empty_address_is_not_taken_for_the_default(captioning_home, capsys):
    for arguments in (["models", "--tracking.uri", ""], ["jobs", "--address="], ["convert", "a", "b", "--address", ""]):
        with pytest.raises(SystemExit, match="2"):
            run_job(arguments[0], arguments[1:])
        assert "is an empty text, as of an unset variable; leave it out" in capsys.readouterr().err
    assert not captioning_home.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--name", "a/b"], "error: name 'a/b' cannot be a folder's"),
        (["train"], "error: no shard set was given; use --shards FOLDER"),
        (["train", "--shards", "nowhere"], "nowhere is not a finished shard set; run captioning convert"),
        (["train", "nopreset"], "error: there is no preset nopreset"),
        (["convert", "nowhere", "out"], "nowhere is not a folder"),
        (["evaluate", "nowhere", "--shards", "nowhere"], "is not a finished shard set"),
        (["caption", "nowhere.jpg", "--model", "m"], "nowhere.jpg does not exist; give image files, folders"),
        (["caption", "--model", "m"], "error: no inputs were given; give image files, folders of images or shard sets"),
        (["register", "nowhere", "name"], "model nowhere is not a folder; use models:/NAME@alias"),
        (["register", "runs:/nothing", "name"], "error: runs:/nothing is not in the tracker"),
        (["promote", "nobody"], "error: models:/nobody@challenger is not in the registry"),
        (["models", "nobody"], "error: model nobody cannot be read from the registry"),
        (["history", "nobody"], "error: model nobody cannot be read from the registry"),
        (["rollback", "nobody"], "error: model nobody cannot be read from the registry"),
        (["lineage", "models:/nobody@champion"], "error: model nobody cannot be read from the registry"),
        (["lineage", "nowhere"], "model nowhere is not a folder; use models:/NAME@alias"),
        (["models", "--tracking.uri", "ftp://x"], "error: tracking address ftp://x is not an MLflow address"),
        (["check", "--clean"], "error: no cluster was named; use --cluster.address HOST:PORT, or set RAY_ADDRESS"),
        (["track", "replay", "nothing"], "error: nothing is not a run: neither "),
        (["download", "coco2016", "x"], "coco2016"),
        (["convert", "a", "b", "--num-workers", "-1"], "error: num_workers -1 is out of range; use 0 to 100000"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_code_2(arguments, message, home, monkeypatch, capsys):
    monkeypatch.chdir(home.home)
    monkeypatch.setenv("CAPTIONING_HOME", str(home.home))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code = run_in_process(arguments)
    complaint = capsys.readouterr().err
    assert (code, len(complaint.splitlines()), message in complaint) == (2, 1, True), complaint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "--tracking.uri", "http://127.0.0.1:9"], "error: MLflow at http://127.0.0.1:9 does not answer"),
        (["demo", "--tracking.uri", "http://127.0.0.1:9"], "error: MLflow at http://127.0.0.1:9 does not answer"),
        (["check", "--cluster.address", "127.0.0.1:9"], "error: no Ray cluster answers at 127.0.0.1:9"),
    ],
)
def test_a_server_that_does_not_answer_is_a_failure(arguments, message, home, monkeypatch, capsys):
    monkeypatch.setenv("CAPTIONING_HOME", str(home.home))
    code = run_in_process(arguments)
    complaint = capsys.readouterr().err
    assert (code, complaint.count(message)) == (1, 1), complaint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "captioning: there is no job trian; did you mean train?\n"),
        (["zzz"], "captioning: there is no job zzz; use one of demo, "),
        (
            ["train", "nopreset"],
            "error: there is no preset nopreset; use one of default, smoke, classic, show-and-tell, attend, "
            "transformer, coco\n",
        ),
    ],
)
def test_the_console_script_refuses_what_it_does_not_know(arguments, message):
    answer = captioning(*arguments)
    assert (answer.returncode, answer.stderr.startswith(message)) == (2, True)


@each_case(
    ("error", "code", "message"),
    [
        (None, 0, ""),
        (ValueError("found 3,\nuse 4"), 2, "error: found 3, use 4\n"),
        (FileNotFoundError("x is missing"), 2, "error: x is missing\n"),
        (RuntimeError("training failed"), 1, "error: training failed\n"),
        (Mistakes(["a is 3; use 4", "b is 5; use 6"]), 2, "error: a is 3; use 4\nerror: b is 5; use 6\n"),
        (KeyError("lost"), 1, "error: KeyError: 'lost'\nthis is a bug in captioning"),
        (GateRefusal("the challenger is\nworse"), 3, "error: the challenger is worse\n"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "error: user "),
        (OSError(errno.EROFS, "Read-only file system", "x"), 2, "error: x is on a read-only file sys"),
        (BlockingIOError("run r has a live driver already; wait"), 2, "error: run r has a live driver already; wait\n"),
        (OSError(errno.EIO, "Input/output error", "x"), 1, "error: x: Input/output error\n"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "error: x: No space left on device; make room"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), 1, "error: Connection reset by peer\n"),
        (TimeoutError(), 1, "error: TimeoutError\n"),
        (MemoryError(), 1, "error: memory ran out (MemoryError); run fewer processes"),
        (RuntimeError("training failed:\n  out of memory"), 1, "error: training failed:\n  out of memory\n"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again"),
        (KeyboardInterrupt("stopped after step 7"), 130, "stopped after step 7\n"),
    ],
)
def test_what_goes_wrong_becomes_a_line_and_a_code(error, code, message, capsys):
    def job():
        if error:
            raise error

    with pytest.raises(SystemExit) as ended:
        exit_after(job)
    told = capsys.readouterr().err
    assert (ended.value.code, told.startswith(message), "bug" in told) == (code, True, "bug" in message), told


@pytest.mark.parametrize(("flag", "level"), [("-q", "WARNING"), ("--verbose", "DEBUG")])
def test_flags_before_the_job_set_the_log_level(flag, level, monkeypatch):
    monkeypatch.setenv("CAPTIONING_LOG_LEVEL", "INFO")
    with pytest.raises(SystemExit, match="0"):
        run_command_line([flag, "--help"])
    assert os.environ["CAPTIONING_LOG_LEVEL"] == level


ENDING = """
import atexit, sys, threading, types
class Unloaded:
    def __del__(self):
        print("unloaded", file=sys.__stdout__)
sys.modules["torch"] = types.SimpleNamespace(unloaded=Unloaded())
atexit.register(print, "cleaned up")
threading.Thread(target=lambda: (threading.main_thread().join(), print("waited"))).start()
from jobs.cli import main
main()
"""


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["trian"], 2)])
def test_a_process_ends_cleaned_up_but_without_unloading_torch(arguments, code):
    ended = subprocess.run([sys.executable, "-c", ENDING, *arguments], capture_output=True, text=True, check=False)
    last = ended.stdout.splitlines()[-2:]
    assert (ended.returncode, last) == (code, ["waited", "cleaned up"]), ended.stderr


def test_an_output_that_cannot_be_written_is_still_told():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", ENDING, "--version"]
        buffered = os.environ | {"PYTHONUNBUFFERED": ""}
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=buffered)
    assert (ended.returncode, "No space left on device" in ended.stderr) == (120, True), ended.stderr


def test_an_unknown_log_level_is_named(monkeypatch, capsys):
    monkeypatch.setenv("CAPTIONING_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit, match="2"):
        exit_after(lambda: None)
    assert "error: CAPTIONING_LOG_LEVEL LOUD is not a log level; use DEBUG" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (ValueError("no\nhttp://me:secret@host\x1b[2J"), [r"error: no http://host\x1b[2J"]),
        (RuntimeError("it failed:\n  rank 1\x07"), ["error: it failed:", r"  rank 1\x07"]),
        (ValueError("a" * 5000 + "; do this"), ["error: " + "a" * 1488 + " ... " + "a" * 491 + "; do this"]),
    ],
)
def test_an_error_is_shown_without_secrets_and_control_characters_and_not_endlessly(capsys, error, lines):
    def fail():
        raise error

    with pytest.raises(SystemExit):
        exit_after(fail)
    assert capsys.readouterr().err.splitlines() == lines
