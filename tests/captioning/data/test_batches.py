import torch

from captioning.data.batches import BadSample, blank_batch
from captioning.data.vocabulary import BOS, EOS, PAD
from tests.support.case_table import each_case
from tests.support.tiny_models import MODEL, VOCABULARY, CaptionedJpeg, batch, jpeg, make_batch, sample

FOUND_WHILE_READING = BadSample("000123", "s.tar", 9, "its json is not an object")


@each_case(
    ("bad", "reason"),
    [
        *(
            (CaptionedJpeg("000123", 9, content, ("a dog",), "s.tar"), "the image does not")
            for content in (b"", jpeg(0)[:400])
        ),
        (FOUND_WHILE_READING, "its json is not an object"),
    ],
)
@each_case("at", [0, 1, 2])
def test_a_bad_sample_is_left_out_and_listed(bad, reason, at):
    good = [sample(3), sample(7)]
    made = made_of(*good[:at], bad, *good[at:])
    assert_equal(made._replace(bad=()), made_of(*good))
    ((key, shard, position, found),) = made.bad
    assert (key, shard, position, found.startswith(reason)) == ("000123", "s.tar", 9, True)


def test_a_batch_of_bad_samples_is_blank_and_lists_them():
    bad = (FOUND_WHILE_READING, FOUND_WHILE_READING._replace(key="000124"))
    assert_equal(made_of(*bad), blank_batch(MODEL.image_size_px)._replace(bad=bad))


def test_a_blank_batch_has_an_image_to_compute_with_and_none_that_counts():
    blank = blank_batch(32)
    counts = (len(blank.images), blank.num_images, blank.num_targets, blank.positions(), blank.targets().tolist())
    assert counts == (1, 0, 0, [], [])


def test_a_batch_without_some_images_is_that_of_the_others():
    whole = made_of(*(sample(position) for position in (2, 5, 7, 11)), FOUND_WHILE_READING)
    fewer = whole.without({5, 11, 99})
    expected = made_of(sample(2), sample(7), FOUND_WHILE_READING)
    width = expected.tokens.shape[1]
    assert set(fewer.tokens[:, width:].unique().tolist()) <= {PAD}
    assert_equal(fewer.with_tokens(fewer.tokens[:, :width]), expected)


def test_a_batch_without_all_of_its_images_is_blank():
    whole = made_of(sample(2), sample(5), FOUND_WHILE_READING)
    assert_equal(whole.without({2, 5}), made_of(FOUND_WHILE_READING))


def made_of(*samples):
    return make_batch(samples)


def assert_equal(batch, other):
    """Assert that two batches have equal tensors and names."""
    assert batch[6:] == other[6:]
    torch.testing.assert_close(batch[:6], other[:6], rtol=0, atol=0)


def captions_batch(*captions, max_caption_words=5):
    samples = [CaptionedJpeg(f"{at}", 40 + at, jpeg(at), each, "s.tar") for at, each in enumerate(captions)]
    return make_batch(samples, max_caption_words=max_caption_words)


def test_captions_are_padded_to_the_longest():
    a, dog, runs = VOCABULARY.encode("a dog runs")
    made = captions_batch(("a dog runs", "a"), ("dog",))
    assert made.tokens.tolist() == [[BOS, a, dog, runs, EOS], [BOS, a, EOS, PAD, PAD], [BOS, dog, EOS, PAD, PAD]]


def test_a_long_caption_is_cut_and_ends():
    a, dog, runs = VOCABULARY.encode("a dog runs")
    made = captions_batch(("a dog runs on the grass",), max_caption_words=3)
    assert made.tokens.tolist() == [[BOS, a, dog, runs, EOS]]


def test_each_caption_knows_its_image_position_and_number():
    made = captions_batch(("a", "dog"), ("cat",), ("a", "a", "a"))
    assert (made.image_of_caption.tolist(), made.position.tolist(), made.caption.tolist(), made.keys) == (
        [0, 0, 1, 2, 2, 2],
        [40, 40, 41, 42, 42, 42],
        [0, 1, 0, 0, 1, 2],
        ("0", "1", "2"),
    )


def test_each_image_knows_its_position_and_shard():
    made = batch([3, 4, 7])
    assert (made.positions(), made.shards) == ([3, 4, 7], ("train-000000.tar", "train-000000.tar", "train-000001.tar"))


def test_each_target_knows_its_image():
    assert captions_batch(("a", "a dog"), ("cat",)).image_of_target().tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_targets_are_all_words_but_bos_and_padding():
    a, dog, runs = VOCABULARY.encode("a dog runs")
    made = captions_batch(("a dog", "runs"))
    assert (made.targets().tolist(), made.num_targets) == ([a, dog, EOS, runs, EOS], 5)


def test_images_are_bytes_in_planes():
    images = batch(range(3)).images
    assert (images.shape, images.dtype) == ((3, 3, 36, 36), torch.uint8)


def test_a_batch_does_not_depend_on_who_reads_it():
    together = batch([3, 4, 5], is_augmented=True).images
    apart = [batch([position], is_augmented=True).images for position in (3, 4, 5)]
    assert torch.equal(together, torch.cat(apart))


def test_another_pass_over_the_data_augments_it_differently():
    first, second = (batch([position], is_augmented=True) for position in (3, 15))
    assert (torch.equal(first.tokens, second.tokens), torch.equal(first.images, second.images)) == (True, False)


def test_a_batch_moves_as_a_whole():
    moved = batch(range(2)).to(torch.device("meta"))
    assert {part.device.type for part in moved[:5]} == {"meta"}
