"""Document frequencies of a split's captions, counted once for all workers and runs of a home folder."""

import hashlib
import logging
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from captioning.data.batches import encode_captions
from captioning.data.vocabulary import EOS, UNK
from captioning.training.caption_reward import DocumentFrequencies, count_documents
from cluster.data.shard_set import ShardSet
from cluster.errors import Refusal
from shards.reader import DamagedSampleError
from shards.storage.files import replacing
from shards.storage.lock import sole_writer

logger = logging.getLogger(__name__)

FOLDER = "document-frequencies"
_FORMAT_VERSION = 1
_CHECKED_IMAGES = 1_000  # samples are dealt to shards at random, so the first ones are like the others


def document_frequencies(
    shard_set: ShardSet, split: str, *, max_words: int, home: Path, heartbeat: Callable[[], None] = lambda: None
) -> DocumentFrequencies:
    """Return the document frequencies of a split's captions; the first process to ask counts, and others wait for it.

    No image is decoded; samples that cannot be read are left out.

    Args:
        shard_set: shard set of the captions.
        split: name of the split.
        max_words: number of words after which a caption is cut.
        home: home folder, which keeps the result.
        heartbeat: function that is called for every image.
    """
    identity = f"{_FORMAT_VERSION} {shard_set.manifest.digest} {shard_set.vocabulary.digest} {split} {max_words}"
    path = home / FOLDER / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"
    if known := _load(path):
        return known
    with sole_writer(path.parent):
        if known := _load(path):
            return known
        logger.info("counting the n-grams of the captions of split %s", split)
        found = count_documents(_encoded(shard_set, split, max_words, heartbeat))
        with replacing(path) as file:
            np.savez(file, keys=found.keys, counts=found.counts, num_images=np.array(found.num_images))
    return found


def check_references(shard_set: ShardSet, split: str, *, max_words: int) -> None:
    """Check that captions can be rewarded by those of a split, by its first images.

    Args:
        shard_set: shard set of the captions.
        split: name of the split.
        max_words: number of words after which a caption is cut.

    Raises:
        Refusal: most images have one caption, most words are unknown, or there is a single image.
    """
    images = list(islice(_encoded(shard_set, split, max_words), _CHECKED_IMAGES))
    num_single = sum(int((words == EOS).sum()) == 1 for words in images)
    if len(images) < 2:
        raise Refusal(
            f"split {split} has fewer than 2 images, too few for CIDEr-D, the reward of self-critical training",
            "leave out --training.self-critical-epochs",
        )
    if 2 * num_single > len(images):
        raise Refusal(
            f"{num_single} of the first {len(images)} images of split {split} have a single caption, but "
            "self-critical training rewards what several captions of an image have in common",
            "use a split with several captions an image, or leave out --training.self-critical-epochs",
        )
    words = np.concatenate(images)
    num_unknown, num_words = int((words == UNK).sum()), int((words >= UNK).sum())
    if 2 * num_unknown > num_words:
        raise Refusal(
            f"{num_unknown} of {num_words} words in the first captions of split {split} are not in the vocabulary of "
            f"{len(shard_set.vocabulary)} words, so no caption of the model can be like them",
            "run captioning convert with a smaller --minimum-word-count or with another --vocabulary-split, or leave "
            "out --training.self-critical-epochs",
        )


def _encoded(
    shard_set: ShardSet, split: str, max_words: int, heartbeat: Callable[[], None] = lambda: None
) -> Iterator[np.ndarray]:
    """Yield the word ids of each image's captions, as ``encode_captions`` returns them."""
    # Features hold the captions too, so that a training on them reads no images.
    reader = (shard_set.features or shard_set).reader(split)
    for number in range(len(reader)):
        heartbeat()
        try:
            yield encode_captions(reader.captions(number), shard_set.vocabulary, max_words=max_words)
        except DamagedSampleError:
            continue


def _load(path: Path) -> DocumentFrequencies | None:
    """Return stored document frequencies; None if there are none, or they are damaged."""
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return DocumentFrequencies(stored["keys"], stored["counts"], int(stored["num_images"]))
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
