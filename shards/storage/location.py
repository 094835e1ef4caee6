"""Location of a shard set: a folder, as a path, or a URL, as text; and URLs without their credentials."""

import re
from pathlib import Path
from urllib.parse import unquote

_SCHEME_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# A password may contain any character, so what follows ``user:`` reaches to the last @, unless it is a port. As a path,
# an address has one slash less.
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(://?)((?:[^/?#\s\[\]@]*:(?!\d*(?:[/?#\s]|$))\S*|(?<=//)[^/?#\s]*)@)")
# Their addresses name a user as a rule, and a user without a password is no secret; elsewhere it may be a token.
_USER_SCHEMES = {"ssh", "sftp", "scp", "postgresql", "mysql", "mssql"}
# Parameters of a query or of a database's connection string, which may be percent-encoded.
_SECRET_PARAMETER = re.compile(
    r"""((?:[?&;\#]|%3B|%26|(?<![\w.-])(?=passw|pwd=))
    (?:[\w.-]*(?:passw|pwd|secret|token|signature|credential)[\w.-]*
    |(?:[\w.-]*[_.-])?(?:sig|sas|pass|auth|(?<!ssl_)key)
    |[\w.-]*(?:api|access|account|private)key(?:id)?)
    (?:=|%3D))[^&;\#\s'"]+""",
    re.IGNORECASE | re.VERBOSE,
)
# A name that is percent-encoded in part reads as it does decoded.
_ENCODED_PARAMETER = re.compile(r"([?&;#])([^=&;#\s'\"]*%[0-9A-Fa-f]{2}[^=&;#\s'\"]*)=([^&;#\s'\"]+)")
_ELSEWHERE = "set them in the environment or fsspec's configuration"
_VARIABLES = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "abfs": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "ray": "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN",
    "postgresql": "set PGUSER and PGPASSWORD",
    "mysql": "use the driver's own variables or file of options",
    "mssql": "use the driver's own variables or file of options",
    "http": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a tracker, fsspec's configuration for files",
}
_VARIABLES["https"] = _VARIABLES["http"]


def as_path(text: str) -> Path:
    """Return the path that somebody has written.

    Raises:
        ValueError: the text is empty, as a script's unset variable is; Python would take it for the current folder.
    """
    if not text:
        raise ValueError("an empty text, as of an unset variable, is no path")
    return Path(text)


def with_home(path: Path) -> Path:
    """Return a path with the user's home folder for a leading ~, which shells expand only at the start of a word.

    A path such as ``~name`` is kept: it may be the name of a file.
    """
    return Path.home().joinpath(*path.parts[1:]) if path.parts[:1] == ("~",) else path


def local_folder(location: str) -> Path | None:
    """Return the folder that a path, a file:// or a local:// URL names, or None; raises as ``as_path``."""
    if not _SCHEME_FORM.match(location):
        return with_home(as_path(location))
    scheme, _, rest = location.partition("://")
    return Path(unquote(rest.removeprefix("localhost"))) if scheme in ("file", "local") else None


def parse_location(location: Path | str) -> Path | str:
    """Return a folder as a path, and any other URL unchanged, credentials included; raises as ``as_path``."""
    return with_home(location) if isinstance(location, Path) else local_folder(location) or location


def without_credentials(text: str) -> str:
    """Return a text with users and passwords removed from its URLs, and secret parameters replaced by ***.

    Args:
        text: an address, or a message of another library that may contain addresses.
    """
    return _ENCODED_PARAMETER.sub(_without_value, _SECRET_PARAMETER.sub(r"\1***", _USER.sub(_without_user, text)))


def _without_value(parameter: re.Match[str]) -> str:
    is_secret = _SECRET_PARAMETER.search(f"?{unquote(parameter[2])}=x")
    return f"{parameter[1]}{parameter[2]}=***" if is_secret else parameter[0]


def credentials_mistake(text: str, what: str) -> str | None:
    """Return one line if a text contains a URL with credentials; None otherwise.

    Args:
        text: value of a setting or variable.
        what: name of the setting or variable.
    """
    shown = without_credentials(text)
    if shown == text or ":/" not in text:
        return None
    scheme = text.partition(":/")[0].rpartition(" ")[2].rpartition("::")[2].partition("+")[0].lower()
    return (
        f"{what} {shown} contains credentials, but addresses are recorded and logged; leave them out, and "
        f"{_VARIABLES.get(scheme, _ELSEWHERE)}"
    )


def refuse_credentials(location: Path | str | None, what: str) -> None:
    """Check that an address contains no credentials, because addresses are recorded and logged.

    Raises:
        ValueError: the address contains credentials.
    """
    if isinstance(location, str) and (mistake := credentials_mistake(location, what)):
        raise ValueError(mistake)


def _without_user(found: re.Match[str]) -> str:
    scheme, slashes, user = found.groups()
    is_harmless = ":" not in user and _USER_SCHEMES & set(scheme.lower().split("+"))
    return found[0] if is_harmless else f"{scheme}{slashes}"
