"""Epochs that ASHA saves: the same trials, trained to their end and stopped early by ASHA, for several seeds.

Example:
    python tests/benchmarks/search.py --shards data/coco-shards --seeds 0 1 -- --model.backbone mobilenet_v2

Runs both searches over learning rate and hidden size. The seed determines the points, so that both try the same ones.
Arguments after -- are passed to captioning tune in both searches.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cluster.resources.environment import set_library_defaults

set_library_defaults()  # before Ray is imported

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from cluster.config import StorageConfig  # noqa: E402
from cluster.data.conversion import convert, plan_conversion  # noqa: E402
from cluster.data.conversion_config import ConversionConfig  # noqa: E402
from cluster.resources.session import cluster_session  # noqa: E402
from cluster.search.space.config import TuneRun  # noqa: E402
from cluster.search.tuner import SearchOutcome, tune  # noqa: E402
from jobs.console.parsing import parse  # noqa: E402
from jobs.tune import JOB  # noqa: E402
from shards.synthetic.scenes import write_scenes  # noqa: E402


def settings_of(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the settings of the command line, and the arguments for ``captioning tune``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="folder of a shard set; synthetic scenes if not given")
    parser.add_argument("--num-trials", type=int, default=24, help="trials per search")
    parser.add_argument("--max-epochs", type=int, default=9, help="epochs of a trial that is not stopped")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of the searches")
    parser.add_argument("--folder", type=Path, help="folder of the searches, to resume them; temporary if not given")
    own, _, others = " ".join(arguments).partition(" -- ")
    return parser.parse_args(own.split()), others.split()


def drawn(folder: Path) -> Path:
    """Write a shard set of synthetic scenes; return its folder."""
    write_scenes(folder / "scenes", num_train=120, num_val=30, seed=0, size_px=64)
    plan = plan_conversion(
        folder / "scenes", folder / "shards", ConversionConfig(samples_per_shard=100, minimum_word_count=1)
    )
    convert(plan, num_workers=0)
    return folder / "shards"


def search_of(settings: argparse.Namespace, others: Sequence[str], folder: Path, shards: Path) -> TuneRun:
    """Return the search, to be run with each seed and both schedulers."""
    sizes = ["--num-trials", f"{settings.num_trials}", "--max-epochs", f"{settings.max_epochs}"]
    arguments = ["--shards", f"{shards}", *sizes, *others]
    parsed = parse(JOB, arguments)
    return replace(parsed.settings, storage=StorageConfig(home=folder / "home"))


def with_scheduler(run: TuneRun, scheduler: str, seed: int) -> TuneRun:
    """Return the search with a given scheduler and seed."""
    search = replace(run.search, scheduler=scheduler, search_seed=seed)  # type: ignore[arg-type]  one of the two
    return replace(run, name=f"{scheduler}-{seed}", search=search)


def row(seed: int, full: SearchOutcome, stopped: SearchOutcome) -> list[str]:
    """Return the table's row for a seed."""
    worse = stopped.score / full.score - 1
    share = stopped.num_epochs / full.num_epochs
    return [
        f"{seed}", f"{full.score:.4f}", f"{full.num_epochs}", f"{stopped.score:.4f}", f"{stopped.num_epochs}",
        f"{worse:+.2%}", f"{share:.3f}",
    ]  # fmt: skip


def main() -> None:
    """Search with each seed, with and without ASHA, and print a table that compares them."""
    settings, others = settings_of(sys.argv[1:])
    table = Table(
        "seed", "best loss, full trials", "epochs", "best loss, ASHA (nats/word)", "epochs", "worse by",
        "share of epochs",
        title=f"{settings.num_trials} trials of at most {settings.max_epochs} epochs", title_justify="left",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = settings.folder or Path(scratch)
        run = search_of(settings, others, folder, settings.shards or drawn(folder))
        with cluster_session(run.cluster):
            for seed in settings.seeds:
                full, stopped = (tune(with_scheduler(run, scheduler, seed)) for scheduler in ("none", "asha"))
                table.add_row(*row(seed, full, stopped))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
