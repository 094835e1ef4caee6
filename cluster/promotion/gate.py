"""Whether a challenger may become the champion: both on the same images, and a reason for each yes and no."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from captioning.evaluation.behaviour import Variant, behaviour_of
from captioning.evaluation.bootstrap import Comparison
from cluster.config import Location, StorageConfig
from cluster.data.shard_set import ShardSet
from cluster.evaluation.cache import CACHE_FOLDER, cached_evaluation, cached_variants, model_digest
from cluster.promotion.gate_checks import Check, ModelResults, check_all, compare_scores
from cluster.promotion.gate_config import GateConfig
from cluster.registry.models import ResolvedModel, shards_of

logger = logging.getLogger(__name__)

COLUMNS = ("check", "challenger", "champion", "wanted", "verdict")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """Whether a challenger may become the champion, and why."""

    is_passed: bool
    reasons: tuple[str, ...]
    """A line for each check, those that refuse first."""
    checks: tuple[Check, ...]
    evidence: dict[str, Any]
    """All that the judgement rests on, as JSON holds it."""

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table of the checks, by ``COLUMNS``."""
        return [
            (check.name, check.challenger, check.champion, check.wanted, "yes" if check.is_passed else "no")
            for check in self.checks
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """The gate on one split of one shard set; calling it judges a challenger."""

    config: GateConfig
    shards: Location | None = None
    """The shard set; the one that the challenger was trained on if not given."""
    split: str = "val"
    storage: StorageConfig
    """Where evaluations are kept."""
    progress: Progress = lambda what, done, total: None
    """Called with what is being written, how many captions are done, and of how many."""

    def __call__(self, challenger: ResolvedModel, champion: ResolvedModel | None) -> Judgement:
        """Hold a challenger against the champion; see ``judge``."""
        logger.info("challenger: %s; champion: %s", challenger, champion or "none")
        shard_set = ShardSet(self.shards or shards_of(challenger), cache_gib=self.storage.cache_gib)
        cache = self.storage.home / CACHE_FOLDER
        return judge(challenger, champion, shard_set, self.split, self.config, cache=cache, progress=self.progress)


def judge(
    challenger: ResolvedModel,
    champion: ResolvedModel | None,
    shard_set: ShardSet,
    split: str,
    gate: GateConfig,
    *,
    cache: Path,
    progress: Progress = lambda what, done, total: None,
) -> Judgement:
    """Hold a challenger against the champion on the same images with the same search; only the cache changes.

    Args:
        challenger: to judge.
        champion: so far; without one, the challenger needs to reach the floors and write no empty caption.
        shard_set: to read.
        split: of it.
        gate: what is asked for.
        cache: folder of what was evaluated before.
        progress: called with what is being written, how many captions are done, and of how many.

    Raises:
        ValueError: there is no such split, or a shard or an image is damaged.
        FileNotFoundError: a shard is missing.
    """
    new = _look(challenger, "challenger", shard_set, split, gate, cache=cache, progress=progress)
    old = _look(champion, "champion", shard_set, split, gate, cache=cache, progress=progress) if champion else None
    gain = compare_scores(new, old, gate) if old else None
    checks = check_all(new, old, gain, gate)
    is_passed = all(check.is_passed for check in checks)
    evidence = {
        "is_passed": is_passed,
        "split": split,
        "shards_digest": shard_set.manifest.digest,
        "num_images": len(new.evaluation.captions),
        "challenger": _describe(challenger, new),
        "champion": _describe(champion, old) if champion and old else None,
        "comparison": _describe_gain(gain, gate) if gain else None,
        "settings": asdict(gate),
        "checks": [asdict(check) for check in checks],
    }
    reasons = [check.reason for check in sorted(checks, key=lambda check: check.is_passed)]
    if not champion:
        reasons.insert(0 if is_passed else len(reasons), "there is no champion to be better than")
    return Judgement(is_passed=is_passed, reasons=tuple(reasons), checks=checks, evidence=evidence)


def _look(
    model: ResolvedModel,
    role: str,
    shard_set: ShardSet,
    split: str,
    gate: GateConfig,
    *,
    cache: Path,
    progress: Progress,
) -> ModelResults:
    num_images = sum(shard.num_samples for shard in shard_set.manifest.of_split(split))
    num_varied = min(gate.num_behaviour_images, num_images)
    evaluation = cached_evaluation(
        model,
        shard_set,
        split,
        beam_size=gate.beam_size,
        batch_size=gate.batch_size,
        cache=cache,
        progress=lambda done: progress(f"{role}: captions", done, num_images),
    )
    variants = cached_variants(
        model,
        shard_set,
        split,
        num_images=num_varied,
        seed=gate.seed,
        beam_size=gate.beam_size,
        batch_size=gate.batch_size,
        cache=cache,
        progress=lambda done: progress(f"{role}: changed images", done, num_varied * len(Variant)),
    )
    return ModelResults(evaluation, behaviour_of(evaluation.captions, variants))


def _describe(model: ResolvedModel, showing: ModelResults) -> dict[str, Any]:
    return {
        "model": str(model),
        "name": model.name,
        "version": model.version,
        "step": model.description.step,
        "digest": model_digest(model.description),
        "scores": showing.evaluation.scores,
        "intervals": {metric: list(ends) for metric, ends in showing.evaluation.intervals.items()},
        "behaviour": asdict(showing.behaviour),
    }


def _describe_gain(gain: Comparison, gate: GateConfig) -> dict[str, Any]:
    return {
        "metric": gate.metric,
        "difference": gain.difference,
        "interval": [gain.low, gain.high],
        "confidence": gate.confidence,
        "share_better": gain.share_above,
        "min_gain": gate.min_gain,
        "num_resamples": gate.num_resamples,
        "seed": gate.seed,
    }
