import pytest

from captioning.data import tokenizer as ptb
from captioning.data.tokenizers import (
    PTB,
    TOKENIZERS,
    UNICODE,
    WHITESPACE,
    choose_tokenizer,
    find_tokenizer,
    is_character,
)
from tests.support.case_table import each_case

# Captions, their words by ``unicode`` separated by |, and the caption that the words are joined to.
CAPTIONS = {
    "Hindi": ("एक कुत्ता बैठा है।", "एक|कुत्ता|बैठा|है", "एक कुत्ता बैठा है"),
    "a hyphen": ("टी-शर्ट में", "टी-शर्ट|में", "टी-शर्ट में"),
    "Bengali": ("একটি কুকুর॥", "একটি|কুকুর", "একটি কুকুর"),
    "Tamil": ("ஒரு நாய்.", "ஒரு|நாய்", "ஒரு நாய்"),
    "Thai, in characters with their marks": ("แมวนั่ง 2 ตัว", "แ|ม|ว|นั่|ง|2|ตั|ว", "แมวนั่ง 2 ตัว"),
    "Khmer, a consonant below another": ("ខ្មែរ។", "ខ្មែ|រ", "ខ្មែរ"),
    "Chinese": ("一只狗,在看海。", "一|只|狗|在|看|海", "一只狗在看海"),
    "full width": ("２个ＤＯＧ\uff01", "2|个|dog", "2 个 dog"),
    "Japanese": ("犬が、ベンチに", "犬|が|ベ|ン|チ|に", "犬がベンチに"),
    "half width": ("ﾊﾟﾝ", "パ|ン", "パン"),
    "beyond 16 bits": ("𠮷野 🐶", "𠮷|野", "𠮷野"),
    "Korean": ("개가 달린다.", "개가|달린다", "개가 달린다"),
    "another normal form": ("개가", "개가", "개가"),
    "Persian, a joiner inside": ("می‌رود، کتاب", "می‌رود|کتاب", "می‌رود کتاب"),
    "Arabic with vowels": ("كَلْبٌ؟", "كَلْبٌ", "كَلْبٌ"),
    "Hebrew": ("ג'ירפה רצה", "ג'ירפה|רצה", "ג'ירפה רצה"),
    "Ethiopic": ("ሰላም፡ዓለም።", "ሰላም|ዓለም", "ሰላም ዓለም"),
    "Vietnamese": ("tiếng Việt", "tiếng|việt", "tiếng việt"),
    "an emoji with a selector": ("a ❤️", "a|❤", "a ❤"),
    "Tibetan, in syllables": ("བོད་སྐད།", "བོད|སྐད", "བོད་སྐད"),
    "Myanmar": ("မြန်မာ", "မြ|န်|မာ", "မြန်မာ"),
    "a mark alone": ("एक \u093e", "एक", "एक"),
    "another alphabet in capitals": ("𞤀𞤣", "𞤢𞤣", "𞤢𞤣"),
    "only punctuation": ("。、\uff01", "", ""),
}


@pytest.mark.parametrize(("caption", "words", "joined"), CAPTIONS.values(), ids=CAPTIONS)
def test_marks_belong_to_letters_and_scripts_without_spaces_to_characters(caption, words, joined):
    found = UNICODE.tokenize(caption)
    assert ("|".join(found), UNICODE.join(found)) == (words, joined)


@each_case("caption", [caption for caption, *_ in CAPTIONS.values()])
def test_a_joined_caption_has_the_same_words(caption):
    words = UNICODE.tokenize(caption)
    assert UNICODE.tokenize(UNICODE.join(words)) == words


@each_case("caption", ["A man's 3½ dogs — “Café”, e.g. über-large.", "Σκύλος", "Собака бежит", "naïve ¿sí?"])
def test_latin_greek_and_cyrillic_have_the_words_of_the_evaluation(caption):
    kept = [word for word in ptb.tokenize(caption) if word != "¿"]
    assert (UNICODE.tokenize(caption), choose_tokenizer([caption])) == (kept, PTB)


def test_captions_of_another_program_are_split_at_its_spaces():
    words = WHITESPACE.tokenize("一个 女人 , 坐在 Café 。")
    assert (words, WHITESPACE.join(words)) == (["一个", "女人", "坐在", "café"], "一个 女人 坐在 café")


@each_case(
    ("captions", "name"),
    [
        (["a dog"] * 99 + ["狗"], "unicode"),
        (["a dog"] * 100 + ["狗"], "ptb"),  # English, with a foreign name
        (["a dog ❤️ — ½"], "ptb"),
        (["कुत्ता"], "unicode"),
        ([], "ptb"),
    ],
)
def test_the_script_of_the_captions_chooses_the_tokenizer(captions, name):
    assert choose_tokenizer(captions).name == name


@each_case(("word", "is_one"), [("狗", True), ("นั่", True), ("狗狗", False), ("a", False), ("कु", False)])
def test_a_character_is_a_word_of_a_script_without_spaces(word, is_one):
    assert is_character(word) == is_one


def test_a_tokenizer_is_found_by_its_name():
    assert [find_tokenizer(name).name for name in TOKENIZERS] == list(TOKENIZERS)


def test_a_tokenizer_of_a_later_release_is_refused():
    with pytest.raises(ValueError, match=r"tokenizer 'bpe' is none of this release's \(ptb, unicode, whitespace\)"):
        find_tokenizer("bpe")
