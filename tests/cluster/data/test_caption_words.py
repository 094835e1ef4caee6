"""Words of captions in several scripts, from their source to a shard set that is read again."""

import json

import pytest

from cluster.data.conversion import convert, plan_conversion
from cluster.data.conversion_config import ConversionConfig
from cluster.data.shard_set import ShardSet
from cluster.errors import Refusal
from tests.support.pictures import encoded, noise

HINDI = ["एक कुत्ता लाल बेंच पर बैठा है।", "दो बच्चे खेल रहे हैं।"]
CHINESE = ["一只狗躺在红色的长椅上", "两个孩子在公园里玩球"]


@pytest.fixture
def source(tmp_path):
    """Return a function that makes a COCO folder of splits, each a list of the captions of its images."""

    def make(**splits):
        folder = tmp_path / "coco"
        for name in ("images", "annotations"):
            (folder / name).mkdir(parents=True)
        for offset, (split, captions) in enumerate(splits.items()):
            numbers = [100 * offset + number for number in range(len(captions))]
            for number in numbers:
                (folder / "images" / f"{number}.jpg").write_bytes(encoded(noise(32, 32, seed=number)))
            content = {
                "images": [{"id": number, "file_name": f"{number}.jpg"} for number in numbers],
                "annotations": [
                    {"image_id": number, "caption": one}
                    for number, written in zip(numbers, captions, strict=True)
                    for one in written
                ],
            }
            (folder / "annotations" / f"captions_{split}.json").write_text(json.dumps(content))
        return folder

    return make


def plan(source, folder, **settings):
    return plan_conversion(source, folder, ConversionConfig(**{"minimum_word_count": 1, **settings}))


@pytest.mark.parametrize(
    ("captions", "tokenizer"),
    [(HINDI, "unicode"), (CHINESE, "unicode"), (["a dog sits", "two dogs"], "ptb")],
    ids=["Hindi", "Chinese", "English"],
)
def test_a_shard_set_says_by_which_tokenizer_captions_come_back_from_their_words(source, tmp_path, captions, tokenizer):
    convert(plan(source(train=[captions], val=[captions]), tmp_path / "out"), num_workers=0)
    vocabulary = ShardSet(tmp_path / "out").vocabulary
    again = [vocabulary.decode(vocabulary.encode(caption)) for caption in captions]
    assert (vocabulary.tokenizer.name, again) == (tokenizer, [caption.rstrip("।") for caption in captions])


@pytest.mark.parametrize(("num_characters", "is_told"), [(30, False), (31, True)])
def test_captions_that_training_would_cut_are_told(source, tmp_path, caplog, num_characters, is_told):
    plan(source(train=[["狗" * num_characters]]), tmp_path / "out")
    assert ("train with --training.max-caption-words 31" in caplog.text) == is_told


def test_a_set_of_the_only_tokenizer_of_an_earlier_release_stays_finished(source, tmp_path):
    folder = source(train=[HINDI])
    convert(plan(folder, tmp_path / "out", tokenizer="ptb"), num_workers=0)
    assert plan(folder, tmp_path / "out").missing == ()


def test_an_english_vocabulary_has_the_bytes_of_earlier_releases(source, tmp_path):
    content = plan(source(train=[["a dog", "a dog"]]), tmp_path / "out").vocabulary.content()
    assert content == b"<pad>\n<bos>\n<eos>\n<unk>\na\ndog\n"


def test_a_vocabulary_without_words_is_refused(source, tmp_path):
    with pytest.raises(
        ValueError, match=r"no word occurs 4 times or more .* of 12 words, the most frequent is '.*' \(1\); use"
    ):
        plan(source(train=[HINDI]), tmp_path / "out", minimum_word_count=4)


def test_the_split_of_the_vocabulary_must_be_converted(source, tmp_path):
    with pytest.raises(
        Refusal, match=r"words of split train, but the splits to convert are training, val; .*--vocabulary-split"
    ):
        plan(source(training=[["a dog"]], val=[["a cat"]]), tmp_path / "out")


def test_the_split_of_the_vocabulary_can_be_chosen(source, tmp_path):
    folder = source(training=[["a dog"]], val=[["a cat"]])
    assert plan(folder, tmp_path / "out", vocabulary_split="training").vocabulary.words[4:] == ("a", "dog")


WORDLESS = {"train": [["a dog"]], "val": [["a dog"], ["...", "?"], ["🐶", "!"]]}


def test_an_image_without_a_word_is_refused(source, tmp_path):
    with pytest.raises(
        Refusal,
        match=r"image 101 \(101\.jpg\) has no caption with a word \(first caption: '\.\.\.'; tokenizer ptb\) "
        r"\(and 1 more\); "
        "fix the source, or set them aside with --on-bad skip",
    ):
        plan(source(**WORDLESS), tmp_path / "out")


def test_an_image_without_a_word_is_set_aside(source, tmp_path):
    manifest = convert(plan(source(**WORDLESS), tmp_path / "out", on_bad="skip", max_rejected=1.0), num_workers=0)
    assert ([one.key[-3:] for one in manifest.set_aside], manifest.splits) == (["101", "102"], {"train": 1, "val": 1})


def test_a_split_without_any_word_is_refused(source, tmp_path):
    with pytest.raises(Refusal, match=r"split val has no usable image \(image 100 .*\); give at least one"):
        plan(source(train=[["a dog"]], val=[["..."]]), tmp_path / "out", on_bad="skip")


def test_a_word_beside_punctuation_keeps_an_image(source, tmp_path):
    (split,) = plan(source(train=[["...", "a dog"]]), tmp_path / "out").annotations.splits.values()
    assert split[0].captions == ("...", "a dog")
