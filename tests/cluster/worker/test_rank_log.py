import logging
import re

import pytest

from cluster.worker.rank_log import log_of_rank


@pytest.fixture
def stamped(capsys):
    """Return a function that returns the stamped log lines, each from its level on."""
    return lambda: re.findall(r"^[\d-]+ [\d:,]+ (\w+ run .*)$", capsys.readouterr().err, re.MULTILINE)


def test_a_line_names_run_rank_and_the_step_it_was_logged_at(stamped):
    step = [4]
    with log_of_rank("first", 3, lambda: step[0]):
        logging.getLogger("shards.reader").info("reads")
        step[0] = 5
        logging.getLogger("captioning.training.loop").warning("leaves out %d", 2)
    assert stamped() == ["INFO run first rank 3 step 4: reads", "WARNING run first rank 3 step 5: leaves out 2"]


def test_a_process_may_be_a_rank_of_one_run_after_another(stamped):
    for run in ("first", "second"):
        with log_of_rank(run, 0, lambda: 0):
            logging.getLogger("cluster.worker.rank").info("begins")
    assert stamped() == ["INFO run first rank 0 step 0: begins", "INFO run second rank 0 step 0: begins"]


def test_other_libraries_are_not_logged(stamped):
    with log_of_rank("first", 0, lambda: 0):
        logging.getLogger("elsewhere").warning("noise")
    assert stamped() == []


def test_a_line_is_there_once_where_the_process_has_a_log_of_its_own(capsys):
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    try:
        with log_of_rank("first", 0, lambda: 0):
            logging.getLogger("cluster.worker.rank").info("begins")
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().err.count("begins") == 1
