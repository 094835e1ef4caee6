"""Which package may import which, parsed from the source; ``test_tree`` tests where files stand."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib

import pytest

from tests.support.case_table import each_case
from tests.support.repository import ROOT
from tests.support.source_tree import PACKAGES, imported_roots, imports, module_name, nodes, sources

FORBIDDEN = {
    "shards": {"captioning", "cluster", "jobs", "ray", "mlflow", "torch", "torchvision"},
    "captioning": {"shards", "cluster", "jobs", "ray", "mlflow"},
    "cluster": {"jobs"},
    "jobs": set(),
}
# Lowest first: a package imports only from floors below its own (launch may import settings).
FLOORS = {
    "cluster": (
        {
            "codec",
            "errors",
            "formats",
            "git",
            "job_progress",
            "launch",
            "log_text",
            "settings",
            "signals",
            "system_errors",
            "yaml_file",
        },
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
        {"bounds", "hashing", "image_limits"},
        {"decoder_config"},
        {"config"},
        {"data", "pages"},
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
SAME_FLOOR = {
    ("launch", "settings"),
    ("formats", "errors"),
    ("errors", "log_text"),
    ("errors", "system_errors"),
    ("yaml_file", "errors"),
}
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


@each_case("package", FLOORS)
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


def test_what_runs_without_the_cluster_imports_none_of_it():
    breaches = {name: imported_roots(ROOT / name) & libraries for name, libraries in FREE_OF.items()}
    assert {name: found for name, found in breaches.items() if found} == {}


def test_processes_that_compute_nothing_load_no_torch():
    names = (
        "api",
        "coordination.coordinator",
        "coordination.messages",
        "data.conversion",
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
