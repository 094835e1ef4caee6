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


@pytest.fixture(scope="session")
def drawn_shards(tmp_path_factory) -> Path:
    """Return a shard set of 120 training and 30 validation scenes, drawn at 64 px."""
    from cluster.conversion import convert, plan_conversion
    from shards.drawn import write_drawn
    from shards.images import ImageSpec

    folder = tmp_path_factory.mktemp("drawn")
    write_drawn(folder / "scenes", num_train=120, num_val=30, seed=1, size_px=64)
    plan = plan_conversion(
        folder / "scenes", folder / "shards", spec=ImageSpec(), samples_per_shard=50, seed=0, minimum_word_count=1
    )
    convert(plan, num_workers=0)
    return folder / "shards"
