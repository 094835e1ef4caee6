"""Quality of the captions of each recipe: trained from features, then scored, by the commands that a user runs.

A recipe is a preset and the flags beside it; all of them get the same encoder and the same features. The recipe
"attend, self-critical" goes on with the run of "attend". With --folder, the same command resumes after an interruption,
and keeps what is finished. Differences are paired, with the first recipe, or with the one that a recipe goes on from.
Needs photographs to mean anything: without --shards it trains on synthetic scenes.
"""

import contextlib
import io
import json
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioning.evaluation.metrics import METRICS
from cluster.job_progress import duration
from cluster.presets import preset
from jobs.cli import call
from jobs.console.output import results_apart
from shards.storage.files import replace_file
from tests.benchmarks.measuring import Benchmark, Row
from tests.support.drawn_shards import draw_shards

_SELF_CRITICAL = "--training.self-critical-epochs 8 --validation.best-by validation_cider_d"
RECIPES: Mapping[str, str] = {
    "show-and-tell": "show-and-tell",
    "show-and-tell, self-critical": f"show-and-tell {_SELF_CRITICAL}",
    "classic": "classic",
    "attend": "attend",
    "attend, self-critical": f"attend {_SELF_CRITICAL} --training.self-critical-learning-rate 1e-5",
    "transformer": "transformer",
}
"""Preset and flags of each recipe, as they follow ``captioning train``; a recipe with a comma in its name goes on with
the run of the one that is named before the comma."""
_SHOWN = [metric for metric in METRICS if metric not in ("BLEU-1", "BLEU-2", "BLEU-3")]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all recipes share.

    Attributes:
        shards: folder of the shard set.
        folder: folder of features, runs and scores.
        encoder: flags of the encoder, for extraction and training.
        flags: further flags of every training.
        beam_size: beam size of the scored captions; 1 for the recipe classic.
        views: views of each image in the features.
    """

    shards: Path
    folder: Path
    encoder: Sequence[str]
    flags: Sequence[str]
    beam_size: int
    views: int

    def features(self, regions: str) -> Path:
        """Return the folder of the features, extracted unless they are finished."""
        folder = self.folder / f"{regions}-features"
        views = ("--views", self.views, "--precision", "bf16", "--num-workers", 0)
        run_command("extract", self.shards, folder, "--regions", regions, *views, *self.encoder)
        return folder

    def train(self, recipe: str, seed: int) -> float:
        """Train a recipe, from where it was interrupted; return the time that it took over all starts, in seconds."""
        record = self.folder / f"{_name(recipe, seed)}.training.json"
        before = json.loads(record.read_text()) if record.exists() else {"seconds": 0.0, "is_finished": False}
        if before["is_finished"]:
            return before["seconds"]
        chosen, *own = shlex.split(RECIPES[recipe])
        regions = "grid" if preset(chosen).model.reads_regions else "pooled"
        data = ("--shards", self.shards, "--features", self.features(regions), "--home", self.folder / "runs")
        shared = ("--cluster.no-use-gpu", "--training.precision", "bf16", *self.encoder, *self.flags)
        started, is_finished = time.monotonic(), False
        try:
            run_name = _name(_continued(recipe) or recipe, seed)
            run_command("train", chosen, *data, "--name", run_name, *shared, *own, "--training.seed", seed)
            is_finished = True
        finally:
            seconds = before["seconds"] + time.monotonic() - started
            replace_file(record, json.dumps({"seconds": seconds, "is_finished": is_finished}).encode())
        return seconds

    def score(self, recipe: str, seed: int, *, against: str) -> Mapping[str, Any]:
        """Caption and score the split val by the best checkpoint of a run; return what ``captioning score`` tells.

        Args:
            recipe: name of the recipe.
            seed: seed of its training.
            against: name of the captions to compare with; empty for none.
        """
        results = self.folder / f"{_name(recipe, seed)}.captions.json"
        if not results.exists():  # later, the run may be another recipe's, which went on with it
            run = self.folder / "runs" / "training" / _name(_continued(recipe) or recipe, seed)
            search = (
                ("--beam-size", 1, "--no-repeat-ngram", 0) if recipe == "classic" else ("--beam-size", self.beam_size)
            )
            data = ("--shards", self.shards, "--home", self.folder / "runs")
            run_command("evaluate", run, *data, *search, "--out", results)
        other = ("--against", self.folder / f"{against}.captions.json") if against else ()
        return json.loads(run_command("score", results, self.shards, "--json", *other))


def run_command(job: str, *arguments: object) -> str:
    """Run a command of this project in this process; return what it writes to standard output."""
    written = io.StringIO()
    with contextlib.redirect_stdout(written), results_apart():
        call(job, [str(argument) for argument in arguments])
    return written.getvalue()


def measure(
    *,
    shards: Path | None = None,
    backbone: str = "mobilenet_v2",
    weights: str = "none",
    image_size: int = 224,
    recipes: tuple[str, ...] = tuple(RECIPES),
    seeds: tuple[int, ...] = (0,),
    repeated: tuple[str, ...] = ("show-and-tell", "attend", "attend, self-critical"),
    folder: Path | None = None,
    beam_size: int = 5,
    views: int = 8,
    flags: str = "",
) -> Iterator[Row]:
    """Train and score each recipe.

    Args:
        shards: shard set with the splits train and val; synthetic scenes if not given.
        backbone: torchvision model of the frozen encoder.
        weights: weights of the encoder: DEFAULT, none, or a file.
        image_size: side of an image, in pixels.
        recipes: names of recipes; differences are with the first one.
        seeds: seeds of the trainings.
        repeated: recipes that are trained with every seed; the others, with the first alone.
        folder: folder of features, runs and scores, to resume them; temporary if not given.
        beam_size: beam size of the scored captions; the recipe classic always has 1.
        views: views of each image in the features.
        flags: further flags of captioning train for all recipes, in one text.
    """
    if unknown := [one for one in recipes if one not in RECIPES]:
        raise ValueError(f"there is no recipe {unknown[0]!r}; use one of {', '.join(map(repr, RECIPES))}")
    encoder = ("--model.backbone", backbone, "--model.weights", weights, "--model.image-size-px", str(image_size))
    with tempfile.TemporaryDirectory(prefix="quality-") as scratch:
        place = folder or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        setting = Setting(
            shards=shards or draw_shards(place, num_train=100, num_val=20),
            folder=place,
            encoder=encoder,
            flags=shlex.split(flags),
            beam_size=beam_size,
            views=views,
        )
        for recipe in recipes:
            for seed in seeds if recipe in repeated else seeds[:1]:
                continued = _continued(recipe)
                peer = continued if continued in recipes else recipes[0] if recipe != recipes[0] else ""
                shared_seed = seed if peer in repeated else seeds[0]
                yield _row(setting, recipe, seed, peer=peer, against=peer and _name(peer, shared_seed))


def _continued(recipe: str) -> str:
    """Return the recipe whose run this one goes on with; empty if there is none."""
    before, comma, _ = recipe.partition(", ")
    return before if comma else ""


def _name(recipe: str, seed: int) -> str:
    return f"{recipe.replace(', ', '-')}-{seed}"


def _row(setting: Setting, recipe: str, seed: int, *, peer: str, against: str) -> Row:
    seconds = setting.train(recipe, seed)
    scored = setting.score(recipe, seed, against=against)
    scores, intervals, differences = (scored[part] for part in ("scores", "intervals", "differences"))
    cells = {
        one: f"{scores[one]:.3f} ({{:.3f}} to {{:.3f}})".format(*intervals[one]) for one in _SHOWN if one in scores
    }
    if differences:
        cells[f"CIDEr-D above {peer}"] = "{difference:+.3f} ({low:+.3f} to {high:+.3f})".format(
            **differences["CIDEr-D"]
        )
    cells["training"] = duration(seconds) + (" more" if _continued(recipe) else "")
    # Not zero even where a model has learned nothing: no figure of a benchmark is.
    return Row(what=f"{recipe}, seed {seed}", unit="CIDEr-D", ours=max(scores["CIDEr-D"], 1e-9), cells=cells)


BENCHMARK = Benchmark(
    measure,
    small={
        "backbone": "squeezenet1_1",
        "image_size": 64,
        "recipes": ("attend",),
        "beam_size": 2,
        "views": 1,
        "flags": "--model.hidden-size 16 --training.num-epochs 0.2 --training.batch-size 16 --cluster.num-workers 1",
    },
    takes_minutes=True,
)
