"""Log of a rank: lines on standard error, each with run, rank and step."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.log_text import clean_logs

_PACKAGES = ("captioning", "cluster", "shards")
_FORM = "%(asctime)s %(levelname)s run %(run)s rank %(rank)d step %(step)d: %(message)s"


class _Stamp(logging.Filter):
    """Logging filter that adds run, rank and step to every record."""

    def __init__(self, run: str, rank: int, step: Callable[[], int]) -> None:
        super().__init__()
        self._run, self._rank, self._step = run, rank, step

    def filter(self, record: logging.LogRecord) -> bool:
        record.run, record.rank, record.step = self._run, self._rank, self._step()
        return True


@contextmanager
def log_of_rank(run: str, rank: int, step: Callable[[], int]) -> Iterator[None]:
    """Log this process's records, from level INFO, as those of a rank.

    Args:
        run: name of the run.
        rank: number of this process in its group.
        step: function that returns the number of steps done.
    """
    clean_logs()
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Stamp(run, rank, step))
    handler.setFormatter(logging.Formatter(_FORM))
    loggers = [logging.getLogger(package) for package in _PACKAGES]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        # In a submitted job, Ray also logs the records of the root logger: every line would appear twice.
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
