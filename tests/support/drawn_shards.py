"""Shard sets of synthetic scenes."""

from pathlib import Path

from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from shards.synthetic.scenes import write_scenes


def draw_shards(
    folder: Path, *, num_train: int, num_val: int, seed: int = 0, size_px: int = 64, samples_per_shard: int = 100
) -> Path:
    """Draw scenes, and convert them in this process.

    Args:
        folder: folder that gets the scenes, in ``scenes``, and the shard set.
        num_train: number of training scenes.
        num_val: number of validation scenes.
        seed: seed of the scenes.
        size_px: side of a scene, in pixels.
        samples_per_shard: number of scenes of a shard.

    Returns:
        The folder of the shard set.
    """
    scenes, shards = folder / "scenes", folder / "shards"
    write_scenes(scenes, num_train=num_train, num_val=num_val, seed=seed, size_px=size_px)
    config = ConversionConfig(samples_per_shard=samples_per_shard, minimum_word_count=1)
    convert(plan_conversion(scenes, shards, config), num_workers=0)
    return shards
