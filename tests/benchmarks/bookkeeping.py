"""Overhead of Ray Tune and of the search's own records: the wall time of a search, compared to its trials' own time.

Example:
    python tests/benchmarks/bookkeeping.py --num-trials 2 --max-epochs 26 --nested 1

Trials of one worker run two at a time in Tune's actors. The peer runs the same trials as plain processes without Ray,
two at a time, in the same benchmark. With --nested, trials of two workers run under Ray Train, one at a time.
"""

import argparse
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cluster.resources.environment import set_library_defaults

set_library_defaults()  # before Ray is imported

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig  # noqa: E402
from cluster.config import ClusterConfig, StorageConfig  # noqa: E402
from cluster.data.conversion import convert, plan_conversion  # noqa: E402
from cluster.data.conversion_config import ConversionConfig  # noqa: E402
from cluster.resources.session import cluster_session  # noqa: E402
from cluster.search.features import extract_features  # noqa: E402
from cluster.search.plan import plan_search  # noqa: E402
from cluster.search.space.config import SearchConfig, TuneRun  # noqa: E402
from cluster.search.trials import load_trials  # noqa: E402
from cluster.search.tuner import tune  # noqa: E402
from shards.synthetic.scenes import write_scenes  # noqa: E402

_PLAIN = """
import sys, time
from pathlib import Path
from cluster.resources.environment import set_library_defaults
set_library_defaults()
import pickle
from cluster.runs.record import RunRecord
from cluster.search.trainable import train_in_process
run, context = pickle.loads(Path(sys.argv[1]).read_bytes())
run.folder.mkdir(parents=True)
RunRecord(name=run.name, identity={}).save(run.folder)
started = time.monotonic()
for _ in train_in_process(run, context):
    pass
print(time.monotonic() - started)
"""


def parse() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-trials", type=int, default=4, help="trials of one worker")
    parser.add_argument("--max-epochs", type=int, default=36, help="epochs of a trial; enough that it takes a minute")
    parser.add_argument("--num-images", type=int, default=400, help="synthetic scenes to train on")
    parser.add_argument("--nested", type=int, default=0, help="trials of two workers, run one at a time")
    parser.add_argument("--no-peer", action="store_true", help="do not run the plain processes")
    return parser.parse_args()


def search_of(settings: argparse.Namespace, folder: Path) -> TuneRun:
    """Write a shard set of synthetic scenes; return the search to measure."""
    write_scenes(folder / "scenes", num_train=settings.num_images, num_val=50, seed=0, size_px=64)
    plan = plan_conversion(
        folder / "scenes", folder / "shards", ConversionConfig(samples_per_shard=100, minimum_word_count=1)
    )
    convert(plan, num_workers=0)
    space = folder / "search.yaml"
    # Only the learning rate varies, so that all trials take equally long and none runs alone at the end.
    space.write_text("optimizer.learning_rate: loguniform(1e-4, 1e-2)\n")
    return TuneRun(
        name="alone",
        shards=folder / "shards",
        model=ModelConfig(backbone="squeezenet1_1", weights="none", image_size_px=64, hidden_size=512),
        optimizer=OptimizerConfig(warmup_steps=10),
        training=TrainingConfig(batch_size=50),
        cluster=ClusterConfig(num_workers=1),
        storage=StorageConfig(home=folder / "home"),
        search=SearchConfig(
            space=space, num_trials=settings.num_trials, max_epochs=settings.max_epochs, scheduler="none"
        ),
    )


def extracted(run: TuneRun) -> TuneRun:
    """Extract the features, which are not part of the overhead; return the search that reads them."""
    plan = plan_search(run)
    extract_features(plan.run, plan.space, plan.shard_set, progress=lambda done, total: None)
    return plan.run


def measure(run: TuneRun, *, at_once: int) -> tuple[float, list[float]]:
    """Run the search; return its wall time multiplied by ``at_once``, and each trial's own time, in seconds."""
    started = time.monotonic()
    tune(run)
    return (time.monotonic() - started) * at_once, [trial.seconds for trial in load_trials(run.folder)]


def measure_plain(run: TuneRun, folder: Path) -> tuple[float, list[float]]:
    """Train the same trials as plain processes, two at a time; return the same as ``measure``."""

    from cluster.search.trainable import TrialContext
    from cluster.search.trials import trial_run

    elsewhere = replace(run, storage=StorageConfig(home=folder / "plain"))
    context = TrialContext(run=elsewhere, tracking_uri="", num_samples=1, lineage={})
    files = []
    for trial in load_trials(run.folder):
        files.append(folder / f"{trial.name}.pickle")
        files[-1].write_bytes(pickle.dumps((trial_run(elsewhere, trial, tracking_uri=""), context)))
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        seconds = list(pool.map(_plain_process, files))
    return (time.monotonic() - started) * 2, seconds


def _plain_process(file: Path) -> float:
    command = [sys.executable, "-W", "ignore", "-c", _PLAIN, str(file)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def row(name: str, wall: float, seconds: Sequence[float]) -> list[str]:
    """Return a row of the table, with the overhead in its last column."""
    shown = f"{min(seconds):.0f} to {max(seconds):.0f}"
    return [name, f"{len(seconds)}", shown, f"{sum(seconds):.0f}", f"{wall:.0f}", f"{wall / sum(seconds) - 1:+.1%}"]


def main() -> None:
    """Run the searches and print the table."""
    settings = parse()
    columns = ("trials", "number", "own time of each, s", "of all, s", "wall time x trials at once, s", "overhead")
    table = Table(*columns, title="Overhead of a search", title_justify="left")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = search_of(settings, folder)
        with cluster_session(run.cluster):
            run = extracted(run)
            alone = measure(run, at_once=2)
            fewer = replace(run.search, num_trials=max(1, settings.nested))
            nested = replace(run, name="nested", cluster=ClusterConfig(num_workers=2), search=fewer)
            in_groups = measure(nested, at_once=1) if settings.nested else None
        table.add_row(*row("one worker, two at a time, in Tune's actors", *alone))
        plain = None if settings.no_peer else measure_plain(run, folder)
        if plain:
            table.add_row(*row("the same as plain processes, without Ray", *plain))
        if in_groups:
            table.add_row(*row("two workers under Ray Train, one at a time", *in_groups))
    console = Console(width=140)
    console.print(table)
    if plain:
        console.print(f"ratio of the wall times, Tune to plain processes: {alone[0] / plain[0]:.3f}")


if __name__ == "__main__":
    main()
