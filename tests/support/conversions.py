"""Small conversions: their source, plans, shard sets, and the bytes of these."""

from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from shards.synthetic.scenes import write_scenes


def drawn(folder):
    """Draw scenes in COCO form; return their folder."""
    write_scenes(folder, num_train=90, num_val=20, seed=4, size_px=64)
    return folder


def whole(source, folder):
    """Convert a source by ``plan``'s own settings; return the folder of the shard set."""
    convert(plan(source, folder), num_workers=0)
    return folder


def plan(source, folder, **changes):
    """Plan a conversion into shards of 20 samples, with some settings changed."""
    settings = {"samples_per_shard": 20, "seed": 0, "minimum_word_count": 4, **changes}
    return plan_conversion(source, folder, ConversionConfig(**settings))


def content(folder):
    """Return the bytes of all files below a folder, by their path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
