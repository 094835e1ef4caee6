"""Git state of the code: its commit, whether it has uncommitted changes, and which files are tracked."""

import contextlib
import os
import subprocess
from pathlib import Path

COMMIT_VARIABLE, DIRTY_VARIABLE = "CAPTIONING_GIT_COMMIT", "CAPTIONING_GIT_DIRTY"
"""Environment variables with the git state of a submitted job, because its code reaches the cluster without git."""

_SECONDS = 60.0
_TRACKED = "jobs/__init__.py"
# Set while git runs a hook or an alias; with them, every git is about that repository, whatever its folder.
_OF_ONE_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")


def running_folder() -> Path:
    """Return the folder that holds the packages that this process runs."""
    return Path(__file__).absolute().parents[1]


def git_state(folder: Path | None = None) -> dict[str, str]:
    """Return MLflow tags with the commit of some code, and whether it has uncommitted changes.

    If git does not track the code, both come from the environment variables that the submission set: a checkout around
    the folder may be of something else, such as the one that a virtual environment or a temporary folder lies in.

    Args:
        folder: folder that holds the packages; None for those that this process runs.
    """
    folder = folder or running_folder()
    commit, is_dirty = os.environ.get(COMMIT_VARIABLE, "unknown"), os.environ.get(DIRTY_VARIABLE, "unknown")
    if is_tracked(folder):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):  # a checkout without a commit
            commit = _git(folder, "rev-parse", "HEAD").strip()
            is_dirty = str(bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))).lower()
    return {"mlflow.source.git.commit": commit, "git.dirty": is_dirty}


def checkout_around(folder: Path) -> Path | None:
    """Return the top folder of the checkout around a folder; None if there is none."""
    try:
        return Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))
    except (OSError, subprocess.CalledProcessError):
        return None


def is_tracked(folder: Path) -> bool:
    """Return whether the packages in a folder are tracked by git; not every folder inside a checkout belongs to it."""
    try:
        _git(folder, "ls-files", "--error-unmatch", _TRACKED)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def listed_files(folder: Path, *options: str) -> list[str]:
    """Return the files under a folder of a checkout, relative to it.

    Args:
        folder: a folder inside the checkout.
        options: options of ``git ls-files``; without any, it lists the tracked files.
    """
    names = _git(folder, "ls-files", "-z", *options, ".").split("\0")
    return sorted({name for name in names if name})


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    env = {name: value for name, value in os.environ.items() if name not in _OF_ONE_REPOSITORY}
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS, env=env).stdout
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"git in {folder} did not answer within {_SECONDS:g} s; check its disk") from error
