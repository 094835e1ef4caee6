"""Files of the packages of this project, and what each imports, parsed from the source."""

import ast
from functools import cache

from tests.support.repository import ROOT

PACKAGES = ("captioning", "cluster", "jobs", "shards")


@cache
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


@cache
def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported_roots(path):
    return {name.split(".")[0] for name in imports(path)}
