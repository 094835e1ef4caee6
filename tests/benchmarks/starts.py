"""Where the seconds of a start and of a restart after a killed worker go, in ``captioning train`` with two workers.

Each phase ends with a line of the command's log. The peer is ``torchrun``, with two ranks that take one DDP step of a
linear layer: it has no data, no model, no tracker and nobody who would start it again.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from cluster.runs.journal import list_segments, read_segment
from tests.benchmarks.measuring import Benchmark, Row
from tests.support.drawn_shards import draw_shards
from tests.support.local_cluster import wait_until
from tests.support.training_process import command, environment

_START = (
    ("Python and imports", "verifying the shards"),
    ("data and tracker", "starting Ray on this machine"),
    ("Ray", "checking nodes"),
    ("checks and the run's record", "starting Ray Train"),
    ("coordinator and controller", "starting 2 workers"),
    ("processes, imports and process group of the workers", "2 workers started"),
)
_RESTART = (
    ("notice the loss", " was lost after step "),
    ("end the old workers", "starting 2 workers"),
    ("processes, imports and process group of the workers", "attempt 2 resumes"),
)
_FLAGS = (
    "--model.backbone squeezenet1_1 --model.weights none --model.trainable-from features.12 --model.image-size-px 64 "
    "--training.batch-size 15 --training.checkpoint-every-steps 5"
)
_TORCHRUN = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 8))
optimizer = torch.optim.AdamW(model.parameters())
model(torch.ones(4, 8)).sum().backward()
optimizer.step()
if dist.get_rank() == 0:
    print("first step", flush=True)
dist.destroy_process_group()
"""
_LONGEST_SECONDS = 300


class Timeline:
    """The lines that a command writes to its standard error, with the time of each.

    Args:
        arguments: words of the command line.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.started_at = time.time()
        self.process = subprocess.Popen(
            arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        with self.process.stderr as lines:
            for line in lines:
                self._lines.append((time.time(), line))

    def end(self) -> None:
        """End the command, and wait for its last line."""
        self.process.terminate()
        self.process.wait(60)
        self._reader.join(60)

    def time_of(self, text: str, *, after: float = 0.0) -> float | None:
        """Return when a line with this text was first written after a given time; None if it was not."""
        return next((at for at, line in list(self._lines) if at > after and text in line), None)

    def wait_for(self, found: Callable[[], float | None], what: str) -> float:
        """Wait for a time to be known, and return it.

        Raises:
            RuntimeError: the command ends before.
        """

        def look() -> float | None:
            if (at := found()) is None and self.process.poll() is not None:
                raise RuntimeError("".join(line for _, line in self._lines[-20:]))
            return at

        return wait_until(look, lambda: what, seconds=_LONGEST_SECONDS)


@contextmanager
def training(folder: Path, shards: Path, flags: str) -> Iterator[Timeline]:
    """Train the run ``run`` with two workers, in a process with an embedded cluster; end it with the block.

    Args:
        folder: home folder.
        shards: folder of the shard set.
        flags: further flags of ``captioning train``.
    """
    words = ["--shards", f"{shards}", "--home", f"{folder}", "--name", "run", "--cluster.num-workers", "2"]
    timeline = Timeline(command("train", *words, *flags.split()))
    try:
        yield timeline
    finally:
        timeline.end()


def first_step(run: Path, *, after: float) -> float | None:
    """Return the time of the first step after a given time, in seconds since 1970; None if there is none yet."""
    rows = (row for segment in list_segments(run / "journal") for row in read_segment(segment))
    return min((row.timestamp_ms / 1000 for row in rows if row.timestamp_ms / 1000 > after), default=None)


def phases(timeline: Timeline, marks: Sequence[tuple[str, str]], run: Path, *, since: float) -> dict[str, float]:
    """Return the seconds of each phase, in order.

    Args:
        timeline: timeline of the command.
        marks: name of each phase but the last, and the text of the line that ends it.
        run: folder of the run.
        since: beginning of the first phase, in seconds since 1970.
    """
    ends = {
        name: timeline.wait_for(lambda text=text: timeline.time_of(text, after=since), text) for name, text in marks
    }
    last = max(ends.values())
    ends["weights and first step"] = timeline.wait_for(lambda: first_step(run, after=last), "a step")
    begins = [since, *ends.values()]
    return {name: end - begin for (name, end), begin in zip(ends.items(), begins, strict=False)}


def kill_worker(timeline: Timeline) -> float:
    """Kill a worker of the run; return when."""
    family = psutil.Process(timeline.process.pid).children(recursive=True)
    worker = next(one for one in family if "RayTrainWorker" in " ".join(one.cmdline()))
    worker.kill()
    return time.time()


def torchrun(folder: Path) -> float:
    """Return the seconds until two ranks of torchrun have taken a step."""
    script = folder / "step.py"
    script.write_text(_TORCHRUN)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", f"{script}"]
    started = time.time()
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=quiet, text=True) as peer:
        if not any("first step" in line for line in peer.stdout or ()):
            raise RuntimeError("torchrun took no step")
        return time.time() - started


def rows_of(what: str, seconds: dict[str, float], peer: float | None) -> Iterator[Row]:
    """Yield the row of a sum, then those of its phases."""
    yield Row(
        what=f"{what}, two workers on a new home folder",
        unit="s",
        ours=sum(seconds.values()),
        peer=peer,
        peer_name="torchrun to a first step" if peer else "",
        less_is_better=True,
    )
    for name, one in seconds.items():
        yield Row(what=f"{what}: {name}", unit="s", ours=one, less_is_better=True)


def measure(*, kills: bool = True) -> Iterator[Row]:
    """Start a run, and kill one of its workers.

    Args:
        kills: whether to measure a restart too.
    """
    with tempfile.TemporaryDirectory(prefix="starts-") as name:
        folder = Path(name)
        shards = draw_shards(folder, num_train=120, num_val=15)
        run = folder / "home" / "training" / "run"
        restart: dict[str, float] = {}
        flags = f"{_FLAGS} --training.num-epochs {1000 if kills else 1}"
        with training(folder / "home", shards, flags) as timeline:
            start = phases(timeline, _START, run, since=timeline.started_at)
            if kills:
                timeline.wait_for(lambda: timeline.time_of("checkpoint at step"), "a checkpoint")
                restart = phases(timeline, _RESTART, run, since=kill_worker(timeline))
        yield from rows_of("train to its first step", start, torchrun(folder))
        if restart:
            yield from rows_of("a killed worker until the next step", restart, None)


BENCHMARK = Benchmark(measure, small={"kills": False})
