"""Format versions of the records on disk and in MLflow: this release reads some and refuses the others."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from cluster.errors import Refusal
from shards.storage.document import adapter_of

T = TypeVar("T")

OLDEST = 1
"""Version of a record without a version: it was written before the field existed, in the format of version 1."""


def require_format(found: object, *, newest: int, what: str) -> None:
    """Check that this release reads a format version.

    Args:
        found: the stored version; None if the record has none.
        newest: newest version that this release reads, which is the one that it writes.
        what: name of the record, for the message.

    Raises:
        Refusal: the version is newer than this release, or not a version at all.
    """
    version = OLDEST if found is None else found
    if type(version) is int and OLDEST <= version <= newest:  # not isinstance, which accepts True as 1
        return
    known = f"{newest}" if newest == OLDEST else f"{OLDEST} to {newest}"
    remedy = "use the release that wrote it, or a newer one" if type(version) is int else "restore it from a copy"
    raise Refusal(f"{what} has format version {version}, this release reads {known}", remedy)


def read_record(kind: type[T], path: Path, *, newest: int, remedy: str) -> T:
    """Read a JSON file into the dataclass that it was written from.

    Args:
        kind: dataclass of the content.
        path: the file.
        newest: newest format version that this release reads.
        remedy: what to do if the file is damaged, for the message.

    Raises:
        Refusal: the file is damaged, or has a format version that this release does not read.
    """
    try:
        stored = path.read_bytes()
        content = json.loads(stored)
        if isinstance(content, dict):
            require_format(content.get("format_version"), newest=newest, what=str(path))
            stored = json.dumps({"format_version": OLDEST} | content).encode()
        return adapter_of(kind).validate_json(stored)
    except ValidationError as error:
        fault = error.errors()[0]
        where = f"{'.'.join(map(str, fault['loc']))}: " if fault["loc"] else ""
        raise Refusal(f"{path} is damaged ({where}{fault['msg']})", remedy) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Refusal(f"{path} is damaged ({error})", remedy) from None
