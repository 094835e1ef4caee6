"""A folder or URL as a setting of a job, on the command line and in YAML files."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator
from tyro.constructors import PrimitiveConstructorSpec

from shards.location import parse_location

_FROM_FLAG = PrimitiveConstructorSpec[Path | str | None](
    nargs=1,
    metavar="FOLDER|URL",
    instance_from_str=lambda arguments: parse_location(arguments[0]),
    is_instance=lambda instance: instance is None or isinstance(instance, Path | str),
    str_from_instance=lambda instance: [str(instance)],
)
_FROM_FILE = AfterValidator(lambda location: None if location is None else parse_location(location))

Location = Annotated[Path | str, _FROM_FLAG, _FROM_FILE]
"""A folder as a path; any other place that fsspec reaches, as text."""
# One type and not a union of two, for tyro takes no union apart whose parts say how they are parsed.
OptionalLocation = Annotated[Path | str | None, _FROM_FLAG, _FROM_FILE]
"""The same, or nothing."""
