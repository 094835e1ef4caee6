"""The vocabulary: words and their ids. Its file has one word per line; the line number, from 0, is the word's id."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from captioning.data.tokenizer import tokenize

SPECIAL_WORDS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNK = range(4)
# Far more than captions have: a registered version's vocabulary is a file that anyone may have written.
_MOST_WORDS, _LARGEST_FILE_MIB = 1_000_000, 64


class Vocabulary:
    """The words that a model knows.

    Args:
        words: the words in the order of their ids, the special words first.

    Raises:
        ValueError: the special words are not first, a word is empty or repeated, or there are too many.
    """

    def __init__(self, words: Sequence[str]) -> None:
        if len(words) > _MOST_WORDS:
            raise ValueError(f"it has {len(words)} words, more than {_MOST_WORDS}")
        self.words = tuple(words)
        self._id_of = {word: number for number, word in enumerate(self.words)}
        if self.words[:4] != SPECIAL_WORDS:
            raise ValueError(f"the first words are {' '.join(self.words[:4])!r}, not {' '.join(SPECIAL_WORDS)!r}")
        if "" in self._id_of:
            raise ValueError(f"word {self._id_of['']} is empty")
        if len(self._id_of) < len(self.words):
            repeated = Counter(self.words).most_common(1)[0][0]
            raise ValueError(f"the word {repeated!r} occurs more than once")

    def __len__(self) -> int:
        """Return the number of words, including the special words."""
        return len(self.words)

    @property
    def digest(self) -> str:
        """Return the sha256 of the file, as 64 hexadecimal digits."""
        return hashlib.sha256(self.content()).hexdigest()

    def content(self) -> bytes:
        """Return the content of the file."""
        return "".join(f"{word}\n" for word in self.words).encode()

    def encode(self, caption: str) -> list[int]:
        """Return the ids of a caption's words; unknown words, and words spelt like a special word, become <unk>."""
        known = (self._id_of.get(word, UNK) for word in tokenize(caption))
        return [max(number, UNK) for number in known]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the words before <eos>, without special words, joined by spaces."""
        words = []
        for number in ids:
            if number == EOS:
                break
            if number >= len(SPECIAL_WORDS):
                words.append(self.words[number])
        return " ".join(words)


def build_vocabulary(captions: Iterable[str], *, minimum_count: int) -> Vocabulary:
    """Return the vocabulary of words that occur at least ``minimum_count`` times in the captions, most frequent first.

    Special words in captions, such as <unk>, are not counted; words of equal frequency are sorted by spelling.

    Raises:
        ValueError: there are too many words.
    """
    counts = Counter(word for caption in captions for word in tokenize(caption))
    frequent = [word for word, count in counts.items() if count >= minimum_count and word not in SPECIAL_WORDS]
    try:
        return Vocabulary([*SPECIAL_WORDS, *sorted(frequent, key=lambda word: (-counts[word], word))])
    except ValueError as error:
        raise ValueError(f"the vocabulary cannot be built ({error}); use a larger --minimum-word-count") from None


def load_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE_MIB * 2**20:
            raise ValueError(f"{path} is larger than {_LARGEST_FILE_MIB} MiB; use a smaller vocabulary")
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; run captioning convert") from None
    return parse_vocabulary(content, str(path))


def parse_vocabulary(content: bytes, source: str) -> Vocabulary:
    """Parse the content of a vocabulary file.

    Args:
        content: content of the file.
        source: location of the file, for error messages.

    Raises:
        ValueError: the content is damaged.
    """
    try:
        return Vocabulary(content.decode().removesuffix("\n").split("\n"))
    except ValueError as error:
        raise ValueError(f"{source} is not a vocabulary ({error}); run captioning convert again") from None
