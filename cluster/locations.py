"""Types of locations in settings: a local folder as a path, or a URL, from the command line and from files alike."""

from pathlib import Path
from typing import Annotated

from pydantic import PlainValidator
from tyro.constructors import PrimitiveConstructorSpec

from shards.storage.location import parse_location

_FROM_FLAG = PrimitiveConstructorSpec[Path | str | None](
    nargs=1,
    metavar="FOLDER|URL",
    instance_from_str=lambda arguments: parse_location(arguments[0]),
    is_instance=lambda instance: instance is None or isinstance(instance, Path | str),
    str_from_instance=lambda instance: [str(instance)],
)


def _of_file(location: object) -> Path | str:
    if not isinstance(location, Path | str):
        raise ValueError("it should be a folder or a URL")
    return parse_location(location)


# Not validators around the union, which would take a URL for a path.
_FROM_FILE = PlainValidator(_of_file)
_FROM_FILE_OR_NONE = PlainValidator(lambda location: None if location is None else _of_file(location))
Location = Annotated[Path | str, _FROM_FLAG, _FROM_FILE]
"""A local folder as a Path, or any other location that fsspec reaches as text."""
# Not ``Location | None``: tyro does not split a union when its parts carry parsers of their own.
OptionalLocation = Annotated[Path | str | None, _FROM_FLAG, _FROM_FILE_OR_NONE]
"""A ``Location``, or None."""
