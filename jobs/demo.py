"""Run the full pipeline on synthetic scenes: draw, convert, train, evaluate, register, promote, caption.

Draws scenes of coloured shapes with captions from a grammar, so that every caption of the trained model can be checked
against its scene. Needs no data, no GPU and no cluster, and takes a few minutes on two CPU cores. The same command
again continues where it stopped. Ends with a table of results and an HTML page of captioned scenes.

Examples:
    captioning demo
    captioning demo --home /tmp/demo --json
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from captioning.config import outside, raise_mistakes
from cluster.config import ClusterConfig, StorageConfig, TrackingConfig, TrainRun
from cluster.job_progress import duration
from cluster.presets import TRAIN_PRESETS
from cluster.promotion.gate_config import GateConfig
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.progress_bars import training_bar
from jobs.console.tables import show_table
from jobs.convert import ConvertJob, run_conversion

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from captioning.evaluation.captioner import ImageCaptions
    from cluster.registry.models import ResolvedModel

logger = logging.getLogger(__name__)

_MODEL_NAME = "demo"
_SEED = 0
_NUM_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoJob:
    """Size of the demonstration."""

    num_train: int = 4000
    """Number of scenes to train on."""
    num_val: int = 200
    """Number of scenes for validation: they choose the checkpoint and score the model."""
    num_unseen: int = 200
    """Number of test scenes, each with a caption that is checked against the scene; the page shows ten of them."""
    storage: Annotated[StorageConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=StorageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(outside(self, num_train=(1, 10_000_000), num_val=(1, 10_000_000), num_unseen=(1, 10_000_000)))

    @property
    def folder(self) -> Path:
        """Return the folder of the scenes and the shard set."""
        return self.storage.home / "demo"

    def run(self) -> TrainRun:
        """Return the training run of the demonstration."""
        return replace(
            TRAIN_PRESETS["smoke"][1],
            name="demo",
            shards=self.folder / "shards",
            storage=self.storage,
            tracking=self.tracking,
        )


class _Stopwatch:
    """Measures the duration of each part, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def end(self, part: str) -> None:
        """Record the time since the previous part ended as the duration of this part."""
        now = time.monotonic()
        self.seconds[part], self._last = now - self._last, now


def main(invocation: Invocation[DemoJob]) -> None:
    """Run every part in turn and show the results, or say with ``--dry-run`` what would run."""
    job = invocation.settings
    if invocation.dry_run:
        logger.info("would draw %d scenes into %s and train run %s on them", job.num_train, job.folder, job.run().name)
        if invocation.json:
            write_json({"folder": job.folder, "run": job.run().name, "num_train": job.num_train})
        return
    results = _go(job)
    if invocation.json:
        write_json(results)


def _go(job: DemoJob) -> dict[str, Any]:
    from cluster.resources.session import cluster_session
    from cluster.tracking.client import connect
    from shards.synthetic.scenes import write_scenes

    watch = _Stopwatch()
    size_px = job.run().model.image_size_px
    logger.info("drawing %d synthetic scenes", job.num_train + job.num_val + job.num_unseen)
    write_scenes(
        job.folder / "scenes",
        num_train=job.num_train,
        num_val=job.num_val,
        num_unseen=job.num_unseen,
        seed=_SEED,
        size_px=size_px,
    )
    watch.end("draw")
    with cluster_session(ClusterConfig()):
        scenes = ConvertJob(source=job.folder / "scenes", shards=job.folder / "shards", samples_per_shard=500)
        run_conversion(scenes)
        watch.end("convert")
        _train(job.run())
        watch.end("train")
    client = connect(job.tracking, job.storage)
    scores, promotion = _promote(job, client)
    watch.end("evaluate, register, promote")
    truth, page = _caption_unseen(job, client)
    watch.end("caption")
    results = {
        "true_captions": truth, "scores": scores, "promotion": promotion, "page": page,
        "seconds": {part: round(seconds, 1) for part, seconds in watch.seconds.items()},
    }  # fmt: skip
    _report(job, results)
    return results


def _train(run: TrainRun) -> None:
    from cluster.training.trainer import fit

    with training_bar() as show_step:
        outcome = fit(run, show_step=show_step)
    logger.info("validation loss %.3f nats/word at step %d", outcome.validation_loss_nats, outcome.step)


def _promote(job: DemoJob, client: "MlflowClient") -> tuple[dict[str, float], str]:
    """Evaluate, register and promote the trained model; return its scores and a sentence on the promotion."""
    from cluster.data.shard_set import ShardSet
    from cluster.promotion.gate import Gate
    from cluster.promotion.outcome import record_outcome
    from cluster.promotion.promotion import promote
    from cluster.registry.models import resolve_model
    from cluster.registry.registration import register
    from cluster.registry.scores import evaluate_and_log

    config, shards = GateConfig(batch_size=50), job.folder / "shards"
    model = resolve_model(str(job.run().folder), client)
    evaluation = evaluate_and_log(
        model,
        ShardSet(shards),
        "val",
        client,
        storage=job.storage,
        beam_size=config.beam_size,
        batch_size=config.batch_size,
    )
    version = int(register(model, _MODEL_NAME, client).version)
    gate = Gate(config=config, shards=shards, storage=job.storage)
    outcome = promote(_MODEL_NAME, client, gate, version=version)
    record_outcome(outcome, client)
    result = "is now the champion" if outcome.is_promoted else "is refused"
    return evaluation.scores, f"version {version} {result}: {outcome.change.reason}"


def _caption_unseen(job: DemoJob, client: "MlflowClient") -> tuple[float, Path]:
    """Caption the unseen scenes with the champion; return the share of true captions and the path of a page of some."""
    from cluster.evaluation.evaluate import load_captioner
    from cluster.registry.models import resolve_model
    from shards.sources.coco import read_coco
    from shards.synthetic.scenes import is_true, scene_of

    champion = resolve_model(f"models:/{_MODEL_NAME}@champion", client)
    images = read_coco(job.folder / "scenes", ["unseen"]).splits["unseen"]
    jpegs = [image.path.read_bytes() for image in images]
    written = list(load_captioner(champion.folder, beam_size=3, batch_size=50).caption(jpegs))
    size_px = job.run().model.image_size_px
    are_true = [
        is_true(one.captions[0], scene_of(int(image.image_id), seed=_SEED, size_px=size_px))
        for image, one in zip(images, written, strict=True)
    ]
    page = job.storage.home / "demo.html"
    names = [image.path.name for image in images]
    _write_page(page, list(zip(names, jpegs, written, are_true, strict=True))[:_NUM_SHOWN], champion)
    return sum(are_true) / len(are_true), page


def _write_page(page: Path, shown: Sequence[tuple[str, bytes, "ImageCaptions", bool]], model: "ResolvedModel") -> None:
    from captioning.pages.gallery import GalleryItem, write_gallery

    items = [
        GalleryItem(name=name, jpeg=jpeg, captions=written.captions, verdict=is_true)
        for name, jpeg, written, is_true in shown
    ]
    num_true = sum(item.verdict or False for item in items)
    summary = [("model", str(model)), ("true captions", f"{num_true} of {len(items)}")]
    write_gallery(page, items, title="Captions of unseen scenes", summary=summary)


def _report(job: DemoJob, results: dict[str, Any]) -> None:
    rows = [("true captions of unseen scenes", f"{results['true_captions']:.1%} of {job.num_unseen}")]
    rows += [(f"{name} on val", f"{score:.3f}") for name, score in results["scores"].items()]
    rows += [("promotion", results["promotion"])]
    rows += [(part, duration(seconds)) for part, seconds in results["seconds"].items()]
    show_table("Demonstration", ("what", "result"), rows)
    home = job.storage.home
    logger.info("scenes and captions:   %s", results["page"])
    logger.info("runs and models:       captioning ui --home %s", home)
    logger.info("registered versions:   captioning models --home %s", home)
    logger.info("caption an image:      captioning caption IMAGE --model models:/demo@champion --home %s", home)


JOB = Job(name="demo", settings=DemoJob, run=main, description=__doc__, loads=("torch", "ray", "mlflow"))
