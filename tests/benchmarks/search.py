"""Epochs that ASHA saves: the same trials, trained to their end and stopped early by ASHA, for several seeds.

Runs both searches over learning rate and hidden size. The seed determines the points, so that both try the same ones.
"""

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cluster.config import StorageConfig
from cluster.resources.session import cluster_session
from cluster.search.space.config import TuneRun
from cluster.search.tuner import tune
from jobs.console.parsing import parse
from jobs.tune import JOB
from tests.benchmarks.measuring import Benchmark, Row
from tests.support.drawn_shards import draw_shards


def search_of(arguments: Sequence[str], folder: Path, shards: Path) -> TuneRun:
    """Return the search, to be run with each seed and both schedulers."""
    parsed = parse(JOB, ["--shards", f"{shards}", *arguments])
    return replace(parsed.settings, storage=StorageConfig(home=folder / "home"))


def with_scheduler(run: TuneRun, scheduler: str, seed: int) -> TuneRun:
    """Return the search with a given scheduler and seed."""
    search = replace(run.search, scheduler=scheduler, search_seed=seed)  # type: ignore[arg-type]  one of the two
    return replace(run, name=f"{scheduler}-{seed}", search=search)


def measure(
    *,
    shards: Path | None = None,
    num_trials: int = 24,
    max_epochs: int = 9,
    seeds: tuple[int, ...] = (0, 1),
    folder: Path | None = None,
    flags: str = "",
) -> Iterator[Row]:
    """Search with each seed, with and without ASHA.

    Args:
        shards: folder of a shard set; synthetic scenes if not given.
        num_trials: trials per search.
        max_epochs: epochs of a trial that is not stopped.
        seeds: seeds of the searches.
        folder: folder of the searches, to resume them; temporary if not given.
        flags: flags of captioning tune for both searches, in one text.
    """
    sizes = ["--num-trials", f"{num_trials}", "--max-epochs", f"{max_epochs}"]
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch)
        run = search_of([*sizes, *shlex.split(flags)], place, shards or draw_shards(place, num_train=120, num_val=30))
        with cluster_session(run.cluster):
            for seed in seeds:
                full, stopped = (tune(with_scheduler(run, scheduler, seed)) for scheduler in ("none", "asha"))
                yield Row(
                    what=f"epochs until {num_trials} trials of at most {max_epochs} epochs are compared, seed {seed}",
                    unit="epochs",
                    ours=stopped.num_epochs,
                    peer=full.num_epochs,
                    peer_name="all to their end",
                    less_is_better=True,
                    note=f"best loss {stopped.score:.3f} and {full.score:.3f} nats/word",
                )


BENCHMARK = Benchmark(
    measure,
    small={
        "num_trials": 1,
        "max_epochs": 2,
        "seeds": (0,),
        "flags": "--model.backbone squeezenet1_1 --model.weights none --model.image-size-px 64",
    },
    takes_minutes=True,
)
