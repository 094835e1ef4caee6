import shutil
from collections import Counter

import pytest

from captioning.generation.config import GenerationConfig
from cluster.data.shard_set import ShardSet
from cluster.evaluation.evaluate import caption_variants, evaluate_split
from shards.reader import ShardReader

pytestmark = pytest.mark.usefixtures("one_thread")

GREEDY = GenerationConfig(beam_size=1)


@pytest.fixture
def shard_set(drawn_shards):
    return ShardSet(drawn_shards)


@pytest.fixture
def checkpoint(tiny_run):
    return tiny_run / "checkpoints" / "step-00000005-attempt-1"


@pytest.fixture
def reads(monkeypatch):
    """Count how often each sample is read."""
    counts, read = Counter(), ShardReader.read

    def counting(self, number):
        counts[number] += 1
        return read(self, number)

    monkeypatch.setattr(ShardReader, "read", counting)
    return counts


def test_each_sample_is_captioned_and_all_but_the_first_are_read_once(checkpoint, shard_set, reads):
    found = evaluate_split(checkpoint, shard_set, "val", step=5, generation=GREEDY, batch_size=8)
    assert reads == {0: 2, **dict.fromkeys(range(1, 30), 1)}  # the first, to know that captions can be scored
    ids = {shard_set.reader("val").read(number).image_id for number in range(30)}
    assert (found.captions.keys(), found.images.keys()) == (ids, ids)


@pytest.fixture
def captions(monkeypatch):
    """Let samples have other human captions, by their number."""
    changed, read = {}, ShardReader.read
    monkeypatch.setattr(
        ShardReader,
        "read",
        lambda self, number: (
            read(self, number)._replace(captions=changed[number]) if number in changed else read(self, number)
        ),
    )
    return changed


def test_an_image_without_a_human_caption_of_words_is_captioned_and_not_scored(checkpoint, shard_set, captions):
    captions[3] = ("...",)
    odd = shard_set.reader("val").read(3).image_id
    found = evaluate_split(checkpoint, shard_set, "val", step=5, generation=GREEDY, batch_size=8)
    assert (found.left_out, odd in found.captions, odd in found.images) == ((odd,), True, False)


def test_a_split_without_human_captions_of_words_is_refused_before_any_caption(checkpoint, shard_set, captions):
    captions.update(dict.fromkeys(range(30), ("...",)))
    with pytest.raises(ValueError, match="no image has a reference with words"):
        evaluate_split(checkpoint, shard_set, "val", step=5, generation=GREEDY, batch_size=8, progress=pytest.fail)


def test_each_image_is_read_once_for_all_its_variants(checkpoint, shard_set, reads):
    options = {"num_images": 3, "seed": 0, "generation": GREEDY}
    found = caption_variants(checkpoint, shard_set, "val", batch_size=4, **options)
    assert sorted(reads.values()) == [1, 1, 1]
    assert found == caption_variants(checkpoint, shard_set, "val", batch_size=32, **options)


def test_progress_counts_the_captions(checkpoint, shard_set):
    told = []
    evaluate_split(checkpoint, shard_set, "val", step=5, generation=GREEDY, batch_size=8, progress=told.append)
    assert told == list(range(1, 31))


def test_an_altered_shard_is_not_scored(checkpoint, tmp_path, drawn_shards):
    copy = shutil.copytree(drawn_shards, tmp_path / "shards")
    (shard,) = copy.glob("val-*.tar")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"val-000000\.tar"):
        evaluate_split(checkpoint, ShardSet(copy), "val", step=5, generation=GREEDY, batch_size=8)
