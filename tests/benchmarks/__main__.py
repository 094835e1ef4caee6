"""Run benchmarks, print their tables, and make README.md and results.json of this folder, and README's table, again.

Examples:
    python -m tests.benchmarks                                # all but those that take many minutes
    python -m tests.benchmarks overheads verification
    python -m tests.benchmarks overheads --steps 150          # options of one benchmark; --help lists them
    python -m tests.benchmarks --page                         # the pages alone, from results.json as it is
"""

import importlib
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.resources.environment import set_library_defaults
from tests.benchmarks.measuring import Benchmark, UnavailableError, machine
from tests.support.benchmark_results import FOLDER, Result, as_table, load, page, save, with_best_known
from tests.support.repository import ROOT

_console = Console(highlight=False, soft_wrap=True, width=150)


def names() -> list[str]:
    """Return the names of all benchmarks: the modules that declare one; the others help them."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if "\nBENCHMARK = " in path.read_text())


def benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in names():
        raise ValueError(f"there is no benchmark {name}; use one of {', '.join(names())}")
    return importlib.import_module(f"tests.benchmarks.{name}").BENCHMARK


def measured(name: str, arguments: Mapping[str, Any], *, command: str) -> Result:
    """Run a benchmark.

    Args:
        name: name of the benchmark.
        arguments: arguments of its function.
        command: command line that is told with the figures.

    Raises:
        UnavailableError: it cannot run on this machine.
    """
    started = time.monotonic()
    rows = tuple(benchmark(name).measure(**arguments))
    return Result(command=command, machine=machine(), seconds=round(time.monotonic() - started), rows=rows)


def _options(name: str, words: Sequence[str]) -> dict[str, Any]:
    import tyro

    measure: Callable[..., Any] = benchmark(name).measure
    # The annotations of the function are the options; what it does is left for later.
    return tyro.cli(_taking_arguments(measure), args=list(words), prog=f"python -m tests.benchmarks {name}")


def _taking_arguments(measure: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    import functools

    @functools.wraps(measure)
    def given(**arguments: Any) -> dict[str, Any]:
        return arguments

    return given


def parse(words: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Return the names of the benchmarks to run, and their arguments by name.

    Args:
        words: names, and after a single name its options; without a name, all that do not take many minutes.

    Raises:
        ValueError: a name is unknown, or there are options for several benchmarks.
    """
    count = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    wanted, options = list(words[:count]), words[count:]
    if options and len(wanted) != 1:
        raise ValueError(f"options {' '.join(options)} belong to one benchmark; name it first")
    wanted = wanted or [name for name in names() if not benchmark(name).takes_minutes]
    return wanted, {name: _options(name, options) for name in wanted}


def main(words: Sequence[str], *, folder: Path = FOLDER) -> None:
    """Run the benchmarks of a command line, one after another.

    Args:
        words: names, and after a single name its options; all benchmarks if there is none.
        folder: folder of README.md and results.json.

    Raises:
        ValueError: a name or an option is wrong.
    """
    set_library_defaults()  # before a benchmark imports Ray
    if list(words) in (["--help"], ["-h"]):
        _console.print(f"{__doc__}\nBenchmarks: {', '.join(names())}")
        return
    if list(words) == ["--page"]:
        _write_pages(folder)
        return
    wanted, arguments = parse(words)
    options = words[1:] if len(wanted) == 1 else []
    for name in wanted:
        try:
            result = measured(
                name, arguments[name], command=f"python -m tests.benchmarks {shlex.join([name, *options])}"
            )
        except UnavailableError as missing:
            _console.print(f"{name}: not here: {missing}")
            continue
        _console.print(as_table(name, result))
        results = load(folder) | {name: result}  # read again: another process may have measured meanwhile
        save(results, folder)
        _write_pages(folder)


def _write_pages(folder: Path) -> None:
    results = load(folder)
    (folder / "README.md").write_text(page(results))
    if folder == FOLDER:
        readme = ROOT / "README.md"
        readme.write_text(with_best_known(readme.read_text(), results))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
