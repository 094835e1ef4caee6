import pytest


@pytest.fixture(scope="session")
def state():
    """Return a state after two steps of training, which nobody changes."""
    from tests.support.checkpoints import trained

    return trained()


@pytest.fixture(scope="session")
def original(tmp_path_factory, state):
    """Return the checkpoint of that state, which nobody changes."""
    from tests.support.checkpoints import save

    return save(tmp_path_factory.mktemp("run") / "checkpoint", state)
