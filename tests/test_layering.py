"""Which package may import which, parsed from the source, and where files and tests stand."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache

import pytest

from tests.support.repository import ROOT

PACKAGES = ("captioning", "cluster", "jobs", "shards")
FORBIDDEN = {
    "shards": {"captioning", "cluster", "jobs", "ray", "mlflow", "torch", "torchvision"},
    "captioning": {"shards", "cluster", "jobs", "ray", "mlflow"},
    "cluster": {"jobs"},
    "jobs": set(),
}
# Lowest first: a package imports only from floors below its own (launch may import settings).
FLOORS = {
    "cluster": (
        {"codec", "errors", "formats", "git", "job_progress", "launch", "log_text", "settings", "signals", "yaml_file"},
        {"locations"},
        {"config"},
        {"presets", "resources", "runs"},
        {"data", "tracking"},
        {"checks", "coordination", "evaluation"},
        {"registry", "reports", "submission", "worker"},
        {"promotion", "provenance", "training"},
        {"search"},
        {"api"},
    ),
    "captioning": (
        {"bounds", "hashing", "image_limits", "pages"},
        {"decoder_config"},
        {"config"},
        {"data"},
        {"model"},
        {"generation"},
        {"training"},
        {"evaluation", "serving"},
    ),
    "shards": (
        {"file_part", "imaging"},
        {"images", "order", "samples", "storage"},
        {"layout"},
        {"table"},
        {"archives", "manifest", "source_files", "sources", "synthetic"},
        {"shard_files"},
        {"reader", "records"},
        {"export", "inspection", "tars", "verification", "writer"},
        {"features"},
    ),
}
SAME_FLOOR = {("launch", "settings"), ("formats", "errors"), ("errors", "log_text"), ("yaml_file", "errors")}
# Packages of ``cluster`` that may import these libraries; all others do without.
ALLOWED = {
    "mlflow": {"api", "tracking", "registry", "promotion", "provenance", "search", "training/start"},
    "ray": {"resources", "checks", "coordination", "data", "worker", "training", "search", "submission"},
}
# Processes without Ray and MLflow, and a served model, use these parts of ``cluster``.
FREE_OF = {
    "cluster/config.py": {"ray", "mlflow", "torch"},
    "cluster/data/conversion_config.py": {"ray", "mlflow", "torch"},
    "cluster/data/shard_set.py": {"ray", "mlflow"},
    "cluster/promotion/gate_config.py": {"ray", "mlflow", "torch"},
    "cluster/launch/render.py": {"ray", "mlflow", "torch"},
    "cluster/launch/settings.py": {"ray", "mlflow", "torch"},
    "cluster/search/space/distributions.py": {"ray", "mlflow", "torch"},
    "cluster/search/space/sampling.py": {"ray", "mlflow", "torch"},
    "cluster/search/space/space.py": {"ray", "mlflow", "torch"},
    "cluster/registry/serving.py": {"ray"},
    "cluster/worker/rank.py": {"ray", "mlflow"},
    "cluster/worker/start.py": {"ray", "mlflow"},
}
MOST_FILES = 15
AS_MANY_AS_JOBS = {"jobs", "tests/jobs", "tests/support"}
# Product modules that are tested through those who use them, and in which files.
TESTED_ELSEWHERE = {
    "captioning/bounds.py": ("captioning/test_config",),
    "captioning/model/decoders/attention.py": (
        "captioning/model/decoders/test_attend",
        "captioning/model/decoders/test_transformer",
    ),
    "captioning/model/decoders/factory.py": ("captioning/model/decoders/test_interface",),
    "captioning/training/collectives.py": ("captioning/training/test_loop", "integration/test_training_in_groups"),
    "captioning/training/ddp.py": ("integration/test_training_in_groups",),
    "captioning/training/gradients.py": ("captioning/training/test_loop", "captioning/training/test_bad_samples"),
    "captioning/training/losses.py": ("captioning/training/test_loop", "captioning/model/test_caption_model"),
    "cluster/coordination/interface.py": ("cluster/coordination/test_client", "cluster/coordination/test_local"),
    "cluster/data/conversion_config.py": ("jobs/test_convert", "cluster/api/test_training"),
    "cluster/data/document_frequencies.py": ("integration/test_document_frequencies",),
    "cluster/data/loader_processes.py": ("cluster/data/test_loading",),
    "cluster/data/sources.py": ("cluster/data/test_loading", "integration/test_feature_training"),
    "cluster/job_progress.py": ("jobs/console/test_job_view",),
    "cluster/promotion/gate_config.py": ("cluster/promotion/test_gate_checks",),
    "cluster/promotion/pages.py": ("jobs/test_promote", "jobs/test_evaluate"),
    "cluster/registry/history.py": ("cluster/registry/test_champion",),
    "cluster/registry/models.py": ("cluster/registry/test_versions",),
    "cluster/registry/scores.py": ("cluster/registry/test_versions",),
    "cluster/registry/evaluations.py": ("cluster/registry/test_versions",),
    "cluster/registry/packaging.py": ("cluster/registry/test_registration", "cluster/registry/test_serving"),
    "cluster/registry/safe_loading.py": ("cluster/registry/test_registration",),
    "cluster/runs/identity.py": ("cluster/runs/test_record",),
    "cluster/runs/pruning.py": ("cluster/runs/test_record", "cluster/runs/test_writer"),
    "cluster/submission/plan.py": ("jobs/test_submit", "integration/test_submitted_jobs"),
    "cluster/worker/resume.py": ("cluster/worker/test_checkpointing", "faults/test_kills"),
    "cluster/worker/start.py": ("cluster/worker/test_rank",),
    "shards/file_part.py": ("shards/test_source_files",),
    "shards/records.py": ("shards/test_finished_shards",),
    "shards/sources/annotations.py": ("shards/sources/test_coco_faults",),
    "cluster/worker/worker.py": ("integration/test_training", "cluster/training/test_frames"),
    "jobs/__main__.py": ("jobs/test_cli",),
    "jobs/console/demo_view.py": ("integration/test_demonstration",),
    "jobs/console/dry_run_view.py": ("integration/test_dry_run", "jobs/test_submit"),
    "jobs/demo.py": ("integration/test_readme",),
    "jobs/download.py": ("shards/archives/test_download",),
    "jobs/jobs.py": ("integration/test_submitted_jobs",),
    "jobs/lineage.py": ("cluster/provenance/test_lineage",),
    "jobs/register.py": ("jobs/test_promote", "integration/test_registry_story"),
    "jobs/serve.py": ("integration/test_model_server", "cluster/registry/test_registration"),
    "jobs/status.py": ("jobs/console/test_job_view", "integration/test_submitted_jobs"),
    "jobs/stop.py": ("integration/test_submitted_jobs",),
}


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path):
    """Return the modules that a file imports anywhere, by absolute names."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if is_module(name) else f"{node.module}" for name in modules}
    return found


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported_roots(path):
    return {name.split(".")[0] for name in imports(path)}


def floor_of(name):
    """Return the number of the floor that a module of a package with floors stands on, and its room."""
    package, _, rest = name.partition(".")
    room = rest.split(".")[0]
    for number, rooms in enumerate(FLOORS[package]):
        if room in rooms:
            return number, room
    raise AssertionError(f"{name} stands on no floor")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_what_its_layer_forbids(package):
    breaches = {module_name(path): imported_roots(path) & FORBIDDEN[package] for path in sources(package)}
    assert {name: found for name, found in breaches.items() if found} == {}


@pytest.mark.parametrize("package", FLOORS)
def test_a_package_imports_only_from_floors_below_its_own(package):
    upward = []
    for path in sources(package):
        if path.parent == ROOT / package and path.name == "__init__.py":
            continue
        floor, room = floor_of(module_name(path))
        for name in imports(path):
            if name.partition(".")[0] != package or name == package:
                continue
            other_floor, other = floor_of(name)
            if other != room and other_floor >= floor and (room, other) not in SAME_FLOOR:
                upward.append(f"{module_name(path)} -> {name}")
    assert upward == []


@pytest.mark.parametrize("library", ALLOWED)
def test_only_some_packages_of_the_cluster_import_a_library(library):
    breaches = [
        module_name(path)
        for path in sources("cluster")
        if library in imported_roots(path)
        and not any(
            path.relative_to(ROOT / "cluster").with_suffix("").as_posix().startswith(room) for room in ALLOWED[library]
        )
    ]
    assert breaches == []


def test_no_imports_go_in_a_circle():
    modules = {module_name(path): path for package in PACKAGES for path in sources(package)}
    graph = {name: imports(path) & set(modules) - {name} for name, path in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("name", FREE_OF)
def test_what_runs_without_the_cluster_imports_none_of_it(name):
    assert not imported_roots(ROOT / name) & FREE_OF[name]


def test_processes_that_compute_nothing_load_no_torch():
    names = (
        "api",
        "coordination.coordinator",
        "coordination.messages",
        "training.callbacks",
        "training.group_trainer",
        "config",
        "promotion.gate_config",
        "search.space.sampling",
        "search.space.space",
        "runs.checkpoint_store",
    )
    code = f"import sys, {', '.join(f'cluster.{name}' for name in names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_relative_imports_are_not_used():
    # The checks above read absolute names alone.
    relative = [
        path
        for package in PACKAGES
        for path in sources(package)
        if any(isinstance(node, ast.ImportFrom) and node.level for node in nodes(path))
    ]
    assert relative == []


def test_names_are_imported_from_where_they_are_defined():
    taken = [
        (module_name(path), node.module, alias.name)
        for package in PACKAGES
        for path in sources(package)
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    imported = {(user, name) for user, _, name in taken}
    assert [one for one in taken if one[1:] in imported] == []


def test_every_import_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=~!;]", name)[0].lower() for name in project["dependencies"]}
    module_of = {"pillow": "PIL", "pyyaml": "yaml"}
    allowed = {module_of.get(name, name.replace("-", "_")) for name in declared} | set(PACKAGES)
    roots = {root for package in PACKAGES for path in sources(package) for root in imported_roots(path)}
    assert roots - set(sys.stdlib_module_names) <= allowed


def test_no_folder_holds_more_files_than_a_reader_can_survey():
    files = [path for package in (*PACKAGES, "tests") for path in sources(package) if path.name != "__init__.py"]
    sizes = Counter(path.parent.relative_to(ROOT).as_posix() for path in files)
    assert {name: size for name, size in sizes.items() if size > MOST_FILES and name not in AS_MANY_AS_JOBS} == {}


def test_each_package_says_what_lives_in_it():
    folders = {path.parent for package in PACKAGES for path in sources(package)}
    assert [folder for folder in folders if not (ROOT / folder / "__init__.py").read_text().startswith('"""')] == []


def test_each_module_has_a_test_file_at_its_mirrored_path_or_a_reason():
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in sources(package)
        if path.name != "__init__.py"
    }
    untested = {name for name in modules if not mirrored(name).is_file()}
    assert untested == set(TESTED_ELSEWHERE)


@pytest.mark.parametrize("name", TESTED_ELSEWHERE)
def test_the_files_that_test_a_module_without_its_own_are_there(name):
    assert all((ROOT / "tests" / f"{file}.py").is_file() for file in TESTED_ELSEWHERE[name])


def mirrored(name):
    path = ROOT / "tests" / name
    return path.with_name(f"test_{path.name}")
