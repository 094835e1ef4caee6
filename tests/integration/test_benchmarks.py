"""The benchmarks, and the scripts that made the figures in README files, on small inputs, to show that they run."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys

import pytest

from tests.benchmarks.__main__ import benchmark, main, measured, names, parse
from tests.benchmarks.measuring import Benchmark, Row, UnavailableError, interleaved, machine
from tests.support.benchmark_results import BEST_KNOWN, FOLDER, Result, best_known, load, page, save, with_best_known
from tests.support.case_table import each_case
from tests.support.repository import README, ROOT, commands

COMMANDS = sorted(command.partition(" ")[2] for command in commands("python"))
SCRIPTS = [command for command in COMMANDS if not command.startswith("-m tests.benchmarks")]


def test_the_only_script_beside_the_benchmarks_tells_its_flags(capsys, monkeypatch):
    assert {command.split()[0] for command in SCRIPTS} == {"tests/faults/chaos.py"}
    monkeypatch.setattr(sys, "argv", ["chaos.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tests" / "faults" / "chaos.py"), run_name="__main__")
    flags = re.findall(r"--\w+", " ".join(SCRIPTS))
    told = capsys.readouterr().out
    assert (ended.value.code, [flag for flag in flags if flag not in told]) == (0, [])


@each_case("command", [command for command in COMMANDS if command not in SCRIPTS])
def test_a_command_of_a_figure_is_parsed(command):
    chosen, options = parse(shlex.split(command)[2:])
    assert set(chosen) <= set(names())
    assert set(options) <= set(chosen)


@pytest.mark.cluster
@pytest.mark.parametrize("name", names())
def test_a_benchmark_measures_something(name, session, one_thread):
    try:
        found = measured(name, benchmark(name).small, command="here")
    except UnavailableError as missing:
        pytest.skip(f"{missing}")
    assert found.rows
    assert [row.what for row in found.rows if not row.ours > 0] == []


def test_the_page_is_made_from_the_results():
    assert (FOLDER / "README.md").read_text() == page(load()), "run python -m tests.benchmarks --page"


def test_the_main_readme_has_the_best_known_rows_of_the_results():
    assert with_best_known(README, load()) == README, "run python -m tests.benchmarks --page"
    assert README.count(best_known(load())) == 1


def test_old_rows_of_a_readme_give_way_to_those_of_the_results():
    old = "# Title\n\n| what | ours | peer |\n|---|---|---|\n| old | 1 | 2 |\n\nText\n"
    assert with_best_known(old, load()) == f"# Title\n\n{best_known(load())}\nText\n"


def test_a_readme_without_a_place_for_the_rows_is_refused():
    with pytest.raises(ValueError, match=r"the README has no table that begins with \| what \| ours \| peer \|"):
        with_best_known("# Title\n", load())


def test_results_are_of_benchmarks_that_there_are():
    assert set(load()) | {name for name, _ in BEST_KNOWN} <= set(names())


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Return a function that runs a command line of a benchmark of addition, in a folder of its own."""

    def measure(*, count: int = 2):
        """Add numbers.

        Args:
            count: how many.
        """
        if count < 0:
            raise UnavailableError("numbers below zero")
        yield Row(what="add", unit="ms", ours=2.0 * count, peer=6.0, peer_name="by hand", less_is_better=True)

    monkeypatch.setattr("tests.benchmarks.__main__.names", lambda: ["sums", "slow"])
    known = {"sums": Benchmark(measure), "slow": Benchmark(measure, takes_minutes=True)}
    monkeypatch.setattr("tests.benchmarks.__main__.benchmark", known.__getitem__)
    return lambda *words: main(words, folder=tmp_path)


def test_a_command_prints_and_writes_what_it_measures(tiny, tmp_path, capsys):
    tiny()
    (name, result) = next(iter(json.loads((tmp_path / "results.json").read_text()).items()))
    assert (name, result["rows"][0]["ours"], result["command"]) == ("sums", 4.0, "python -m tests.benchmarks sums")
    cells = ["add", "4 ms", "by hand 6 ms", "-", "1.50", "-"]
    assert f"| {' | '.join(cells)} |" in (tmp_path / "README.md").read_text()
    shown = capsys.readouterr().out
    assert [cell for cell in cells if cell not in shown] == []


def test_the_page_is_written_again_without_measuring(tiny, tmp_path):
    tiny("sums")
    (tmp_path / "README.md").write_text("of another release")
    tiny("--page")
    assert (tmp_path / "README.md").read_text() == page(load(tmp_path))


def test_options_of_one_benchmark_are_arguments_of_its_function(tiny, tmp_path):
    tiny("slow", "--count", "3")
    (row,) = load(tmp_path)["slow"].rows
    assert (row.ours, row.ratio, row.share_of_limit) == (6.0, 1.0, None)


def test_what_a_machine_cannot_measure_is_told_and_leaves_the_results_alone(tiny, tmp_path, capsys):
    tiny("sums", "--count", "-1")
    assert (capsys.readouterr().out, load(tmp_path)) == ("sums: not here: numbers below zero\n", {})


def test_options_without_a_name_are_refused(tiny):
    with pytest.raises(ValueError, match="options --count 3 belong to one benchmark; name it first"):
        tiny("--count", "3")


def test_an_unknown_benchmark_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"there is no benchmark nothing; use one of .*overheads"):
        benchmark("nothing")


def test_an_unknown_recipe_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(
        ValueError, match="there is no recipe 'nothing'; use one of 'show-and-tell', 'show-and-tell, self-"
    ):
        next(iter(benchmark("quality").measure(recipes=("nothing",), shards=tmp_path, folder=tmp_path)))


def test_calls_take_turns_in_both_directions():
    order, ticks = [], iter(range(100))
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = interleaved(calls, rounds=2, clock=lambda: next(ticks))
    assert ("".join(order), found) == ("ab" + "ab" + "ba", {"a": 1, "b": 1})


@each_case(
    ("unit", "figures"),
    [("images/s", (5.0, 2.5, 10.0, 2.0, 0.5)), ("ms", (200.0, 400.0, 100.0, 2.0, 0.5)), ("s", (0.2, 0.4, 0.1, 2, 0.5))],
)
def test_a_ratio_above_one_is_the_better_for_speeds_and_times_alike(unit, figures):
    row = Row.of_seconds("x", {"ours": 2.0, "theirs": 4.0, "least": 1.0}, unit=unit, count=10)
    assert (row.ours, row.peer, row.limit, row.ratio, row.share_of_limit) == pytest.approx(figures)
    assert (row.peer_name, row.limit_name) == ("theirs", "least")


def test_a_row_needs_no_peer():
    row = Row.of_seconds("x", {"ours": 2.0})
    assert (row.ours, row.peer, row.ratio) == (2000.0, None, None)


def test_a_table_with_columns_of_its_own_shows_them_alone(tmp_path):
    rows = (Row(what="one", unit="x", ours=1.0, cells={"words": "7"}), Row(what="two", unit="x", ours=2.0))
    found = Result(command="here", machine="this one", seconds=1, rows=rows)
    save({"sums": found}, tmp_path)
    assert load(tmp_path) == {"sums": found}
    assert page(load(tmp_path)).count("| what | words |\n| --- | --- |\n| one | 7 |\n| two | - |\n") == 1


def test_peak_memory_is_that_of_the_process_and_not_of_the_one_that_started_it():
    held = b"\1" * (400 * 2**20)
    print_it = "from tests.benchmarks.measuring import peak_mib; print(peak_mib())"
    done = subprocess.run([sys.executable, "-c", print_it], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (len(held) > 0, 1 < float(done.stdout) < 400) == (True, True)


def test_the_machine_is_named():
    assert f"{os.cpu_count()} cores of " in machine()
