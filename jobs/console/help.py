"""Help texts as tyro writes them, less its remarks on defaults that stand for no value: ``None``, ``()``, ``{}``.

What happens without such a setting is in its docstring, which is its help text: ``...; all models if not given.``
"""

import dataclasses
import io
import re
from pathlib import Path
from typing import Annotated, TextIO

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from shards.storage.location import as_path

_OR_NONE = re.compile(r"\{None\}\|(\S+)")


class HelpStream(io.TextIOBase):
    """Standard output without tyro's ``{None}|`` before the type of each setting that may be left out.

    Args:
        stream: standard output.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  an attribute there
        """Return the encoding of standard output, by which tyro draws frames or leaves them out."""
        return self._stream.encoding

    def write(self, text: str, /) -> int:
        """Write a text to standard output, less ``{None}|``."""
        # As wide as before, because a frame follows on the same line.
        return self._stream.write(_OR_NONE.sub(lambda found: found[1] + " " * len("{None}|"), text))

    def isatty(self) -> bool:
        """Return whether standard output is a terminal, where tyro uses colours."""
        return self._stream.isatty()


def own_rules() -> ConstructorRegistry:
    """Return tyro's rules, but help texts of settings without a value do not end in it, and no path is empty."""
    registry, is_asking = ConstructorRegistry(), False

    @registry.struct_rule
    def without_hints(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal is_asking
        if is_asking or not dataclasses.is_dataclass(info.type):
            return None
        is_asking = True  # so that tyro's own rules answer
        try:
            found = ConstructorRegistry.get_struct_spec(info)
        finally:
            is_asking = False
        if not isinstance(found, StructConstructorSpec):
            return None
        hint = tyro.conf.arg(help_behavior_hint="")
        fields = (
            dataclasses.replace(one, type=Annotated[one.type, hint]) if one.default in (None, (), {}) else one
            for one in found.fields
        )
        return dataclasses.replace(found, fields=tuple(fields))

    @registry.primitive_rule
    def paths(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
        if info.type is not Path:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH",
            instance_from_str=lambda arguments: as_path(arguments[0]),
            is_instance=lambda instance: isinstance(instance, Path),
            str_from_instance=lambda instance: [str(instance)],
        )

    return registry
