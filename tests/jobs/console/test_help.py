"""Help texts of all jobs: what they say about settings that may be left out."""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap

import pytest

from jobs.cli import JOBS, find_job
from jobs.console.mistakes import sections
from jobs.console.parsing import parse


def docstrings(kind):
    """Return the docstring of each field of a dataclass, with those that it inherits."""
    found = {}
    for owner in reversed([one for one in kind.__mro__ if dataclasses.is_dataclass(one)]):
        (body,) = (node.body for node in ast.parse(textwrap.dedent(inspect.getsource(owner))).body)
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = " ".join(text.value.value.split())
    return found


def without_a_value(job):
    """Yield each setting of a job whose default is None, and its docstring."""
    for name, section in sections(job.command_line(settings=job.default())):
        texts = docstrings(type(section))
        for field in dataclasses.fields(section):
            if getattr(section, field.name) is None and texts.get(field.name):
                yield f"{job.name}: {name}.{field.name}", texts[field.name]


def test_a_setting_without_a_value_says_what_happens_without_it():
    told = re.compile(r"([Ii]f|unless|where) not given|[Ww]ithout (it|either|one)|must be given")
    found = dict(pair for job in JOBS for pair in without_a_value(find_job(job)))
    assert len(found) > 20
    assert {name: text for name, text in found.items() if not told.search(text)} == {}


@pytest.mark.parametrize("job", ["submit", "train"])
def test_no_help_text_ends_in_a_default_that_stands_for_no_value(job, capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(find_job(job), ["--help"])
    shown = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert ("(default: 0)" in shown, re.findall(r"\(default: ?(?:None)?\)|\{None\}", shown)) == (True, [])
