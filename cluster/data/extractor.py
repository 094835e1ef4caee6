"""The extractor: a frozen encoder that turns shards of images into shards of features; imports no Ray."""

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
from shards.manifest import ShardRecord
from shards.reader import DamagedSampleError, ShardReader
from shards.storage.folders import ShardFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionWork:
    """Source, target and settings that all shards of a feature set have in common."""

    source: ShardFolder
    """The folder of the shard set."""
    folder: ShardFolder
    """The folder of the feature set."""
    model: ModelConfig
    """The model whose encoder computes."""
    settings: FeatureSettings
    batch_size: int
    """Images at once."""


class _Viewed(NamedTuple):
    """A sample that is still to be encoded; what does not decode has no views, and a fault."""

    key: str
    description: bytes
    views: Tensor | None
    fault: str = ""


class Extractor:
    """A frozen encoder that writes feature shards.

    Args:
        work: source, target and settings.
        use_gpu: whether to compute on a GPU.
        num_threads: number of threads that decode while the encoder computes.

    Raises:
        ValueError: the weights do not fit, or there is no GPU.
        ConnectionError: torchvision's weights do not download.
    """

    def __init__(self, work: ExtractionWork, *, use_gpu: bool = False, num_threads: int = 1) -> None:
        if use_gpu and not torch.cuda.is_available():
            raise ValueError("there is no GPU here; leave out --use-gpu, or use a cluster that has some")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(work.settings.seed)  # as a training run of this seed begins
            self._encoder = Encoder(work.model).to("cuda" if use_gpu else "cpu")
        self._work, self._num_threads = work, num_threads
        self.num_images_done = 0

    def write(self, shard: FeatureShardPlan, progress: Callable[[int], None] = lambda count: None) -> ShardRecord:
        """Write one feature shard.

        Args:
            shard: the plan of the shard to write.
            progress: function called with the number of its images that are done.

        Raises:
            ValueError: an image does not decode, and the plan does not skip bad ones.
        """
        self.num_images_done = 0
        return write_feature_shard(self._samples(shard, progress), shard, self._work.folder)

    def _samples(self, shard: FeatureShardPlan, progress: Callable[[int], None]) -> Iterator[FeatureSample]:
        reader, size = ShardReader(self._work.source, [shard.source]), self._work.batch_size
        with ThreadPoolExecutor(self._num_threads) as pool:

            def view(start: int) -> Iterator[_Viewed]:
                numbers = range(start, min(start + size, len(reader)))
                return pool.map(lambda number: self._view(reader, number, shard), numbers)

            ahead = view(0)
            for start in range(0, len(reader), size):
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
                features, fault = None, "its features are too large for float16, or no numbers"
            if features is None and not shard.skip_bad:
                raise ValueError(
                    f"sample {key} of {self._work.source}/{shard.name}: {fault}; run captioning convert again, or "
                    "store the sample without features by --on-bad skip"
                )
            yield FeatureSample(key=key, description=description, features=features, fault=fault)


@torch.no_grad()
def encode_views(encoder: Encoder, views: Tensor, *, is_pooled: bool, use_bf16: bool) -> np.ndarray:
    """Compute the features of images.

    Args:
        encoder: the encoder, on its device.
        views: (B, K, 3, S, S) uint8, on any device.
        is_pooled: whether only the mean over the regions is kept.
        use_bf16: whether to compute in bfloat16 where it is safe.

    Returns:
        (B, K, R, C) float16; what it cannot hold is infinite.
    """
    device = encoder.mean.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=use_bf16):
        features = encoder(views.flatten(0, 1).to(device)).float()
    if is_pooled:
        features = features.mean(1, keepdim=True)
    return features.half().unflatten(0, views.shape[:2]).cpu().numpy()
