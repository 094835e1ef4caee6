"""The embedded tracker: an SQLite database of MLflow, which is made whole before it has its name.

MLflow creates and migrates a database in place, in hundreds of statements and without a lock. Here one process at a
time makes a new database, under another name, and renames it at the end: the file is complete or absent.
"""

import errno
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import quote

import mlflow
from mlflow.exceptions import MlflowException

from cluster.errors import Refusal, Unreachable, one_line
from shards.storage.files import sync_folder

logger = logging.getLogger(__name__)

_ROWS = ("experiments", "runs", "registered_models")
_VERSION_TABLE = "alembic_version"
_LOCK_SECONDS = 20  # as MLflow waits for a database that another process writes
_ELSEWHERE = "move the file away, or use another --home"


def database_uri(file: Path) -> str:
    """Return the address of a database file, quoted where SQLAlchemy would read a character as something else.

    Raises:
        Refusal: the path is not UTF-8, as SQLite requires.
    """
    try:
        str(file).encode()
    except UnicodeEncodeError:
        raise Refusal(f"the path {str(file)!a} is not UTF-8, as SQLite requires", "use another --home") from None
    quoted = str(file).replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    # MLflow takes a path after sqlite:/// for the path itself, and would make an empty folder of the quoted name.
    return f"sqlite:///{file}" if quoted == str(file) else f"sqlite+pysqlite:///{quoted}"


def database_file(uri: str) -> Path | None:
    """Return the file that MLflow opens for an address; None if the address is not that of an SQLite file.

    Raises:
        Refusal: SQLAlchemy cannot read the address.
    """
    if uri.partition(":")[0].partition("+")[0] != "sqlite":
        return None
    from sqlalchemy import make_url  # here, because clients of a server do without
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except ArgumentError:
        raise Refusal(f"tracking address {uri} is not an address of SQLite", "use sqlite:///FILE") from None
    if url.host or url.database == "":
        what = "has two slashes" if url.host else "names no file"
        raise Refusal(f"tracking address {uri} {what}", "use sqlite:///FILE, or sqlite:////FOLDER/FILE")
    name = url.database
    return None if name is None or name.startswith((":memory:", "file:")) else Path(name)


def open_database(file: Path, artifacts: Path, *, only_reads: bool = False) -> None:
    """Make the database if there is none, or if an earlier release was killed while it made it.

    Args:
        file: file of the database.
        artifacts: folder of the artifacts of MLflow's default experiment.
        only_reads: whether to refuse a database that does not exist, instead of making it.

    Raises:
        Refusal: the file cannot be written, or it is not a database of this MLflow.
        OSError: the database cannot be stored, for example because the disk is full.
    """
    if only_reads and not file.exists():
        raise Refusal(
            f"there is no tracker in {file.parent}: nothing was trained or registered there",
            "use --home with the folder of the runs, or --tracking.uri with the address of a server",
        )
    is_whole = check_database(file)
    if only_reads and is_whole:
        return
    _require_writable(file)
    if is_whole:
        return
    with _lock(file):
        if not check_database(file):  # another process may have made it in the meantime
            _make(file, artifacts)


def check_database(file: Path) -> bool:
    """Return whether the database exists and is whole.

    Raises:
        Unreachable: another process has locked the file for long.
        Refusal: the file is not a database of this MLflow.
    """
    if not file.exists():
        return False
    if file.is_dir():
        raise Refusal(f"{file} is a folder, and the tracker is a database file", _ELSEWHERE)
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=_LOCK_SECONDS)) as database:
            revision, is_empty = _contents(database)
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise Unreachable(
                f"{file} is locked by another process", "end the program that holds it, then run the same command again"
            ) from error
        raise Refusal(f"{file} cannot be read ({error})", "check who may read it") from error
    except sqlite3.DatabaseError as error:
        raise Refusal(f"{file} is no SQLite database ({error})", _ELSEWHERE) from error
    if revision == _known_revisions()[0]:
        return True
    if not is_empty:
        _refuse_schema(file, revision)
    return False


def _contents(database: sqlite3.Connection) -> tuple[str | None, bool]:
    """Return the schema's revision, and whether nothing was stored in the database since MLflow began to make it."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    row = database.execute(f"SELECT version_num FROM {_VERSION_TABLE}").fetchone() if _VERSION_TABLE in tables else None
    is_own = not tables or not tables.isdisjoint((*_ROWS, _VERSION_TABLE))
    has_rows = any(database.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() for name in tables.intersection(_ROWS))
    return row and row[0], is_own and not has_rows


@cache
def _known_revisions() -> tuple[str, ...]:
    """Return the revisions of MLflow's schema that this MLflow knows, its own first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return tuple(script.revision for script in scripts.walk_revisions())


def _refuse_schema(file: Path, revision: str | None) -> None:
    if revision is None:
        raise Refusal(f"{file} is not a database of MLflow", _ELSEWHERE)
    own, *older = _known_revisions()
    found = f"{file} has schema {revision}, and MLflow {mlflow.__version__} reads schema {own}"
    if revision in older:
        remedy = f"an older MLflow wrote it: copy the file, then run mlflow db upgrade '{database_uri(file)}'"
    else:
        remedy = "a newer MLflow wrote it: install that one, or use another --home"
    raise Refusal(found, remedy)


def _require_writable(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(f"folder {file.parent} cannot be made ({error.strerror})", "use another --home") from error
    for path in (file.parent, file):  # SQLite writes its journal beside the file
        if path.exists() and not os.access(path, os.W_OK):
            raise Refusal(f"{path} cannot be written by this user", "give the user write access, or use another --home")


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process, which is making %s", file)
            fcntl.flock(lock, fcntl.LOCK_EX)  # a process that ends, even by SIGKILL, releases it
        yield


def _make(file: Path, artifacts: Path) -> None:
    unfinished = file.with_name(f".{file.name}.new")
    _remove(unfinished)  # of a process that was killed
    try:
        _fill(unfinished, artifacts)
        # SQLite would play the journal of an earlier file of this name back into the new one.
        _journal(file).unlink(missing_ok=True)
        unfinished.replace(file)
    finally:
        _remove(unfinished)
    sync_folder(file.parent)


def _fill(file: Path, artifacts: Path) -> None:
    """Let MLflow make all tables and its default experiment.

    Raises:
        OSError: the database cannot be stored.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.exc import SQLAlchemyError

    for library in ("mlflow", "alembic"):  # an error is told once, below
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        SqlAlchemyStore(database_uri(file), artifacts.absolute().as_uri()).engine.dispose()
    except (SQLAlchemyError, MlflowException) as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, sqlite3.Error):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        is_full = getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        code, text = (errno.ENOSPC, os.strerror(errno.ENOSPC)) if is_full else (errno.EIO, one_line(cause))
        raise OSError(code, text, str(file.parent)) from error


def _remove(file: Path) -> None:
    for path in (_journal(file), file):
        path.unlink(missing_ok=True)


def _journal(file: Path) -> Path:
    return file.with_name(f"{file.name}-journal")
