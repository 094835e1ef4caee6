"""A search that is to be made: what is checked and decided before anything starts."""

import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster.checks.data import check_data
from cluster.config import TrainRun
from cluster.data.shard_set import ShardSet
from cluster.runs.identity import identity_of
from cluster.search.features import check_given_features, digest_to_extract
from cluster.search.space.config import TuneRun
from cluster.search.space.sampling import check_sampler
from cluster.search.space.space import DEFAULT_SEARCH, SearchSpace, apply_point, parse_space, read_search
from cluster.search.trials import SearchRecord, Trial
from shards.features.manifest import FEATURES_NAME

_DECIDE = ("max_epochs", "sampler", "scheduler", "reduction_factor", "metric", "search_seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPlan:
    """A search that is to be made."""

    run: TuneRun
    """With the folder of features, if its trials read any."""
    space: SearchSpace
    shard_set: ShardSet
    """Of the images."""
    features_digest: str | None
    """Of the features that trials read, which may still have to be made; None if they read images."""
    extracts: bool
    """Whether the features are the search's own to make."""

    @property
    def num_samples(self) -> int:
        """Return the samples of the training split."""
        return self.shard_set.manifest.splits[self.run.train_split]

    @property
    def base(self) -> TrainRun:
        """Return what all trials have in common."""
        return self.run.base()

    @property
    def num_trials(self) -> int:
        """Return the trials in all; the space may have fewer points than were asked for."""
        return min(self.run.search.num_trials, self.space.num_points or self.run.search.num_trials)

    @property
    def folder(self) -> Path:
        """Return the search's own folder."""
        return self.run.folder

    @property
    def awaits_features(self) -> bool:
        """Return whether trials read features that are still to be made."""
        features = self.run.features
        return self.extracts and isinstance(features, Path) and not (features / FEATURES_NAME).is_file()

    def readable(self) -> ShardSet:
        """Return what trials read, or the images as long as that is not there."""
        if self.awaits_features:
            return self.shard_set
        return ShardSet(self.shard_set.folder, self.run.features, cache_gib=self.run.storage.cache_gib)

    def identity_of(self, run: TrainRun) -> dict[str, Any]:
        """Return what decides about the weights of a trial's run."""
        return identity_of(run, self.shard_set.manifest, self.features_digest)

    def record(self) -> SearchRecord:
        """Return the record of a search that has never started."""
        searched = {parameter.key for parameter in self.space.parameters}
        identity = self.identity_of(self.run)
        decide = {name: value for name, value in asdict(self.run.search).items() if name in _DECIDE}
        return SearchRecord(
            name=self.run.name,
            key=uuid.uuid4().hex,
            space=self.space.description(),
            settings=decide,
            identity={key: identity[key] for key in identity if key not in {*searched, "training.num_epochs"}},
            started_ms=int(time.time() * 1000),
        )


def plan_search(run: TuneRun) -> SearchPlan:
    """Check a search against its configuration and data; nothing starts yet.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: the search cannot work as it is described.
    """
    if run.validation.where == "beside":
        raise ValueError(
            "trials are compared by what their own workers compute, not beside them; use --validation.where workers"
        )
    content = read_search(run.search.space) if run.search.space else DEFAULT_SEARCH
    space = parse_space(content, run)
    check_sampler(space, run.search.sampler, run.search.num_trials)
    check_given_features(run, space)
    shard_set = check_data(run)
    extracts, digest = run.features is None, shard_set.features_digest
    if extracts and (digest := digest_to_extract(run, space, shard_set)):
        run = replace(run, features=run.storage.home / "features" / digest[:16])
    return SearchPlan(run=run, space=space, shard_set=shard_set, features_digest=digest, extracts=extracts)


def best_run(run: TuneRun, trial: Trial) -> TrainRun:
    """Return the run that trains the best point at full length; another point is another run."""
    return apply_point(run.base(name=f"{run.name}-best-{trial.number:04d}"), trial.point)
