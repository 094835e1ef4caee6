"""A shard set whose captions are in scripts that are no alphabet."""

from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from tests.support.pictures import write_annotations, write_coco

SENTENCE = "एक कुत्ता बेंच पर 一只狗躺着"
"""Hindi, whose vowel signs are combining marks, and Chinese, which has no spaces."""


def shards_in_scripts(folder):
    """Write a shard set of 15 training and 15 validation pictures that all have one caption; return its folder."""
    for split in ("train", "val"):
        content = write_coco(folder, split, num_images=15, num_captions=1)
        for annotation in content["annotations"]:
            annotation["caption"] = f"{SENTENCE}。"
        write_annotations(folder, content, name=split)
    plan = plan_conversion(folder, folder / "shards", ConversionConfig(tokenizer="unicode", minimum_word_count=1))
    convert(plan, num_workers=0)
    return folder / "shards"
