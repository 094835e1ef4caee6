"""Settings of a site's cluster, and the versions that all its machines share. Imports no torch, Ray or MLflow."""

import re
import shlex
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

import tyro

from cluster.settings import parse_range

# A DNS label, short enough for what KubeRay appends to it.
_DNS_LABEL_FORM = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_IMAGE_FORM = re.compile(r"[a-z0-9][\w./:@-]*")


class Versions(NamedTuple):
    """Versions in the image, which who submits a job to the cluster should have as well."""

    captioning: str
    ray: str
    mlflow: str
    python: str
    """Minor version, such as 3.11."""

    @property
    def base_image(self) -> str:
        """Return Ray's own image with this Ray and Python; torch brings the CUDA libraries itself."""
        return f"rayproject/ray:{self.ray}-py{self.python.replace('.', '')}-cpu"


def installed_versions() -> Versions:
    """Return what is installed here."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Versions(version("captioning"), version("ray"), version("mlflow"), python)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchConfig:
    """A cluster, the jobs on it, and the tracker beside it."""

    name: str = "captioning"
    """Name of the cluster, and the first part of all other names."""
    image: str = field(default_factory=lambda: f"captioning:{version('captioning')}")
    """What nodes run: built by the Dockerfile of captioning launch dockerfile, and pushed to where they can pull it."""
    nodes: Annotated[str, tyro.conf.arg(metavar="N|MIN:MAX")] = "0:4"
    """Nodes beside the head; MIN:MAX starts and ends them as jobs need them."""
    gpus_per_node: int = 1
    """GPUs of a node; 0 for none."""
    cpus_per_node: int = 8
    """CPUs of a node."""
    memory_gib: int = 30
    """Memory of a node's container in GiB (Kubernetes); a little less than the machine has."""
    disk_gib: int = 200
    """Disk of a machine (aws, gcp), or of the tracker's artifacts (mlflow)."""
    idle_minutes: int = 10
    """Minutes after which a node without work ends."""
    use_spot: bool = True
    """Take nodes, not the head, from what the cloud sells cheaper and may take back (aws, gcp)."""
    machine: str | None = None
    """Machine type of the nodes (aws, gcp); known for 8 CPUs with one GPU or none."""
    machine_image: str | None = None
    """What machines start from (aws, gcp): Ubuntu with Docker and, for GPUs, NVIDIA's driver and container tools."""
    region: str | None = None
    """Region of the cloud; us-west-2 (aws) or us-central1 (gcp) if not given."""
    zone: str = "a"
    """Letter of the region's zone (gcp)."""
    project: str | None = None
    """Project's id (gcp)."""
    identity: str | None = None
    """What nodes read and write storage as: an instance profile's ARN (aws), a service account's address (gcp) or name
    (Kubernetes)."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels of the Kubernetes nodes that workers go to, such as cloud.google.com/gke-spot true."""
    tracking_uri: str | None = None
    """Address of the MLflow server, for all nodes: http://NAME-mlflow:5000 is the one of captioning launch mlflow."""
    entrypoint: str | None = None
    """Command of a kuberay-job, such as 'captioning train coco --shards s3://bucket/shards'."""
    retries: int = 3
    """Times a kuberay-job starts again on a fresh cluster after it failed."""
    deadline_hours: int = 24
    """Hours after which a kuberay-job is ended."""
    keep_minutes: int = 10
    """Minutes for which the cluster of a kuberay-job stays after its end."""

    def __post_init__(self) -> None:
        """Check the bounds and forms."""
        if not _DNS_LABEL_FORM.fullmatch(self.name):
            raise ValueError(
                f"name {self.name!r} cannot be a cluster's; use up to 40 of a-z, 0-9 and -, a letter first"
            )
        if not _IMAGE_FORM.fullmatch(self.image):
            raise ValueError(f"image {self.image!r} is no image's name; use REGISTRY/NAME:TAG")
        if self.max_nodes < 1:
            raise ValueError(f"nodes {self.nodes} leaves none to work; use N, or MIN:MAX such as 0:4")
        for name in ("cpus_per_node", "memory_gib", "disk_gib", "idle_minutes", "deadline_hours"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is too little; use 1 or more")
        for name in ("gpus_per_node", "retries", "keep_minutes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative; use 0 or more")
        if self.tracking_uri is not None:
            _check_uri(self.tracking_uri)

    @property
    def min_nodes(self) -> int:
        """Return how many nodes there always are."""
        return self._bounds()[0]

    @property
    def max_nodes(self) -> int:
        """Return how many nodes there are at most."""
        return self._bounds()[1]

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that every node's container gets."""
        return {"MLFLOW_TRACKING_URI": self.tracking_uri} if self.tracking_uri else {}

    @property
    def docker_options(self) -> list[str]:
        """Return options of ``docker run``, quoted for a shell."""
        variables = [f"-e {shlex.quote(f'{name}={value}')}" for name, value in self.environment.items()]
        return ["--ulimit nofile=65536:65536", *variables]

    def _bounds(self) -> tuple[int, int]:
        if (bounds := parse_range(self.nodes)) is None:
            raise ValueError(f"nodes {self.nodes} is no number of nodes; use N, or MIN:MAX such as 0:4")
        return bounds


def _check_uri(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", uri)
        has_secret = parts.password is not None
    except ValueError:
        is_address = has_secret = False
    if has_secret:
        raise ValueError("tracking_uri holds a password, which a file must not; use the address alone")
    if not is_address:
        raise ValueError(f"tracking_uri {uri!r} is no server that all nodes reach; use http://HOST:PORT")
