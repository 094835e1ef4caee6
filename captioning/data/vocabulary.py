"""The vocabulary: words, their ids, and the tokenizer that they come from.

Its file has one word per line; the line number, from 0, is the word's id. If the tokenizer is not ``ptb``, a line
before the first word names it. So the words of a model and the way to make and join them cannot come apart.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from captioning.data.tokenizers import PTB, Tokenizer, find_tokenizer

SPECIAL_WORDS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD, BOS, EOS, UNK = range(4)
_TOKENIZER_LINE = "# tokenizer: "
# Far more than captions have: a registered version's vocabulary is a file that anyone may have written.
_MOST_WORDS, _LARGEST_FILE_MIB = 1_000_000, 64


class Vocabulary:
    """The words that a model knows.

    Args:
        words: the words in the order of their ids, the special words first.
        tokenizer: tokenizer that splits captions into these words.

    Raises:
        ValueError: the special words are not first, a word is empty or repeated, or there are too many.
    """

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer = PTB) -> None:
        if len(words) > _MOST_WORDS:
            raise ValueError(f"it has {len(words)} words, more than {_MOST_WORDS}")
        self.words, self.tokenizer = tuple(words), tokenizer
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
        first = () if self.tokenizer is PTB else (f"{_TOKENIZER_LINE}{self.tokenizer.name}",)
        return "".join(f"{line}\n" for line in (*first, *self.words)).encode()

    def encode(self, caption: str) -> list[int]:
        """Return the ids of a caption's words; unknown words, and words spelt like a special word, become <unk>."""
        known = (self._id_of.get(word, UNK) for word in self.tokenizer.tokenize(caption))
        return [max(number, UNK) for number in known]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the words before <eos>, without special words, joined to a caption."""
        words = []
        for number in ids:
            if number == EOS:
                break
            if number >= len(SPECIAL_WORDS):
                words.append(self.words[number])
        return self.tokenizer.join(words)


def build_vocabulary(captions: Iterable[str], *, minimum_count: int, tokenizer: Tokenizer = PTB) -> Vocabulary:
    """Return the vocabulary of words that occur at least ``minimum_count`` times in the captions, most frequent first.

    Raises:
        ValueError: there are too many words, or none.
    """
    counts = Counter(chain.from_iterable(map(tokenizer.tokenize, captions)))
    return vocabulary_of_counts(counts, minimum_count=minimum_count, tokenizer=tokenizer)


def vocabulary_of_counts(counts: Counter[str], *, minimum_count: int, tokenizer: Tokenizer) -> Vocabulary:
    """Return the vocabulary of words that were counted, as ``build_vocabulary`` does.

    Special words in captions, such as <unk>, are left out; words of equal frequency are sorted by spelling.

    Raises:
        ValueError: there are too many words, or none.
    """
    frequent = [word for word, count in counts.items() if count >= minimum_count and word not in SPECIAL_WORDS]
    if not frequent:
        raise ValueError(_why_empty(counts, minimum_count))
    try:
        return Vocabulary([*SPECIAL_WORDS, *sorted(frequent, key=lambda word: (-counts[word], word))], tokenizer)
    except ValueError as error:
        raise ValueError(f"the vocabulary cannot be built ({error}); use a larger --minimum-word-count") from None


def _why_empty(counts: Counter[str], minimum_count: int) -> str:
    """Return why no word is frequent enough, and what to do."""
    found = f"no word occurs {minimum_count} times or more in the training captions"
    if not counts:
        return f"{found}: they have no words; give captions of words"
    word, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
    return (
        f"{found}: of {len(counts)} words, the most frequent is {word!r} ({count}); use a smaller "
        "--minimum-word-count, and for text without spaces --tokenizer unicode, or captions segmented into words"
    )


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
        first, _, rest = content.decode().partition("\n")
        has_name = first.startswith(_TOKENIZER_LINE)
        tokenizer = find_tokenizer(first.removeprefix(_TOKENIZER_LINE)) if has_name else PTB
        lines = rest if has_name else content.decode()
        return Vocabulary(lines.removesuffix("\n").split("\n"), tokenizer)
    except ValueError as error:
        raise ValueError(f"{source} is not a vocabulary ({error}); run captioning convert again") from None
