import importlib
import sys

from cluster.worker.preload import preload


def test_all_that_a_rank_needs_is_imported():
    preload()
    assert {"cluster.worker.worker", "ray.train.torch.config"} <= sys.modules.keys()


def test_an_import_that_fails_is_left_to_the_rank(monkeypatch):
    tried = []

    def fail(name):
        tried.append(name)
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", fail)
    preload()
    assert tried == ["cluster.worker.worker", "ray.train.torch.config"]
