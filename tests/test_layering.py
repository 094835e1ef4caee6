"""Which package may import which, parsed from the source: a rule with no test is a wish."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("captioning", "cluster", "jobs", "shards")
FORBIDDEN = {
    "shards": {"captioning", "cluster", "jobs", "ray", "mlflow", "torch", "torchvision"},
    "captioning": {"shards", "cluster", "jobs", "ray", "mlflow"},
    "cluster": {"jobs"},
    "jobs": set(),
}
# A process without Ray and MLflow, and a served model, use these parts of ``cluster``.
FREE_OF = {
    "cluster/config.py": {"ray", "mlflow", "torch"},
    "cluster/data.py": {"ray", "mlflow"},
    "cluster/distributions.py": {"ray", "mlflow", "torch"},
    "cluster/gate_config.py": {"ray", "mlflow", "torch"},
    "cluster/launch/render.py": {"ray", "mlflow", "torch"},
    "cluster/launch/settings.py": {"ray", "mlflow", "torch"},
    "cluster/sampling.py": {"ray", "mlflow", "torch"},
    "cluster/search.py": {"ray", "mlflow", "torch"},
    "cluster/serving.py": {"ray"},
}


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def imported_roots(path, *, only_at_import=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if only_at_import else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize(
    "path", [path for package in PACKAGES for path in sources(package)], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_no_module_imports_what_its_layer_forbids(path):
    assert not set(imported_roots(path)) & FORBIDDEN[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("name", FREE_OF)
def test_what_runs_without_the_cluster_imports_none_of_it(name):
    assert not set(imported_roots(ROOT / name)) & FREE_OF[name]


def test_processes_that_compute_nothing_load_no_torch():
    names = ("coordinator", "config", "gate_config", "sampling", "search", "store")
    code = f"import sys, {', '.join(f'cluster.{name}' for name in names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_relative_imports_are_not_used():
    # The check above reads absolute names alone.
    relative = [
        path
        for package in PACKAGES
        for path in sources(package)
        if any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(ast.parse(path.read_text())))
    ]
    assert relative == []


def test_every_import_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=~!;]", name)[0].lower() for name in project["dependencies"]}
    module_of = {"pillow": "PIL", "pyyaml": "yaml"}
    allowed = {module_of.get(name, name.replace("-", "_")) for name in declared} | set(PACKAGES)
    roots = {root for package in PACKAGES for path in sources(package) for root in imported_roots(path)}
    assert roots - set(sys.stdlib_module_names) <= allowed
