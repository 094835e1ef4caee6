"""Initial weights of an encoder: DEFAULT, none, or a file. Imports no torch."""

import hashlib
from pathlib import Path


def is_weights_file(weights: str) -> bool:
    """Return whether the setting names a local file, rather than torchvision's weights or none."""
    return weights not in ("DEFAULT", "none")


def require_weights_file(weights: str) -> Path:
    """Return the path of a weights file.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    path = Path.home() / weights[2:] if weights.startswith("~/") else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist; give a file, DEFAULT or none")
    return path


def weights_identity(weights: str) -> str:
    """Return an identity of the weights that does not depend on their path: DEFAULT, none, or the file's sha256.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if not is_weights_file(weights):
        return weights
    with require_weights_file(weights).open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
