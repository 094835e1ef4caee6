"""Show where a model comes from: version, run, code, configuration, scores, and the checksums of its data.

MODEL is models:/NAME@alias, models:/NAME/VERSION, runs:/ID (that run's best checkpoint), or the folder of a checkpoint
or run. --json adds the whole configuration and the checksum of every shard.

Examples:
    captioning lineage models:/captioner@champion
    captioning lineage models:/captioner/3 --json
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from cluster.config import HomeConfig, TrackerConfig
from cluster.registry.evaluations import search_text
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.tables import show_table

if TYPE_CHECKING:
    from cluster.provenance.lineage import Lineage

logger = logging.getLogger(__name__)

_NUM_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class LineageJob:
    """The model to trace."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Model to trace, in one of the forms above."""
    storage: Annotated[HomeConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=HomeConfig)
    tracking: TrackerConfig = field(default_factory=TrackerConfig)


def main(invocation: Invocation[LineageJob]) -> None:
    """Show the model's lineage."""
    job = invocation.settings
    from cluster.provenance.lineage import trace
    from cluster.registry.models import resolve_model
    from cluster.tracking.client import connect

    client = connect(job.tracking, job.storage, only_reads=True)
    lineage = trace(resolve_model(job.model, client), client)
    if invocation.json:
        write_json(lineage)
        return
    show_table(f"{lineage.model} (in {client.tracking_uri})", ("what", "value"), list(_rows(lineage)))


def _rows(lineage: "Lineage") -> Iterator[tuple[str, str]]:
    if lineage.registered:
        yield "registered", f"by {lineage.registered['by']}, {lineage.registered['at']}"
    for change in lineage.promotions:
        before = f"replacing version {change.over}" if change.over else "as the first champion"
        yield "champion", f"{change.kind} {before}, by {change.by}, {change.at}: {change.reason}"
    yield "run", _joined(lineage.run)
    yield "code", f"{lineage.code['commit']}, uncommitted changes: {lineage.code['dirty']}"
    for split, evaluation in lineage.scores.items():
        scores = ", ".join(f"{name} {score:.4f}" for name, score in evaluation["scores"].items())
        digest = str(evaluation.get("shards_digest", "unknown"))[:12]
        yield f"scores on {split}", f"{scores} ({search_text(evaluation)}, shard set {digest})"
    yield "packages", _joined(lineage.packages)
    for section in ("model", "optimizer", "training"):
        if section in lineage.configuration:
            yield section, _joined(lineage.configuration[section])
    yield from ((f"file {name}", digest) for name, digest in lineage.checkpoint.items())
    yield from _data_rows("shard set", lineage.shards)
    if lineage.features:
        yield from _data_rows("feature set", lineage.features)


def _data_rows(what: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield what, f"{data['digest']} at {data['location']}" if data["location"] else data["digest"]
    if "tokenizer" in data:
        yield f"{what}'s tokenizer", data["tokenizer"]
    if "fault" in data:
        yield f"{what} now", data["fault"]
        return
    if "encoder" in data:
        yield f"{what} by", _joined(data["encoder"])
    yield from ((f"annotations {name}", digest) for name, digest in data.get("annotations", {}).items())
    files = list(data["files"].items())
    yield from ((f"shard {name}", digest) for name, digest in files[:_NUM_SHOWN])
    if len(files) > _NUM_SHOWN:
        yield f"{len(files) - _NUM_SHOWN} more shards", "shown by --json"


def _joined(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


JOB = Job(name="lineage", settings=LineageJob, run=main, description=__doc__, changes_nothing=True)
