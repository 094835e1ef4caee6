"""Packages of registered models, each made once: making one takes a third of the time of a registration."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.registry import registration

_made: dict[Path, dict] = {}


@contextmanager
def packaged_once(folder: Path) -> Iterator[None]:
    """Let registrations of the same checkpoint with the same settings share a package, kept below ``folder``."""
    save_package, made = registration.save_package, _made.setdefault(folder, {})

    def package(model, scratch, *, generation, intake):
        key = (model.folder, model.precision, model.description.max_caption_words, repr(generation), repr(intake))
        if key not in made:
            kept = folder / f"{len(made)}"
            kept.mkdir()
            made[key] = save_package(model, kept, generation=generation, intake=intake)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registration, "save_package", package)
        yield
