import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import JOBS, run_job
from jobs.output import write_json

CONSOLE_SCRIPT = Path(sys.executable).with_name("captioning")
HEAVY = ("torch", "torchvision", "ray", "mlflow", "pandas", "matplotlib", "pycocoevalcap")


def captioning(*arguments):
    return subprocess.run([CONSOLE_SCRIPT, *arguments], capture_output=True, text=True, check=False)


def run_in_process(arguments):
    """Run a job as ``captioning`` does, without paying for another start of Python."""
    job, *rest = arguments
    with pytest.raises(SystemExit) as ended:
        run_job(importlib.import_module(f"jobs.{job}").main, rest)
    return ended.value.code


def imported_by(*arguments):
    """Return the heavy packages that a command line has imported by its end."""
    code = (
        "import atexit, json, sys\n"
        f"atexit.register(lambda: sys.stderr.write('LOADED' + json.dumps([m for m in {HEAVY} if m in sys.modules])))\n"
        "from jobs.cli import main\n"
        f"sys.argv = ['captioning', *{list(arguments)}]\n"
        "main()\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stderr.rpartition("LOADED")[2])


def test_help_lists_every_job():
    usage = captioning("--help").stdout
    assert [job for job in JOBS if f"\n  {job} " not in usage] == []


@pytest.mark.parametrize("arguments", [["--help"], *([job, "--help"] for job in JOBS)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    assert imported_by(*arguments) == []


def test_printing_a_configuration_imports_nothing_heavy():
    assert imported_by("train", "smoke", "--print-config") == []


@pytest.mark.parametrize("job", JOBS)
def test_every_job_runs_as_a_module_too(job):
    answer = subprocess.run(
        [sys.executable, "-m", f"jobs.{job}", "--help"], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, f"captioning {job}" in answer.stdout) == (0, True)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return one home folder, for a tracker's database takes seconds to make."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--name", "a/b"], "error: name 'a/b' cannot be a folder's"),
        (["train"], "error: no shard set was given; use --shards FOLDER"),
        (["train", "--shards", "nowhere"], "nowhere is no finished shard set; run captioning convert"),
        (["train", "nopreset"], "error: there is no preset nopreset"),
        (["convert", "nowhere", "out"], "nowhere is not a folder"),
        (["evaluate", "nowhere", "--shards", "nowhere"], "is no finished shard set"),
        (["caption", "nowhere.jpg", "--model", "m"], "nowhere.jpg does not exist; give images, folders or shard sets"),
        (["register", "nowhere", "name"], "model nowhere is no folder; use models:/NAME@alias"),
        (["register", "runs:/nothing", "name"], "error: runs:/nothing is not in the tracker"),
        (["promote", "nobody"], "error: models:/nobody@challenger is not in the registry"),
        (["models", "nobody"], "error: model nobody cannot be read from the registry"),
        (["history", "nobody"], "error: model nobody cannot be read from the registry"),
        (["rollback", "nobody"], "error: model nobody cannot be read from the registry"),
        (["lineage", "models:/nobody@champion"], "error: model nobody cannot be read from the registry"),
        (["lineage", "nowhere"], "model nowhere is no folder; use models:/NAME@alias"),
        (["models", "--tracking.uri", "http://127.0.0.1:9"], "error: MLflow at http://127.0.0.1:9 does not answer"),
        (["models", "--tracking.uri", "ftp://x"], "error: tracking address ftp://x is none of MLflow's"),
        (["check", "--clean"], "error: no cluster was named; use --cluster.address HOST:PORT, or set RAY_ADDRESS"),
        (["check", "--cluster.address", "127.0.0.1:9"], "error: no Ray cluster answers at 127.0.0.1:9"),
        (["track", "replay", "nothing"], "error: nothing is no run: neither "),
        (["download", "coco2016", "x"], "coco2016"),
        (["convert", "a", "b", "--num-workers", "-1"], "error: -1 workers write nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_code_2(arguments, message, home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    monkeypatch.setenv("CAPTIONING_HOME", str(home))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code = run_in_process(arguments)
    complaint = capsys.readouterr().err
    assert (code, len(complaint.splitlines()), message in complaint) == (2, 1, True), complaint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "captioning: there is no job trian; did you mean train?\n"),
        (["zzz"], "captioning: there is no job zzz; use one of demo, "),
        (["train", "nopreset"], "error: there is no preset nopreset; use one of default, smoke, show-and-tell, coco\n"),
    ],
)
def test_the_console_script_refuses_what_it_does_not_know(arguments, message):
    answer = captioning(*arguments)
    assert (answer.returncode, answer.stderr.startswith(message)) == (2, True)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (None, 0, ""),
        (ValueError("found 3,\nuse 4"), 2, "error: found 3, use 4\n"),
        (FileNotFoundError("x is missing"), 2, "error: x is missing\n"),
        (RuntimeError("training failed"), 1, "error: training failed\n"),
        (KeyError("lost"), 1, "error: KeyError: 'lost'\nthis is a fault of the program"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again"),
    ],
)
def test_what_goes_wrong_becomes_a_line_and_a_code(error, code, message, capsys):
    def job(arguments):
        if error:
            raise error

    with pytest.raises(SystemExit) as ended:
        run_job(job, [])
    assert (ended.value.code, capsys.readouterr().err.startswith(message)) == (code, True)


def test_an_unknown_log_level_is_named(monkeypatch, capsys):
    monkeypatch.setenv("CAPTIONING_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit, match="2"):
        run_job(lambda arguments: None, [])
    assert "error: CAPTIONING_LOG_LEVEL LOUD is no level; use DEBUG" in capsys.readouterr().err


def test_what_libraries_print_is_kept_out_of_the_results(capsys):
    def job(arguments):
        print("noise")  # noqa: T201  as Ray does
        write_json({"result": 1})

    with pytest.raises(SystemExit):
        run_job(job, [])
    printed = capsys.readouterr()
    assert (json.loads(printed.out), "noise" in printed.err) == ({"result": 1}, True)
