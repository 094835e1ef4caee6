"""Document frequencies of a split: counted once, the same from images and features; captions that cannot reward."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from captioning.data.batches import encode_captions
from captioning.training.caption_reward import count_documents
from cluster.data import document_frequencies as module
from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from cluster.data.document_frequencies import FOLDER, check_references, document_frequencies
from cluster.data.shard_set import ShardSet
from cluster.errors import Refusal
from tests.support.drawn_shards import draw_shards
from tests.support.feature_sets import extracted
from tests.support.tiny_models import jpeg


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return draw_shards(tmp_path_factory.mktemp("drawn"), num_train=8, num_val=2, size_px=32)


def counted(shard_set, home, **options):
    return document_frequencies(shard_set, "train", max_words=9, home=home, **options)


def is_equal(one, other):
    return all(np.array_equal(part, others) for part, others in zip(one, other, strict=True))


def test_they_are_those_of_the_captions_of_the_split(shards, tmp_path):
    shard_set = ShardSet(shards)
    reader, beats = shard_set.reader("train"), []
    images = [reader.read(number).captions for number in range(len(reader))]
    expected = count_documents(encode_captions(captions, shard_set.vocabulary, max_words=9) for captions in images)
    assert is_equal(counted(shard_set, tmp_path, heartbeat=lambda: beats.append(1)), expected)
    assert (expected.num_images, len(beats)) == (8, 8)


def test_they_are_counted_once(shards, tmp_path, monkeypatch):
    first = counted(ShardSet(shards), tmp_path)
    monkeypatch.setattr(module, "count_documents", None)
    assert is_equal(counted(ShardSet(shards), tmp_path), first)


def test_damaged_ones_are_counted_again(shards, tmp_path):
    first = counted(ShardSet(shards), tmp_path)
    (kept,) = (tmp_path / FOLDER).iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert is_equal(counted(ShardSet(shards), tmp_path), first)


def test_other_lengths_are_kept_apart(shards, tmp_path):
    counted(ShardSet(shards), tmp_path)
    document_frequencies(ShardSet(shards), "train", max_words=3, home=tmp_path)
    assert len(list((tmp_path / FOLDER).iterdir())) == 2


def test_features_hold_the_same_captions(shards, tmp_path):
    features = extracted(shards, tmp_path / "features")
    assert is_equal(counted(ShardSet(shards, features), tmp_path / "one"), counted(ShardSet(shards), tmp_path / "two"))


def converted(folder, captions, **config):
    """Convert training images with these captions, and one image to validate on; return the shard set."""
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for split, images in {"train": captions, "val": [["a dog", "the dog"]]}.items():
        rows = [
            {"id": number, "file_name": f"{split}{number}.jpg", "width": 80, "height": 72}
            for number in range(len(images))
        ]
        for row in rows:
            (folder / "images" / row["file_name"]).write_bytes(BytesIO(jpeg(row["id"])).getvalue())
        annotations = [
            {"id": 100 * number + index, "image_id": number, "caption": caption}
            for number, of_image in enumerate(images)
            for index, caption in enumerate(of_image)
        ]
        content = json.dumps({"images": rows, "annotations": annotations})
        (folder / "annotations" / f"captions_{split}.json").write_text(content)
    settings = replace(ConversionConfig(minimum_word_count=1), **config)
    convert(plan_conversion(folder, folder / "shards", settings), num_workers=0)
    return ShardSet(folder / "shards")


@pytest.mark.parametrize(
    ("captions", "config", "message"),
    [
        ([["a dog"], ["a cat", "the cat"], ["a dog on grass"]], {}, "2 of the first 3 images .* have a single caption"),
        ([["a dog", "the dog"]], {}, "split train has fewer than 2 images, too few for CIDEr-D"),
        (
            [["one two three", "four five six"], ["seven eight", "nine ten a"]],
            {"vocabulary_split": "val"},
            "10 of 11 words .* are not in the vocabulary of 7 words",
        ),
    ],
)
def test_captions_that_cannot_reward_are_refused(tmp_path, captions, config, message):
    shard_set = converted(tmp_path / "set", captions, **config)
    with pytest.raises(Refusal, match=message):
        check_references(shard_set, "train", max_words=9)


def test_captions_that_can_reward_are_taken(shards):
    check_references(ShardSet(shards), "train", max_words=9)
