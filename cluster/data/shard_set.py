"""A shard set and its feature set, opened: manifests, vocabulary, and readers of the splits; imports no Ray."""

from captioning.config import ModelConfig, TrainingConfig
from captioning.data.vocabulary import Vocabulary, parse_vocabulary
from cluster.data.sources import FeatureSource, ImageSource, Source
from cluster.errors import Refusal
from shards.features.manifest import FeatureManifest, load_features
from shards.features.reader import FeatureReader
from shards.manifest import VOCABULARY_NAME, Manifest, load_manifest
from shards.reader import ShardReader
from shards.storage.cache import DEFAULT_CACHE_GIB
from shards.storage.folders import ShardFolder, open_folder, read_file


class FeatureSet:
    """A finished feature set.

    Args:
        folder: the folder of the feature set.

    Raises:
        FileNotFoundError: the folder is no finished feature set.
        ValueError: the manifest is damaged.
    """

    def __init__(self, folder: ShardFolder) -> None:
        self.folder = folder
        self.manifest: FeatureManifest = load_features(folder)

    def reader(self, split: str) -> FeatureReader:
        """Return a reader of a split, whose sample numbers are those of the shard set."""
        return FeatureReader(self.folder, self.manifest, split)


class ShardSet:
    """A finished shard set: manifest, vocabulary and readers of its splits.

    Args:
        location: folder or URL of the shard set.
        features: folder or URL of a feature set of it; batches then hold features instead of images.
        cache_gib: most GiB of copies of shards at URLs that this node keeps.

    Raises:
        FileNotFoundError: a folder is no finished shard set or feature set.
        ValueError: a manifest or the vocabulary is damaged, the features are of another shard set, or a URL is none.
        OSError: a URL does not answer.
    """

    def __init__(
        self,
        location: ShardFolder | str,
        features: ShardFolder | str | None = None,
        *,
        cache_gib: float = DEFAULT_CACHE_GIB,
    ) -> None:
        self.folder = folder = open_folder(location, cache_gib=cache_gib)
        self.manifest: Manifest = load_manifest(folder)
        self.vocabulary: Vocabulary = _vocabulary_of(folder)
        if self.vocabulary.digest != self.manifest.vocabulary_digest:
            raise Refusal(
                f"{folder}/{VOCABULARY_NAME} differs from the vocabulary in the manifest",
                "run captioning convert again",
            )
        self.features = FeatureSet(open_folder(features, cache_gib=cache_gib)) if features else None
        if self.features and self.features.manifest.shards_digest != self.manifest.digest:
            raise Refusal(
                f"{features} holds features of the shard set {self.features.manifest.shards_digest[:12]}, while "
                f"{folder} is {self.manifest.digest[:12]}",
                "give its own, or make some by captioning extract",
            )

    @property
    def features_digest(self) -> str | None:
        """Return the digest of the feature set, if there is one."""
        return self.features.manifest.digest if self.features else None

    def reader(self, split: str) -> ShardReader:
        """Return a reader of a split, whose sample numbers count through its shards by name."""
        return ShardReader(self.folder, self.manifest.of_split(split))

    def source(self, split: str, *, model: ModelConfig, config: TrainingConfig) -> Source:
        """Return the source of a split's batches: its features if there are some, else its images."""
        if self.features:
            return FeatureSource(self.features.reader(split), self.vocabulary, config=config)
        return ImageSource(self.reader(split), self.vocabulary, model=model, config=config)


def _vocabulary_of(folder: ShardFolder) -> Vocabulary:
    path = f"{folder}/{VOCABULARY_NAME}"
    try:
        return parse_vocabulary(read_file(folder, VOCABULARY_NAME), path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; run captioning convert") from None
