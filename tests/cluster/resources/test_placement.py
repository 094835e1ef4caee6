import platform

import pytest
import ray

from cluster.resources.placement import on_node, task_on


def test_a_task_is_bound_to_its_node():
    strategy = on_node("a" * 56)
    assert (strategy.node_id, strategy.soft) == ("a" * 56, False)


@pytest.mark.cluster
def test_a_task_runs_on_its_node_though_others_have_taken_the_cpus(session):
    def where():  # nested, because a worker cannot import this test module
        return ray.get_runtime_context().get_node_id()

    group = ray.util.placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
    ray.get(group.ready())
    here = ray.get_runtime_context().get_node_id()
    found = ray.get(task_on(here, where).remote(), timeout=60)
    ray.util.remove_placement_group(group)
    assert found == here


@pytest.mark.cluster
def test_a_task_on_a_node_that_is_gone_fails_and_runs_nowhere_else(session):
    with pytest.raises(ray.exceptions.TaskUnschedulableError, match=r"node specified via .* exist any more"):
        ray.get(task_on("a" * 56, platform.node).remote(), timeout=60)
