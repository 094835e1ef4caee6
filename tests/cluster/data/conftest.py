import pytest

from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from shards.images import ImageSpec
from shards.synthetic.scenes import write_scenes


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory):
    """Return a shard set of sixty shards."""
    root = tmp_path_factory.mktemp("many")
    write_scenes(root / "scenes", num_train=590, num_val=10, seed=1, size_px=64)
    spec = ImageSpec()
    convert(
        plan_conversion(
            root / "scenes", root / "shards", ConversionConfig(image=spec, samples_per_shard=10, minimum_word_count=1)
        ),
        num_workers=0,
    )
    return root / "shards"
