"""Extractor: a frozen encoder that turns shards of images into shards of features. Imports no Ray."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from captioning.config import ModelConfig
from captioning.data.pixels import Augmentation
from captioning.data.views import decode_views
from captioning.model.encoder import Encoder
from shards.features.manifest import FeatureSettings
from shards.features.writer import FeatureSample, FeatureShardPlan, write_feature_shard
from shards.reader import DamagedSampleError, ShardReader
from shards.storage.cache import DEFAULT_CACHE_GIB
from shards.storage.folders import ShardFolder
from shards.table.shard_table import ShardRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionWork:
    """Source, target and settings of all shards of a feature set."""

    source: ShardFolder
    """Folder of the shard set."""
    folder: ShardFolder
    """Folder of the feature set."""
    model: ModelConfig
    """Model that has the encoder."""
    settings: FeatureSettings
    batch_size: int
    """Number of images to encode at once."""
    by_pillow: bool = False
    """Whether Pillow decodes JPEGs, as when an earlier release made the shard set."""
    cache_gib: float = DEFAULT_CACHE_GIB
    """Size limit in GiB of this node's copies of tars at URLs."""


class _Viewed(NamedTuple):
    """A sample ready to encode; if it did not decode, ``views`` is None and ``fault`` says why."""

    key: str
    description: bytes
    views: Tensor | None
    fault: str = ""


class Extractor:
    """A frozen encoder that writes feature shards.

    Args:
        work: source, target and settings.
        use_gpu: whether to compute on a GPU.
        num_threads: number of threads that decode images while the encoder computes.

    Raises:
        ValueError: the weights do not fit, or there is no GPU.
        ConnectionError: torchvision's weights cannot be downloaded.
    """

    def __init__(self, work: ExtractionWork, *, use_gpu: bool = False, num_threads: int = 1) -> None:
        if use_gpu and not torch.cuda.is_available():
            raise ValueError("there is no GPU on this machine; leave out --use-gpu, or use a cluster with GPUs")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(work.settings.seed)  # the same random values as in a training run with this seed
            encoder = Encoder(work.model).to("cuda" if use_gpu else "cpu")
        self._encoder = encoder.fold(work.settings.precision)
        self._work, self._num_threads = work, num_threads
        self.num_images_done = 0

    def write(self, shard: FeatureShardPlan, progress: Callable[[int], None] = lambda count: None) -> ShardRecord:
        """Write one feature shard.

        Args:
            shard: plan of the shard to write.
            progress: callback, called with the number of images done in this shard.

        Raises:
            ValueError: an image does not decode, and the plan does not skip bad images.
        """
        self.num_images_done = 0
        return write_feature_shard(self._samples(shard, progress), shard, self._work.folder)

    def _samples(self, shard: FeatureShardPlan, progress: Callable[[int], None]) -> Iterator[FeatureSample]:
        work, size = self._work, self._work.batch_size
        reader = ShardReader(work.source, [shard.source], cache_gib=work.cache_gib)
        with ThreadPoolExecutor(self._num_threads) as pool:

            def view(start: int) -> Iterator[_Viewed]:
                numbers = range(start, min(start + size, len(reader)))
                return pool.map(lambda number: self._view(reader, number, shard), numbers)

            ahead = view(0)
            for start in range(0, len(reader), size):
                # The pool decodes the next batch while the encoder computes this one.
                viewed, ahead = list(ahead), view(start + size)
                yield from self._encoded(viewed, shard)
                self.num_images_done += len(viewed)
                progress(self.num_images_done)

    def _view(self, reader: ShardReader, number: int, shard: FeatureShardPlan) -> _Viewed:
        key, description = reader.describe(number)
        settings = self._work.settings
        try:
            views = decode_views(
                reader.read(number).jpeg,
                self._work.model.image_size_px,
                num_views=settings.views,
                augmentation=Augmentation(settings.seed, settings.crop_area, settings.flip),
                number=shard.first + number,
                by_pillow=self._work.by_pillow,
            )
        except ValueError as error:
            reason = error.reason if isinstance(error, DamagedSampleError) else str(error)
            return _Viewed(key, description, None, reason)
        return _Viewed(key, description, views)

    def _encoded(self, viewed: Sequence[_Viewed], shard: FeatureShardPlan) -> Iterator[FeatureSample]:
        settings = self._work.settings
        seen = [one.views for one in viewed if one.views is not None]
        is_pooled, use_bf16 = settings.regions == "pooled", settings.precision == "bf16"
        encoded = encode_views(self._encoder, torch.stack(seen), is_pooled=is_pooled, use_bf16=use_bf16) if seen else []
        made = iter(encoded)
        for key, description, views, fault in viewed:
            features = None if views is None else next(made)
            if features is not None and not np.isfinite(features).all():
                features, fault = None, "its features are not finite in float16"
            if features is None and not shard.skip_bad:
                raise ValueError(
                    f"sample {key} of {self._work.source}/{shard.name}: {fault}; run captioning convert again, or "
                    "store the sample without features with --on-bad skip"
                )
            yield FeatureSample(key=key, description=description, features=features, fault=fault)


@torch.no_grad()
def encode_views(encoder: Encoder, views: Tensor, *, is_pooled: bool, use_bf16: bool) -> np.ndarray:
    """Compute the features of images.

    Args:
        encoder: the encoder, on its device.
        views: (B, K, 3, S, S) uint8, on any device.
        is_pooled: whether only the mean over the regions is kept.
        use_bf16: whether to compute with bfloat16 autocast.

    Returns:
        (B, K, R, C) float16; values beyond its range become infinite.
    """
    device = encoder.mean.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=use_bf16):
        features = encoder(views.flatten(0, 1).to(device)).float()
    if is_pooled:
        features = features.mean(1, keepdim=True)
    return features.half().unflatten(0, views.shape[:2]).cpu().numpy()
