"""Decoders that read their scores from tables, whose captions can all be enumerated."""

from itertools import product

import torch

from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.model.decoders.interface import Decoder

NUM_WORDS = 3  # in addition to the four special words
VOCABULARY_SIZE = 4 + NUM_WORDS


class TableDecoder(Decoder):
    """A decoder that reads scores from a table, ``features`` (B, T, V * V), by position, last word and next word."""

    def forward(self, features, tokens, image_of_caption, dropout_keys):
        raise NotImplementedError

    def score(self, hidden):
        raise NotImplementedError

    def calibrate(self, features):
        raise NotImplementedError

    def start(self, features):
        tables = features.unflatten(2, (VOCABULARY_SIZE, VOCABULARY_SIZE))
        return tables, torch.zeros(len(tables), dtype=torch.int64)

    def step(self, state, tokens):
        tables, position = state
        return tables[torch.arange(len(tokens)), position, tokens], (tables, position + 1)


class CountingDecoder(TableDecoder):
    """A decoder that counts its steps and the rows of each."""

    def __init__(self):
        super().__init__()
        self.num_rows = []

    @property
    def num_steps(self):
        return len(self.num_rows)

    def step(self, state, tokens):
        self.num_rows.append(len(tokens))
        return super().step(state, tokens)


def random_tables(num_images, max_words=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_images, max_words, VOCABULARY_SIZE**2, generator=generator) * 2


def log_probability(table, words):
    """Return the log-probability of the words, from the table (T, V * V) of an image."""
    steps = torch.log_softmax(table.unflatten(1, (VOCABULARY_SIZE, VOCABULARY_SIZE)), dim=-1)
    return float(sum(steps[at, last, word] for at, (last, word) in enumerate(zip([BOS, *words], words, strict=False))))


def all_captions(max_words):
    """Return every caption: words and <eos>, or ``max_words`` words without it."""
    words = range(4, VOCABULARY_SIZE)
    ended = [(*caption, EOS) for length in range(max_words) for caption in product(words, repeat=length)]
    return ended + list(product(words, repeat=max_words))


def written(captions, row=0):
    """Return the captions of an image as tuples of ids, without padding."""
    return [tuple(token for token in ids if token != PAD) for ids in captions.tokens[row].tolist()]
