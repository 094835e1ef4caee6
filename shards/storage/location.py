"""Where a shard set lies: a folder, as a path; or a URL, as text."""

import re
from pathlib import Path
from urllib.parse import unquote

_SCHEME_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def local_folder(location: str) -> Path | None:
    """Return the folder of a path or a file:// URL; None for any other URL."""
    if not _SCHEME_FORM.match(location):
        return Path(location)
    scheme, _, rest = location.partition("://")
    return Path(unquote(rest.removeprefix("localhost"))) if scheme in ("file", "local") else None


def parse_location(location: Path | str) -> Path | str:
    """Return a folder as a path, and a URL, with credentials or not, as it is."""
    return location if isinstance(location, Path) else local_folder(location) or location


def without_credentials(uri: str) -> str:
    """Return an address without user and password, for logs, tags and records."""
    return re.sub(r"//.*@", "//", uri)


def refuse_credentials(location: Path | str | None, what: str) -> None:
    """Check that an address holds no credentials, for it is recorded.

    Raises:
        ValueError: it does.
    """
    if isinstance(location, str) and without_credentials(location) != location:
        raise ValueError(
            f"the address of {what} at {without_credentials(location)} holds credentials, and it is recorded with "
            "the run; give them by the environment or fsspec's configuration"
        )
