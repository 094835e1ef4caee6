"""All checks of a job before it starts, each with a verdict, what was found, and a remedy."""

import shutil
from collections.abc import Sequence
from dataclasses import replace

from captioning.model.weights import is_weights_file
from cluster.checks.data import check_data
from cluster.checks.nodes import NodeReport, probe_nodes
from cluster.checks.probe import GLOO_INTERFACES, ProbeRequest, tracker_endpoint, versions
from cluster.checks.result import NAMES, CheckResult, check_capacity_result, failed
from cluster.config import TrainRun
from cluster.data.shard_set import ShardSet
from cluster.resources.capacity import check_capacity
from cluster.resources.gcs import list_nodes
from cluster.resources.session import named_address
from cluster.tracking.client import check_tracker, tracking_uri
from shards.features.manifest import FEATURES_NAME
from shards.manifest import MANIFEST_NAME

_SPARE_CHECKPOINTS = 2  # one being written, one not yet removed


def check_job(
    run: TrainRun, *, shard_set: ShardSet | None = None, needs_tracker: bool = True, num_runs: int = 1
) -> list[CheckResult]:
    """Check everything that a job needs, on every node of this session's cluster.

    Args:
        run: training run, or base run of all trials.
        shard_set: shard set of the run, if its data has been checked already; otherwise None.
        needs_tracker: whether an unreachable tracker is a failure; it is a warning for a run that the tracker knows.
        num_runs: number of training runs that keep checkpoints.
    """
    data: list[CheckResult] = []
    if not shard_set and run.shards:
        try:
            shard_set = check_data(run)
        except (OSError, ValueError) as error:
            data = [failed("shards", error)]
    elif not shard_set:
        data = [CheckResult(name="shards", verdict="not asked", found="no shard set was given (--shards)")]
    request = ProbeRequest(
        home=run.storage.home,
        files=tuple(_files_of(run)) if shard_set else (),
        checkpoints=run.storage.checkpoints,
        tracker=tracker_endpoint(tracking_uri(run.tracking, run.storage)),
        use_gpu=run.cluster.use_gpu,
    )
    reports = probe_nodes(request, is_embedded=len(list_nodes()) == 1 and named_address(run.cluster) is None)
    checks = [
        *evaluate_reports(run, reports, needs_tracker=needs_tracker),
        _resources(run),
        _disk(run, shard_set, num_runs=num_runs),
        *data,  # by name, so that it replaces what the nodes report about the shards
    ]
    by_name = {check.name: check for check in checks}
    return [by_name[name] for name in NAMES]


def evaluate_reports(run: TrainRun, reports: Sequence[NodeReport], *, needs_tracker: bool = True) -> list[CheckResult]:
    """Return the results of the checks that are based on the nodes' reports.

    Args:
        run: training run, or base run of all trials.
        reports: reports of all nodes.
        needs_tracker: whether an unreachable tracker is a failure; otherwise it is a warning.
    """
    return [
        _cluster(reports),
        _versions(reports),
        _shards(run, reports),
        _home(run, reports),
        _checkpoints(run, reports),
        _tracking(run, reports, is_needed=needs_tracker),
        _gpu(run, reports),
    ]


def _cluster(reports: Sequence[NodeReport]) -> CheckResult:
    silent = [(report.address, report.fault) for report in reports if report.fault]
    if silent:
        address, fault = silent[0]
        found = f"{len(silent)} of {len(reports)} nodes do not answer, first {address} ({fault})"
        remedy = "restart these nodes, or install captioning on them"
        return CheckResult(name="cluster", verdict="failed", found=found, remedy=remedy, may_pass=True)
    ok = f"every node answers ({len(reports)})"
    remedy = f"correct {GLOO_INTERFACES}, or unset it"
    return _on_nodes("cluster", reports, "network", what="workers cannot be connected on", ok=ok, remedy=remedy)


def _versions(reports: Sequence[NodeReport]) -> CheckResult:
    mine = versions()
    others = [
        (report.address, f"{name} {theirs}, not {mine[name]}")
        for report in reports
        if report.result
        for name, theirs in report.result.versions.items()
        if theirs != mine.get(name)
    ]
    if others:
        found = f"node {others[0][0]} does not have this machine's versions ({others[0][1]})"
        remedy = "install the same versions on all nodes, or ship the code with captioning submit"
        return CheckResult(name="versions", verdict="failed", found=found, remedy=remedy)
    return CheckResult(
        name="versions", verdict="ok", found=", ".join(f"{name} {version}" for name, version in mine.items())
    )


def _resources(run: TrainRun) -> CheckResult:
    try:
        return check_capacity_result(run.cluster, check_capacity(run.cluster))
    except ValueError as error:
        return failed("resources", error)


def _files_of(run: TrainRun) -> list[str]:
    features = [f"{run.features}/{FEATURES_NAME}"] if run.features else []
    weights = [run.model.weights] if is_weights_file(run.model.weights) else []
    return [f"{run.shards_folder()}/{MANIFEST_NAME}", *features, *weights]


def _faults(reports: Sequence[NodeReport], subject: str) -> list[tuple[str, str]]:
    """Return address and fault of every node that reports a fault of the subject."""
    return [
        (report.address, report.result.faults[subject])
        for report in reports
        if report.result and subject in report.result.faults
    ]


def _on_nodes(
    name: str, reports: Sequence[NodeReport], subject: str, *, what: str, ok: str, remedy: str
) -> CheckResult:
    faults = _faults(reports, subject)
    if not faults:
        return CheckResult(name=name, verdict="ok", found=ok)
    address, fault = faults[0]
    found = f"{what} {len(faults)} of {len(reports)} nodes, first {address} ({fault})"
    return CheckResult(name=name, verdict="failed", found=found, remedy=remedy)


def _shards(run: TrainRun, reports: Sequence[NodeReport]) -> CheckResult:
    what = f"{run.shards}, its features or the weights cannot be read on"
    remedy = "put them on storage that all nodes mount"
    return _on_nodes("shards", reports, "files", what=what, ok="intact, every node can read them", remedy=remedy)


def _home(run: TrainRun, reports: Sequence[NodeReport]) -> CheckResult:
    what = f"home folder {run.storage.home} cannot be used on"
    remedy = "set --home to storage that all nodes mount and can write"
    return _on_nodes("home", reports, "home", what=what, ok=f"every node can write {run.storage.home}", remedy=remedy)


def _checkpoints(run: TrainRun, reports: Sequence[NodeReport]) -> CheckResult:
    location = run.storage.checkpoints
    if not location:
        return CheckResult(name="checkpoints", verdict="not asked", found="stored in the home folder")
    remedy = "correct --checkpoints, or give every node the address and credentials in its environment"
    ok = f"every node can write {location}"
    return _on_nodes(
        "checkpoints", reports, "checkpoints", what=f"{location} cannot be written on", ok=ok, remedy=remedy
    )


def _tracking(run: TrainRun, reports: Sequence[NodeReport], *, is_needed: bool) -> CheckResult:
    uri = tracking_uri(run.tracking, run.storage)
    try:
        check_tracker(run.tracking, run.storage)
    except (ConnectionError, ValueError) as error:
        refused = failed("tracking", error)
        return refused if is_needed else replace(refused, verdict="warning")
    unreached = _faults(reports, "tracker")
    if not unreached:
        reach = f"every node reaches {uri}" if tracker_endpoint(uri) else uri
        return CheckResult(name="tracking", verdict="ok", found=reach)
    address, fault = unreached[0]
    found = f"MLflow at {uri} does not answer {len(unreached)} of {len(reports)} nodes, first {address} ({fault})"
    remedy = "the driver's node reaches it and logs the run; use an address that all nodes reach"
    return CheckResult(name="tracking", verdict="warning", found=found, remedy=remedy)


def _gpu(run: TrainRun, reports: Sequence[NodeReport]) -> CheckResult:
    if not run.cluster.use_gpu:
        return CheckResult(name="gpu", verdict="not asked", found="training runs on CPUs")
    with_gpu = [report for report in reports if report.num_gpus]
    if not with_gpu:
        return CheckResult(name="gpu", verdict="not asked", found="no node has a GPU")
    remedy = "install the CUDA build of torch and a matching driver, or leave out --cluster.use-gpu"
    ok = f"torch finds the GPUs of every node that has some ({len(with_gpu)})"
    return _on_nodes("gpu", with_gpu, "gpu", what="torch cannot use the GPUs of", ok=ok, remedy=remedy)


def _disk(run: TrainRun, shard_set: ShardSet | None, *, num_runs: int) -> CheckResult:
    home = next(path for path in (run.storage.home, *run.storage.home.parents) if path.exists())
    free = shutil.disk_usage(home).free
    if run.storage.checkpoints or shard_set is None:
        why = (
            "checkpoints are stored elsewhere" if run.storage.checkpoints else "without --shards, their size is unknown"
        )
        return CheckResult(name="disk", verdict="not asked", found=f"{_gib(free)} free; {why}")
    from captioning.training.checkpoint import checkpoint_bytes

    is_averaged = run.training.ema_decay > 0
    size = checkpoint_bytes(run.model, vocabulary_size=len(shard_set.vocabulary), is_averaged=is_averaged)
    there = sum(path.is_dir() for path in run.folder.glob("**/checkpoints/*"))
    count = run.training.keep_best + run.training.keep_last + _SPARE_CHECKPOINTS
    # Checkpoints that exist already take no further space.
    needed = size * max(_SPARE_CHECKPOINTS, count * num_runs - there)
    found = f"checkpoints need up to {_gib(needed)}, {_gib(free)} free at {run.storage.home}"
    if needed <= free:
        return CheckResult(name="disk", verdict="ok", found=found)
    remedy = "free some space, lower --training.keep-best and --training.keep-last, or use --checkpoints URL"
    # Only a warning for a search: most of its trials are stopped before they have that many checkpoints.
    return CheckResult(name="disk", verdict="failed" if num_runs == 1 else "warning", found=found, remedy=remedy)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
