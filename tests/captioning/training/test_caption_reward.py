"""The reward of captions, against the official scorers with the document frequencies of other images."""

from math import log

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer

from captioning.data.batches import encode_captions
from captioning.data.vocabulary import BOS, EOS, PAD, UNK
from captioning.training.caption_reward import caption_rewards, count_documents
from tests.support.tiny_models import VOCABULARY

NUM_IMAGES, NUM_CAPTIONS = 40, 3


def drawn_captions(generator, count):
    """Return captions of few words, so that they share many n-grams, and repeat some."""
    return [generator.integers(UNK, 12, generator.integers(0, 13)).tolist() for _ in range(count)]


@pytest.fixture(scope="module")
def corpus():
    """Return the references of each image, one to five, and the captions to reward."""
    generator = np.random.default_rng(5)
    references = [drawn_captions(generator, 1 + number % 5) for number in range(NUM_IMAGES)]
    captions = [drawn_captions(generator, NUM_CAPTIONS) for _ in range(NUM_IMAGES)]
    captions[3][0], captions[4][1] = references[3][0], []
    return references, captions


@pytest.fixture(scope="module")
def frequencies(corpus):
    return count_documents(flat(image) for image in corpus[0])


def flat(captions):
    return np.array([number for caption in captions for number in (BOS, *caption, EOS)], np.int32)


def padded(captions, length=14):
    return np.array([[*caption, EOS, *[PAD] * (length - len(caption) - 1)] for caption in captions])


def text(caption):
    return " ".join(map(str, [*caption, EOS]))


def rewards(corpus, frequencies, images=range(NUM_IMAGES), **options):
    references, captions = ([part[number] for number in images] for part in corpus)
    rows = np.repeat(np.arange(len(references)), [len(image) for image in references])
    everything = padded([caption for image in references for caption in image], length=16)
    return caption_rewards(np.stack([padded(image) for image in captions]), everything, rows, frequencies, **options)


def official(corpus, column, scorer):
    for references, captions in zip(*corpus, strict=True):
        scorer += (text(captions[column]), [text(caption) for caption in references])
    return scorer


def test_cider_d_is_the_official_scorers(corpus, frequencies):
    expected = [official(corpus, column, CiderScorer()).compute_score()[1] for column in range(NUM_CAPTIONS)]
    assert rewards(corpus, frequencies) == pytest.approx(np.stack(expected, axis=1), abs=1e-9)


def test_bleu_is_the_official_scorers(corpus, frequencies):
    expected = [
        official(corpus, column, BleuScorer(n=4)).compute_score(option="closest", verbose=0)[1][3]
        for column in range(NUM_CAPTIONS)
    ]
    both = rewards(corpus, frequencies, bleu_weight=0.5) - rewards(corpus, frequencies)
    assert both == pytest.approx(0.5 * np.stack(expected, axis=1), abs=1e-9)


def test_rewards_do_not_depend_on_the_other_images(corpus, frequencies):
    parts = [
        rewards(corpus, frequencies, range(start, start + 8), bleu_weight=1.0) for start in range(0, NUM_IMAGES, 8)
    ]
    assert np.concatenate(parts) == pytest.approx(rewards(corpus, frequencies, bleu_weight=1.0), abs=1e-12)


def test_an_ngram_without_a_reference_counts_as_rare(frequencies):
    unknown = np.array([12345], np.uint64)
    assert frequencies.rarity(unknown) == pytest.approx(log(NUM_IMAGES))


def test_an_ngram_counts_once_an_image():
    captions = (["a dog", "a dog on a dog"], ["the cat"], ["a dog"])
    found = count_documents(encode_captions(image, VOCABULARY, max_words=9) for image in captions)
    # "a", "dog", "a dog", <eos> after "dog" and "a dog", and <eos> alone, which is in all three
    assert (found.num_images, sorted(found.counts.tolist())[-6:]) == (3, [2, 2, 2, 2, 2, 3])


def test_counts_do_not_depend_on_how_many_images_are_counted_at_once(corpus, frequencies, monkeypatch):
    monkeypatch.setattr("captioning.training.caption_reward._IMAGES_AT_ONCE", 7)
    again = count_documents(flat(image) for image in corpus[0])
    assert all(np.array_equal(one, other) for one, other in zip(again, frequencies, strict=True))
