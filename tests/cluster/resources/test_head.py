import pytest
from ray._private import node as ray_node

from cluster.resources import head
from cluster.resources.head import lean_head
from tests.support.case_table import each_case


@pytest.mark.parametrize("refuses", [False, True])
def test_ray_gets_its_own_head_back(refuses):
    original = ray_node.Node
    try:
        with lean_head():
            assert issubclass(ray_node.Node, original)
            assert ray_node.Node is not original
            if refuses:
                raise ValueError
    except ValueError:
        pass
    assert ray_node.Node is original


@each_case("name", ["start_api_server", "start_monitor", "start_log_monitor", "start_ray_processes"])
def test_what_the_head_leaves_out_is_what_ray_starts(name):
    # A release of Ray that renames one of these would silently start it again.
    assert name in vars(ray_node.Node)
    assert name in vars(head._Head)
