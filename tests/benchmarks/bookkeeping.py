"""Overhead of Ray Tune and of the search's own records: the wall time of a search, compared to its trials' own time.

Trials of one worker run two at a time in Tune's actors. The peer runs the same trials as plain processes without Ray,
two at a time, in the same benchmark. With --nested, trials of two workers run under Ray Train, one at a time.
"""

import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from captioning.config import ModelConfig, OptimizerConfig, TrainingConfig
from cluster.config import ClusterConfig, StorageConfig
from cluster.resources.session import cluster_session
from cluster.search.features import extract_features
from cluster.search.plan import plan_search
from cluster.search.space.config import SearchConfig, TuneRun
from cluster.search.trials import load_trials
from cluster.search.tuner import tune
from tests.benchmarks.measuring import Benchmark, Row
from tests.support.drawn_shards import draw_shards

_PLAIN = """
import sys
from pathlib import Path
from cluster.resources.environment import set_library_defaults
set_library_defaults()
import pickle
from cluster.runs.record import RunRecord
from cluster.search.trainable import train_in_process
run, context = pickle.loads(Path(sys.argv[1]).read_bytes())
run.folder.mkdir(parents=True)
RunRecord(name=run.name, identity={}).save(run.folder)
for _ in train_in_process(run, context):
    pass
"""


def search_of(folder: Path, *, num_trials: int, max_epochs: int, num_images: int) -> TuneRun:
    """Write a shard set of synthetic scenes; return the search to measure."""
    shards = draw_shards(folder, num_train=num_images, num_val=50)
    space = folder / "search.yaml"
    # Only the learning rate varies, so that all trials take equally long and none runs alone at the end.
    space.write_text("optimizer.learning_rate: loguniform(1e-4, 1e-2)\n")
    return TuneRun(
        name="alone",
        shards=shards,
        model=ModelConfig(backbone="squeezenet1_1", weights="none", image_size_px=64, hidden_size=512),
        optimizer=OptimizerConfig(warmup_steps=10),
        training=TrainingConfig(batch_size=50),
        cluster=ClusterConfig(num_workers=1),
        storage=StorageConfig(home=folder / "home"),
        search=SearchConfig(space=space, num_trials=num_trials, max_epochs=max_epochs, scheduler="none"),
    )


def extracted(run: TuneRun) -> TuneRun:
    """Extract the features, which are not part of the overhead; return the search that reads them."""
    plan = plan_search(run)
    extract_features(plan.run, plan.space, plan.shard_set, progress=lambda done, total: None)
    return plan.run


def searched(run: TuneRun) -> tuple[float, list[float]]:
    """Run the search; return its wall time and each trial's own time, in seconds."""
    started = time.monotonic()
    tune(run)
    return time.monotonic() - started, [trial.seconds for trial in load_trials(run.folder)]


def in_plain_processes(run: TuneRun, folder: Path) -> float:
    """Train the same trials as plain processes, two at a time; return the wall time in seconds."""
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
        list(pool.map(_plain_process, files))
    return time.monotonic() - started


def _plain_process(file: Path) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", _PLAIN, str(file)], check=True, capture_output=True)


def measure(
    *, num_trials: int = 4, max_epochs: int = 22, num_images: int = 400, nested: int = 0, peer: bool = True
) -> Iterator[Row]:
    """Run the searches.

    Args:
        num_trials: trials of one worker.
        max_epochs: epochs of a trial; enough that it takes a minute.
        num_images: number of scenes to train on.
        nested: trials of two workers, run one at a time.
        peer: whether the plain processes run, too.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = search_of(folder, num_trials=num_trials, max_epochs=max_epochs, num_images=num_images)
        with cluster_session(run.cluster):
            run = extracted(run)
            wall, trials = searched(run)
            plain = in_plain_processes(run, folder) if peer else None
            yield _row("of one worker, two at a time", wall, sum(trials) / 2, plain)
            if nested:
                search = replace(run.search, num_trials=nested)
                wall, trials = searched(
                    replace(run, name="nested", cluster=ClusterConfig(num_workers=2), search=search)
                )
                yield _row("of two workers under Ray Train, one at a time", wall, sum(trials), None)


def _row(trials: str, wall: float, own: float, plain: float | None) -> Row:
    return Row(
        what=f"a search of trials {trials}",
        unit="s",
        ours=wall,
        peer=plain,
        peer_name="plain processes without Ray" if plain else "",
        limit=own,
        limit_name="the trials' own time",
        less_is_better=True,
    )


BENCHMARK = Benchmark(measure, small={"num_trials": 1, "max_epochs": 1, "num_images": 60}, takes_minutes=True)
