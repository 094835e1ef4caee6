"""Print a shell's completion of jobs and flags.

Examples:
    eval "$(captioning completion bash)"                             # in ~/.bashrc
    captioning completion zsh > ~/.zfunc/_captioning                 # a folder of $fpath
    captioning completion fish > ~/.config/fish/completions/captioning.fish
"""

import contextlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from jobs.cli import JOBS, find_job
from jobs.console.job import Invocation, Job
from jobs.console.output import result_stream


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionJob:
    """The shell to complete for."""

    shell: Annotated[tyro.conf.Positional[Literal["bash", "zsh", "fish"]], tyro.conf.arg(metavar="SHELL")]
    """Name of the shell: bash, zsh or fish."""


def main(invocation: Invocation[CompletionJob]) -> None:
    """Print the completion script."""
    arguments = ["--tyro-print-completion", invocation.settings.shell]
    with contextlib.redirect_stdout(result_stream()), contextlib.suppress(SystemExit):
        tyro.cli(_any_job(), prog="captioning", args=arguments, config=(tyro.conf.HelptextFromCommentsOff,))


def _any_job() -> Any:  # noqa: ANN401  the type of a union
    """Return the union of all jobs' command lines, as tyro reads it."""
    union: Any = None
    for name, what in JOBS.items():
        job = find_job(name)
        default = job.command_line(settings=job.default())
        one = Annotated[job.command_line[job.settings], tyro.conf.subcommand(name, default=default, description=what)]
        union = one if union is None else union | one
    return union


JOB = Job(name="completion", settings=CompletionJob, run=main, description=__doc__, changes_nothing=True)
