import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from cluster.launch.settings import LaunchConfig, Versions, installed_versions
from tests.support.case_table import each_case
from tests.support.repository import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_what_is_installed_is_what_pyproject_pins():
    installed = installed_versions()
    required = {one.name: one.specifier for one in map(Requirement, PYPROJECT["project"]["dependencies"])}
    assert Version(installed.ray) in required["ray"]
    assert Version(installed.mlflow) in required["mlflow"]
    assert Version(installed.python) in SpecifierSet(PYPROJECT["project"]["requires-python"])


@each_case(
    ("settings", "message"),
    [
        ({"name": "My_Cluster"}, "name 'My_Cluster' is not valid for a cluster; use up to 40 of a-z, 0-9 and -"),
        ({"name": "a" * 41}, "is not valid for a cluster"),
        ({"image": "a b"}, "image 'a b' is not an image name; use REGISTRY/NAME:TAG"),
        ({"nodes": "4:1"}, "nodes 4:1 is not a number of nodes; use N, or MIN:MAX such as 0:4"),
        ({"nodes": "many"}, "nodes many is not a number of nodes"),
        ({"nodes": "0"}, "nodes 0 leaves no node for workers"),
        ({"cpus_per_node": 0}, "cpus_per_node 0 is too small; use 1 or more"),
        ({"gpus_per_node": -1}, "gpus_per_node -1 is negative; use 0 or more"),
        ({"tracking_uri": "sqlite:///x"}, "tracking_uri 'sqlite:///x' is not the address of a server"),
        ({"tracking_uri": "http://[x"}, "is not the address of a server"),
        ({"tracking_uri": "http://me:secret@h"}, "^tracking_uri http://h contains credentials, but"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LaunchConfig(**settings)


@pytest.mark.parametrize(("nodes", "bounds"), [("3", (3, 3)), ("0:4", (0, 4))])
def test_nodes_are_a_number_or_bounds(nodes, bounds):
    config = LaunchConfig(nodes=nodes)
    assert (config.min_nodes, config.max_nodes) == bounds


def test_a_container_is_told_the_tracker_in_a_form_that_a_shell_takes():
    config = LaunchConfig(tracking_uri="http://mlflow:5000/a&b")
    assert config.docker_options[1:] == ["-e 'MLFLOW_TRACKING_URI=http://mlflow:5000/a&b'"]


def test_rays_image_is_named_by_ray_and_python():
    versions = Versions(captioning="0.9", ray="2.61.3", mlflow="3.18.2", python="3.12")
    assert versions.base_image == "rayproject/ray:2.61.3-py312-cpu"
