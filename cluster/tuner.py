"""A search under Ray Tune: described first, then started and followed to its end.

Each start of a driver is a Tune run of its own, for Tune's snapshot is written now and then, and holds how many trials
run at once on a cluster that may be another by now. What was tried and how far it came is in the search's own folder:
trials that had ended are told to the scheduler as they were, and those that had not start first.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray.tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.config import ClusterConfig
from cluster.data import ShardSet
from cluster.preflight import capacity
from cluster.runs import RunRecord, identity_of
from cluster.search import DEFAULT_SEARCH, SearchSpace, parse_space, read_search
from cluster.sampling import check_sampler
from cluster.search_config import TuneRun
from cluster.searching import Search
from cluster.trial import TrialPlan, TrialProcess
from cluster.trials import SearchRecord, Trial, check_same_search, load_search, trial_run

logger = logging.getLogger(__name__)

# Where nothing else is reserved: Tune takes no trial of nothing.
_FOLLOWER_BYTES = 2**20
_DECIDE = ("max_epochs", "sampler", "scheduler", "reduction_factor", "metric", "search_seed")
