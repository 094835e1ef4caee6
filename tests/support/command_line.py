"""The command line in this process: what a command costs is then its work, and not another start of Python."""

import contextlib
import io
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.cli import run_job


def captioning(*arguments, folder=None, unset=(), **variables):
    """Run a command in a folder, as a user would; return its exit code, its output and what it tells people.

    Args:
        arguments: of the command line; they become text.
        folder: to run it in; the current one if not given.
        unset: environment variables that it does not have.
        variables: environment variables that it has beside the others.
    """
    job, *rest = map(str, arguments)
    out, told = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a user sees none of them
        for name in unset:
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.chdir(folder or Path.cwd())
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told), pytest.raises(SystemExit) as ended:
            run_job(job, rest)
    return SimpleNamespace(code=ended.value.code, out=out.getvalue(), told=told.getvalue())
