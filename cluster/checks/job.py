"""The list of what would make a job fail, asked before it starts: each with a verdict, what was found, and a remedy."""

import shutil
from collections.abc import Sequence
from dataclasses import replace

from captioning.model.weights import is_weights_file
from cluster.checks.data import check_data
from cluster.checks.nodes import Answer, ask_nodes
from cluster.checks.probe import Question, tracker_of, versions
from cluster.checks.result import NAMES, Check, check_capacity_result, failed
from cluster.config import TrainRun, without_credentials
from cluster.data.shard_set import ShardSet
from cluster.resources.capacity import check_capacity
from cluster.resources.gcs import list_nodes
from cluster.resources.session import named_address
from cluster.tracking.client import check_tracker, tracking_uri
from shards.features.manifest import FEATURES_NAME
from shards.manifest import MANIFEST_NAME

_SPARE_CHECKPOINTS = 2  # one that is being written, one that is not yet removed


def check_job(
    run: TrainRun, *, shard_set: ShardSet | None = None, needs_tracker: bool = True, num_runs: int = 1
) -> list[Check]:
    """Look at everything that a job needs, on every node, within a session.

    Args:
        run: the job.
        shard_set: of the run, if the data has been checked already.
        needs_tracker: whether it is refused if the tracker does not answer; a run that it knows goes on without.
        num_runs: training runs that keep checkpoints.
    """
    found = [] if shard_set else [Check(name="shards", verdict="not asked", found="no shard set was given (--shards)")]
    if not shard_set and run.shards:
        try:
            shard_set, found = check_data(run), []
        except (FileNotFoundError, ValueError) as error:
            found = [failed("shards", error)]
    question = Question(
        home=run.storage.home,
        files=tuple(_files_of(run)) if shard_set else (),
        checkpoints=run.storage.checkpoints,
        tracker=tracker_of(tracking_uri(run.tracking, run.storage)),
        use_gpu=run.cluster.use_gpu,
    )
    answers = ask_nodes(question, is_embedded=len(list_nodes()) == 1 and named_address(run.cluster) is None)
    found = [
        *judge(run, answers, needs_tracker=needs_tracker),
        _resources(run),
        _disk(run, shard_set, num_runs=num_runs),
        *found,
    ]
    of = {check.name: check for check in found}
    return [of[name] for name in NAMES]


def judge(run: TrainRun, answers: Sequence[Answer], *, needs_tracker: bool = True) -> list[Check]:
    """Return what the answers of the nodes to the question of a job say.

    Args:
        run: the job.
        answers: of all nodes.
        needs_tracker: whether the job is refused if the tracker does not answer.
    """
    return [
        _cluster(answers),
        _versions(answers),
        _shards(run, answers),
        _home(run, answers),
        _checkpoints(run, answers),
        _tracking(run, answers, is_needed=needs_tracker),
        _gpu(run, answers),
    ]


def _cluster(answers: Sequence[Answer]) -> Check:
    silent = [(answer.address, answer.fault) for answer in answers if answer.fault]
    if silent:
        address, fault = silent[0]
        found = f"{len(silent)} of {len(answers)} nodes do not answer, first {address} ({fault})"
        remedy = "restart these nodes, or install captioning there"
        return Check(name="cluster", verdict="failed", found=found, remedy=remedy)
    return Check(name="cluster", verdict="ok", found=f"every node answers ({len(answers)})")


def _versions(answers: Sequence[Answer]) -> Check:
    mine = versions()
    others = [
        (answer.address, f"{name} {theirs}, not {mine[name]}")
        for answer in answers
        if answer.report
        for name, theirs in answer.report.versions.items()
        if theirs != mine.get(name)
    ]
    if others:
        found = f"node {others[0][0]} has another version than this machine ({others[0][1]})"
        remedy = "install the same versions on all nodes, or ship the code by captioning submit"
        return Check(name="versions", verdict="failed", found=found, remedy=remedy)
    return Check(name="versions", verdict="ok", found=", ".join(f"{name} {version}" for name, version in mine.items()))


def _resources(run: TrainRun) -> Check:
    try:
        return check_capacity_result(run.cluster, check_capacity(run.cluster))
    except ValueError as error:
        return failed("resources", error)


def _files_of(run: TrainRun) -> list[str]:
    features = [f"{run.features}/{FEATURES_NAME}"] if run.features else []
    weights = [run.model.weights] if is_weights_file(run.model.weights) else []
    return [f"{run.shards_folder()}/{MANIFEST_NAME}", *features, *weights]


def _faults(answers: Sequence[Answer], subject: str) -> list[tuple[str, str]]:
    """Return address and fault of the nodes that found one."""
    return [
        (answer.address, answer.report.faults[subject])
        for answer in answers
        if answer.report and subject in answer.report.faults
    ]


def _on_nodes(name: str, answers: Sequence[Answer], subject: str, *, what: str, ok: str, remedy: str) -> Check:
    faults = _faults(answers, subject)
    if not faults:
        return Check(name=name, verdict="ok", found=ok)
    address, fault = faults[0]
    found = f"{what} {len(faults)} of {len(answers)} nodes, first {address} ({fault})"
    return Check(name=name, verdict="failed", found=found, remedy=remedy)


def _shards(run: TrainRun, answers: Sequence[Answer]) -> Check:
    what = f"{run.shards} and what belongs to it cannot be read on"
    remedy = "put it on storage that all nodes mount"
    return _on_nodes("shards", answers, "files", what=what, ok="whole, and every node reads them", remedy=remedy)


def _home(run: TrainRun, answers: Sequence[Answer]) -> Check:
    what = f"home folder {run.storage.home} cannot be used on"
    remedy = "use a --home on storage that all nodes mount and may write"
    return _on_nodes("home", answers, "home", what=what, ok=f"every node writes {run.storage.home}", remedy=remedy)


def _checkpoints(run: TrainRun, answers: Sequence[Answer]) -> Check:
    place = run.storage.checkpoints
    if not place:
        return Check(name="checkpoints", verdict="not asked", found="they lie in the home folder")
    remedy = "correct --checkpoints, or give every node the address and credentials in its environment"
    ok = f"every node writes {place}"
    return _on_nodes("checkpoints", answers, "checkpoints", what=f"{place} cannot be written on", ok=ok, remedy=remedy)


def _tracking(run: TrainRun, answers: Sequence[Answer], *, is_needed: bool) -> Check:
    uri = without_credentials(tracking_uri(run.tracking, run.storage))
    try:
        check_tracker(run.tracking, run.storage)
    except (ConnectionError, ValueError) as error:
        refused = failed("tracking", error)
        return refused if is_needed else replace(refused, verdict="warning")
    blind = _faults(answers, "tracker")
    if not blind:
        reach = f"every node reaches {uri}" if tracker_of(uri) else uri
        return Check(name="tracking", verdict="ok", found=reach)
    address, fault = blind[0]
    found = f"MLflow at {uri} does not answer {len(blind)} of {len(answers)} nodes, first {address} ({fault})"
    remedy = "it is tracked from the driver's node, which reaches it; give an address that all nodes reach"
    return Check(name="tracking", verdict="warning", found=found, remedy=remedy)


def _gpu(run: TrainRun, answers: Sequence[Answer]) -> Check:
    if not run.cluster.use_gpu:
        return Check(name="gpu", verdict="not asked", found="training is on CPUs")
    asked = [answer for answer in answers if answer.num_gpus]
    if not asked:
        return Check(name="gpu", verdict="not asked", found="no node has a GPU")
    remedy = "install the CUDA build of torch and a driver that fits it, or leave out --cluster.use-gpu"
    ok = f"torch finds the GPUs of {len(asked)} nodes"
    return _on_nodes("gpu", asked, "gpu", what="torch has no use of the GPUs of", ok=ok, remedy=remedy)


def _disk(run: TrainRun, shard_set: ShardSet | None, *, num_runs: int) -> Check:
    home = next(path for path in (run.storage.home, *run.storage.home.parents) if path.exists())
    free = shutil.disk_usage(home).free
    if run.storage.checkpoints or shard_set is None:
        why = "checkpoints lie elsewhere" if run.storage.checkpoints else "without --shards, their size is not known"
        return Check(name="disk", verdict="not asked", found=f"{_gib(free)} are free; {why}")
    from captioning.training.checkpoint import checkpoint_bytes

    size = checkpoint_bytes(run.model, vocabulary_size=len(shard_set.vocabulary))
    there = sum(path.is_dir() for path in run.folder.glob("**/checkpoints/*"))
    count = run.training.keep_best + run.training.keep_last + _SPARE_CHECKPOINTS
    needed = size * max(_SPARE_CHECKPOINTS, count * num_runs - there)
    found = f"checkpoints take up to {_gib(needed)} of {_gib(free)} that are free at {run.storage.home}"
    if needed <= free:
        return Check(name="disk", verdict="ok", found=found)
    remedy = "make room, lower --training.keep-best and --training.keep-last, or use --checkpoints URL"
    # Most trials of a search are stopped before they have so many.
    return Check(name="disk", verdict="failed" if num_runs == 1 else "warning", found=found, remedy=remedy)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
