"""Reward of captions as word ids: CIDEr-D with given document frequencies, and BLEU-4.

CIDEr-D is that of Vedantam et al., 2015, https://arxiv.org/abs/1411.5726, and BLEU that of Papineni et al., 2002,
https://aclanthology.org/P02-1040, both as in pycocoevalcap. <eos> counts as a word of captions and references, as in
the public implementations of self-critical training, that of https://arxiv.org/abs/2003.09971 among them: otherwise, to
leave off in the middle of a phrase, such as "a man with a", costs nothing, and the model learns to end so.

N-grams are 64-bit hashes, so that counting them is sorting integers.

Shapes: B images, K captions of each, N references of all images, R of one image, T words, S sentences, G n-grams.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from captioning.data.vocabulary import EOS, PAD

_ORDERS = 4
_SIGMA = 6.0
_PERFECT = 10.0
# The official scorer adds these to numerators and denominators of BLEU to avoid division by zero.
_TINY, _SMALL = 1e-15, 1e-9
_IMAGES_AT_ONCE = 1_000
_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class DocumentFrequencies(NamedTuple):
    """In how many images' references each n-gram occurs.

    Attributes:
        keys: (G,) uint64 hashes of the n-grams, ascending.
        counts: (G,) int32 number of images whose references have the n-gram.
        num_images: number of images in all.
    """

    keys: np.ndarray
    counts: np.ndarray
    num_images: int

    def rarity(self, keys: np.ndarray) -> np.ndarray:
        """Return the logarithm of the inverse document frequency of n-grams; an unknown one counts as in one image."""
        counts = np.ones(len(keys))
        places = np.searchsorted(self.keys, keys)
        places[places == len(self.keys)] = 0
        is_known = self.keys[places] == keys if len(self.keys) else np.zeros(len(keys), bool)
        counts[is_known] = self.counts[places[is_known]]
        return np.log(max(1.0, self.num_images)) - np.log(counts)


def count_documents(captions: Iterable[np.ndarray]) -> DocumentFrequencies:
    """Count in how many images each n-gram occurs.

    Args:
        captions: word ids of each image's captions, (L,) as ``encode_captions`` returns them.
    """
    found, num_images, left = [np.zeros(0, np.uint64)], 0, iter(captions)
    while images := list(islice(left, _IMAGES_AT_ONCE)):
        tokens, image = _as_rows(images)
        keys, sentence, _ = _ngrams(tokens)
        _, first = np.unique(_in_image(keys, image[sentence]), return_index=True)
        found.append(keys[first])
        num_images += len(images)
    keys, counts = np.unique(np.concatenate(found), return_counts=True)
    return DocumentFrequencies(keys, counts.astype(np.int32), num_images)


def caption_rewards(
    captions: np.ndarray,
    references: np.ndarray,
    image_of_reference: np.ndarray,
    frequencies: DocumentFrequencies,
    *,
    bleu_weight: float = 0.0,
) -> np.ndarray:
    """Return the reward of captions: CIDEr-D, from 0 to 10, plus a multiple of BLEU-4, from 0 to 1.

    Args:
        captions: (B, K, T) ids of the words and <eos> of each caption, then <pad>.
        references: (N, T) ids of the words and <eos> of each reference, then <pad>.
        image_of_reference: (N,) row of ``captions`` for each reference, ascending; every image has at least one.
        frequencies: document frequencies of the n-grams.
        bleu_weight: factor on BLEU-4.

    Returns:
        (B, K) float64 rewards.
    """
    scored = _Counts.of(captions, references, image_of_reference)
    rewards = scored.cider_d(frequencies)
    return rewards + bleu_weight * scored.bleu_4() if bleu_weight else rewards


class _Counts(NamedTuple):
    """How often the captions and references of images have each n-gram that one of them has.

    Attributes:
        keys: (G,) hashes of the n-grams, grouped by image and length.
        starts: (4 B,) first n-gram of each image and length; the group may be empty.
        captions: (G, K) float64 count in each caption of the image.
        references: (G, R) float64 count in each reference of the image; 0 beyond its last reference.
        caption_words: (B, K) number of words of each caption.
        reference_words: (B, R) number of words of each reference; -1 beyond the last one.
    """

    keys: np.ndarray
    starts: np.ndarray
    captions: np.ndarray
    references: np.ndarray
    caption_words: np.ndarray
    reference_words: np.ndarray

    @classmethod
    def of(cls, captions: np.ndarray, references: np.ndarray, image_of_reference: np.ndarray) -> "_Counts":
        (num_images, num_captions, length), longest = captions.shape, references.shape[1]
        tokens = np.full((num_images * num_captions + len(references), max(length, longest)), PAD, np.int64)
        tokens[: num_images * num_captions, :length] = captions.reshape(-1, length)
        tokens[num_images * num_captions :, :longest] = references
        image = np.concatenate([np.repeat(np.arange(num_images), num_captions), image_of_reference])
        first = np.searchsorted(image_of_reference, np.arange(num_images))
        number = np.arange(len(references)) - first[image_of_reference]
        column = np.concatenate([np.tile(np.arange(num_captions), num_images), num_captions + number])
        num_columns = int(column.max()) + 1
        words = np.full((num_images, num_columns), -1)
        words[image, column] = (tokens != PAD).sum(1)

        keys, sentence, order = _ngrams(tokens)
        _, index, row = np.unique(_in_image(keys, image[sentence]), return_index=True, return_inverse=True)
        counts = np.bincount(row * num_columns + column[sentence], minlength=len(index) * num_columns)
        group = image[sentence[index]] * _ORDERS + order[index]
        grouped = np.argsort(group, kind="stable")
        counts = counts.reshape(-1, num_columns)[grouped].astype(np.float64)
        starts = np.searchsorted(group[grouped], np.arange(num_images * _ORDERS))
        return cls(
            keys[index[grouped]],
            starts,
            counts[:, :num_captions],
            counts[:, num_captions:],
            words[:, :num_captions],
            words[:, num_captions:],
        )

    def cider_d(self, frequencies: DocumentFrequencies) -> np.ndarray:
        """Return the CIDEr-D of the captions, (B, K)."""
        rarity = frequencies.rarity(self.keys)[:, None]
        captions, references = self.captions * rarity, self.references * rarity
        shared = np.flatnonzero(captions.any(1) & references.any(1))
        products = np.zeros((len(self.keys), captions.shape[1], references.shape[1]))
        of_captions, of_references = captions[shared, :, None], references[shared, None, :]
        products[shared] = np.minimum(of_captions, of_references) * of_references
        norms = np.sqrt(self._sum(captions**2))[..., None] * np.sqrt(self._sum(references**2))[:, :, None]
        sums = self._sum(products)  # (B, 4, K, R)
        similarity = np.divide(sums, norms, out=sums, where=norms > 0).mean(1)
        # The official length is the number of bigrams.
        lengths, others = (np.maximum(words - 1, 0) for words in (self.caption_words, self.reference_words))
        similarity *= np.exp(-((lengths[..., None] - others[:, None]) ** 2) / (2 * _SIGMA**2))
        is_reference = self.reference_words[:, None] >= 0
        return _PERFECT * (similarity * is_reference).sum(-1) / is_reference.sum(-1)

    def bleu_4(self) -> np.ndarray:
        """Return the BLEU-4 of the captions, each as a corpus of its own, (B, K)."""
        correct = self._sum(np.minimum(self.captions, self.references.max(1, keepdims=True)))  # (B, 4, K)
        words = self.caption_words
        guessed = np.maximum(words[:, None] - np.arange(_ORDERS)[:, None], 0)
        precision = np.prod((correct + _TINY) / (guessed + _SMALL), axis=1) ** (1 / _ORDERS)
        distance = np.abs(self.reference_words[:, None] - words[..., None])  # (B, K, R)
        # The closest length, and the shorter one of two that are equally close.
        cost = np.where(self.reference_words[:, None] < 0, np.inf, 2 * distance)
        cost = cost + (self.reference_words[:, None] > words[..., None])
        closest = np.take_along_axis(self.reference_words, cost.argmin(-1), axis=1)
        ratio = (words + _TINY) / (closest + _SMALL)
        return precision * np.exp(np.minimum(0.0, 1 - 1 / ratio))

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Sum values of the n-grams of each image and length: (G, ...) -> (B, 4, ...)."""
        sums = np.zeros((len(self.starts), *values.shape[1:]))
        ends = np.append(self.starts[1:], len(values))
        is_filled = ends > self.starts
        if is_filled.any():
            sums[is_filled] = np.add.reduceat(values, self.starts[is_filled], axis=0)
        return sums.reshape(-1, _ORDERS, *values.shape[1:])


def _as_rows(images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the captions of images with <eos> and <pad> but without <bos>, (S, T), and the image of each, (S,)."""
    words = np.concatenate(images)
    lengths = np.diff(np.flatnonzero(words == EOS) + 1, prepend=0)
    tokens = np.full((len(lengths), lengths.max()), PAD, np.int64)
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = words
    return tokens[:, 1:], np.repeat(np.arange(len(images)), [int((image == EOS).sum()) for image in images])


def _ngrams(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the n-grams of 1 to 4 words of sentences, (S, T): their hashes, sentences, and lengths minus 1."""
    lengths = (tokens != PAD).sum(1)[:, None]
    words, places = tokens.astype(np.uint64), np.arange(tokens.shape[1])
    keys, sentences, orders = [], [], []
    key = np.zeros_like(words)
    for order in range(min(_ORDERS, tokens.shape[1])):
        key = _mix(key[:, : tokens.shape[1] - order] ^ words[:, order:])
        sentence, place = np.nonzero(places[: key.shape[1]] + order < lengths)
        keys.append(key[sentence, place])
        sentences.append(sentence)
        orders.append(np.full(len(sentence), order))
    return np.concatenate(keys), np.concatenate(sentences), np.concatenate(orders)


def _in_image(keys: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return a hash of each n-gram and its image."""
    return _mix(keys ^ _mix(~image.astype(np.uint64)))  # inverted, because a small number is the hash of a word


def _mix(values: np.ndarray) -> np.ndarray:
    """Hash uint64 numbers by splitmix64, a bijection (see ``captioning.hashing``)."""
    mixed = values + _FACTORS[0]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FACTORS[1]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _FACTORS[2]
    return mixed ^ (mixed >> np.uint64(31))
