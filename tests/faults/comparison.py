"""Whether a disturbed run ended as an undisturbed one: weights, samples, the tracker, and what is left behind."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from captioning.config import ModelConfig, TrainingConfig
from captioning.training.loop import num_training_steps
from cluster.data.loading import training_batches
from cluster.data.shard_set import ShardSet
from cluster.runs.record import local_checkpoint, store_of
from cluster.runs.sample_ledger import audit_samples, read_sample_ledger
from shards.manifest import load_manifest
from tests.support.local_cluster import NAMESPACE, LocalCluster, wait_until
from tests.support.training_process import TrainingRun, tracked_runs

_SETTLE_SECONDS = 60.0
_SMALL_IMAGES = ModelConfig(backbone="squeezenet1_1", weights="none", image_size_px=32)


def assert_unharmed(
    disturbed: TrainingRun,
    undisturbed: TrainingRun | None,
    *,
    tracking_uri: str | None = None,
) -> list[str]:
    """Compare a run that was disturbed with one that was not; return what was compared, in words: each claim holds.

    Args:
        disturbed: run, finished.
        undisturbed: finished run of the same settings, from which not a bit of the weights may differ; None if the
            number of workers has changed, which rounds sums differently: the batches are then those of the shard set.
        tracking_uri: of the tracker; the embedded one if not given.

    Raises:
        AssertionError: they differ; the message says in what.
    """
    num_steps = (undisturbed or disturbed).record.latest_step
    batches = read_sample_ledger(undisturbed.folder / "ledger").batches if undisturbed else _batches(disturbed)
    claims = [_compare_samples(disturbed, batches, num_steps)]
    if undisturbed:
        claims.append(_compare_weights(disturbed, undisturbed))
    claims.append(_check_tracker(disturbed, num_steps, tracking_uri))
    claims.append(_check_folder(disturbed))
    return claims


def _batches(run: TrainingRun) -> dict[int, list[str]]:
    """Return the keys of each step's batch, as one process reads them from the shard set."""
    config = TrainingConfig(**run.settings["training"])
    shard_set = ShardSet(Path(run.settings["shards"]))
    num_steps = num_training_steps(config, shard_set.manifest.splits["train"])
    steps = training_batches(
        shard_set, "train", model=_SMALL_IMAGES, config=config, ranks=(0, 1), steps=range(num_steps)
    )
    return {step: [key for part in parts for key in part.keys] for step, parts in enumerate(steps, start=1)}


def _compare_samples(disturbed: TrainingRun, batches: dict[int, list[str]], num_steps: int) -> str:
    ours = read_sample_ledger(disturbed.folder / "ledger").batches
    assert sorted(batches) == list(range(1, num_steps + 1)), "the undisturbed run's ledger has gaps"
    assert num_lost(ours, batches) == 0, f"{num_lost(ours, batches)} samples were lost"
    others = [step for step, keys in batches.items() if ours[step] != keys]
    assert ours.keys() == batches.keys(), "steps were trained that are none"
    assert not others, f"steps {others[:5]} trained on other samples"
    found = audit_samples(disturbed.folder)
    assert found.is_exact, str(found)
    assert found.num_steps == num_steps, str(found)
    assert found.num_samples == load_manifest(Path(disturbed.settings["shards"])).splits["train"], str(found)
    once = f"each of {found.num_samples} samples once in each of {found.num_epochs} epochs"
    return f"{once}, the same batches in {num_steps} steps"


def num_lost(ours: Mapping[int, list[str]], wanted: Mapping[int, list[str]]) -> int:
    """Return the number of samples of the wanted steps that ours lack."""
    return sum((Counter(keys) - Counter(ours.get(step, []))).total() for step, keys in wanted.items())


def _compare_weights(disturbed: TrainingRun, undisturbed: TrainingRun) -> str:
    ours, theirs = (_final_weights(run) for run in (disturbed, undisturbed))
    assert ours.keys() == theirs.keys(), "the models have other tensors"
    others = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    worst = max((float((ours[name] - theirs[name]).abs().max()) for name in others), default=0.0)
    assert not others, f"{len(others)} of {len(ours)} tensors differ, by up to {worst:g}, first {others[0]}"
    return f"all {len(ours)} tensors of the final weights equal to the bit"


def _final_weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    latest = run.record.latest
    assert latest is not None, f"run {run.name} has no checkpoint"
    folder = local_checkpoint(run.folder, run.record, latest)
    found = [(path.stem, load_file(path)) for path in sorted(folder.glob("*.safetensors"))]  # averaged, and the last
    return {f"{name} of {file}": tensor for file, tensors in found for name, tensor in tensors.items()}


def _check_tracker(run: TrainingRun, num_steps: int, uri: str | None) -> str:
    client, found = tracked_runs(run, uri)
    assert len(found) == 1, f"{len(found)} MLflow runs have the name {run.name}"
    assert found[0].info.status == "FINISHED", f"the MLflow run is {found[0].info.status}"
    history = client.get_metric_history(found[0].info.run_id, "train_loss_nats")
    steps = Counter(metric.step for metric in history)
    wrong = {step: steps[step] for step in {*steps, *range(1, num_steps + 1)} if steps[step] != 1}
    assert not wrong, f"steps in MLflow, and how often each: {dict(sorted(wrong.items())[:8])}"
    return f"one MLflow run, FINISHED, with each of {num_steps} steps once"


def _check_folder(run: TrainingRun) -> str:
    wait_until(lambda: not _litter(run), lambda: f"{_litter(run)} are gone", seconds=_SETTLE_SECONDS)
    return "no temporary file and no checkpoint that does not count"


def _litter(run: TrainingRun) -> list[str | Path]:
    counted = {checkpoint.name for checkpoint in run.record.checkpoints}
    store = store_of(run.folder, run.record.checkpoints_at)
    uncounted = [name for name in store.names() if name not in counted]
    # A folder of checkpoints holds no files; a URL has the run's record, and no claim any more.
    files = [name for name in store.file_names() if store.is_local or name.startswith("owner-")]
    return [*uncounted, *files, *run.folder.rglob("*.tmp"), *run.folder.rglob("*.unfinished")]


def assert_nothing_is_left(cluster: LocalCluster, runs: list[TrainingRun]) -> str:
    """Check that finished runs hold nothing of the cluster, and that no process of theirs lives.

    Raises:
        AssertionError: something is left.
    """
    import ray
    from ray.util import list_named_actors

    wait_until(lambda: not cluster.strays(), lambda: f"{cluster.strays()} have ended", seconds=_SETTLE_SECONDS)
    drivers = [process.pid for run in runs for process in run.driver_processes()]
    assert not drivers, f"drivers {drivers} live on"
    actors = [one["name"] for one in list_named_actors(all_namespaces=True) if one["namespace"] == NAMESPACE]
    assert not actors, f"named actors live on: {actors}"
    free = wait_until(_is_all_free, lambda: "all CPUs of the cluster are free", seconds=_SETTLE_SECONDS)
    return f"no process, actor or placement group left, {ray.cluster_resources()['CPU']:g} CPUs free" if free else ""


def _is_all_free() -> bool:
    import ray

    return ray.available_resources().get("CPU") == ray.cluster_resources().get("CPU")
