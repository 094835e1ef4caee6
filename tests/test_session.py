import pytest

from cluster.config import ClusterConfig
from cluster.session import cluster_session


def test_an_address_where_nothing_listens_is_refused():
    refused = cluster_session(ClusterConfig(address="127.0.0.1:9"))
    with (
        pytest.raises(ConnectionError, match=r"no Ray cluster answers at 127\.0\.0\.1:9 .*start it, or correct"),
        refused,
    ):
        pass


def test_the_address_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ConnectionError, match="answers at 127"), cluster_session(ClusterConfig()):
        pass


@pytest.mark.cluster
def test_without_an_address_ray_starts_here_and_ends_with_the_session(monkeypatch):
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with cluster_session(ClusterConfig()):
        with cluster_session(ClusterConfig()):
            pass
        was_up = ray.is_initialized()
    assert (was_up, ray.is_initialized()) == (True, False)
