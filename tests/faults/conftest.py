import pytest

from tests.faults.chaos import flags_for
from tests.support.training_process import TrainingRun

NUM_KILLS = 4


@pytest.fixture(scope="session")
def flags(drawn_shards):
    """Return the flags of the run that nobody disturbs; its batches are those of a run with loader processes."""
    return flags_for(NUM_KILLS, drawn_shards, ["--cluster.num-loader-processes", "0"])


@pytest.fixture(scope="session")
def undisturbed(shared_folder, flags):
    """Return the finished run that every disturbed one is compared with."""

    def at(home):
        return TrainingRun(None, home, "undisturbed", flags)

    def train(home):
        run = at(home)
        try:
            run.start()
            run.finish(seconds=300)
        finally:
            run.stop()

    return at(shared_folder("undisturbed", train))
