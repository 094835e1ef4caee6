"""``captioning check`` on a real cluster without a dashboard, where one job is alive and one was killed."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from cluster.config import ClusterConfig
from cluster.resources import gcs
from cluster.resources.environment import set_library_defaults
from cluster.resources.session import cluster_session
from tests.support.clock import eventually
from tests.support.repository import ROOT

# An actor on the far node creates a placement group after its job is dead: until then, the raylet there, which would
# kill the actor, is suspended.
DYING_JOB = """
import os, ray, sys, time
from pathlib import Path
from ray.train.v2._internal.execution.controller.placement_group_cleaner import PlacementGroupCleaner

address, folder = sys.argv[1:]
ray.init(address, namespace="dying", log_to_driver=False, logging_level="ERROR")

class Late:
    def make(self):
        Path(folder, "started").touch()
        while not Path(folder, "go").exists():
            time.sleep(0.05)
        self.group = ray.util.placement_group([{"CPU": 1}])
        Path(folder, "made").touch()
        time.sleep(600)

class Service:
    def make(self, name):
        self.group = ray.util.placement_group([{"CPU": 0.25}], name=name)
        ray.get(self.group.ready())

late = ray.remote(num_cpus=0, resources={"far": 1})(Late).remote()
late.make.remote()
detached = ray.remote(num_cpus=0)(Service).options(lifetime="detached", name="service").remote()
ray.get(detached.make.remote("of a service"))
ray.get(ray.util.placement_group([{"CPU": 0.25}], name="on purpose", lifetime="detached").ready())
named = {"lifetime": "detached", "name": "coordinator/runs/r", "namespace": "captioning"}
ray.get(ray.remote(num_cpus=0)(Service).options(**named).remote().__ray_ready__.remote())
cleaner = ray.remote(num_cpus=0)(PlacementGroupCleaner).options(lifetime="detached").remote(
    controller_actor_id=late._actor_id.hex(), check_interval_s=0.2, get_actor_timeout_s=1, stop_timeout=None
)
ray.get(cleaner.start_monitoring.remote())
while not Path(folder, "started").exists():
    time.sleep(0.05)
Path(folder, "ready").touch()
time.sleep(600)
"""
LIVING_JOB = """
import ray, sys, time
from pathlib import Path

address, folder = sys.argv[1:]
ray.init(address, namespace="captioning", log_to_driver=False, logging_level="ERROR")
ray.get(ray.util.placement_group([{"CPU": 1}], name="in use").ready())

class Coordinator:
    pass

coordinator = ray.remote(num_cpus=0)(Coordinator).options(name="coordinator/runs/living").remote()
ray.get(coordinator.__ray_ready__.remote())
Path(folder, "living").touch()
time.sleep(600)
"""


@pytest.fixture(scope="module")
def remains(tmp_path_factory):
    """Return the address of a cluster of 4 CPUs: a live job uses 1, and a killed job still reserves 1.5."""
    set_library_defaults()
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("jobs")
    sockets = Path("/tmp") / f"ray-{os.getpid()}-left"  # short, because Ray's socket paths lie below it
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, sockets, ignore_errors=True)
        head = {"num_cpus": 4, "include_dashboard": False, "temp_dir": str(sockets / "head")}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        undo.callback(cluster.shutdown)
        far = cluster.add_node(num_cpus=0, resources={"far": 1}, temp_dir=str(sockets / "far"))
        jobs = []
        for code in (LIVING_JOB, DYING_JOB):
            jobs.append(subprocess.Popen([sys.executable, "-c", code, cluster.address, folder]))
            undo.callback(jobs[-1].wait)
            undo.callback(jobs[-1].kill)
        eventually(lambda: (folder / "living").exists() and (folder / "ready").exists(), seconds=60)
        raylet = psutil.Process(far.all_processes["raylet"][0].process.pid)
        with cluster_session(ClusterConfig(address=cluster.address)):
            raylet.suspend()
            jobs[1].kill()
            eventually(lambda: gcs.read_tables().dead_jobs, seconds=60, every_seconds=0.1)
            (folder / "go").touch()
            eventually((folder / "made").exists)
            raylet.resume()
        yield cluster.address


def check(address, *arguments):
    command = [
        sys.executable,
        "-m",
        "jobs.cli",
        "check",
        "--cluster.address",
        address,
        "--json",
        "--home",
        tempfile.gettempdir(),
        *arguments,
    ]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return SimpleNamespace(code=answer.returncode, told=answer.stderr, **json.loads(answer.stdout))


def names(orphans):
    held = [", ".join(f"{amount:g} {name}" for name, amount in one["resources"].items()) for one in orphans]
    return sorted(one["name"] or resources for one, resources in zip(orphans, held, strict=True))


@pytest.fixture(scope="module")
def listed(remains):
    return check(remains)


@pytest.fixture(scope="module")
def cleaned(remains, listed):
    return check(remains, "--clean")


@pytest.mark.cluster
def test_a_group_made_while_its_job_died_and_the_actors_that_served_it_are_leftovers(listed):
    assert names(listed.leftovers) == ["1 CPU", "PlacementGroupCleaner", "coordinator/runs/r"]


@pytest.mark.cluster
def test_groups_made_to_stay_are_listed_as_kept(listed):
    assert names(listed.kept) == ["of a service", "on purpose"]


@pytest.mark.cluster
def test_listing_warns_and_removes_nothing(listed):
    assert (listed.code, listed.removed, "leftovers of dead jobs: 3; captioning check --clean" in listed.told) == (
        0, [], True,
    )  # fmt: skip


@pytest.mark.cluster
def test_room_that_a_dead_job_holds_is_told_with_its_remedy(listed):
    (found,) = [one for one in listed.checks if one["name"] == "resources"]
    assert (found["verdict"], "captioning check --clean removes the leftovers of dead jobs" in found["remedy"]) == (
        "warning", True,
    )  # fmt: skip


@pytest.mark.cluster
def test_nodes_are_told_with_what_is_free(listed):
    assert sorted((node["cpus"], node["cpus_free"], node["gpus"]) for node in listed.nodes) == [(0, 0, 0), (4, 1.5, 0)]


@pytest.mark.cluster
def test_cleaning_removes_all_leftovers_and_nothing_else(cleaned, listed, remains):
    after = check(remains)
    assert (cleaned.code, sorted(cleaned.removed)) == (0, sorted(one["id"] for one in listed.leftovers))
    assert (after.leftovers, names(after.kept)) == ([], ["of a service", "on purpose"])


@pytest.mark.cluster
def test_cpus_are_free_again_and_the_living_job_keeps_its_own(cleaned, remains):
    with cluster_session(ClusterConfig(address=remains)):
        eventually(lambda: 2.5 in [node.free.get("CPU") for node in gcs.list_nodes()], every_seconds=0.1)
        tables = gcs.read_tables()
    assert ("in use" in [one.name for one in tables.groups], "coordinator/runs/living" in [
        one.name for one in tables.actors if one.is_alive
    ]) == (True, True)  # fmt: skip
