"""Disturb a training run at random moments, and compare it with one that nobody disturbed.

Examples:
    python tests/faults/chaos.py --kills 50 --seed 0
    python tests/faults/chaos.py --kills 20 --kinds worker,node,driver --markdown
    python tests/faults/chaos.py --kills 30 --shards data/coco -- --model.backbone resnet18 --training.num-epochs 2
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# This script is also run by its path, when the checkout is not where Python looks.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.faults.comparison import assert_nothing_is_left, assert_unharmed
from tests.faults.disturbing import Disturbance, disturb
from tests.faults.scene import Scene
from tests.faults.strikes import KINDS, plan_events
from tests.support.local_cluster import local_cluster
from tests.support.s3 import Bucket
from tests.support.tracker_process import Tracker
from tests.support.training_process import TrainingRun

logger = logging.getLogger("chaos")

NUM_WORKERS, NUM_NODES = 2, 3
_NUM_DRAWN, _BATCH_SIZE = 120, 15
_STEPS_PER_KILL = 24
_LOST = "0"  # of all kinds together: a run that lost a sample gets no table, but an error
FLAGS = {
    "model.backbone": "squeezenet1_1",
    "model.weights": "none",
    "model.trainable-from": "features.12",
    "model.image-size-px": "64",
    "model.embedding-size": "16",
    "model.hidden-size": "16",
    "model.dropout": "0.3",
    "optimizer.warmup-steps": "5",
    "training.batch-size": str(_BATCH_SIZE),
    "training.accumulation": "2",
    "training.ema-decay": "0.9",
    "training.checkpoint-every-steps": "10",
    "training.keep-last": "3",
    "cluster.num-workers": str(NUM_WORKERS),
    "cluster.num-loader-processes": "1",
    "cluster.max-restarts": "20",
    "cluster.hang-seconds": "20",
}
SELF_CRITICAL = {
    "training.self-critical-samples": "3",
    "training.max-caption-words": "12",
    "validation.best-by": "validation_cider_d",
    "validation.beam-size": "1",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of a chaos run.

    Attributes:
        rows: a line a kind: what, times, when, work redone, samples lost, recovery.
        claims: that hold.
        notes: on single events.
    """

    rows: list[list[str]]
    claims: list[str]
    notes: list[str]


COLUMNS = (
    "what was killed",
    "times",
    "when",
    "steps redone, median / worst",
    "samples lost",
    "recovery, median / worst",
)


def flags_for(num_kills: int, shards: Path, further: Sequence[str] = ()) -> list[str]:
    """Return the flags of a run that is long enough for so many kills; in its second half, it is self-critical."""
    num_epochs = -(-(max(4, num_kills) * _STEPS_PER_KILL * _BATCH_SIZE) // _NUM_DRAWN)
    settings = FLAGS | SELF_CRITICAL | {"shards": str(shards)}
    settings["training.num-epochs"] = str(num_epochs - num_epochs // 2)
    settings["training.self-critical-epochs"] = str(num_epochs // 2)
    return [text for name, value in settings.items() for text in (f"--{name}", value)] + ["--ledger", *further]


def run_chaos(
    folder: Path,
    shards: Path,
    *,
    kinds: Sequence[str],
    num_kills: int,
    seed: int,
    further: Sequence[str] = (),
    undisturbed: TrainingRun | None = None,
) -> Report:
    """Train undisturbed, then disturbed, and compare.

    Args:
        folder: for all that is written.
        shards: to train on.
        kinds: of ``KINDS`` that happen.
        num_kills: in all.
        seed: of when what happens.
        further: flags of ``captioning train``.
        undisturbed: finished run of the same flags, if there is one.

    Raises:
        AssertionError: the disturbed run did not end as the undisturbed one.
    """
    tracker = Tracker(folder / "tracker") if "tracker" in kinds else None
    bucket = Bucket() if {"bucket", "second-owner"} & set(kinds) else None
    uri = tracker.uri if tracker else None
    flags = flags_for(num_kills, shards, further) + _places(uri, bucket)
    runs: list[TrainingRun] = []
    try:
        with local_cluster(NUM_NODES) as cluster:
            runs += [TrainingRun(cluster, folder / "home", name, flags) for name in ("disturbed", "undisturbed")]
            undisturbed = undisturbed or _finished(runs[1])
            num_steps = undisturbed.record.latest_step
            events = plan_events(kinds=kinds, num_events=num_kills, num_steps=num_steps, seed=seed)
            every = undisturbed.settings["training"]["checkpoint_every_steps"]
            disturbance = disturb(Scene(cluster, runs[0], tracker, bucket), events, checkpoint_every=every)
            claims = assert_unharmed(runs[0], undisturbed, tracking_uri=uri)
            claims.append(assert_nothing_is_left(cluster, runs))
            return Report(rows=_rows(disturbance), claims=claims, notes=_notes(disturbance))
    finally:
        for run in runs:
            run.stop()
        if tracker:
            tracker.stop()
        if bucket:
            bucket.close()


def _finished(run: TrainingRun) -> TrainingRun:
    run.start()
    run.finish(seconds=3600)
    logger.info("the undisturbed run has ended")
    return run


def _places(uri: str | None, bucket: Bucket | None) -> list[str]:
    return (["--tracking.uri", uri] if uri else []) + (["--checkpoints", bucket.url] if bucket else [])


def _rows(disturbance: Disturbance) -> list[list[str]]:
    rows = []
    for kind, (words, _, _) in KINDS.items():
        of_kind = [one for one in disturbance.outcomes if one.strike.kind == kind]
        if not of_kind:
            continue
        phases = [one.strike.phase for one in of_kind]
        when = ", ".join(f"{phases.count(phase)} {phase}" for phase in sorted(set(phases)))
        redone = _median_and_worst([one.steps_redone for one in of_kind], "{:.0f}")
        recovery = _median_and_worst([one.recovery_seconds for one in of_kind], "{:.0f} s")
        rows.append([words, str(len(of_kind)), when, redone, _LOST, recovery])
    return rows


def _notes(disturbance: Disturbance) -> list[str]:
    strikes = [one.strike for one in disturbance.outcomes if one.strike.note]
    return [f"{KINDS[strike.kind][0]} at step {strike.step}: {strike.note}" for strike in strikes]


def _median_and_worst(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return f"{form.format(statistics.median(known))} / {form.format(max(known))}" if known else "none"


def as_markdown(report: Report) -> str:
    """Return the table and the claims as Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *report.rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{_below(report)}"


def _below(report: Report) -> str:
    return "\n".join([f"Unharmed: {'; '.join(report.claims)}.", *report.notes]) + "\n"


def as_text(report: Report) -> str:
    """Return the table and the claims for a terminal."""
    lines = [COLUMNS, *report.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    table = "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return f"{table}\n\n{_below(report)}"


def _drawn_shards(folder: Path) -> Path:
    from cluster.data.conversion import convert, plan_conversion
    from cluster.data.conversion_config import ConversionConfig
    from shards.synthetic.scenes import write_scenes

    write_scenes(folder / "scenes", num_train=_NUM_DRAWN, num_val=30, seed=1, size_px=64)
    plan = plan_conversion(
        folder / "scenes", folder / "shards", ConversionConfig(samples_per_shard=50, minimum_word_count=1)
    )
    convert(plan, num_workers=0)
    return folder / "shards"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="how often the run is disturbed (5)")
    parser.add_argument("--seed", type=int, default=0, help="of when what happens (0)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"that happen, of {', '.join(KINDS)} (all)")
    parser.add_argument("--shards", type=Path, help="shard set to train on (drawn scenes)")
    parser.add_argument("--folder", type=Path, help="for all that is written (a temporary one, removed at the end)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("flags", nargs="*", help="further flags of captioning train, after --")
    return parser


def _chaos_of(arguments: Any, folder: Path) -> Report:
    shards = arguments.shards or _drawn_shards(folder / "data")
    kinds = arguments.kinds.split(",")
    return run_chaos(
        folder,
        shards.absolute(),
        kinds=kinds,
        num_kills=arguments.kills,
        seed=arguments.seed,
        further=arguments.flags,
    )


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line, disturb, and print the table."""
    arguments = _parser().parse_args(command_line)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logger.setLevel(logging.INFO)
    logging.getLogger("disturbing").setLevel(logging.INFO)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        report = _chaos_of(arguments, (arguments.folder or Path(temporary)).absolute())
    logger.info("took %.0f s", time.monotonic() - started)
    sys.stdout.write(as_markdown(report) if arguments.markdown else as_text(report))


if __name__ == "__main__":
    main()
