"""What an installation consists of: the version, and the files that are not Python."""

import tomllib
from fnmatch import fnmatch

import captioning
from tests.support.repository import ROOT

PACKAGES = ("captioning", "cluster", "jobs", "shards")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_file_that_the_packages_read_is_installed():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    left_out = []
    for path in files:
        above = next(parent for parent in path.parents if (parent / "__init__.py").is_file())
        package = ".".join(above.relative_to(ROOT).parts)
        known = [*patterns["*"], *patterns.get(package, ())]
        if path.suffix not in (".py", ".pyc", ".md") and not any(
            fnmatch(path.relative_to(above).as_posix(), pattern) for pattern in known
        ):
            left_out.append(path)
    assert left_out == []


def test_every_package_is_typed():
    assert [name for name in PACKAGES if not (ROOT / name / "py.typed").is_file()] == []


def test_the_version_is_that_of_the_project():
    # Not read from the package by setuptools: an image installs the dependencies before it has the packages.
    assert captioning.__version__ == PROJECT["project"]["version"]


def test_the_changelog_begins_with_this_version():
    headings = [line for line in (ROOT / ".github" / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].startswith(f"## [{captioning.__version__}]")
