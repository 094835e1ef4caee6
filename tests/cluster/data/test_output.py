import fsspec
import pytest

from cluster import api
from cluster.data.output import _lock_folder, require_owner, writing_to
from cluster.runs.checkpoint_store import CheckpointStore
from cluster.runs.claim import Claim, ClaimLostError, token_of
from cluster.search import features
from cluster.search.space.config import TuneRun
from cluster.search.space.space import parse_space
from shards.storage.lock import sole_writer


class PlannedError(Exception):
    """Ends a job where it would plan."""


def plan_while_locked(folder):
    """Return a function that replaces a job's plan, and checks that no other process may write meanwhile."""

    def plan(*arguments, **settings):
        with pytest.raises(BlockingIOError), sole_writer(folder, waits=False):
            pass
        raise PlannedError

    return plan


def test_a_folder_has_one_writer(tmp_path):
    with writing_to(tmp_path), pytest.raises(BlockingIOError), sole_writer(tmp_path, waits=False):
        pass


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    """Keep this machine's locks of URLs in the test's folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def memory_url():
    yield "memory://bucket/set"
    fsspec.filesystem("memory").rm("/", recursive=True)


def test_a_url_has_one_writer_of_a_machine(memory_url):
    with writing_to(memory_url), pytest.raises(BlockingIOError), sole_writer(_lock_folder(memory_url), waits=False):
        pass
    assert CheckpointStore(f"{memory_url}/.writer").file_names() == []


def test_a_writer_on_another_machine_is_waited_for_with_a_line(memory_url, caplog):
    other = Claim(CheckpointStore(f"{memory_url}/.writer"), "other", "process 1 on east")
    other.take()
    with writing_to(memory_url, sleep=lambda seconds: other.release()):
        require_owner()
    (told,) = caplog.messages
    assert f"{memory_url} is being written; waiting until that ends (" in told
    assert "belong to process 1 on east" in told


def test_what_a_killed_writer_of_this_machine_owned_is_taken_up_at_once(memory_url):
    killed = Claim(CheckpointStore(f"{memory_url}/.writer"), token_of(_lock_folder(memory_url)), "process 2 on here")
    killed.take()
    with writing_to(memory_url):
        require_owner()


def test_a_writer_that_was_cut_off_commits_nothing(memory_url):
    with writing_to(memory_url):
        Claim(CheckpointStore(f"{memory_url}/.writer"), "other", "process 1 on east").take(by_force=True)
        with pytest.raises(ClaimLostError, match="belong to process 1 on east"):
            require_owner()
    require_owner()  # outside of the block, nothing is owned


def test_a_search_owns_the_features_before_it_looks_for_what_is_missing(tmp_path, monkeypatch):
    run = TuneRun(features=tmp_path / "features")
    space = parse_space({"model.hidden_size": 8}, run)
    monkeypatch.setattr(features, "plan_extraction", plan_while_locked(run.features))
    with pytest.raises(PlannedError):
        features.extract_features(run, space, None, progress=lambda done, total: None)


def test_a_notebook_owns_the_shards_before_it_looks_for_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("cluster.data.conversion.plan_conversion", plan_while_locked(tmp_path / "out"))
    with pytest.raises(PlannedError):
        api.convert(tmp_path, tmp_path / "out")
