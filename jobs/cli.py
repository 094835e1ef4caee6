"""Entry point of ``captioning JOB ...``: finds the job, runs it, and turns errors into one line and an exit code."""

import atexit
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from jobs.console.own_packages import hidden_packages

if TYPE_CHECKING:
    from jobs.console.job import Job

JOBS = {
    "demo": "run the full pipeline on synthetic scenes, in a few minutes",
    "download": "download COCO's official archives",
    "convert": "convert photographs with captions to a shard set",
    "index": "use WebDataset tars of other programs in place, as a shard set",
    "inspect": "show what is in a shard set: captions, words, sizes",
    "verify": "check every byte of a shard set, and repair damaged shards",
    "export": "write a shard set back into a folder of pictures and captions",
    "extract": "compute a frozen encoder's features of a shard set, once",
    "train": "train a model on a Ray cluster; the same command again resumes the run",
    "tune": "search hyperparameters with many trials",
    "evaluate": "caption a split and score the captions",
    "score": "score any captions against references, and compare two models' captions",
    "caption": "caption images, folders or shard sets",
    "register": "register a checkpoint as the challenger",
    "promote": "make the challenger the champion, if it is better",
    "rollback": "make an earlier champion the champion again",
    "models": "list the registered models",
    "history": "list every change of a model's champion",
    "lineage": "show a model's run, code, configuration, scores and data checksums",
    "serve": "serve a registered model over HTTP",
    "check": "check whether a job can run; find and remove leftovers of dead jobs",
    "submit": "submit one of these jobs to a Ray cluster, and follow it",
    "jobs": "list the jobs that were submitted to a cluster",
    "status": "show the progress of a submitted job, once or live",
    "logs": "show the log of a submitted job or of one of its ranks",
    "stop": "stop a submitted job; a training run saves a checkpoint first",
    "track": "backfill metrics missing from MLflow, from a run's journal",
    "ui": "open MLflow's pages of the runs and registered models",
    "launch": "print starter manifests: clusters on clouds and Kubernetes, MLflow, a Dockerfile",
    "completion": "print the completion of jobs and flags for bash, zsh or fish",
}
_LONG_TO_UNLOAD = ("torch", "mlflow", "ray")
DONE, FAILED, BAD_INPUT, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130
_LOG_LEVELS = {"-q": "WARNING", "--quiet": "WARNING", "-v": "DEBUG", "--verbose": "DEBUG"}

logger = logging.getLogger(__name__)


def main() -> None:
    """Run the job that the command line names, then end this process with its exit code."""
    try:
        run_command_line(sys.argv[1:])
    except SystemExit as end:
        _end_process(end.code)
        raise


def run_command_line(arguments: list[str]) -> NoReturn:
    """Run the job that a command line names, then exit with its exit code.

    Args:
        arguments: words of the command line after the program's name.
    """
    if hidden := hidden_packages():
        sys.stderr.write("".join(f"error: {line}\n" for line in hidden))
        sys.exit(BAD_INPUT)
    from cluster.resources.environment import collect_garbage_rarely

    collect_garbage_rarely()
    while arguments and arguments[0] in _LOG_LEVELS:
        os.environ["CAPTIONING_LOG_LEVEL"] = _LOG_LEVELS[arguments.pop(0)]
    if arguments and arguments[0] == "help":
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        sys.exit(DONE if arguments else BAD_INPUT)
    if arguments[0] == "--version":
        from captioning import __version__  # here, because another package may hide ours, which is told above

        sys.stdout.write(f"captioning {__version__}\n")
        sys.exit(DONE)
    job, *rest = arguments
    if job not in JOBS:
        import difflib

        from cluster.log_text import printable

        near = difflib.get_close_matches(job, JOBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(JOBS)}"
        sys.stderr.write(f"captioning: there is no job {printable(job)}; {hint}\n")
        sys.exit(BAD_INPUT)
    run_job(job, rest)


def _end_process(code: object) -> None:
    """End this process as Python does, but without unloading torch, MLflow and Ray, which takes 1.7 CPU seconds.

    Returns if none of them is loaded, or if the output cannot be written, which Python then tells.
    """
    if not isinstance(code, int) or sys.modules.keys().isdisjoint(_LONG_TO_UNLOAD):
        return
    getattr(threading, "_shutdown")()  # noqa: B009  it has no public name: waits for all threads that are not daemons
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return
    os._exit(code)


def run_job(name: str, arguments: Sequence[str]) -> NoReturn:
    """Run a job, then exit with its exit code."""
    exit_after(lambda: call(name, arguments))


def call(name: str, arguments: Sequence[str]) -> None:
    """Parse a job's command line and run the job; raises instead of exiting when the job fails.

    Args:
        name: name of the job, a key of ``JOBS``.
        arguments: arguments that follow the name on the command line.
    """
    from jobs.console.output import log_loading
    from jobs.console.parsing import parse  # here, because it takes 0.2 s, which captioning --help need not pay

    job = find_job(name)
    invocation = parse(job, arguments)
    log_loading(job.loads)
    job.run(invocation)


def find_job(name: str) -> "Job[Any]":
    """Return the ``JOB`` that a job's module declares."""
    return importlib.import_module(f"jobs.{name}").JOB


def exit_after(action: Callable[[], None]) -> NoReturn:
    """Call a function from a terminal, then exit: errors become one log line and an exit code."""
    from cluster.errors import shorten
    from cluster.resources.environment import set_library_defaults
    from jobs.console.output import results_apart

    try:
        _set_up_logging()
        set_library_defaults()
        with results_apart():
            action()
        code = DONE
    except KeyboardInterrupt as stop:
        logger.error("%s", str(stop) or "interrupted; run the same command again to continue")
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of the pipe, such as ``head``, has closed it. Without the redirection, Python's flush at exit
        # would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except Exception as error:  # last handler: anything that passes it prints a traceback instead of one line
        code, lines = _judge(error)
        logger.debug("traceback of the error below", exc_info=error)
        for line in "\n".join(lines).split("\n"):
            logger.error("%s", shorten(line))
    sys.exit(code)


def _judge(error: Exception) -> tuple[int, list[str]]:
    """Return the exit code for an error, and the lines to log.

    Bad input stays bad however often the command runs. A fault that may pass (a network, a full disk) is a failure like
    any other, and may be worth another try.
    """
    from cluster.errors import GateRefusal, Mistakes, error_line, one_line, passing_fault
    from cluster.tracking.access import access_refusal, tracker_fault

    text = str(error).strip() or type(error).__name__
    if refusal := access_refusal(error):
        return BAD_INPUT, [f"error: {refusal}"]
    if isinstance(error, GateRefusal):
        return REFUSED, [f"error: {one_line(text, longest=None)}"]
    if isinstance(error, Mistakes):
        return BAD_INPUT, [f"error: {one_line(line, longest=None)}" for line in error.lines]
    if isinstance(error, RuntimeError) and "\n" in text:  # a report of several lines, with the cause among them
        return FAILED, [f"error: {text}"]
    is_ours = isinstance(error, RuntimeError | ConnectionError)  # these say already what did not answer
    if answer := None if is_ours else tracker_fault(error):
        return FAILED if answer.may_pass else BAD_INPUT, [f"error: {answer.line}"]
    if fault := passing_fault(error):
        return FAILED, [f"error: {fault}"]
    if isinstance(error, ValueError | OSError):
        return BAD_INPUT, [f"error: {error_line(error)}"]
    if isinstance(error, RuntimeError):
        return FAILED, [f"error: {text}"]
    bug = "this is a bug in captioning; set CAPTIONING_LOG_LEVEL=DEBUG for the traceback"
    return FAILED, [f"error: {type(error).__name__}: {text}", bug]


def _set_up_logging() -> None:
    from cluster.log_text import clean_logs

    clean_logs()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    level = os.environ.get("CAPTIONING_LOG_LEVEL", "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise ValueError(f"CAPTIONING_LOG_LEVEL {level} is not a log level; use DEBUG, INFO, WARNING or ERROR")
    for package in ("captioning", "cluster", "jobs", "shards", "__main__"):
        logging.getLogger(package).setLevel(level)


def _usage() -> str:
    width = max(map(len, JOBS))
    lines = "\n".join(f"  {name:<{width}}  {what}" for name, what in JOBS.items())
    return (
        "usage: captioning [-q | -v] JOB [ARGUMENT ...]\n\n"
        "Train image captioning models on a Ray cluster, from COCO to a promoted model.\n"
        "To try it out: captioning demo (needs no data, no GPU and no cluster).\n"
        "On COCO: download, convert, train, evaluate, register, promote and caption, in this order.\n\n"
        f"jobs:\n{lines}\n\n"
        "-q shows warnings and errors only, -v shows all messages; write them before JOB.\n"
        "captioning help JOB shows the arguments of a job, with examples.\n"
        "Exit codes: 0 done, 1 failed, 2 bad input, 3 refused by the promotion gate, 130 interrupted.\n"
    )


if __name__ == "__main__":
    main()
