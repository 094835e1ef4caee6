"""Where the seconds of a start and of a restart after a killed worker go, in ``captioning train`` with two workers.

Each phase ends with a line of the command's log. The peer is ``torchrun``, with two ranks that take one DDP step of a
linear layer: it has no data, no model, no tracker and nobody who would start it again.

Of a conversion that takes seconds, the start is a large part too: its peer is a script of Pillow, in one process.
"""

import itertools
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
from shards.synthetic.scenes import write_scenes
from tests.benchmarks.measuring import Benchmark, Row, interleaved
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
_PILLOW = """
import io, json, sys, tarfile
from pathlib import Path
from PIL import Image
source, target = map(Path, sys.argv[1:])
for file in sorted((source / "annotations").glob("captions_*.json")):
    content = json.loads(file.read_text())
    captions = {}
    for one in content["annotations"]:
        captions.setdefault(one["image_id"], []).append(one["caption"])
    with tarfile.open(target / f"{file.stem}.tar", "w") as tar:
        for one in content["images"]:
            with Image.open(source / "images" / one["file_name"]) as image:
                scale = min(1, 256 / min(image.size))
                size = [round(side * scale) for side in image.size]
                image.draft("RGB", [2 * side for side in size])
                jpeg = io.BytesIO()
                image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(jpeg, "JPEG", quality=90)
            texts = json.dumps(captions[one["id"]]).encode()
            for name, data in ((f"{one['id']}.jpg", jpeg.getvalue()), (f"{one['id']}.json", texts)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
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


def conversion(coco: Path, folder: Path, *, rounds: int) -> Row:
    """Return the row of a whole command that converts a folder in COCO form.

    Args:
        coco: folder with ``images/`` and ``annotations/``.
        folder: empty folder, for what is written.
        rounds: number of turns.
    """
    targets = (folder / f"{number}" for number in itertools.count())

    def run(words: Callable[[Path], Sequence[str]]) -> None:
        target = next(targets)
        target.mkdir()
        subprocess.run(words(target), env=environment(), check=True, capture_output=True)

    seconds = interleaved(
        {
            "ours": lambda: run(lambda target: command("convert", coco, target / "shards")),
            "a script of Pillow": lambda: run(lambda target: [sys.executable, "-c", _PILLOW, f"{coco}", f"{target}"]),
        },
        rounds=rounds,
        warm_up=rounds > 1,
        clock=time.perf_counter,
    )
    num_images = sum(1 for _ in (coco / "images").iterdir())
    return Row.of_seconds(f"convert {num_images} images of a COCO folder, whole command", seconds, unit="s")


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


def measure(*, kills: bool = True, coco: Path | None = None, num_images: int = 360, rounds: int = 3) -> Iterator[Row]:
    """Start a run, and kill one of its workers; convert a few hundred images.

    Args:
        kills: whether to measure a restart too.
        coco: folder in COCO form, for the conversion; drawn scenes of 640 px if not given.
        num_images: number of the scenes.
        rounds: number of turns of the conversion.
    """
    with tempfile.TemporaryDirectory(prefix="starts-") as name:
        folder = Path(name)
        if not coco:
            coco = folder / "coco"
            write_scenes(coco, num_train=num_images - num_images // 6, num_val=num_images // 6, seed=0, size_px=640)
        yield conversion(coco, folder, rounds=rounds)
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


BENCHMARK = Benchmark(measure, small={"kills": False, "num_images": 12, "rounds": 1})
