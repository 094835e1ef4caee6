"""View of a submitted job: its state on the cluster, and the progress that it has reported."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cluster.coordination.messages import metrics_text
from cluster.job_progress import duration, read_progress
from jobs.console.tables import plain

if TYPE_CHECKING:
    from cluster.submission.job import JobState

Progress = Mapping[str, Any]
_SCORES = {"validation_loss_nats": "validation loss {} nats/word", "validation_cider_d": "validation CIDEr-D {}"}


def latest_progress(lines: Iterable[str]) -> dict[str, Any]:
    """Return the latest value of each entry that a job reports as progress in its log."""
    latest: dict[str, Any] = {}
    for line in lines:
        latest |= read_progress(line) or {}
    return latest


def job_table(job: "JobState", progress: Progress, *, address: str) -> Table:
    """Return a table of a job's state and progress.

    Args:
        job: state of the job on the cluster.
        progress: latest progress that the job reported; empty if it reported none.
        address: address of Ray's dashboard.
    """
    table = Table(show_header=False, title=plain(f"Job {job.id}"), title_justify="left")
    table.add_column(style="dim")
    table.add_column()
    for name, value in job_rows(job, progress, address=address):
        table.add_row(name, plain(value))
    return table


def job_rows(job: "JobState", progress: Progress, *, address: str) -> Iterator[tuple[str, str]]:
    """Yield the rows of a job's table, as name and value."""
    yield "status", f"{job.status}, {duration(job.seconds)}"
    if job.status == "FAILED" and job.message:
        yield "reason", job.message
    yield "command", job.command
    if job.commit:
        yield "commit", job.commit[:12]
    if progress.get("kind") == "training":
        yield from _training_rows(progress)
    elif progress.get("kind") == "search":
        yield from _search_rows(progress)
    if progress.get("seconds_left") is not None and not job.is_over:
        yield "time left", duration(progress["seconds_left"])
    if progress.get("tracking", "").startswith("http"):
        yield "MLflow", f"{progress['tracking'].rstrip('/')}/#/runs/{progress['mlflow_run_id']}"
    yield "dashboard", f"{address}/#/jobs/{job.id}"


def job_line(job: "JobState", progress: Progress, *, address: str) -> str:
    """Return a job's state and progress in one line, for output that is not a terminal."""
    rows = job_rows(job, progress, address=address)
    facts = [f"{name} {value}" for name, value in rows if name not in ("command", "commit", "MLflow", "dashboard")]
    return f"{job.id}: {', '.join(facts)}"


def _training_rows(progress: Progress) -> Iterator[tuple[str, str]]:
    if progress.get("phase"):
        yield "phase", progress["phase"]
    if "step" in progress:
        yield "step", f"{progress['step']} of {progress['num_steps']} (epoch {progress['epoch']:.2f})"
        yield "loss", f"{progress['train_loss_nats']:.3f} nats/word"
        if progress.get("train_reward") is not None:
            yield "reward", f"{progress['train_reward']:.3f}"
        yield from _checkpoint_rows(progress)
        yield "speed", f"{progress['images_per_second']:.0f} images/s"
        if progress.get("data_wait_share") is not None:
            yield "data wait", f"{progress['data_wait_share']:.0%} of the time"
        redone = progress.get("num_steps_redone")
        yield "restarts", f"{progress['num_restarts']}" + (f" ({redone} steps redone)" if redone else "")
    if progress.get("ranks"):
        hosts = {worker["host"] for worker in progress["ranks"]}
        yield "workers", f"{len(progress['ranks'])} on {len(hosts)} host{'s' if len(hosts) > 1 else ''}"


def _checkpoint_rows(progress: Progress) -> Iterator[tuple[str, str]]:
    if validation := progress.get("validation"):
        best = f" (best at step {progress['best_step']})" if progress.get("best_step") is not None else ""
        yield "scores", f"{metrics_text(validation['metrics'])} at step {validation['step']}{best}"
    if progress.get("checkpoint_step") is not None:
        yield "checkpoint", f"step {progress['checkpoint_step']}"


def _search_rows(progress: Progress) -> Iterator[tuple[str, str]]:
    running = f"{progress['num_running']} running"
    yield "trials", f"{progress['num_trials_done']} of {progress['num_trials']}, {running}"
    yield "epochs", f"{progress['num_epochs']}"
    if progress.get("best_score") is not None:
        score = _SCORES.get(progress["metric"], f"{progress['metric']} {{}}")
        yield "best", f"{progress['best']}: {score.format(format(progress['best_score'], '.4f'))}"
