import os
import subprocess
import sys

import pytest

from jobs.console.own_packages import hidden_packages
from tests.support.repository import ROOT


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder that Python searches first, as if the package shards had not been imported yet."""
    monkeypatch.delitem(sys.modules, "shards", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["shards.py", "shards/__init__.py"])
def test_a_package_that_is_hidden_is_named_with_the_file_that_hides_it(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    (told,) = hidden_packages()
    assert told.startswith(f"{folder / name} hides the package shards of captioning, which is in {ROOT}; rename it, or")


def test_a_folder_of_data_hides_nothing(folder):
    (folder / "shards").mkdir()
    assert hidden_packages() == []


def test_the_command_line_says_what_hides_its_packages(tmp_path):
    for name in ("captioning", "cluster"):
        (tmp_path / f"{name}.py").touch()
    variables = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "jobs", "models"]
    answer = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 2), answer.stderr
    for name, line in zip(("captioning", "cluster"), answer.stderr.splitlines(), strict=True):
        assert line.startswith(f"error: {tmp_path}/{name}.py hides the package {name} of captioning")
