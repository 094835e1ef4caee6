"""Rendering of starter manifests: Ray's cluster launcher, KubeRay, the MLflow server, and the Dockerfile."""

import math
from collections.abc import Mapping, Sequence

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from cluster.launch.settings import LaunchConfig, Versions

KINDS = {
    "aws": "a cluster on AWS, for ray up",
    "gcp": "a cluster on Google Cloud, for ray up",
    "kuberay-cluster": "a RayCluster of KubeRay, for kubectl apply",
    "kuberay-job": "a RayJob of KubeRay: one command on its own cluster, with retries and a deadline",
    "mlflow": "an MLflow server on Kubernetes",
    "dockerfile": "the image that all of them run, built from a checkout",
}
_REGIONS = {"aws": "us-west-2", "gcp": "us-central1"}
_HEADS = {"aws": "m5.xlarge", "gcp": "n2-standard-4"}
# Machine types with 8 CPUs and 32 GiB, by number of GPUs (aws: A10G, gcp: L4, both with 24 GiB).
_MACHINES = {
    "aws": {0: "m5.2xlarge", 1: "g5.2xlarge"},
    "gcp": {0: "n2-standard-8", 1: "g2-standard-8"},
}


def render(kind: str, config: LaunchConfig, *, versions: Versions) -> str:
    """Return the text of a manifest; the same input gives the same bytes.

    Args:
        kind: one of ``KINDS``.
        config: settings of the cluster, its jobs and its tracker.
        versions: versions in the image.

    Raises:
        ValueError: the kind is unknown, or a setting that it needs is missing.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown manifest {kind}; use one of {', '.join(KINDS)}")
    if kind == "kuberay-job" and not (config.entrypoint or "").strip():
        raise ValueError("a kuberay-job needs a command to run; give it as --entrypoint 'captioning train ...'")
    environment = Environment(
        loader=PackageLoader("cluster.launch"),
        autoescape=False,  # the output is not HTML; the ``quoted`` filter escapes values for YAML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = _quoted
    return environment.get_template(f"{kind}.jinja").render(config=config, versions=versions, **_machines(kind, config))


def _quoted(value: str | Mapping[str, str] | Sequence[str]) -> str:
    """Return a value as quoted YAML on one line, safe for any content."""
    return yaml.safe_dump(
        value, default_style='"', default_flow_style=True, allow_unicode=True, width=math.inf, sort_keys=False
    ).rstrip("\n")


def _machines(kind: str, config: LaunchConfig) -> dict[str, str]:
    """Return region and machine types for a cloud's manifest; empty for the others."""
    if kind not in _MACHINES:
        return {}
    if not config.machine_image:
        raise ValueError(
            f"{kind} needs a machine image; give one with Ubuntu, Docker and, for GPUs, NVIDIA's driver as "
            f"--machine-image {'ami-...' if kind == 'aws' else 'projects/PROJECT/global/images/family/FAMILY'}"
        )
    if kind == "gcp" and not config.project:
        raise ValueError("gcp needs a project; give its id as --project ID")
    machine = config.machine or (_MACHINES[kind].get(config.gpus_per_node) if config.cpus_per_node == 8 else None)
    if not machine:
        raise ValueError(
            f"{kind} has no default machine type for --gpus-per-node {config.gpus_per_node} and --cpus-per-node "
            f"{config.cpus_per_node}; choose one with --machine TYPE"
        )
    return {"region": config.region or _REGIONS[kind], "head": _HEADS[kind], "machine": machine}
