"""``captioning JOB ...``: finds the job, and turns what goes wrong into one line and an exit code."""

import gc
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from cluster.errors import GateRefusal
from cluster.resources.environment import set_library_defaults
from cluster.tracking.access import access_refusal
from jobs.console.output import results_apart

if TYPE_CHECKING:
    from jobs.console.job import Job

JOBS = {
    "demo": "the whole path on drawn data, in a few minutes",
    "download": "fetch COCO's official archives",
    "convert": "COCO folders -> a shard set",
    "extract": "a frozen encoder's features of a shard set, computed once",
    "train": "train a model on a Ray cluster; the same command again resumes",
    "tune": "search the settings that train the best model, by many trials",
    "evaluate": "caption a split and score the captions",
    "caption": "caption images, folders or shard sets",
    "register": "register a checkpoint as the challenger",
    "promote": "make the challenger the champion, if it is better",
    "rollback": "make an earlier champion the champion again",
    "models": "list the registered models",
    "history": "list every change of a model's champion",
    "lineage": "show where a model comes from, down to its data's checksums",
    "serve": "answer HTTP requests with a registered model's captions",
    "check": "check whether a job could run; look for what dead jobs left on its cluster",
    "submit": "run one of these jobs on a cluster, by its job server",
    "jobs": "list the jobs of a cluster",
    "status": "how far a job is, once or live",
    "logs": "what a job or one of its ranks has logged",
    "stop": "end a job, after a checkpoint if it trains",
    "track": "send a run's journal to the tracker again",
    "launch": "print what a cluster starts from: YAML for clouds and Kubernetes, a Dockerfile",
}
DONE, FAILED, BAD_INPUT, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130
_BAD_INPUT_ERRORS = (ValueError, OSError)

logger = logging.getLogger(__name__)


def main() -> None:
    """Run the job that the command line names, and exit with its code."""
    # At Python's own threshold, looking for garbage takes a seventh of the seconds that imports take.
    gc.set_threshold(50_000, 20, 20)
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        sys.exit(DONE if arguments else BAD_INPUT)
    if arguments[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"captioning {version('captioning')}\n")
        sys.exit(DONE)
    job, *rest = arguments
    if job not in JOBS:
        import difflib

        near = difflib.get_close_matches(job, JOBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(JOBS)}"
        sys.stderr.write(f"captioning: there is no job {job}; {hint}\n")
        sys.exit(BAD_INPUT)
    run_job(job, rest)


def run_job(name: str, arguments: Sequence[str]) -> NoReturn:
    """Run a job, and exit with the code that says how it ended."""
    exit_after(lambda: call(name, arguments))


def call(name: str, arguments: Sequence[str]) -> None:
    """Parse a job's command line and run the job; what goes wrong is raised.

    Args:
        name: a key of ``JOBS``.
        arguments: what follows it on the command line.
    """
    from jobs.console.parsing import parse  # it takes 0.2 s, which the list of jobs does without

    job = find_job(name)
    job.run(parse(job, arguments))


def find_job(name: str) -> "Job[Any]":
    """Return what a job's module declares."""
    return importlib.import_module(f"jobs.{name}").JOB


def exit_after(action: Callable[[], None]) -> NoReturn:
    """Do something for people at a terminal, and exit with the code that says how it ended."""
    try:
        _set_up_logging()
        set_library_defaults()
        with results_apart():
            action()
        code = DONE
    except KeyboardInterrupt:
        logger.error("interrupted; run the same command again to go on")
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough, such as ``head``.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except GateRefusal as error:
        code = _report(error, REFUSED)
    except _BAD_INPUT_ERRORS as error:
        code = _report(error, BAD_INPUT)
    except Exception as error:  # the last place where a failure can still become a line that says what to do
        code = _report(error, FAILED)
    sys.exit(code)


def _report(error: Exception, code: int) -> int:
    logger.debug("where it was found", exc_info=error)
    if refusal := access_refusal(error):
        logger.error("error: %s", refusal)
        return BAD_INPUT
    text = str(error).strip() or type(error).__name__
    message = text if code == FAILED else " ".join(text.split())  # bad input takes one line
    is_expected = code != FAILED or isinstance(error, RuntimeError)
    logger.error("error: %s", message if is_expected else f"{type(error).__name__}: {message}")
    if not is_expected:
        logger.error("this is a fault of the program; CAPTIONING_LOG_LEVEL=DEBUG shows where")
    return code


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    level = os.environ.get("CAPTIONING_LOG_LEVEL", "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise ValueError(f"CAPTIONING_LOG_LEVEL {level} is no level; use DEBUG, INFO, WARNING or ERROR")
    for package in ("captioning", "cluster", "jobs", "shards", "__main__"):
        logging.getLogger(package).setLevel(level)


def _usage() -> str:
    width = max(map(len, JOBS))
    lines = "\n".join(f"  {name:<{width}}  {what}" for name, what in JOBS.items())
    return (
        "usage: captioning JOB ...\n\n"
        "Train image captioners on a Ray cluster, from COCO to a promoted model.\n\n"
        f"jobs:\n{lines}\n\n"
        "captioning JOB --help says what a job takes. Exit codes: 0 done, 1 failed, 2 bad input, 3 refused by a gate.\n"
    )


if __name__ == "__main__":
    main()
