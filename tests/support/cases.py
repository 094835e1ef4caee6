"""Run a folder of cases, each an input that people have met, and compare what can be compared with what is right.

A case is a folder with ``run.sh``, which takes ``captioning`` from PATH and prints ``-> exit CODE after S s`` after a
command; and ``expected.txt``, the right result in words. Whatever is right, a command neither hangs nor ends with a
traceback, a fault of the program or a code of no meaning, and prints what stands in `backticks` in ``expected.txt``.
The rest is printed side by side, for a person to read.

Examples:
    python tests/support/cases.py ../shared/cases
    python tests/support/cases.py ../shared/cases 01-string-ids 06-hindi
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# This script is also run by its path, when the checkout is not where Python looks.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.repository import ROOT

_EXIT = re.compile(r"^-> exit (\d+) after \d+ s(.*)$")
_CODES = {0, 1, 2, 3}
_ENDED_BY_TIMEOUT = {124, 137}
_CASE_SECONDS = 3600


class Case(NamedTuple):
    """What came of a case.

    Attributes:
        name: name of its folder.
        output: all that its script printed.
        expected: right result, in words.
        faults: lines on what is wrong; empty if nothing is that can be compared.
    """

    name: str
    output: str
    expected: str
    faults: list[str]


def faults_of(output: str, expected: str) -> list[str]:
    """Return what is wrong in a case's output, a line each."""
    faults, label = [], "the script"
    for line in output.splitlines():
        if line.startswith("## "):
            label = line[3:]
        elif ended := _EXIT.match(line):
            code = int(ended[1])
            if code in _ENDED_BY_TIMEOUT:
                faults.append(f"{label}: hangs")
            elif code not in _CODES:
                faults.append(f"{label}: ends with code {code}")
            faults += [f"{label}: {mark.strip().lower()}" for mark in ended[2].split(",") if mark.strip()]
    shown = " ".join(output.split())
    missing = [text for text in re.findall(r"`([^`]+)`", expected) if " ".join(text.split()) not in shown]
    return faults + [f"does not say: {text}" for text in missing]


def run_case(folder: Path, *, path: str, model: Path | None = None) -> Case:
    """Run a case.

    Args:
        folder: folder of the case.
        path: PATH of its commands.
        model: folder of the small model that some cases need.
    """
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **({"MODEL": str(model)} if model else {})}
    with tempfile.TemporaryDirectory(prefix="c") as temporary:  # short: sockets lie below
        command = ["bash", folder / "run.sh"]
        ran = subprocess.run(
            command,
            env=environment | {"TMPDIR": temporary},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_CASE_SECONDS,
        )
    output, expected = ran.stdout.decode(errors="replace"), (folder / "expected.txt").read_text()
    return Case(folder.name, output, expected, faults_of(output, expected))


def write_commands(folder: Path) -> str:
    """Write the commands that cases use, of this checkout and this Python; return the PATH that has them first."""
    folder.mkdir(parents=True)
    python = shlex.quote(sys.executable)
    for name, arguments in (("captioning", "-m jobs.cli"), ("mlflow", "-m mlflow"), ("python", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec {python} {arguments} "$@"\n')
        (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def _make_model(cases: Path, folder: Path, path: str) -> Path:
    command = ["bash", cases / "model.sh", folder]
    subprocess.run(command, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}, check=True)
    return folder


def main(command_line: Sequence[str] | None = None) -> int:
    """Run the cases that the command line names; return 1 if something is wrong that can be compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the cases")
    parser.add_argument("names", nargs="*", help="names of cases (all)")
    parser.add_argument("--model", type=Path, help="folder of the model that model.sh has made (made anew)")
    arguments = parser.parse_args(command_line)
    found = sorted(path.parent for path in arguments.folder.absolute().glob("*/run.sh"))
    folders = [one for one in found if not arguments.names or one.name in arguments.names]
    num_wrong = 0
    with tempfile.TemporaryDirectory(prefix="cases-") as scratch:
        path, model = write_commands(Path(scratch) / "bin"), arguments.model
        if model is None and any("$MODEL" in (one / "run.sh").read_text() for one in folders):
            model = _make_model(arguments.folder.absolute(), Path(scratch) / "model", path)
        for folder in folders:
            case = run_case(folder, path=path, model=model and model.absolute())
            num_wrong += bool(case.faults)
            verdict = "; ".join(case.faults) or "nothing wrong that can be compared"
            sys.stdout.write(f"=== {case.name}: {verdict}\n{case.output}--- right is: {case.expected}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(folders)} cases, {num_wrong} with faults\n")
    return int(num_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
