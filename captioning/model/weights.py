"""Which weights an encoder starts from; imports no torch."""

import hashlib
from pathlib import Path


def is_weights_file(weights: str) -> bool:
    """Return whether the weights are a local file's, not torchvision's own or none."""
    return weights not in ("DEFAULT", "none")


def require_weights_file(weights: str) -> Path:
    """Return the path of a weights file.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist; give a file, DEFAULT or none")
    return path


def weights_identity(weights: str) -> str:
    """Return what the weights are, wherever they lie: their name, or the sha256 of their file.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if not is_weights_file(weights):
        return weights
    with require_weights_file(weights).open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
