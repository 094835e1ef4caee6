"""Plans of small conversions, and the bytes that they write."""

from cluster.data.conversion import plan_conversion
from cluster.data.conversion_config import ConversionConfig


def plan(source, folder, **changes):
    """Plan a conversion into shards of 20 samples, with some settings changed."""
    settings = {"samples_per_shard": 20, "seed": 0, "minimum_word_count": 4, **changes}
    return plan_conversion(source, folder, ConversionConfig(**settings))


def content(folder):
    """Return the bytes of all files below a folder, by their path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
