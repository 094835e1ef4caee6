"""Settings of a cluster, and the versions that all its machines share. Imports no torch, Ray or MLflow."""

import re
import shlex
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

import tyro

from cluster.settings import parse_range
from shards.storage.location import refuse_credentials

# A DNS label, short enough for the suffixes that KubeRay appends.
_DNS_LABEL_FORM = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_IMAGE_FORM = re.compile(r"[a-z0-9][\w./:@-]*")


class Versions(NamedTuple):
    """Versions in the image; clients that submit jobs to the cluster should have the same."""

    captioning: str
    ray: str
    mlflow: str
    python: str
    """Minor version, such as 3.11."""

    @property
    def base_image(self) -> str:
        """Return Ray's image for this Ray and Python; its CPU variant, because torch brings the CUDA libraries."""
        return f"rayproject/ray:{self.ray}-py{self.python.replace('.', '')}-cpu"


def installed_versions() -> Versions:
    """Return the versions installed here."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Versions(version("captioning"), version("ray"), version("mlflow"), python)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchConfig:
    """Settings of a cluster, its jobs, and its tracker."""

    name: str = "captioning"
    """Name of the cluster, and prefix of all other names."""
    image: str = field(default_factory=lambda: f"captioning:{version('captioning')}")
    """Container image of the nodes; build it with captioning launch dockerfile, and push it where they can pull it."""
    nodes: Annotated[str, tyro.conf.arg(metavar="N|MIN:MAX")] = "0:4"
    """Number of nodes beside the head; with MIN:MAX the autoscaler adds and removes nodes as jobs need them."""
    gpus_per_node: int = 1
    """GPUs per node; 0 for none."""
    cpus_per_node: int = 8
    """CPUs per node."""
    memory_gib: int = 30
    """Memory of a node's container in GiB (Kubernetes); a little less than the machine's."""
    disk_gib: int = 200
    """Disk size in GiB of a machine (aws, gcp), or of the tracker's artifacts (mlflow)."""
    idle_minutes: int = 10
    """Idle time in minutes after which a node is removed."""
    use_spot: bool = True
    """Use spot machines for the nodes, but not for the head: cheaper, but the cloud may reclaim them (aws, gcp)."""
    machine: str | None = None
    """Machine type of the nodes (aws, gcp); if not given, one of 8 CPUs with one GPU or none."""
    machine_image: str | None = None
    """Machine image (aws, gcp): Ubuntu with Docker and, for GPUs, NVIDIA's driver and container toolkit. It
    must be given for these kinds."""
    region: str | None = None
    """Region of the cloud; us-west-2 (aws) or us-central1 (gcp) if not given."""
    zone: str = "a"
    """Letter of the zone in the region (gcp)."""
    project: str | None = None
    """Id of the project (gcp), which must be given for this kind."""
    identity: str | None = None
    """Identity with which nodes access storage: an instance profile's ARN (aws), or a service account's email address
    (gcp) or name (Kubernetes). Without one, nodes have the rights that their cloud or cluster gives to all."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels of the Kubernetes nodes that may run workers, such as cloud.google.com/gke-spot true."""
    tracking_uri: str | None = None
    """Address of the MLflow server, for all nodes, such as http://NAME-mlflow:5000 of captioning launch mlflow; if
    not given, MLFLOW_TRACKING_URI is not set on the nodes."""
    entrypoint: str | None = None
    """Command that a kuberay-job runs, such as 'captioning train coco --shards s3://bucket/coco-shards'; it must be
    given for this kind."""
    retries: int = 3
    """Number of retries of a failed kuberay-job, each on a new cluster."""
    deadline_hours: int = 24
    """Time in hours after which a kuberay-job is stopped."""
    keep_minutes: int = 10
    """Time in minutes for which the cluster of a kuberay-job stays after the job has ended."""

    def __post_init__(self) -> None:
        """Check the bounds and forms."""
        if not _DNS_LABEL_FORM.fullmatch(self.name):
            raise ValueError(
                f"name {self.name!r} is not valid for a cluster; use up to 40 of a-z, 0-9 and -, starting with a letter"
            )
        if not _IMAGE_FORM.fullmatch(self.image):
            raise ValueError(f"image {self.image!r} is not an image name; use REGISTRY/NAME:TAG")
        if self.max_nodes < 1:
            raise ValueError(f"nodes {self.nodes} leaves no node for workers; use N, or MIN:MAX such as 0:4")
        for name in ("cpus_per_node", "memory_gib", "disk_gib", "idle_minutes", "deadline_hours"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is too small; use 1 or more")
        for name in ("gpus_per_node", "retries", "keep_minutes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is negative; use 0 or more")
        if self.tracking_uri is not None:
            _check_uri(self.tracking_uri)

    @property
    def min_nodes(self) -> int:
        """Return the smallest number of nodes."""
        return self._bounds()[0]

    @property
    def max_nodes(self) -> int:
        """Return the largest number of nodes."""
        return self._bounds()[1]

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables of every node's container."""
        return {"MLFLOW_TRACKING_URI": self.tracking_uri} if self.tracking_uri else {}

    @property
    def docker_options(self) -> list[str]:
        """Return options of ``docker run``, quoted for a shell."""
        variables = [f"-e {shlex.quote(f'{name}={value}')}" for name, value in self.environment.items()]
        return ["--ulimit nofile=65536:65536", *variables]

    def _bounds(self) -> tuple[int, int]:
        if (bounds := parse_range(self.nodes)) is None:
            raise ValueError(f"nodes {self.nodes} is not a number of nodes; use N, or MIN:MAX such as 0:4")
        return bounds


def _check_uri(uri: str) -> None:
    refuse_credentials(uri, "tracking_uri")
    try:
        parts = urlsplit(uri)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", uri)
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError(f"tracking_uri {uri!r} is not the address of a server; use http://HOST:PORT")
