"""A set's manifest as a JSON file: its seal, checking its format version, and validation."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from shards.storage.folders import FileRecord, ShardFolder, read_file

adapter_of: Callable[..., TypeAdapter[Any]] = functools.cache(TypeAdapter)
"""Return pydantic's reader of a type, which takes longer to make than to read with."""


class SetManifest(Protocol):
    """The manifest of a set."""

    @property
    def digest(self) -> str:
        """Return the digest that identifies the set; it does not depend on every field."""
        ...

    @property
    def shards(self) -> Sequence[FileRecord]:
        """Return the records of the shards."""
        ...


T = TypeVar("T")
M = TypeVar("M", bound=SetManifest)


def seal(content: dict[str, Any]) -> bytes:
    """Return the bytes of a manifest to store, with a sha256 of all its fields that reveals an edit of any."""
    return json.dumps({"seal": _seal_of(content), **content}, indent=1).encode() + b"\n"


def _seal_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


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

    def load(
        self,
        kind: type[M],
        *,
        newest: int,
        sealed_since: int,
        complete: Callable[[dict[str, Any]], dict[str, Any]] = lambda content: content,
    ) -> M:
        """Return the manifest, after checking that it is whole and names only shards that lie beside it.

        Args:
            kind: dataclass of the manifest.
            newest: newest format version that this release reads; also the one that it writes.
            sealed_since: first format version with a seal; earlier ones have a digest alone.
            complete: function that adds what is in other files to the content, after checking it.

        Raises:
            FileNotFoundError: there is no manifest.
            ValueError: the manifest is damaged, was edited, or has a format version that this release does not read.
        """
        content = self.read(newest=newest)
        stored_seal, version = content.pop("seal", None), content["format_version"]
        is_sealed = version < sealed_since or stored_seal == _seal_of(content)
        completed = self._completed(complete, content)
        digest = completed.pop("digest", None)
        found = self.parse(kind, completed | {"format_version": newest})
        if not is_sealed or digest != found.digest:
            raise ValueError(f"{self.path} was edited: its content does not match its digest; {self.remedy}")
        if "shards" in content:  # those in another file are checked where they are read
            self.refuse_outside([shard.name for shard in found.shards])
        return found

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
                f"{self.path} does not exist: {self._folder} is not a finished {self._what}; {self._how_to_make()}"
            ) from None
        content = self._checked(dict[str, Any], lambda adapter: adapter.validate_json(stored))
        self._require_version(content.get("format_version"), newest=newest, oldest=oldest)
        return content

    def _completed(
        self, complete: Callable[[dict[str, Any]], dict[str, Any]], content: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            return complete(content)
        except ValueError as error:
            raise ValueError(f"{self.path} is damaged ({error}); {self.remedy}") from None

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

    def _how_to_make(self) -> str:
        is_tar = str(self._folder).endswith(".tar")
        has_tars = isinstance(self._folder, Path) and any(self._folder.glob("*.tar"))
        is_converting = has_tars and (self._folder / "records").is_dir()  # pyright: ignore[reportOperatorIssue]
        if self._job == "convert" and (is_tar or has_tars) and not is_converting:
            return f"tars of other programs become one by captioning index {self._folder} SHARDS"
        return f"run captioning {self._job}"

    def _require_version(self, found: object, *, newest: int, oldest: int) -> None:
        if type(found) is int and oldest <= found <= newest:  # isinstance accepts true as 1
            return
        known = f"{newest}" if oldest == newest else f"{oldest} to {newest}"
        upgrade = "upgrade captioning, or " if type(found) is int and found > newest else ""
        raise ValueError(f"{self.path} has format version {found}, this release reads {known}; {upgrade}{self.remedy}")

    def _checked(self, kind: type[T], validate: Callable[[TypeAdapter[T]], T]) -> T:
        try:
            return validate(adapter_of(kind))
        except ValidationError as error:
            fault = error.errors()[0]
            where = f"{'.'.join(map(str, fault['loc']))}: " if fault["loc"] else ""
            raise ValueError(f"{self.path} is damaged ({where}{fault['msg']}); {self.remedy}") from None
