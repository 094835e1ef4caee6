"""A set's manifest as a JSON file: reading, checking its format version, and validation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from shards.storage.folders import ShardFolder, read_file

T = TypeVar("T")


class Document:
    """The manifest of a set, in JSON.

    Args:
        folder: folder of the set.
        name: file name of the manifest.
        what: kind of set, for error messages.
        job: command that makes such a set, for error messages.
    """

    def __init__(self, folder: ShardFolder, name: str, *, what: str, job: str) -> None:
        self._folder, self._name, self._what, self._job = folder, name, what, job
        self.path = f"{folder}/{name}"
        self.remedy = f"delete {self.path} and run captioning {job} again"

    def read(self, *, newest: int, oldest: int = 1) -> dict[str, Any]:
        """Return the content.

        Args:
            newest: newest format version that this release reads; also the one that it writes.
            oldest: oldest format version that this release reads.

        Raises:
            FileNotFoundError: there is no manifest.
            ValueError: the manifest is not a JSON object, or has a format version that this release does not read.
        """
        try:
            stored = read_file(self._folder, self._name)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(
                f"{self.path} does not exist: {self._folder} is not a finished {self._what}; run captioning {self._job}"
            ) from None
        content = self._checked(dict[str, Any], lambda adapter: adapter.validate_json(stored))
        self._require_version(content.get("format_version"), newest=newest, oldest=oldest)
        return content

    def parse(self, kind: type[T], content: dict[str, Any]) -> T:
        """Return the content as an object of type ``kind``.

        Raises:
            ValueError: the content does not have that form.
        """
        return self._checked(kind, lambda adapter: adapter.validate_python(content))

    def refuse_outside(self, names: Sequence[str]) -> None:
        """Check that the files named in the manifest lie beside it.

        Raises:
            ValueError: a name leads to another folder.
        """
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise ValueError(f"{self.path} names the shard {outside[0]}, which is not beside it; {self.remedy}")

    def _require_version(self, found: object, *, newest: int, oldest: int) -> None:
        if type(found) is int and oldest <= found <= newest:  # isinstance accepts true as 1
            return
        known = f"{newest}" if oldest == newest else f"{oldest} to {newest}"
        upgrade = "upgrade captioning, or " if type(found) is int and found > newest else ""
        raise ValueError(f"{self.path} has format version {found}, this release reads {known}; {upgrade}{self.remedy}")

    def _checked(self, kind: type[T], validate: Callable[[TypeAdapter[T]], T]) -> T:
        try:
            return validate(TypeAdapter(kind))
        except ValidationError as error:
            fault = error.errors()[0]
            where = f"{'.'.join(map(str, fault['loc']))}: " if fault["loc"] else ""
            raise ValueError(f"{self.path} is damaged ({where}{fault['msg']}); {self.remedy}") from None
