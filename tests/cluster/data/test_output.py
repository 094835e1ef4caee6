import pytest

from cluster import api
from cluster.data.output import writing_to
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


def test_a_url_needs_no_lock():
    with writing_to("memory://bucket/set"):
        pass


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
