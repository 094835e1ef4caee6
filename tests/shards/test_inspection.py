"""What the samples of a shard set hold."""

from cluster.data.shard_set import ShardSet
from shards.inspection import draw_samples, inspect_split


def test_captions_words_and_sizes_are_counted(drawn_shards):
    shard_set, done = ShardSet(drawn_shards), []
    tokenize = shard_set.vocabulary.tokenizer.tokenize
    words, reader, shards = shard_set.vocabulary.words, shard_set.reader("val"), shard_set.manifest.of_split("val")
    summary = inspect_split(reader, shards, tokenize=tokenize, known_words=words, progress=done.append)
    captions = [one for number in range(30) for one in shard_set.reader("val").read(number).captions]
    assert (summary.num_samples, summary.captions_per_image, done[-1]) == (30, (5, 5.0, 5), 30)
    assert summary.num_words == sum(len(tokenize(one)) for one in captions)
    assert (summary.unknown_share, summary.shorter_side_px) == (0, (64, 64.0, 64))


def test_drawn_samples_are_spread_over_the_split(drawn_shards):
    shard_set = ShardSet(drawn_shards)
    drawn = draw_samples(shard_set.reader("train"), num_drawn=50)
    assert (len(drawn), len(draw_samples(shard_set.reader("val"), num_drawn=50))) == (40, 30)
    assert [one.key for one in drawn][:2] == [shard_set.reader("train").read(number).key for number in (0, 3)]
