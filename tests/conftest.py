import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real photographs, captions and weights, which are no part of the project."""
    folder = Path(os.environ.get("CAPTIONING_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real photographs: {folder} does not exist; name their folder in CAPTIONING_DATA")
    return folder
