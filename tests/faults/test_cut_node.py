"""A host that is cut off during a conversion: Ray declares its node dead, and its shards are written elsewhere."""

import subprocess
import sys

import pytest

from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from shards.images import ImageSpec
from shards.manifest import load_manifest
from shards.synthetic.scenes import write_scenes
from tests.support.hosts import BIN, hosts_or_skip
from tests.support.local_cluster import wait_until
from tests.support.repository import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.timeout(240)]

NAMES = ("head", "worker-1", "worker-2")
# A dead node is noticed within seconds, not within a minute.
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
CONVERT = ("convert", "/mnt/coco", "/mnt/cut", "--address", "head:6379", "--samples-per-shard", "50")


def start_ray(host, *arguments):
    own = ["--object-store-memory", "80000000", "--temp-dir", host.home / "ray", "--node-ip-address", host.address]
    host.start(BIN / "ray", "start", "--block", *own, *arguments, **QUICK)


@pytest.fixture
def hosts():
    """Return Ray's head without CPUs and two workers with one each, with photographs on a folder that all mount."""
    with hosts_or_skip(NAMES, sharing=NAMES, environment={"PYTHONPATH": f"{ROOT}"}) as hosts:
        start_ray(hosts["head"], "--head", "--port", "6379", "--num-cpus", "0", "--dashboard-host", "0.0.0.0")
        write_scenes(hosts.mounted / "coco", num_train=3000, num_val=10, seed=4, size_px=64)
        wait_until(lambda: hosts["head"].answers(6379), lambda: "Ray's head answers", seconds=90)
        for name in NAMES[1:]:
            start_ray(hosts[name], "--address", "head:6379", "--num-cpus", "1")
        wait_until(lambda: hosts["head"].answers(8265), lambda: "the dashboard answers", seconds=90)
        wait_until(lambda: num_nodes(hosts["head"]) == 3, lambda: "Ray has three nodes", seconds=60)
        yield hosts


def num_nodes(head):
    ask = "import urllib.request; print(urllib.request.urlopen('http://head:8265/nodes?view=summary').read().decode())"
    return head.run(sys.executable, "-S", "-c", ask).count('"state": "ALIVE"')


def is_caught(host):
    """Suspend a host's actor in the middle of a shard, so that it does not end that before the cut."""
    for actor in host.processes("ray::_Worker"):
        actor.suspend()
        if actor.cmdline()[0].startswith("ray::_Worker.write"):
            return True
        actor.resume()
    return False


def test_a_conversion_goes_on_without_a_host_that_is_cut_off(hosts, tmp_path):
    line, environment = hosts["head"].command(BIN / "captioning", *CONVERT, "--num-workers", "2", folder=ROOT)
    records = hosts.mounted / "cut" / "records"
    with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(
            lambda: process.poll() is not None or (any(records.glob("*.json")) and is_caught(hosts["worker-2"])),
            lambda: "a shard is written, and another one is begun",
            seconds=60,
        )
        hosts.cut("worker-2")
        try:
            told = process.communicate(timeout=90)[1]
        finally:
            process.kill()
    spec = ImageSpec()
    planned = plan_conversion(
        hosts.mounted / "coco", tmp_path, ConversionConfig(image=spec, samples_per_shard=50, minimum_word_count=4)
    )
    assert (process.returncode, "an actor was lost " in told) == (0, True), told
    assert load_manifest(hosts.mounted / "cut").digest == convert(planned, num_workers=0).digest
