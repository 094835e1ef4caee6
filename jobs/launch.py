"""Print starter manifests: clusters on AWS, Google Cloud or Kubernetes, MLflow's server, and their Dockerfile.

Each document pins the versions that are installed here. Keep it under version control and adapt it to your site.

Examples:
    captioning launch dockerfile --image registry.example/captioning:1 > Dockerfile
    captioning launch aws --image registry.example/captioning:1 --machine-image ami-0123456789abcdef0 > cluster.yaml
    captioning launch kuberay-cluster --image registry.example/captioning:1 --nodes 0:8 > cluster.yaml
    captioning launch kuberay-job --entrypoint 'captioning train coco --shards s3://bucket/coco-shards' --out job.yaml
    captioning launch mlflow --image registry.example/captioning:1 | kubectl apply -f -
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cluster.launch.render import KINDS, render
from cluster.launch.settings import LaunchConfig, installed_versions
from jobs.console.job import Invocation, Job
from jobs.console.output import write_document, write_json
from shards.storage.files import replace_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchJob:
    """The document to print."""

    kind: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="KIND")]
    """Kind of document, one of those above."""
    out: Path | None = None
    """File to write; an existing file with other content is not overwritten. Standard output if not given."""
    site: Annotated[LaunchConfig, tyro.conf.arg(name="")] = field(default_factory=LaunchConfig)


def main(invocation: Invocation[LaunchJob]) -> None:
    """Print the document, or write it to ``--out``."""
    job, versions = invocation.settings, installed_versions()
    document = render(job.kind, job.site, versions=versions)
    if job.out:
        _write(job.out, document, is_dry=invocation.dry_run)
    if invocation.json:
        write_json({"kind": job.kind, "versions": versions._asdict(), "out": job.out, "document": document})
    elif not job.out:
        write_document(document.rstrip("\n"))
    if "/" not in job.site.image:
        logger.warning(
            "image %s names no registry, so that nodes cannot pull it; use --image REGISTRY/NAME:TAG", job.site.image
        )


def _write(path: Path, document: str, *, is_dry: bool) -> None:
    content = document.encode()
    if path.exists() and path.read_bytes() != content:
        raise FileExistsError(f"{path} exists with other content; remove it, or choose another --out")
    logger.info("%s %s", "would write" if is_dry else "wrote", path)
    if not is_dry:
        replace_file(path, content)


JOB = Job(
    name="launch",
    settings=LaunchJob,
    run=main,
    description="\n".join([f"{__doc__}\nKinds:", *(f"    {kind}: {what}" for kind, what in KINDS.items()), ""]),
)
