"""A shard set is opened if it is intact, and refused otherwise."""

import shutil
from dataclasses import replace

import pytest
import torch

from captioning.config import ModelConfig, TrainingConfig
from captioning.data.pixels import Augmentation, decode_image
from cluster.data.shard_set import ShardSet


@pytest.fixture(scope="module")
def shard_set(drawn_shards):
    return ShardSet(drawn_shards)


def test_an_unknown_split_is_refused(shard_set):
    with pytest.raises(ValueError, match="the shard set has no split test; it has train, val"):
        shard_set.reader("test")


def test_an_altered_vocabulary_is_refused(drawn_shards, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(drawn_shards, folder)
    with (folder / "vocabulary.txt").open("a") as file:
        file.write("zebra\n")
    with pytest.raises(ValueError, match="differs from the vocabulary in the manifest"):
        ShardSet(folder)


@pytest.mark.parametrize(("codecs", "by_pillow"), [({"pillow": "13.0"}, True), ({"simplejpeg": "1.9"}, False)])
def test_images_are_decoded_by_the_codec_that_made_them(drawn_shards, codecs, by_pillow):
    shard_set = ShardSet(drawn_shards)
    shard_set.manifest = replace(shard_set.manifest, codec_versions=codecs)
    model, config = ModelConfig(image_size_px=40), TrainingConfig(crop_area=0.5)
    batch = shard_set.source("train", model=model, config=config).batch(range(4), range(7, 11), is_training=True)
    contents = [shard_set.reader("train").read(number).jpeg for number in range(4)]
    augmentation = Augmentation.of(config)
    either = [
        torch.stack(
            [
                decode_image(content, 40, augmentation=augmentation, position=position, by_pillow=way)
                for position, content in enumerate(contents, 7)
            ]
        )
        for way in (by_pillow, not by_pillow)
    ]
    assert [torch.equal(batch.images, images) for images in either] == [True, False]
