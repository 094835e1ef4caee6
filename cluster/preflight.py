"""What would make a job fail, asked before it starts."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from captioning.encoder import check_backbone
from captioning.weights import weights_identity
from cluster.config import ClusterConfig, TrainRun
from cluster.data import FeatureSet, ShardSet
from cluster.features import encoder_identity
from shards.manifest import verify_shards

_PROBE_SECONDS = 30


def check_data(run: TrainRun) -> ShardSet:
    """Check that a training run's shards, splits, features, backbone and weights are there, whole, and fit each other.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: something is damaged or unknown.
    """
    shard_set = ShardSet(run.shards_folder(), run.features, cache_gib=run.storage.cache_gib)
    _check_copies(run, shard_set)
    check_backbone(run.model.backbone)
    weights_identity(run.model.weights)
    for split in (run.train_split, run.validation_split):
        verify_shards(shard_set.folder, shard_set.manifest.of_split(split))
    if shard_set.features:
        _check_features(run, shard_set.features)
    return shard_set


def _check_copies(run: TrainRun, shard_set: ShardSet) -> None:
    """Check that copies of the shards that training reads at once, and of the next ones, fit under the limit."""
    read = shard_set.features or shard_set
    if isinstance(read.folder, Path):
        return
    largest = max(shard.num_bytes for shard in read.manifest.shards)
    num_shards = min(2 * run.training.shuffle_window_shards, len(read.manifest.shards))
    if num_shards * largest > run.storage.cache_gib * 2**30:
        needed = math.ceil(100 * num_shards * largest / 2**30) / 100
        raise ValueError(
            f"two windows of the order, {num_shards} shards of up to {largest / 2**30:.3g} GiB, do not fit into "
            f"{run.storage.cache_gib:g} GiB of copies; use --cache-gib {needed:g} or a smaller "
            "--training.shuffle-window-shards"
        )


def _check_features(run: TrainRun, features: FeatureSet) -> None:
    """Check that features are there for both splits, and what the run's own encoder would make."""
    manifest = features.manifest
    found, wanted = asdict(manifest.encoder), asdict(encoder_identity(run.model, seed=run.training.seed))
    if changed := [name for name in found if found[name] != wanted[name]]:
        differences = "; ".join(f"{name} {found[name]}, not {wanted[name]}" for name in changed)
        raise ValueError(
            f"{features.folder} holds features of another encoder than the run's ({differences}); "
            "make some of this one by captioning extract, or change the run"
        )
    if run.model.pooling == "none" and manifest.settings.regions == "pooled":
        raise ValueError(
            f"{features.folder} holds the mean over the regions alone, while --model.pooling none reads every region; "
            "use captioning extract with --regions grid"
        )
    for split in (run.train_split, run.validation_split):
        verify_shards(features.folder, manifest.of_split(split), read_all=False, job="extract")


def check_capacity(config: ClusterConfig, *, flag: str = "--cluster.num-workers") -> None:
    """Check that the nodes that are there can hold all workers at once.

    Args:
        config: of the workers.
        flag: that sets how many, for the message.

    Raises:
        ValueError: they cannot, now or ever.
    """
    nodes = _node_resources()
    fitting = capacity(config)
    if fitting < config.min_workers:
        wanted = resources_per_worker(config)
        each = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
        has = {name: sum(node.get(name, 0.0) for node in nodes) for name in wanted}
        total = ", ".join(f"{amount:g} {name}" for name, amount in has.items())
        raise ValueError(
            f"{config.min_workers} workers of {each} do not fit: the cluster's {len(nodes)} nodes have {total}, "
            f"enough for {fitting}; use {flag} {max(fitting, 1)} or a larger cluster"
        )


def capacity(config: ClusterConfig) -> int:
    """Return how many workers the nodes that are there can hold at once, were nothing else on them."""
    wanted = resources_per_worker(config)
    return sum(int(min(node.get(name, 0.0) / amount for name, amount in wanted.items())) for node in _node_resources())


def resources_per_worker(config: ClusterConfig) -> dict[str, float]:
    """Return what Ray reserves for a worker."""
    gpu = {"GPU": 1.0} if config.use_gpu else {}
    return {"CPU": float(config.cpus_per_worker), **gpu, **config.resources_per_worker}


def _node_resources() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_home_is_shared(home: Path) -> None:
    """Check that every node sees the home folder, by a file that each reads.

    Raises:
        ValueError: a node does not see it.
    """
    home.mkdir(parents=True, exist_ok=True)
    probe = home / f".probe-{uuid.uuid4().hex}"
    probe.touch()
    try:
        num_nodes, blind = _blind_nodes(probe)
    finally:
        probe.unlink()
    if blind:
        raise ValueError(
            f"home folder {home} is local: {len(blind)} of {num_nodes} nodes do not see it, first {blind[0]}; "
            "use a --home on storage that all nodes mount"
        )


def check_files_are_shared(files: Sequence[Path]) -> None:
    """Check that every node sees files that are there, such as a shard set's manifest.

    Raises:
        ValueError: a node does not see one.
    """
    for file in files:
        num_nodes, blind = _blind_nodes(file)
        if blind:
            raise ValueError(
                f"{file} is local: {len(blind)} of {num_nodes} nodes do not see it, first {blind[0]}; "
                "put it on storage that all nodes mount"
            )


def _blind_nodes(file: Path) -> tuple[int, list[str]]:
    """Return the number of nodes, and the addresses of those that do not see a file; one that goes is none of them."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = _live_nodes()
    if len(nodes) < 2:
        return len(nodes), []
    look = ray.remote(num_cpus=0, max_retries=0)(Path.is_file)
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        asked[look.options(scheduling_strategy=there).remote(file)] = node
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_SECONDS)
    alive = _live_nodes()
    blind = [nodes[asked[answer]] for answer in answered if _answer(answer) is False]
    return len(nodes), blind + [nodes[asked[answer]] for answer in silent if asked[answer] in alive]


def _live_nodes() -> dict[str, str]:
    """Return the addresses of the nodes that live, by id."""
    import ray

    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def _answer(reference: Any) -> bool | None:  # noqa: ANN401  Ray's references have no type
    """Return what a node answered; None if it died over it, or is about to go and takes no task."""
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(reference)
    except RayError:
        return None
