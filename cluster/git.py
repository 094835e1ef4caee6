"""Git state of the code: its commit, whether it has uncommitted changes, and which files are tracked."""

import os
import subprocess
from pathlib import Path

COMMIT_VARIABLE, DIRTY_VARIABLE = "CAPTIONING_GIT_COMMIT", "CAPTIONING_GIT_DIRTY"
"""Environment variables with the git state of a submitted job, because its code reaches the cluster without git."""

_SECONDS = 60.0


def git_state(folder: Path) -> dict[str, str]:
    """Return MLflow tags with the commit of the checkout around ``folder``, and whether it has uncommitted changes.

    Without a checkout, both come from the environment variables that the submission set.
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
        is_dirty = str(bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))).lower()
    except (OSError, subprocess.CalledProcessError):
        commit = os.environ.get(COMMIT_VARIABLE, "unknown")
        is_dirty = os.environ.get(DIRTY_VARIABLE, "unknown")
    return {"mlflow.source.git.commit": commit, "git.dirty": is_dirty}


def checkout_around(folder: Path) -> Path | None:
    """Return the top folder of the checkout around a folder; None if there is none."""
    try:
        return Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))
    except (OSError, subprocess.CalledProcessError):
        return None


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
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS).stdout
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"git in {folder} did not answer within {_SECONDS:g} s; check its disk") from error
