"""Which loggers pytest attaches to, for each part of each test."""

import logging

from _pytest.logging import catching_logs


def capture_few_loggers():
    """Let pytest attach to the root logger and the few that do not propagate to it, found once.

    Else it looks through some 600 loggers six times a test, and attaches to 60 of torch, which do not propagate either.
    """
    loggers = [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    for logger in loggers:
        if logger.name.startswith("torch."):
            logger.propagate = True
    few = [logging.root, *(logger for logger in loggers if not logger.propagate)]
    enter = catching_logs.__enter__

    def attach(catching):
        if catching.level is not None or not hasattr(catching, "attached_loggers"):  # which older releases have not
            return enter(catching)
        for logger in few:
            logger.addHandler(catching.handler)
        catching.attached_loggers.extend(few)
        return catching.handler

    catching_logs.__enter__ = attach
