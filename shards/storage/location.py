"""Location of a shard set: a folder, as a path, or a URL, as text."""

import re
from pathlib import Path
from urllib.parse import unquote

_SCHEME_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def local_folder(location: str) -> Path | None:
    """Return the folder that a path, a file:// or a local:// URL names; None for any other URL."""
    if not _SCHEME_FORM.match(location):
        return Path(location)
    scheme, _, rest = location.partition("://")
    return Path(unquote(rest.removeprefix("localhost"))) if scheme in ("file", "local") else None


def parse_location(location: Path | str) -> Path | str:
    """Return a folder as a path, and any other URL unchanged, credentials included."""
    return location if isinstance(location, Path) else local_folder(location) or location


def without_credentials(uri: str) -> str:
    """Return an address without user and password, for logs, tags and records."""
    return re.sub(r"//.*@", "//", uri)  # up to the last @, because a password may contain one


def refuse_credentials(location: Path | str | None, what: str) -> None:
    """Check that an address contains no credentials, because addresses are recorded.

    Raises:
        ValueError: the address contains credentials.
    """
    if isinstance(location, str) and without_credentials(location) != location:
        raise ValueError(
            f"the address of {what}, {without_credentials(location)}, contains credentials, but it is recorded with "
            "the run; set credentials in the environment or fsspec's configuration"
        )
