"""The data of METEOR, as a compact index on this node's disk: paraphrases, WordNet's synonyms, word lists.

They are read from the installed pycocoevalcap, 62 MB of compressed text and a jar, once for a cache folder; the index
takes 50 MB there and is mapped, so that a process holds only what its captions touch. It is written beside its name
and renamed, under a lock: of several processes one builds it, and the others wait.
"""

import fcntl
import gzip
import importlib.util
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captioning.evaluation.meteor.hashed_lists import HashedLists, hash_lines, hash_text

logger = logging.getLogger(__name__)

_VERSION = 1  # part of the index's name; increase it when its format changes
_CHUNK_BYTES = 2**17
_JAR, _TABLE = "meteor-1.5.jar", "data/paraphrase-en.gz"
_WORDS = "words.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class MeteorIndex:
    """The data of METEOR for English."""

    paraphrases: HashedLists
    """Hashes of a phrase's paraphrases, in the table's order, by the phrase."""
    synsets: HashedLists
    """Numbers of a lemma's sets of synonyms in WordNet, by the lemma."""
    lemmas: HashedLists
    """Hashes of the lemmas of an irregular form, by the form."""
    function_words: frozenset[str]
    """Words that count less than content words."""
    abbreviations: dict[str, bool]
    """Words that keep the dot after them; True for those that keep it only before a number."""
    longest_phrase: int
    """Largest number of words in a phrase of ``paraphrases``."""


def default_folder() -> Path:
    """Return the folder of this node's index: within CAPTIONING_CACHE, or in the user's home folder."""
    root = os.environ.get("CAPTIONING_CACHE")
    return Path(root).expanduser() / "meteor" if root else Path.home() / ".cache" / "captioning" / "meteor"


def open_index(folder: Path | None = None, data: Path | None = None) -> MeteorIndex:
    """Open the index, built if the folder has none yet.

    Args:
        folder: folder of the index; that of ``default_folder`` if not given.
        data: folder of METEOR's jar and paraphrase table; that of the installed pycocoevalcap if not given.

    Raises:
        OSError: the data are not there, or the index cannot be written.
        ValueError: the data are not those of METEOR 1.5.
    """
    folder, data = folder or default_folder(), data or _installed_data()
    sizes = [(data / name).stat().st_size for name in (_JAR, _TABLE)]
    path = folder / "-".join(map(str, (_VERSION, *sizes)))
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock"):
            if not path.exists():
                logger.info("building METEOR's index in %s, once; it takes a few seconds", folder)
                _replace_folder(path, lambda beside: _build(data, beside))
    words = json.loads((path / _WORDS).read_bytes())
    return MeteorIndex(
        paraphrases=HashedLists.open(path / "paraphrases"),
        synsets=HashedLists.open(path / "synsets"),
        lemmas=HashedLists.open(path / "lemmas"),
        function_words=frozenset(words["function_words"]),
        abbreviations=words["abbreviations"],
        longest_phrase=words["longest_phrase"],
    )


def _installed_data() -> Path:
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("pycocoevalcap, which brings METEOR's data, is not installed")
    return Path(found.submodule_search_locations[0]) / "meteor"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the kernel releases it when the process ends, however that happens
        yield


def _replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Make a folder atomically; call it with the lock, for it removes what killed processes left."""
    for left in path.parent.glob("*.tmp"):
        shutil.rmtree(left)
    beside = path.with_name(f"{path.name}.tmp")
    try:
        write(beside)
        for file in beside.rglob("*.*"):
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)  # before the rename, which may reach the disk before the content does
            os.close(descriptor)
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _build(data: Path, folder: Path) -> None:
    longest = _build_paraphrases(data / _TABLE, folder / "paraphrases")
    with zipfile.ZipFile(data / _JAR) as jar:
        synsets = _pairs_of_lines(jar.read("synonym/english.synsets").decode())
        exceptions = _pairs_of_lines(jar.read("synonym/english.exceptions").decode())
        function_words = jar.read("function/english.words").decode().split()
        prefixes = jar.read("nonbreaking/english.prefixes").decode().splitlines()
    sets = {hash_text(word): [int(number) for number in numbers.split()] for word, numbers in synsets}
    HashedLists.of(sets, np.uint32).save(folder / "synsets")
    lemmas: dict[int, list[int]] = {}
    for lemma, forms in exceptions:
        for form in forms.split():
            lemmas.setdefault(hash_text(form), []).append(hash_text(lemma))
    HashedLists.of(lemmas, np.uint64).save(folder / "lemmas")
    words = [line.split() for line in prefixes if line.strip() and not line.startswith("#")]
    content = {
        "function_words": function_words,
        "abbreviations": {word: "#NUMERIC_ONLY#" in rest for word, *rest in words},
        "longest_phrase": longest,
    }
    (folder / _WORDS).write_text(json.dumps(content))


def _pairs_of_lines(text: str) -> Iterator[tuple[str, str]]:
    lines = iter(text.splitlines())
    return zip(lines, lines, strict=True)


def _build_paraphrases(table: Path, folder: Path) -> int:
    """Write the index of a table of three lines an entry (probability, phrase, paraphrase), grouped by phrase.

    Returns:
        The largest number of words in a phrase.
    """
    keys, starts, values = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    num_lines = num_entries = longest = 0
    last = np.zeros(1, np.uint64)  # phrase of the last entry so far; no phrase has the hash 0
    with gzip.open(table) as file:
        for hashes, spaces in hash_lines(iter(lambda: file.read(_CHUNK_BYTES), b"")):
            part = (num_lines + np.arange(len(hashes))) % 3
            num_lines += len(hashes)
            phrases = hashes[part == 1]
            before = np.concatenate((last, phrases))
            new = np.flatnonzero(before[1:] != before[:-1])
            keys.append(phrases[new])
            starts.append(new + num_entries)
            values.append(hashes[part == 2])
            num_entries, last = num_entries + len(phrases), before[-1:]
            longest = max(longest, int(spaces[part != 0].max(initial=0)) + 1)
    found = _grouped(np.concatenate(keys), np.concatenate(starts), np.concatenate(values), num_entries)
    if num_lines % 3 or len(found.values) != num_entries:
        raise ValueError(f"{table} is not METEOR's table of paraphrases; install pycocoevalcap again")
    found.save(folder)
    return longest


def _grouped(keys: np.ndarray, starts: np.ndarray, values: np.ndarray, num_entries: int) -> HashedLists:
    stops = np.append(starts[1:], num_entries)
    order = np.argsort(keys)
    if (np.diff(keys[order]) == 0).any():
        raise ValueError("METEOR's table of paraphrases is not grouped by phrase; install pycocoevalcap again")
    bounds = np.stack((starts, stops), axis=1)[order].astype(np.uint32)
    return HashedLists(keys=keys[order], bounds=bounds, values=values)
