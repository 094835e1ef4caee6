import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.data import tokenizer
from captioning.data.tokenizer import tokenize
from tests.support.case_table import each_case

OFFICIAL = {  # Output of the COCO evaluation's Java tokenizer, after the evaluation drops punctuation.
    "A man can't sit; the dog's \"on\" it.": "a man ca n't sit the dog 's on it",
    "DON'T, I'll, they've, we're, I'd": "do n't i 'll they 've we 're i 'd",
    "He cannot; 'tis gonna wanna y'all": "he can not 't is gon na wan na y' all",
    "rock 'n' roll rock'n'roll o'clock dogs' ma'am Ho'ohu": "rock 'n' roll rock 'n' roll o'clock dogs ma'am ho'ohu",
    "a two-story t-shirt and/or a w/ b w/o c": "a two-story t-shirt and/or a w / b w/o c",
    "a - b -- c --- d - e": "a b c d e",
    "Mr. Smith of St. Mary St. in the U.S. at 5 p.m.": "mr. smith of st. mary st. in the u.s. at 5 p.m.",
    "No. 5 is no. He said no. 10 ft. 12 in. 3 lbs.": "no. 5 is no he said no. 10 ft. 12 in 3 lbs",
    "a person I. A hood and J. Smith in KY.": "a person i a hood and j. smith in ky.",
    "10:30 in 2013, 1,000 at $5.00, 50% of #1, 5'10\"": "10:30 in 2013 1,000 at $ 5.00 50 % of # 1 5 10",
    "6ft 35mm 2nd 1950's 1950s '50s 10-year-old 4x4": "6ft 35mm 2nd 1950 's 1950s '50s 10-year-old 4x4",
    "22 3/4 of 1/2 and 12/25/2013": "22\u00a03/4 of 1/2 and 12/25/2013",  # A no-break space inside one word.
    "(a) [b] {c} <unk> <b": "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb- <unk> < b",
    "so... wow! what?! yes!! done..": "so wow what ?! yes !! done",
    "AT&T at&t A & W &amp; x": "at&t at & t a & w & x",
    "www.foo.com board.cabbage me@x.com @user #tag c++": "www.foo.com board.cabbage me@x.com @user #tag c++",
    "\u201ccurly\u201d don\u2019t a\u2013b caf\u00e9 \u00bd 3\u00bd": "curly do n't a b caf\u00e9 1/2 3 1/2",
    "dog\U0001f436cat tab\tbreak\n": "dog cat tab break",
    "yes!no etc., :-) under_score a_ ** +5 x=y": "yes!no etc. :--rrb- under_score a _ ** +5 x = y",
    "": "",
    " ?. -- '' ": "",
}


@each_case(("caption", "words"), OFFICIAL.items())
def test_words_are_those_of_the_official_tokenizer(caption, words):
    assert tokenize(caption) == (words.split(" ") if words else [])


def test_a_last_letter_loses_its_point_as_before_another_sentence():
    assert tokenize("a sign that reads K.") == ["a", "sign", "that", "reads", "k"]


def test_every_oracle_sentence_is_tokenized_as_officially(shared_data):
    pairs = json.loads((shared_data / "oracle" / "ptb_tokenizer_pairs.json").read_text())
    assert [pair for pair in pairs if " ".join(tokenize(pair["raw"])) != pair["ptb"]] == []


def test_tokenizing_the_words_of_coco_again_changes_nothing(shared_data):
    annotations = json.loads((shared_data / "annotations" / "captions_val2017.json").read_text())["annotations"]
    captions = [" ".join(tokenize(annotation["caption"])) for annotation in annotations[:5000]]
    changed = [caption for caption in captions if " ".join(tokenize(caption)) != caption]
    assert changed == []


_PARTS = [
    "A",
    "dogs",
    "cannot",
    "Gimme",
    "etc",
    "Mass",
    "St",
    "no",
    "tis",
    "I",
    "p",
    "We",
    ",",
    ".",
    " ",
    "  ",
    "\n",
    "\t",
]


@given(st.lists(st.sampled_from(_PARTS), max_size=8).map("".join))
def test_captions_of_letters_alone_are_split_as_by_all_rules(caption):
    by_all_rules = [word for token in tokenizer._lex(tokenizer._normalize(caption)) for word in tokenizer._words(token)]
    assert tokenize(caption) == by_all_rules


@given(st.text(st.characters(exclude_categories=["Cs"])))  # as st.text(), which looks through all of them for a second
def test_any_text_becomes_words_without_spaces(text):
    assert all(word and " " not in word and word.strip() == word for word in tokenize(text))


@given(st.text(alphabet="aB1.,'-/&<>()@ !?", max_size=80))
def test_no_punctuation_mark_is_a_word(text):
    assert not {".", ",", "'", "-", "--", "!", "?", "''", "..."} & set(tokenize(text))


def tokenize_slowly(caption):
    """Tokenize as the rules define it: each of them is tried at every position, that of addresses too."""
    text, position, tokens = tokenizer._normalize(caption), 0, []
    rules = (*tokenizer._RULES, re.compile(r"[^\s@]+@[^\s@]+"))
    plain = re.compile(r"\s+|[A-Za-z]+(?=[\s,]|$)")
    while position < len(text):
        match = plain.match(text, position) or max(
            filter(None, (rule.match(text, position) for rule in rules)), key=re.Match.end, default=None
        )
        tokens.append(match[0] if match else text[position])
        position += len(tokens[-1])
    return [word for token in tokens if not token.isspace() for word in tokenizer._words(token)]


def test_captions_have_the_words_that_the_rules_define(shared_data):
    pairs = json.loads((shared_data / "oracle" / "ptb_tokenizer_pairs.json").read_text())
    assert [pair for pair in pairs[::9] if tokenize(pair["raw"]) != tokenize_slowly(pair["raw"])] == []


@settings(derandomize=True, deadline=None)
@given(st.text(alphabet="@@@aBmr1.,'/<>() :!?-\u00e9", max_size=60))
def test_any_text_has_the_words_that_the_rules_define(text):
    assert tokenize(text) == tokenize_slowly(text)


@pytest.mark.timeout(6)  # a quarter of a second, but eight seconds if every mark looked for an @ behind it
def test_an_endless_run_of_marks_is_read_to_its_end():
    assert tokenize("." * 40_000) == []
