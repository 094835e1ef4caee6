"""Seven tiny pictures, plans of their shards, and the contents of a folder."""

from shards.images import ImageSpec
from shards.sources.coco import read_coco
from shards.writer import plan_shards
from tests.support.pictures import write_coco

SPEC = ImageSpec(shorter_side_px=12)


def seven_images(folder):
    """Write seven pictures of 24 x 16 px with two captions each in COCO layout, and read them."""
    write_coco(folder, num_images=7)
    return read_coco(folder).splits["train"]


def deal(images, *, samples_per_shard=3, seed=5, spec=SPEC, skip_bad=False):
    return plan_shards("train", images, spec=spec, samples_per_shard=samples_per_shard, seed=seed, skip_bad=skip_bad)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
