import hashlib

import pytest

from captioning.data import vocabulary
from captioning.data.tokenizers import UNICODE
from captioning.data.vocabulary import BOS, EOS, PAD, SPECIAL_WORDS, UNK, Vocabulary, build_vocabulary, load_vocabulary
from tests.support.case_table import each_case

WORDS = (*SPECIAL_WORDS, "a", "dog", "runs")


def test_a_caption_comes_back_from_its_ids():
    vocabulary = Vocabulary(WORDS)
    assert vocabulary.decode([BOS, *vocabulary.encode("A dog runs."), EOS, PAD]) == "a dog runs"


@each_case(
    ("caption", "ids"),
    [
        ("a cat runs", [4, UNK, 6]),
        ("", []),
        ("...", []),  # punctuation is not a word
        ("a <pad> <bos> <eos> <unk> dog", [4, UNK, UNK, UNK, UNK, 5]),  # an id of <pad> would end the caption early
    ],
)
def test_words_that_are_not_known_become_unknown(caption, ids):
    assert Vocabulary(WORDS).encode(caption) == ids


@each_case(("ids", "caption"), [([4, EOS, 5], "a"), ([BOS, 4, UNK, PAD, 5], "a dog"), ([EOS], ""), ([], "")])
def test_decoding_ends_at_eos_and_leaves_special_words_out(ids, caption):
    assert Vocabulary(WORDS).decode(ids) == caption


def test_frequent_words_come_first_and_equals_by_name():
    vocabulary = build_vocabulary(["a dog", "a cat", "cow runs", "a cow and the end"], minimum_count=1)
    assert vocabulary.words[4:] == ("a", "cow", "and", "cat", "dog", "end", "runs", "the")


def test_too_many_words_are_refused(monkeypatch):
    monkeypatch.setattr(vocabulary, "_MOST_WORDS", 6)
    assert len(build_vocabulary(["a dog", "a dog", "cat"], minimum_count=2)) == 6
    with pytest.raises(ValueError, match=r"built \(it has 7 words, more than 6\); use a larger --minimum-word-count"):
        build_vocabulary(["a dog", "a dog", "cat"], minimum_count=1)


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "vocabulary.txt").open("wb") as file:
        file.truncate(10 * 2**30)  # takes no space on disk
    with pytest.raises(ValueError, match=r"vocabulary\.txt is larger than 64 MiB; use a smaller vocabulary"):
        load_vocabulary(tmp_path / "vocabulary.txt")


@pytest.mark.parametrize(("minimum_count", "words"), [(2, ("a", "cow")), (3, ("a",))])
def test_rare_words_are_left_out(minimum_count, words):
    vocabulary = build_vocabulary(["a dog", "a cat", "cow runs", "a cow"], minimum_count=minimum_count)
    assert vocabulary.words[4:] == words


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (
            ["a dog", "a"],
            r"no word occurs 9 times .* of 2 words, the most frequent is 'a' \(2\); use a smaller --minimum",
        ),
        (
            ["...", ""],
            "no word occurs 9 times or more in the training captions: they have no words; give captions of words",
        ),
    ],
)
def test_a_vocabulary_without_words_is_refused(captions, message):
    with pytest.raises(ValueError, match=message):
        build_vocabulary(captions, minimum_count=9)


def test_the_file_names_another_tokenizer_before_the_words(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(Vocabulary([*SPECIAL_WORDS, "狗"], UNICODE).content())
    found = load_vocabulary(path)
    assert (path.read_text("utf-8").split("\n")[0], found.words[4:], found.tokenizer) == (
        "# tokenizer: unicode", ("狗",), UNICODE,
    )  # fmt: skip


def test_the_same_words_of_another_tokenizer_are_another_vocabulary():
    assert Vocabulary(WORDS).digest != Vocabulary(WORDS, UNICODE).digest


def test_a_tokenizer_of_a_later_release_is_refused(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(b"# tokenizer: bpe\n" + Vocabulary(WORDS).content())
    with pytest.raises(
        ValueError, match=r"vocabulary\.txt is not a vocabulary \(tokenizer 'bpe' is none of this release's"
    ):
        load_vocabulary(path)


def test_a_caption_that_spells_special_words_adds_none_to_the_vocabulary():
    assert build_vocabulary(["a <unk> on <pad>"], minimum_count=1).words[4:] == ("a", "on")


def test_the_order_of_captions_does_not_matter():
    captions = ["a dog", "cow a", "the end of a cow", "dog"]
    assert (
        build_vocabulary(captions, minimum_count=1).digest == build_vocabulary(captions[::-1], minimum_count=1).digest
    )


def test_the_file_loads_as_it_was_written(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(Vocabulary([*WORDS, "café", "-lrb-"]).content())
    assert load_vocabulary(path).words == (*WORDS, "café", "-lrb-")


def test_the_digest_is_that_of_the_file(tmp_path):
    vocabulary = Vocabulary(WORDS)
    assert vocabulary.digest == hashlib.sha256(vocabulary.content()).hexdigest()


@each_case(
    ("words", "message"),
    [
        (["a", "dog"], "the first words are 'a dog', not '<pad> <bos> <eos> <unk>'"),
        ([*WORDS, "dog"], "the word 'dog' occurs more than once"),
        ([*SPECIAL_WORDS, "a", "", "dog"], "word 5 is empty"),
    ],
)
def test_a_garbled_list_of_words_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(words)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is not a vocabulary \(the first words are"),
        (b"<pad>\n<bos>\n<eos>\n<unk>\n\n", r"is not a vocabulary \(word 4 is empty\); run captioning convert again"),
        (b"<pad>\n\xff\n", r"is not a vocabulary \('utf-8' codec can't decode"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"vocabulary\.txt {message}"):
        load_vocabulary(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vocabulary\.txt does not exist; run captioning convert"):
        load_vocabulary(tmp_path / "vocabulary.txt")
