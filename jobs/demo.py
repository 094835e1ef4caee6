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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from captioning.bounds import outside, raise_mistakes
from captioning.generation.config import GenerationConfig
from cluster.config import ClusterConfig, StorageConfig, TrackingConfig, TrainRun
from cluster.presets import TRAIN_PRESETS
from cluster.promotion.gate_config import GateConfig
from jobs.console.demo_view import demo_commands, demo_rows, report_demo, write_demo_page
from jobs.console.job import Invocation, Job
from jobs.console.output import write_json
from jobs.console.progress_bars import training_bar
from jobs.convert import ConvertJob, run_conversion

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from captioning.pages.gallery import GalleryItem
    from cluster.evaluation.evaluate import Evaluation
    from cluster.registry.models import ResolvedModel

logger = logging.getLogger(__name__)

_MODEL_NAME = "demo"
_SEED = 0
_CHECKPOINT_EVERY = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoJob:
    """Size of the demonstration."""

    num_train: int = 4000
    """Number of scenes to train on."""
    num_val: int = 200
    """Number of scenes for validation: they choose the checkpoint and score the model."""
    num_unseen: int = 200
    """Number of test scenes, each with a caption that is checked against the scene."""
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
        smoke = TRAIN_PRESETS["smoke"][1]
        return replace(
            smoke,
            name="demo",
            training=replace(smoke.training, checkpoint_every_steps=_checkpoint_every(self.storage.home)),
            shards=self.folder / "shards",
            storage=self.storage,
            tracking=self.tracking,
        )


def _checkpoint_every(home: Path) -> int:
    """Return the steps between two validations: few, so that the run's page shows how it learns; or as it began."""
    from cluster.runs.record import load_record

    record = load_record(home / "training" / "demo")
    return int(record.identity["training.checkpoint_every_steps"]) if record else _CHECKPOINT_EVERY


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
    from cluster.tracking.client import check_tracker, connect
    from cluster.tracking.pages import log_page
    from shards.synthetic.scenes import write_scenes

    check_tracker(job.tracking, job.storage)  # before the data is drawn and converted, which takes a minute
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
    evaluation, promotion = _promote(job, client)
    watch.end("evaluate, register, promote")
    unseen, champion = _caption_unseen(job, client)
    watch.end("caption")
    num_true = sum(item.verdict or False for item in unseen)
    results = {
        "true_captions": num_true / len(unseen), "scores": evaluation.scores, "promotion": promotion,
        "page": job.storage.home / "demo.html",
        "seconds": {part: round(seconds, 1) for part, seconds in watch.seconds.items()},
    }  # fmt: skip
    rows = demo_rows(results, num_true, len(unseen))
    commands = demo_commands(job.folder / "scenes" / "images" / unseen[0].name, job.storage.home)
    write_demo_page(results["page"], unseen, evaluation, champion, rows, commands)
    log_page(client, champion.mlflow_run_id or "", results["page"])
    report_demo(results["page"], rows, commands)
    return results


def _train(run: TrainRun) -> None:
    from cluster.training.trainer import fit

    with training_bar() as show_step:
        outcome = fit(run, show_step=show_step)
    logger.info("validation loss %.3f nats/word at step %d", outcome.validation_loss_nats, outcome.step)


def _promote(job: DemoJob, client: "MlflowClient") -> "tuple[Evaluation, str]":
    """Evaluate, register and promote the trained model; return its evaluation and a sentence on the promotion."""
    from cluster.data.shard_set import ShardSet
    from cluster.promotion.gate import Gate
    from cluster.promotion.outcome import record_outcome
    from cluster.promotion.pages import write_pages, write_promotion_page
    from cluster.promotion.promotion import promote
    from cluster.registry.models import resolve_model
    from cluster.registry.registration import register
    from cluster.registry.scores import evaluate_and_log

    config, shards = GateConfig(batch_size=50), job.folder / "shards"
    model, shard_set = resolve_model(str(job.run().folder), client), ShardSet(shards)
    evaluation = evaluate_and_log(
        model,
        shard_set,
        "val",
        client,
        storage=job.storage,
        generation=GenerationConfig(),
        batch_size=config.batch_size,
    )
    write_pages(model, evaluation, shard_set, client, job.storage)
    version = int(register(model, _MODEL_NAME, client).version)
    gate = Gate(config=config, shards=shards, storage=job.storage)
    outcome = promote(_MODEL_NAME, client, gate, version=version)
    record_outcome(outcome, client)
    write_promotion_page(outcome, client, gate)
    result = "is now the champion" if outcome.is_promoted else "is refused"
    return evaluation, f"version {version} {result}: {outcome.change.reason}"


def _caption_unseen(job: DemoJob, client: "MlflowClient") -> "tuple[list[GalleryItem], ResolvedModel]":
    """Caption the unseen scenes with the champion; return them with its captions, and the champion."""
    from captioning.pages.gallery import GalleryItem
    from cluster.evaluation.evaluate import load_captioner
    from cluster.registry.models import resolve_model
    from shards.sources.coco import read_coco
    from shards.synthetic.grammar import is_true
    from shards.synthetic.scenes import scene_of

    champion = resolve_model(f"models:/{_MODEL_NAME}@champion", client)
    images = read_coco(job.folder / "scenes", ["unseen"]).splits["unseen"]
    jpegs = [image.path.read_bytes() for image in images]
    written = load_captioner(champion.folder, generation=GenerationConfig(), batch_size=50).caption(jpegs)
    size_px = job.run().model.image_size_px
    items = [
        GalleryItem(
            name=image.path.name,
            jpeg=jpeg,
            captions=one.captions[:1],
            log_probability_nats=one.log_probability,
            references=image.captions,
            verdict=is_true(one.captions[0], scene_of(int(image.image_id), seed=_SEED, size_px=size_px)),
        )
        for image, jpeg, one in zip(images, jpegs, written, strict=True)
    ]
    return items, champion


JOB = Job(name="demo", settings=DemoJob, run=main, description=__doc__, loads=("torch", "ray", "mlflow"))
