"""Plan of a search: everything that is checked and decided before the search starts."""

import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster.checks.data import check_data
from cluster.config import TrainRun
from cluster.data.shard_set import ShardSet
from cluster.runs.identity import identity_of
from cluster.search.features import check_features, planned_features_digest
from cluster.search.space.config import TuneRun
from cluster.search.space.sampling import check_sampler
from cluster.search.space.space import DEFAULT_SEARCH, SearchSpace, apply_point, parse_space, read_search
from cluster.search.trials import SearchRecord, Trial
from shards.features.manifest import FEATURES_NAME

# Settings of a search that decide which points are tried and which trials are promoted.
_RECORDED_SETTINGS = ("max_epochs", "sampler", "scheduler", "reduction_factor", "metric", "search_seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPlan:
    """A checked search, ready to start."""

    run: TuneRun
    """The search's settings; ``features`` locates the features that trials read, or is None if they read images."""
    space: SearchSpace
    shard_set: ShardSet
    """The images."""
    features_digest: str | None
    """Digest of the features that trials read, even before they are extracted; None if trials read images."""
    extracts: bool
    """Whether the search extracts its features itself, because ``--features`` was not given."""

    @property
    def num_samples(self) -> int:
        """Return the number of samples of the training split."""
        return self.shard_set.manifest.splits[self.run.train_split]

    @property
    def base(self) -> TrainRun:
        """Return the base configuration of all trials."""
        return self.run.base()

    @property
    def num_trials(self) -> int:
        """Return the number of trials: ``--num-trials``, or the number of points of the space if that is smaller."""
        return min(self.run.search.num_trials, self.space.num_points or self.run.search.num_trials)

    @property
    def folder(self) -> Path:
        """Return the search's folder."""
        return self.run.folder

    @property
    def needs_extraction(self) -> bool:
        """Return whether trials read features that are not extracted yet."""
        features = self.run.features
        return self.extracts and isinstance(features, Path) and not (features / FEATURES_NAME).is_file()

    def trial_data(self) -> ShardSet:
        """Return the data that trials read: the images while the features are not extracted, then the features."""
        if self.needs_extraction:
            return self.shard_set
        return ShardSet(self.shard_set.folder, self.run.features, cache_gib=self.run.storage.cache_gib)

    def identity_of(self, run: TrainRun) -> dict[str, Any]:
        """Return the settings and digests that determine the weights of a trial's run."""
        return identity_of(run, self.shard_set.manifest, self.features_digest)

    def record(self) -> SearchRecord:
        """Return the record of a search that has not started yet."""
        # Keys that each trial sets for itself do not identify the search.
        own = {parameter.key for parameter in self.space.parameters} | {"training.num_epochs"}
        settings = asdict(self.run.search)
        return SearchRecord(
            name=self.run.name,
            key=uuid.uuid4().hex,
            space=self.space.description(),
            settings={name: settings[name] for name in settings if name in _RECORDED_SETTINGS},
            identity={key: value for key, value in self.identity_of(self.run).items() if key not in own},
            started_ms=int(time.time() * 1000),
        )


def plan_search(run: TuneRun) -> SearchPlan:
    """Check a search against its configuration and data; start nothing.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: the search cannot work with these settings.
    """
    if run.validation.where == "beside":
        raise ValueError(
            "a search compares scores that the trials' own workers compute; use --validation.where workers"
        )
    content = read_search(run.search.space) if run.search.space else DEFAULT_SEARCH
    space = parse_space(content, run)
    check_sampler(space, run.search.sampler, run.search.num_trials)
    check_features(run, space)
    shard_set = check_data(run)
    extracts, digest = run.features is None, shard_set.features_digest
    if extracts and (digest := planned_features_digest(run, space, shard_set)):
        run = replace(run, features=run.storage.home / "features" / digest[:16])
    return SearchPlan(run=run, space=space, shard_set=shard_set, features_digest=digest, extracts=extracts)


def best_run(run: TuneRun, trial: Trial) -> TrainRun:
    """Return the run that trains a trial's point at full length.

    Its name contains the trial's number, so the same best trial resumes the same run, and another one starts a new run.
    """
    return apply_point(run.base(name=f"{run.name}-best-{trial.number:04d}"), trial.point)
