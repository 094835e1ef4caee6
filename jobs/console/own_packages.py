"""This project's own packages, and what hides them. Imports none of them, because they may be hidden."""

from importlib.util import find_spec
from pathlib import Path

_PACKAGES = ("captioning", "cluster", "jobs", "shards")
_ROOT = Path(__file__).absolute().parents[2]


def hidden_packages() -> list[str]:
    """Return a line for each package of this project that Python would import from elsewhere."""
    lines = []
    for name in _PACKAGES:
        spec = find_spec(name)
        if not spec:
            continue
        # A folder without __init__.py has no origin, and Python takes it for a package only if it finds no other.
        found = Path(spec.origin or next(iter(spec.submodule_search_locations or ())))
        if not (found if found.is_dir() else found.parent).samefile(_ROOT / name):
            lines.append(
                f"{found} hides the package {name} of captioning, which is in {_ROOT}; rename it, or run the command "
                "in another folder, without its folder on PYTHONPATH"
            )
    return lines
