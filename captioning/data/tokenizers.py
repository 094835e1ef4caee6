"""Tokenizers by name: how captions are split into words, and how words are joined to a caption.

``ptb`` is the tokenizer of the official COCO evaluation, for Latin, Greek and Cyrillic script. ``unicode`` is the same
for these, and splits other scripts by the Unicode standard's character classes: a combining mark belongs to its letter,
and a script that is written without spaces has one word a character, with its marks. ``whitespace`` is for captions
that another program has segmented.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from captioning.data import tokenizer as ptb

# Thai, Lao, Myanmar, Khmer, Tai, Balinese, Javanese, Han, Kana, Bopomofo, Yi, Tangut and Khitan.
_WITHOUT_SPACES = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\u2e80-\u2fdf\u3005-\u3007"
    r"\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\ua4cf"
    r"\ua980-\ua9ff\uaa60-\uaadf\uf900-\ufaff\U00016fe0-\U00018dff\U0001aff0-\U0001b2ff\U00020000-\U0003ffff"
)
# Latin, Greek and Cyrillic with their extensions, and symbols, all of which are left to ``ptb``.
_OF_PTB = (
    r"\x00-\u052f\u1c80-\u1c8f\u1d00-\u1fff\u2000-\u2bff\u2c60-\u2c7f\ua640-\ua69f\ua720-\ua7ff\uab30-\uab6f"
    r"\ufb00-\ufb06\ufe00-\ufe0f"
)
_COMPATIBILITY_FORMS = re.compile(r"[\ufb50-\ufdff\ufe70-\ufefc\uff01-\uffee]+")  # of Arabic; of half and full width
_STACKED = r"[\u1039\u17d2][\u1000-\u109f\u1780-\u17ff]"  # a consonant below another, in Myanmar and Khmer
_JOINERS = r"[\u200c\u200d]"
_SPACE_INSIDE = re.compile(rf"(?<=[{_WITHOUT_SPACES}]) (?=[{_WITHOUT_SPACES}])")
_SPACE_IN_TIBETAN = re.compile(r"(?<=[\u0f40-\u0fbc]) (?=[\u0f40-\u0fbc])")
_OTHER_SCRIPT_SHARE = 0.01
"""Share of captions in another script from which ``unicode`` is chosen: an English set has a foreign name or two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenizer:
    """A way to split captions into words."""

    name: str
    tokenize: Callable[[str], list[str]]
    """Function that returns a caption's words, in lower case and without punctuation."""
    join: Callable[[Iterable[str]], str]
    """Function that returns the caption of some words."""


def find_tokenizer(name: str) -> Tokenizer:
    """Return a tokenizer.

    Raises:
        ValueError: this release has no tokenizer of that name.
    """
    if name not in TOKENIZERS:
        raise ValueError(f"tokenizer {name!r} is none of this release's ({', '.join(TOKENIZERS)})")
    return TOKENIZERS[name]


def choose_tokenizer(captions: Sequence[str]) -> Tokenizer:
    """Return ``ptb``, or ``unicode`` if at least one in a hundred captions has a letter of a script that needs it."""
    return tokenizer_for(sum(map(needs_unicode, captions)), len(captions))


def needs_unicode(caption: str) -> bool:
    """Return whether a caption has a letter of a script that ``ptb`` does not know."""
    return not caption.isascii() and bool(_other_script().search(caption))


def tokenizer_for(num_other: int, num_captions: int) -> Tokenizer:
    """Return the tokenizer for captions of which ``num_other`` need ``unicode``."""
    return UNICODE if num_other and num_other >= _OTHER_SCRIPT_SHARE * num_captions else PTB


def is_character(word: str) -> bool:
    """Return whether a word is one character of a script without spaces, with its marks."""
    found = _pieces().fullmatch(word)
    return bool(found and found["character"])


def _join_by_spaces(words: Iterable[str]) -> str:
    return " ".join(words)


def _join_by_script(words: Iterable[str]) -> str:
    """Join words by spaces, except two characters of scripts without spaces, and syllables of Tibetan by their mark."""
    return _SPACE_IN_TIBETAN.sub("\u0f0b", _SPACE_INSIDE.sub("", " ".join(words)))


def _split_by_script(caption: str) -> list[str]:
    if caption.isascii():
        return ptb.tokenize(caption)
    text = unicodedata.normalize("NFC", caption)
    text = _COMPATIBILITY_FORMS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    words, position = [], 0
    for piece in _pieces().finditer(text):
        words += _plain_words(text[position : piece.start()])
        if not _is_punctuation(piece[0]):  # a mark alone
            words.append(piece[0].lower())
        position = piece.end()
    return words + _plain_words(text[position:])


def _plain_words(text: str) -> list[str]:
    """Return the words of a text in Latin, Greek or Cyrillic script, without the punctuation of any script."""
    return [word for word in ptb.tokenize(text) if word.isascii() or not _is_punctuation(word)]


def _split_at_spaces(caption: str) -> list[str]:
    words = unicodedata.normalize("NFC", caption).lower().split()
    return [word for word in words if not _is_punctuation(word)]


def _is_punctuation(word: str) -> bool:
    """Return whether a word has only punctuation, format characters and marks without a letter."""
    return all(unicodedata.category(character)[0] in "PCMZ" for character in word)


@cache
def _marks() -> str:
    """Return the combining marks beyond Latin, Greek and Cyrillic script, as the inside of a character class."""
    others = re.sub(f"[{_OF_PTB}]", "", "".join(map(chr, range(0x1F000))))
    return "".join(character for character in others if unicodedata.category(character)[0] == "M")


@cache
def _other_script() -> re.Pattern[str]:
    return re.compile(rf"(?![{_OF_PTB}])[^\W_]|[{_marks()}]")


@cache
def _pieces() -> re.Pattern[str]:
    """Return the pattern of a character of a script without spaces, or of a word of another script."""
    mark = rf"[{_marks()}]"
    letter = rf"(?:(?![{_OF_PTB}{_WITHOUT_SPACES}])[^\W_]|(?![{_WITHOUT_SPACES}]){mark})"
    run = rf"{letter}(?:{_JOINERS}*{letter})*"
    alone = rf"(?=[{_WITHOUT_SPACES}])(?:[^\W_]|{mark})"
    return re.compile(rf"(?P<character>{alone}(?:{_STACKED}|{mark})*)|{run}(?:[-_/'\u2019]{run})*")


PTB = Tokenizer(name="ptb", tokenize=ptb.tokenize, join=_join_by_spaces)
UNICODE = Tokenizer(name="unicode", tokenize=_split_by_script, join=_join_by_script)
WHITESPACE = Tokenizer(name="whitespace", tokenize=_split_at_spaces, join=_join_by_spaces)
TOKENIZERS = {tokenizer.name: tokenizer for tokenizer in (PTB, UNICODE, WHITESPACE)}
