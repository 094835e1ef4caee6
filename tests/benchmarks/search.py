"""What early stopping saves: the same trials trained to their end, and stopped by ASHA, for some seeds.

Example:
    python tests/benchmarks/search.py --shards shards --seeds 0 1 -- --model.backbone mobilenet_v2

Both searches are made in full, over learning rate and hidden size; the points are the same, for they follow from the
seed. What comes after -- goes to both, as to captioning tune.
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
from cluster.resources.session import cluster_session  # noqa: E402
from cluster.search.space.config import TuneRun  # noqa: E402
from cluster.search.tuner import SearchOutcome, tune  # noqa: E402
from jobs.console.parsing import parse  # noqa: E402
from jobs.tune import JOB  # noqa: E402
from shards.images import ImageSpec  # noqa: E402
from shards.synthetic.scenes import write_scenes  # noqa: E402


def settings_of(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the settings of the command line, and what goes to ``captioning tune``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="a shard set; drawn scenes if not given")
    parser.add_argument("--num-trials", type=int, default=24)
    parser.add_argument("--max-epochs", type=int, default=9)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--folder", type=Path, help="where searches are kept, and go on; a temporary one if not given")
    own, _, others = " ".join(arguments).partition(" -- ")
    return parser.parse_args(own.split()), others.split()


def drawn(folder: Path) -> Path:
    """Draw scenes and return a shard set of them."""
    write_scenes(folder / "scenes", num_train=120, num_val=30, seed=0, size_px=64)
    plan = plan_conversion(
        folder / "scenes", folder / "shards", spec=ImageSpec(), samples_per_shard=100, seed=0, minimum_word_count=1
    )
    convert(plan, num_workers=0)
    return folder / "shards"


def search_of(settings: argparse.Namespace, others: Sequence[str], folder: Path, shards: Path) -> TuneRun:
    """Return the search that is made with every seed and both schedulers."""
    sizes = ["--num-trials", f"{settings.num_trials}", "--max-epochs", f"{settings.max_epochs}"]
    arguments = ["--shards", f"{shards}", *sizes, *others]
    parsed = parse(JOB, arguments)
    return replace(parsed.settings, storage=StorageConfig(home=folder / "home"))


def with_scheduler(run: TuneRun, scheduler: str, seed: int) -> TuneRun:
    """Return one of the searches to compare."""
    search = replace(run.search, scheduler=scheduler, search_seed=seed)  # type: ignore[arg-type]  one of the two
    return replace(run, name=f"{scheduler}-{seed}", search=search)


def row(seed: int, full: SearchOutcome, stopped: SearchOutcome) -> list[str]:
    """Return a row of the table."""
    worse = stopped.score / full.score - 1
    share = stopped.num_epochs / full.num_epochs
    return [
        f"{seed}", f"{full.score:.4f}", f"{full.num_epochs}", f"{stopped.score:.4f}", f"{stopped.num_epochs}",
        f"{worse:+.2%}", f"{share:.3f}",
    ]  # fmt: skip


def main() -> None:
    """Search with every seed, with and without stopping, and print how they compare."""
    settings, others = settings_of(sys.argv[1:])
    table = Table(
        "seed", "best of full trials, nats", "epochs", "best with ASHA, nats", "epochs", "worse by", "share of epochs",
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
