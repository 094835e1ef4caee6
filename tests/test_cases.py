"""The script that runs a folder of cases notices what is wrong whatever is right, and what must be said."""

import pytest

from tests.support.cases import faults_of, main

FINE = "## convert\nerror: no word\n-> exit 2 after 1 s\n## again\n-> exit 0 after 2 s\n"


@pytest.mark.parametrize(
    ("output", "expected", "faults"),
    [
        (FINE, "Refused, and `no word` said.", []),
        (FINE, "Says `no words\n at all`.", ["does not say: no words\n at all"]),
        ("## a b\n-> exit 124 after 300 s\n", "", ["a b: hangs"]),
        ("## a\n-> exit 139 after 3 s\n", "", ["a: ends with code 139"]),
        ("## a\n-> exit 1 after 3 s, TRACEBACK, OWN FAULT\n", "", ["a: traceback", "a: own fault"]),
    ],
    ids=["as is right", "says another thing", "hangs", "is killed", "own fault"],
)
def test_what_is_wrong_is_found(output, expected, faults):
    assert faults_of(output, expected) == faults


@pytest.fixture
def cases(tmp_path):
    for name, script in (("01-good", "echo '-> exit 0 after 0 s'; captioning --version"), ("02-bad", "exit 3")):
        folder = tmp_path / "cases" / name
        folder.mkdir(parents=True)
        (folder / "run.sh").write_text(script)
        (folder / "expected.txt").write_text("Prints `captioning 0.`.")
    return tmp_path / "cases"


def test_cases_are_run_and_shown_beside_what_is_right(cases, capsys):
    code = main([str(cases)])
    said = capsys.readouterr().out
    assert (code, said.count("--- right is: Prints"), said.splitlines()[-1]) == (1, 2, "2 cases, 1 with faults")
    assert "=== 01-good: nothing wrong that can be compared\n" in said
    assert "=== 02-bad: does not say: captioning 0.\n" in said
