import fcntl
import functools
import gc
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis.internal.conjecture import providers

from tests.support.captured_loggers import capture_few_loggers
from tests.support.repository import ROOT

# Test processes share the cores: with threads for all of them in each, they take 1.3 times the CPU time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says more of the machine than of what is tested.
# The same examples in every run, whatever an earlier one has found or the sources say: to look for constants in all
# modules that are imported takes each process seconds.
hypothesis.settings.register_profile("unhurried", deadline=None, derandomize=True)
hypothesis.settings.load_profile("unhurried")
providers._get_local_constants = lambda: providers._local_constants

# Looking for garbage among all that imports leave takes a third of the time that imports take.
gc.disable()

_PACKAGES = ("captioning", "cluster", "jobs", "shards")

# Processes share the tests, file by file: the files that take minutes come first, lest one is left over at the end.
_SLOW_FIRST = (
    "faults/test_chaos.py",
    "faults/test_resizing.py",
    "faults/test_hosts.py",
    "integration/test_demonstration.py",
    "integration/test_readme.py",
    "integration/test_training.py",
    "integration/test_benchmarks.py",
    "cluster/data/test_extraction.py",
    "faults/test_kills.py",
    "integration/test_registry_story.py",
    "integration/test_training_that_stops.py",
    "faults/test_search_kills.py",
    "cluster/search/test_tuner.py",
    "integration/test_model_server.py",
    "integration/test_submit_refusals.py",
)


@pytest.hookimpl(tryfirst=True)  # before the tests of a marker are chosen
def pytest_collection_modifyitems(items):
    for item in items:
        if "empty_tracker" in item.fixturenames:
            item.add_marker("cluster")
    order = {ROOT / "tests" / name: number for number, name in enumerate(_SLOW_FIRST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_collection_finish():
    capture_few_loggers()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)  # with Python's own 700, an eighth of the time of an MLflow request
    gc.enable()


@pytest.fixture
def log_lines(caplog):
    """Return a function: the messages that our own packages have logged, without those of libraries' threads."""
    return lambda: [record.getMessage() for record in caplog.records if record.name.split(".")[0] in _PACKAGES]


@pytest.fixture(scope="session", autouse=True)
def ray_folder():
    """Let Ray note the address of its latest cluster in a folder of this process: no other process finds it there."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short, for sockets lie below
    (Path(folder) / "ray").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def node_cache(tmp_path_factory):
    """Keep what tests remember on this node out of the user's own cache, but for METEOR's index: it takes seconds."""
    from captioning.evaluation.meteor.index import default_folder

    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.delenv("CAPTIONING_CACHE", raising=False)
        default_folder().mkdir(parents=True, exist_ok=True)
        (folder / "meteor").symlink_to(default_folder())
        patch.setenv("CAPTIONING_CACHE", str(folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_loading_line():
    """Leave out a job's line on the libraries that it loads: it depends on what earlier tests have imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.console.output.log_loading", lambda libraries: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_parsing():
    """Let the parser of command lines read the source of each class of settings once, instead of for each line."""
    from tyro._docstrings import _ClassTokenization

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ClassTokenization, "make", staticmethod(functools.cache(_ClassTokenization.make)))
        yield


@pytest.fixture(scope="session")
def package_folder(tmp_path_factory) -> Path:
    """Return the folder of packages of registered models, each of which is made once: ``tests/support/packages``."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real photographs, captions and weights, which are no part of the project."""
    folder = Path(os.environ.get("CAPTIONING_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real photographs: {folder} does not exist; name their folder in CAPTIONING_DATA")
    return folder


@pytest.fixture(scope="module")
def one_thread():
    """Let torch compute with one thread: on a busy machine, several wait for each other longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def session():
    """Hold an embedded cluster that all tests of a module share."""
    from cluster.config import ClusterConfig
    from cluster.resources.session import cluster_session

    with cluster_session(ClusterConfig()):
        yield
        left = [thread.name for thread in threading.enumerate() if thread.name == "captioning-fit"]
        assert not left, "training goes on in a thread, which would start another cluster"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that makes a folder, once for all test processes; they only read it."""
    own = tmp_path_factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (root / f"{name}.made").exists():
                fill(root / name)
                (root / f"{name}.made").touch()
        return root / name

    return make


@pytest.fixture(scope="session", autouse=True)
def quick_disk():
    """Let files and databases of this process not wait until the disk has them: no test takes its power away."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def set_up(connection, _):
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA journal_mode=MEMORY")

    event.listen(Engine, "connect", set_up)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
    event.remove(Engine, "connect", set_up)


@pytest.fixture(scope="session")
def empty_tracker(shared_folder) -> Path:
    """Return the database of a tracker without runs, to be copied: MLflow takes seconds to make it."""
    from cluster.config import StorageConfig, TrackingConfig
    from cluster.tracking.client import connect

    return shared_folder("tracker", lambda folder: connect(TrackingConfig(), StorageConfig(home=folder))) / "mlflow.db"


@pytest.fixture
def empty_home(tmp_path, empty_tracker):
    """Return a home folder of the test's own, with a tracker without runs."""
    from cluster.config import StorageConfig

    shutil.copy(empty_tracker, tmp_path)
    return StorageConfig(home=tmp_path)


@pytest.fixture(scope="module")
def home(tmp_path_factory, empty_tracker):
    """Return a home folder with a tracker that all tests of a module share."""
    from cluster.config import StorageConfig

    folder = tmp_path_factory.mktemp("home")
    shutil.copy(empty_tracker, folder)
    return StorageConfig(home=folder)


@pytest.fixture(scope="module")
def client(home):
    """Return the tracker of the module's home folder."""
    from cluster.config import TrackingConfig
    from cluster.tracking.client import connect

    return connect(TrackingConfig(), home)


@pytest.fixture(scope="session")
def drawn_shards(shared_folder) -> Path:
    """Return a shard set of 120 training and 30 validation scenes, drawn at 64 px; nobody writes to it."""
    from cluster.data.conversion import convert, plan_conversion
    from cluster.data.conversion_config import ConversionConfig
    from shards.synthetic.scenes import write_scenes

    def draw(folder: Path) -> None:
        scenes = folder / "scenes"
        write_scenes(scenes, num_train=120, num_val=30, seed=1, size_px=64)
        plan = plan_conversion(scenes, folder / "shards", ConversionConfig(samples_per_shard=50, minimum_word_count=1))
        convert(plan, num_workers=0)

    return shared_folder("drawn", draw) / "shards"


@pytest.fixture(scope="session")
def drawn_features(shared_folder, drawn_shards) -> Path:
    """Return a feature set of ``drawn_shards``, of one view; nobody writes to it."""
    from tests.support.feature_sets import extracted

    return shared_folder("features", lambda folder: extracted(drawn_shards, folder))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, drawn_shards, empty_tracker) -> Path:
    """Return the folder of a tracked run that never trained, with two checkpoints; the earlier is the better one.

    Its home folder, with the tracker's database, is two folders up.
    """
    from tests.support.untrained_run import write_run

    home = tmp_path_factory.mktemp("home")
    shutil.copy(empty_tracker, home)
    return write_run(home, drawn_shards)
