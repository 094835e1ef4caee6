"""The words of a source's captions: their tokenizer, the vocabulary, and images whose captions have no word."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from captioning.config import TrainingConfig
from captioning.data.tokenizers import (
    PTB,
    UNICODE,
    Tokenizer,
    choose_tokenizer,
    find_tokenizer,
    needs_unicode,
    tokenizer_for,
)
from captioning.data.vocabulary import Vocabulary, build_vocabulary, parse_vocabulary, vocabulary_of_counts
from cluster.data.conversion_config import ConversionConfig
from cluster.errors import Refusal
from shards.manifest import VOCABULARY_NAME
from shards.samples import CaptionedImage, SetAside
from shards.sources.annotations import Annotations
from shards.storage.folders import ShardFolder, read_file

logger = logging.getLogger(__name__)

_LATIN_LETTER = re.compile("[A-Za-z]")  # which is, or is in, a word of every tokenizer


def tokenizer_of(captions: Sequence[str], name: str, folder: ShardFolder) -> Tokenizer:
    """Return the tokenizer to convert with.

    Args:
        captions: captions that the vocabulary is made of.
        name: name of the tokenizer; ``auto`` for the one that fits the captions' script, or, if the folder has a shard
            set from an earlier release, for the set's own.
        folder: folder of the shard set.

    Raises:
        ValueError: the vocabulary in the folder is damaged.
    """
    if name != "auto":
        return find_tokenizer(name)
    chosen = choose_tokenizer(captions)
    if chosen is PTB:
        return PTB
    try:
        content = read_file(folder, VOCABULARY_NAME)
    except FileNotFoundError:
        return chosen
    return parse_vocabulary(content, f"{folder}/{VOCABULARY_NAME}").tokenizer


def vocabulary_captions(splits: Mapping[str, Sequence[CaptionedImage]], split: str) -> list[str]:
    """Return the captions that the vocabulary is made of.

    Args:
        splits: images of each split.
        split: name of the split.

    Raises:
        Refusal: there is no such split.
    """
    if split not in splits:
        raise Refusal(
            f"the vocabulary is made of the words of split {split}, but the splits to convert are {', '.join(splits)}",
            "convert that split as well, or name another by --vocabulary-split",
        )
    return [caption for image in splits[split] for caption in image.captions]


def vocabulary_of(captions: Sequence[str], config: ConversionConfig, tokenizer: Tokenizer) -> Vocabulary:
    """Return the vocabulary of the captions; warn if training would cut many, as those of one word a character.

    Raises:
        ValueError: no word, or too many words, are frequent enough.
    """
    if tokenizer is not PTB:
        _warn_of_long(Counter(len(tokenizer.tokenize(caption)) for caption in captions))
    return build_vocabulary(captions, minimum_count=config.minimum_word_count, tokenizer=tokenizer)


def has_word(caption: str, tokenizer: Tokenizer) -> bool:
    """Return whether a caption has a word."""
    return bool(_LATIN_LETTER.search(caption) or tokenizer.tokenize(caption))


class WordCounts:
    """The words of captions that are read a part at a time, by each tokenizer that may be chosen in the end.

    Args:
        name: name of the tokenizer; ``auto`` for the one that fits the captions' script.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._names = [PTB.name, UNICODE.name] if name == "auto" else [name]
        self._words = {name: Counter[str]() for name in self._names}
        self._lengths = {name: Counter[int]() for name in self._names}
        self._num_captions = self._num_other = 0

    def has_word(self, caption: str) -> bool:
        """Return whether a caption has a word."""
        return has_word(caption, find_tokenizer(self._names[-1]))

    def add(self, captions: Sequence[str]) -> None:
        """Count the words of captions."""
        for caption in captions:
            is_other = self._name == "auto" and needs_unicode(caption)
            self._num_captions, self._num_other = self._num_captions + 1, self._num_other + is_other
            words = find_tokenizer(self._names[0]).tokenize(caption)
            for name in self._names:
                # Both tokenizers split a caption in ASCII alike.
                found = words if name == self._names[0] or caption.isascii() else find_tokenizer(name).tokenize(caption)
                self._words[name].update(found)
                self._lengths[name][len(found)] += 1

    def merge(self, stored: Mapping[str, Any]) -> None:
        """Add the counts that ``as_dict`` returned."""
        self._num_captions += stored["num_captions"]
        self._num_other += stored["num_other"]
        for name in self._names:
            self._words[name].update(stored["words"][name])
            self._lengths[name].update({int(length): count for length, count in stored["lengths"][name].items()})

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as JSON holds them."""
        counts = {"num_captions": self._num_captions, "num_other": self._num_other}
        return counts | {"words": self._words, "lengths": self._lengths}

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer that fits the captions."""
        return (
            tokenizer_for(self._num_other, self._num_captions) if self._name == "auto" else find_tokenizer(self._name)
        )

    def vocabulary(self, *, minimum_count: int) -> Vocabulary:
        """Return the vocabulary of all captions; raises as ``build_vocabulary``."""
        tokenizer = self.tokenizer()
        if tokenizer is not PTB:
            _warn_of_long(self._lengths[tokenizer.name])
        return vocabulary_of_counts(self._words[tokenizer.name], minimum_count=minimum_count, tokenizer=tokenizer)


def _warn_of_long(lengths: Counter[int]) -> None:
    """Warn if training would cut many captions.

    Args:
        lengths: number of captions by their number of words.
    """
    at, longest, limit = int(0.99 * lengths.total()), 0, TrainingConfig().max_caption_words
    for length in sorted(lengths):
        longest, at = length, at - lengths[length]
        if at < 0:
            break
    if longest > limit:
        logger.warning(
            "1 in 100 captions has %d words or more, and training cuts them after %d; train with "
            "--training.max-caption-words %d",
            longest,
            limit,
            longest,
        )


def without_wordless(annotations: Annotations, tokenizer: Tokenizer, *, skip_bad: bool) -> Annotations:
    """Return the annotations without the images that have no caption with a word: they cannot be scored.

    Raises:
        Refusal: there are such images and ``skip_bad`` is off, or no image of a split is left.
    """
    wordless = [
        (split, image)
        for split, images in annotations.splits.items()
        for image in images
        if not any(has_word(caption, tokenizer) for caption in image.captions)
    ]
    if not wordless:
        return annotations
    found = [SetAside(key=image.key, reason=_why_wordless(image, tokenizer)) for _, image in wordless]
    if not skip_bad:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise Refusal(f"{found[0].reason}{more}", "fix the source, or set them aside with --on-bad skip")
    keys = {image.key for _, image in wordless}
    splits = {
        split: tuple(image for image in images if image.key not in keys) for split, images in annotations.splits.items()
    }
    if empty := [split for split, images in splits.items() if not images]:
        raise Refusal(f"split {empty[0]} has no usable image ({found[-1].reason})", "give at least one")
    return replace(annotations, splits=splits, set_aside=(*annotations.set_aside, *found))


def _why_wordless(image: CaptionedImage, tokenizer: Tokenizer) -> str:
    return (
        f"image {image.image_id} ({image.path.name}) has no caption with a word (first caption: "
        f"{image.captions[0]!r:.60}; tokenizer {tokenizer.name})"
    )
