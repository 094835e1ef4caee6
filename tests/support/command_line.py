"""Command line run in this process, which saves a start of Python per command."""

import contextlib
import io
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.cli import run_job


def captioning(*arguments, folder=None, unset=(), **variables):
    """Run a command as a user would; return its exit code, standard output and standard error.

    Args:
        arguments: arguments of the command line, converted to text.
        folder: working folder of the command; the current folder if not given.
        unset: names of environment variables that are removed for the command.
        variables: environment variables that are set for the command, in addition to those of this process.
    """
    job, *rest = map(str, arguments)
    out, told = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pytest turns warnings into errors; a user's Python does not
        for name in unset:
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.chdir(folder or Path.cwd())
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told), pytest.raises(SystemExit) as ended:
            run_job(job, rest)
    return SimpleNamespace(code=ended.value.code, out=out.getvalue(), told=told.getvalue())
