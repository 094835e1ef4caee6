"""Gate: challenger and champion caption the same images, and every criterion passes or fails with a reason."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from captioning.data.tokenizers import find_tokenizer
from captioning.evaluation.behaviour import Variant, behaviour_of, same_captions
from captioning.evaluation.bootstrap import Comparison
from captioning.generation.config import GenerationConfig
from cluster.config import CacheConfig
from cluster.data.shard_set import ShardSet
from cluster.errors import Refusal
from cluster.evaluation.cache import CACHE_FOLDER, cached_evaluation, cached_variants, model_digest
from cluster.locations import Location
from cluster.promotion.gate_checks import Criterion, ModelResults, check_criteria, compare_scores
from cluster.promotion.gate_config import GateConfig
from cluster.registry.models import ResolvedModel, shards_of

logger = logging.getLogger(__name__)

COLUMNS = ("criterion", "challenger", "champion", "required", "passed")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """Decision whether a challenger may become the champion, with reasons and evidence."""

    is_passed: bool
    reasons: tuple[str, ...]
    """One line for each criterion, failed criteria first."""
    criteria: tuple[Criterion, ...]
    evidence: dict[str, Any]
    """Scores, intervals, behaviour and settings behind the judgement, ready for JSON."""

    def rows(self) -> list[tuple[str, ...]]:
        """Return one table row for each criterion, with the columns of ``COLUMNS``."""
        return [
            (
                criterion.name,
                criterion.challenger,
                criterion.champion,
                criterion.wanted,
                "yes" if criterion.is_passed else "no",
            )
            for criterion in self.criteria
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """Gate on one split of one shard set; calling it judges a challenger."""

    config: GateConfig
    shards: Location | None = None
    """Shard set with the images; None for the one that the challenger was trained on."""
    split: str = "val"
    """Split that both models caption."""
    storage: CacheConfig
    """Storage with the home folder that caches evaluations."""
    progress: Progress = lambda what, done, total: None
    """Function called with the kind of captions, the number done and their total."""

    def __call__(self, challenger: ResolvedModel, champion: ResolvedModel | None) -> Judgement:
        """Compare a challenger with the champion, if there is one; see ``judge``."""
        logger.info("challenger: %s; champion: %s", challenger, champion or "none")
        shard_set = self._open_shards(challenger, champion)
        cache = self.storage.home / CACHE_FOLDER
        return judge(challenger, champion, shard_set, self.split, self.config, cache=cache, progress=self.progress)

    def _open_shards(self, challenger: ResolvedModel, champion: ResolvedModel | None) -> ShardSet:
        """Return the shard set to judge on.

        Raises:
            Refusal: it is the default, and holds another set by now than the one that the challenger was trained on.
        """
        shard_set = ShardSet(self.shards or shards_of(challenger), cache_gib=self.storage.cache_gib)
        found, trained_on = shard_set.manifest.digest, _trained_on(challenger)
        if not self.shards and found != trained_on and trained_on:
            raise Refusal(
                f"{shard_set.folder} holds shard set {found[:12]} by now, but {challenger} was trained on "
                f"{trained_on[:12]}",
                "restore that set, or name the one to judge on by --shards",
            )
        for role, model in (("challenger", challenger), ("champion", champion)):
            if model and _trained_on(model) != found:
                logger.info(
                    "judging on shard set %s; the %s was trained on %s", found[:12], role, _trained_on(model)[:12]
                )
        return shard_set


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
    """Compare a challenger with the champion, on the same images, each with the search that it serves with.

    Args:
        challenger: model that may become the champion.
        champion: current champion; None if there is none, so that only floors and empty captions are checked.
        shard_set: shard set with the split.
        split: name of the split that both models caption.
        gate: settings of the criteria.
        cache: folder of cached evaluations; new ones are added to it.
        progress: function called with the kind of captions, the number done and their total.

    Raises:
        Refusal: a model has no score that the gate asks for, such as METEOR in another language than English.
        ValueError: there is no such split, or a shard or an image is damaged.
        FileNotFoundError: a shard is missing.
    """
    new = _evaluate(challenger, "challenger", shard_set, split, gate, cache=cache, progress=progress)
    old = _evaluate(champion, "champion", shard_set, split, gate, cache=cache, progress=progress) if champion else None
    _require_scores(new, "challenger", shard_set, gate)
    if old:
        _require_scores(old, "champion", shard_set, gate)
    gain = compare_scores(new, old, gate) if old else None
    criteria = check_criteria(new, old, gain, gate)
    is_passed = all(criterion.is_passed for criterion in criteria)
    evidence = {
        "is_passed": is_passed,
        "split": split,
        "shards_digest": shard_set.manifest.digest,
        "num_images": len(new.evaluation.captions),
        "tokenizer": new.evaluation.tokenizer,
        "challenger": _describe(challenger, new),
        "champion": _describe(champion, old) if champion and old else None,
        "comparison": _describe_gain(gain, gate) if gain else None,
        "settings": asdict(gate),
        "checks": [asdict(criterion) for criterion in criteria],
    }
    reasons = _reasons(criteria, is_passed=is_passed, has_champion=champion is not None)
    return Judgement(is_passed=is_passed, reasons=reasons, criteria=criteria, evidence=evidence)


def _evaluate(
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
    generation = search_of(model, gate)
    num_varied = min(gate.num_behaviour_images, num_images)
    evaluation = cached_evaluation(
        model,
        shard_set,
        split,
        generation=generation,
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
        generation=generation,
        batch_size=gate.batch_size,
        cache=cache,
        progress=lambda done: progress(f"{role}: changed images", done, num_varied * len(Variant)),
    )
    behaviour = behaviour_of(evaluation.captions, variants, tokenizer=find_tokenizer(evaluation.tokenizer))
    same = {variant: same_captions(evaluation.captions, found) for variant, found in variants.items()}
    return ModelResults(evaluation, behaviour, same)


def _require_scores(results: ModelResults, role: str, shard_set: ShardSet, gate: GateConfig) -> None:
    """Refuse a model without a score that the gate asks for."""
    if missing := sorted({gate.metric, *gate.floors} - results.evaluation.scores.keys()):
        raise Refusal(
            f"the {role} has no {missing[0]} on split {results.evaluation.split} of {shard_set.folder}, "
            "as a line above explains",
            "judge by another score (--metric, --floors)",
        )


def _reasons(criteria: Sequence[Criterion], *, is_passed: bool, has_champion: bool) -> tuple[str, ...]:
    reasons = [criterion.reason for criterion in sorted(criteria, key=lambda criterion: criterion.is_passed)]
    if not has_champion:
        # First if the challenger passes, because the first reason is the one that the history shows.
        reasons.insert(0 if is_passed else len(reasons), "there is no champion to compare with")
    return tuple(reasons)


def search_of(model: ResolvedModel, gate: GateConfig) -> GenerationConfig:
    """Return the settings of the search with which the gate judges a model.

    Raises:
        ValueError: the gate's beam size does not fit them.
    """
    return model.generation if gate.beam_size is None else model.generation.changed(beam_size=gate.beam_size)


def _trained_on(model: ResolvedModel) -> str:
    """Return the digest of the shard set that a model was trained on; empty if its checkpoint does not name it."""
    return model.description.lineage.get("shards_digest", "")


def _describe(model: ResolvedModel, results: ModelResults) -> dict[str, Any]:
    return {
        "model": str(model),
        "name": model.name,
        "version": model.version,
        "step": model.description.step,
        "trained_on": _trained_on(model),
        "digest": model_digest(model.description),
        "precision": model.precision,
        "search": results.evaluation.generation.summary(),
        "scores": results.evaluation.scores,
        "intervals": {metric: list(ends) for metric, ends in results.evaluation.intervals.items()},
        "behaviour": asdict(results.behaviour),
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
