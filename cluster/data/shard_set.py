"""An opened shard set and feature set: manifests, vocabulary and readers of the splits. Imports no Ray."""

from captioning.config import ModelConfig, TrainingConfig
from captioning.data.vocabulary import Vocabulary, parse_vocabulary
from cluster.data.sources import FeatureSource, ImageSource, Source
from cluster.errors import Refusal
from shards.features.manifest import FeatureManifest, load_features
from shards.features.reader import FeatureReader
from shards.manifest import VOCABULARY_NAME, Manifest, load_manifest
from shards.reader import MOST_OPEN_SHARDS, ShardReader
from shards.shard_files import ShardFiles
from shards.storage.cache import DEFAULT_CACHE_GIB
from shards.storage.folders import ShardFolder, open_folder, read_file


class FeatureSet:
    """A finished feature set.

    Args:
        folder: folder of the feature set.

    Raises:
        FileNotFoundError: the folder is not a finished feature set.
        ValueError: the manifest is damaged.
    """

    def __init__(self, folder: ShardFolder) -> None:
        self.folder = folder
        self.manifest: FeatureManifest = load_features(folder)

    def reader(self, split: str, *, most_open: int = MOST_OPEN_SHARDS) -> FeatureReader:
        """Return a reader of a split, with so many shards open; sample numbers are the same as in the shard set."""
        return FeatureReader(self.folder, self.manifest, split, most_open=most_open)


class ShardSet:
    """A finished shard set: manifest, vocabulary and readers of its splits.

    Args:
        location: folder or URL of the shard set.
        features: folder or URL of a feature set made from it; batches then have features instead of images.
        cache_gib: size limit, in GiB, of this node's copies of remote shards.

    Raises:
        FileNotFoundError: a folder is not a finished shard set or feature set.
        ValueError: a manifest or the vocabulary is damaged, the features were made from another shard set, or a URL
            cannot be opened.
        OSError: a URL does not answer.
    """

    def __init__(
        self,
        location: ShardFolder | str,
        features: ShardFolder | str | None = None,
        *,
        cache_gib: float = DEFAULT_CACHE_GIB,
    ) -> None:
        self._cache_gib = cache_gib
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
                f"{features} was made from shard set {self.features.manifest.shards_digest[:12]}, but "
                f"{folder} is {self.manifest.digest[:12]}",
                "use the features of this shard set, or make them by captioning extract",
            )

    @property
    def files(self) -> ShardFiles:
        """Return the files of the shards."""
        return ShardFiles(self.folder, cache_gib=self._cache_gib)

    @property
    def features_digest(self) -> str | None:
        """Return the digest of the feature set, if there is one."""
        return self.features.manifest.digest if self.features else None

    def reader(self, split: str, *, most_open: int = MOST_OPEN_SHARDS) -> ShardReader:
        """Return a reader of a split, with so many shards open; samples are numbered through its shards by name."""
        records = self.manifest.of_split(split)
        return ShardReader(self.folder, records, cache_gib=self._cache_gib, most_open=most_open)

    def source(self, split: str, *, model: ModelConfig, config: TrainingConfig) -> Source:
        """Return the source of a split's batches: its features if there is a feature set, else its images."""
        window = config.shuffle_window_shards  # read in order of position, no shard is needed after its window
        if self.features:
            return FeatureSource(self.features.reader(split, most_open=window), self.vocabulary, config=config)
        by_pillow = not self.manifest.is_turbo
        reader = self.reader(split, most_open=window)
        return ImageSource(reader, self.vocabulary, model=model, config=config, by_pillow=by_pillow)


def _vocabulary_of(folder: ShardFolder) -> Vocabulary:
    path = f"{folder}/{VOCABULARY_NAME}"
    try:
        return parse_vocabulary(read_file(folder, VOCABULARY_NAME), path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; run captioning convert") from None
