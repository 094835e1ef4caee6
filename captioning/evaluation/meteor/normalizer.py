"""The words that METEOR compares: those of a caption, split further at hyphens, apostrophes and symbols.

The rules are those of METEOR's option ``-norm`` for English, with which the COCO evaluation calls it.
"""

import re
from collections.abc import Mapping

_LETTER, _NO_LETTER, _DIGIT, _NO_DIGIT = r"([^\W\d_])", r"([\W\d_])", r"(\d)", r"(\D)"
# In this order. The two letters around an apostrophe are consumed: of a'b'c the first apostrophe alone splits.
# Curly quotes and dashes stand as code points.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([^\w\s.'`,\u2018\u2019-]|_)", r" \1 "),
        (r"\.{2,}", r" \g<0> "),
        (_NO_DIGIT + "," + _NO_DIGIT, r"\1 , \2"),
        (_DIGIT + "," + _NO_DIGIT, r"\1 , \2"),
        (_NO_DIGIT + "," + _DIGIT, r"\1 , \2"),
        (r"[`\u2018\u2019]", "'"),
        (r"''|[\u201c\u201d]", ' " '),
        (r"\u2013", "-"),
        (r"--", "-"),
        (_NO_LETTER + "'" + _NO_LETTER, r"\1 ' \2"),
        (r"([^\w]|_)'" + _LETTER, r"\1 ' \2"),
        (_LETTER + "'" + _NO_LETTER, r"\1 ' \2"),
        (_LETTER + "'" + _LETTER, r"\1 '\2"),
        (_DIGIT + "'(s)", r"\1 '\2"),
        (r"([^\W_]|\.)-([^\W_])", r"\1 \2"),
    )
)


def normalize(caption: str, abbreviations: Mapping[str, bool]) -> list[str]:
    """Return the words of a caption that METEOR compares.

    Args:
        caption: caption in lower case.
        abbreviations: words that keep the dot after them; True for those that keep it only before a number.
    """
    text = caption
    if not text.isalpha():
        text = f" {text} "
        for pattern, replacement in _RULES:
            text = pattern.sub(replacement, text)
    words = text.split()
    if "." not in text:
        return words
    found = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        found += _split_dot(word, following, abbreviations)
    return found


def _split_dot(word: str, following: str, abbreviations: Mapping[str, bool]) -> list[str]:
    """Split a dot from a word's end, unless the word is an abbreviation or the sentence goes on."""
    stem = word[:-1]
    if not word.endswith(".") or not stem or stem.endswith("."):
        return [word]
    if "." in stem and any(character.isalpha() for character in stem):
        return [word.replace(".", "")]
    if "a" <= following[:1] <= "z" or (stem in abbreviations and (not abbreviations[stem] or following[:1].isdigit())):
        return [word]
    return [stem, "."]
