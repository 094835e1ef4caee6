"""Addresses of tars: files, folders and URLs, with brace patterns such as ``{000..099}`` and globs."""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from braceexpand import braceexpand

from shards.sources.splits import usual_split
from shards.storage.files import require_listable
from shards.storage.folders import RemoteShards
from shards.storage.location import local_folder, refuse_credentials

_SPLIT = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)
_RANGE = re.compile(r"\{(?P<first>-?\d+)\.\.(?P<last>-?\d+)(?:\.\.(?P<step>-?\d+))?\}")
_MOST_TARS = 1_000_000
_COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst|lz4)|tgz|tbz2|txz|tzst)$")
_WHY_NOT_COMPRESSED = "a sample in the middle of a compressed tar cannot be read alone; decompress it"


def split_of(address: str) -> tuple[str, str]:
    """Return the split that an address such as ``val=FOLDER`` names, or an empty text, and the address without it."""
    found = _SPLIT.fullmatch(address)
    return (usual_split(found[1]), found[2]) if found else ("", address)


def find_tars(addresses: Iterable[str]) -> list[str]:
    """Return the URLs and absolute paths of all tars that addresses name, sorted.

    Whether a tar that is named without a pattern exists at a URL is not known until it is read.

    Args:
        addresses: files, folders, which are searched to any depth, or URLs of these; each may have braces and globs.

    Raises:
        FileNotFoundError: an address names no tar.
        ValueError: a tar is compressed or named twice, a pattern is faulty, or a URL contains credentials.
        OSError: a URL does not answer.
    """
    found: dict[str, str] = {}
    for address in addresses:
        for location in _of_address(address):
            if location in found:
                of = f"{found[location]} and {address}" if found[location] != address else address
                raise ValueError(f"{location} is named twice, by {of}; name each tar once")
            found[location] = address
    return sorted(found)


def _of_address(address: str) -> Iterator[str]:
    try:
        if any(_range_size(found) > _MOST_TARS for found in _RANGE.finditer(address)):
            raise ValueError(f"it names more than {_MOST_TARS:,} tars")
        expanded = list(itertools.islice(braceexpand(address), _MOST_TARS + 1))
        if len(expanded) > _MOST_TARS:
            raise ValueError(f"it names more than {_MOST_TARS:,} tars")
    except ValueError as error:
        raise ValueError(f"{address} is no pattern ({error}); write {{000..099}} or {{a,b}}") from None
    for one in expanded:
        path = local_folder(one)
        yield from _on_this_machine(path) if path else _at_url(one)


def _range_size(found: re.Match[str]) -> int:
    """Return how many names a range such as 000..099 stands for; braceexpand would list them all at first."""
    first, last, step = found["first"], found["last"], abs(int(found["step"] or 1)) or 1
    return abs(int(last) - int(first)) // step + 1


def _on_this_machine(path: Path) -> list[str]:
    path = Path(os.path.normpath(path.absolute()))
    if path.is_dir():
        require_listable(path)
        if dangling := [one for one in path.rglob("*.tar") if one.is_symlink() and not one.exists()]:
            raise FileNotFoundError(
                f"{min(dangling)} is a link that leads nowhere; restore its tar, or remove the link"
            )
        return _checked((one.as_posix() for one in path.rglob("*") if one.is_file()), str(path), is_pattern=True)
    if path.exists():
        return _checked([path.as_posix()], str(path), is_pattern=False)
    if re.search(r"[*?[]", str(path)):
        return _checked((one.as_posix() for one in Path(path.anchor).glob(str(path)[1:])), str(path), is_pattern=True)
    raise FileNotFoundError(f"{path} does not exist; give tars, folders of tars, or URLs")


def _at_url(url: str) -> list[str]:
    refuse_credentials(url, "the address")
    if "*" in url or "[" in url:
        root, pattern = re.split(r"/(?=[^/]*[*\[])", url, maxsplit=1)
        return _checked(RemoteShards(root).find(pattern), url, is_pattern=True)
    name = url.partition("?")[0]
    if name.endswith(".tar") or _COMPRESSED.search(name):
        return _checked([url], url, is_pattern=False)
    return _checked(RemoteShards(url).find(""), url, is_pattern=True)


def _checked(locations: Iterable[str], address: str, *, is_pattern: bool) -> list[str]:
    """Return the tars among files; other files count only if they were named."""
    listed = sorted(locations)
    if compressed := [one for one in listed if _COMPRESSED.search(one.partition("?")[0])]:
        more = f" and {len(compressed) - 1} more" if len(compressed) > 1 else ""
        raise ValueError(f"{compressed[0]}{more}: {_WHY_NOT_COMPRESSED}, or name the tars that are to be used")
    tars = [one for one in listed if one.partition("?")[0].endswith(".tar")] if is_pattern else listed
    if not tars:
        held = f"; it has {len(listed)} other files, first {listed[0]}" if listed else ""
        raise FileNotFoundError(f"{address} has no .tar{held}; give tars, folders of tars, or URLs")
    return tars
