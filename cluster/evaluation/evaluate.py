"""Evaluation of a checkpoint on a split: captions of every image, and their scores."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from captioning.config import Precision
from captioning.data.tokenizers import PTB
from captioning.evaluation.behaviour import Variant, draw_images, make_variant
from captioning.evaluation.bootstrap import CONFIDENCE, score_intervals
from captioning.evaluation.captioner import Captioner, coco_results
from captioning.evaluation.meteor.scorer import open_meteor
from captioning.evaluation.metrics import ImageId, ImageScores, check_references, score_captions
from captioning.generation.config import GenerationConfig
from captioning.pages.notebook import scores_html
from captioning.training.checkpoint import load_model
from cluster.data.shard_set import ShardSet
from cluster.resources.device import inference_device
from shards.reader import Sample, ShardReader
from shards.storage.files import replace_file
from shards.verification import verify_shards

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A model's captions of a split, and their scores."""

    split: str
    shards_digest: str
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    """Settings of the search for the captions."""
    step: int
    tokenizer: str = PTB.name
    """Name of the tokenizer whose words are scored; scores by different tokenizers cannot be compared."""
    precision: Precision = "fp32"
    scores: dict[str, float]
    captions: dict[ImageId, str]
    images: dict[ImageId, ImageScores] = field(default_factory=dict)
    """Scores of each caption by image id, for paired comparison with another model."""
    left_out: tuple[ImageId, ...] = ()
    """Ids of the images that are captioned but not scored, because none of their human captions has a word."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Confidence interval of each score, at the level ``captioning.evaluation.bootstrap.CONFIDENCE``."""

    @property
    def title(self) -> str:
        """Return what was scored, and by which tokenizer if it is not that of the COCO evaluation."""
        words = "" if self.tokenizer == PTB.name else f", words by tokenizer {self.tokenizer}"
        images = "image" if len(self.captions) == 1 else "images"
        return f"{len(self.captions)} {images} of split {self.split}{words}"

    def summary(self) -> dict[str, object]:
        """Return everything but the captions and their scores, as stored with a run or a model version."""
        return {
            "split": self.split,
            "shards_digest": self.shards_digest,
            **self.generation.summary(),
            "precision": self.precision,
            "step": self.step,
            "tokenizer": self.tokenizer,
            "num_images": len(self.captions),
            "num_left_out": len(self.left_out),
            "scores": self.scores,
            "intervals": self.intervals,
            "confidence": CONFIDENCE,
        }

    def _repr_html_(self) -> str:
        """Return the scores as a table, for notebooks."""
        return scores_html(f"{self.title}, step {self.step}", self.scores, self.intervals, confidence=CONFIDENCE)

    def save_results(self, path: Path) -> None:
        """Write the captions in the COCO results format."""
        replace_file(path, json.dumps(coco_results(self.captions), indent=0).encode() + b"\n")


def load_captioner(
    folder: Path, *, generation: GenerationConfig | None = None, batch_size: int, precision: Precision = "fp32"
) -> Captioner:
    """Load a checkpoint for captioning, on the device that ``inference_device`` returns."""
    loaded = load_model(folder, device=inference_device())
    return Captioner(*loaded, generation=generation, batch_size=batch_size, precision=precision)


def evaluate_split(
    checkpoint: Path,
    shard_set: ShardSet,
    split: str,
    *,
    step: int,
    generation: GenerationConfig | None = None,
    batch_size: int,
    precision: Precision = "fp32",
    skip_bad: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Caption every image of a split and score the captions against the human ones.

    Args:
        checkpoint: folder of the checkpoint.
        shard_set: shard set that has the split.
        split: name of the split.
        step: step of the checkpoint.
        generation: settings of the search for captions; None for the defaults.
        batch_size: number of images per batch.
        precision: precision in which the model computes.
        skip_bad: whether images that do not decode are left out, and logged; otherwise they are errors.
        progress: callback, called with the number of images done.

    Raises:
        ValueError: there is no such split, a shard differs from the manifest, or no image has a human caption with a
            word.
        FileNotFoundError: a shard is missing.
    """
    reader, tokenizer = _checked_reader(shard_set, split), shard_set.vocabulary.tokenizer
    captioner = load_captioner(checkpoint, generation=generation, batch_size=batch_size, precision=precision)
    captioned = _caption_all(captioner, reader, skip_bad=skip_bad, progress=progress)
    captions = {sample.image_id: caption for sample, caption in captioned}
    references = {sample.image_id: sample.captions for sample, _ in captioned}
    meteor = open_meteor((one for found in references.values() for one in found), tokenizer)
    scored = score_captions(captions, references, tokenizer=tokenizer, meteor=meteor)
    return Evaluation(
        split=split,
        shards_digest=shard_set.manifest.digest,
        generation=generation or GenerationConfig(),
        step=step,
        tokenizer=tokenizer.name,
        precision=precision,
        scores=scored.as_dict(),
        captions=captions,
        images=scored.images,
        left_out=scored.left_out,
        intervals=score_intervals(scored.images),
    )


def _checked_reader(shard_set: ShardSet, split: str) -> ShardReader:
    """Return a reader of a split whose shards are intact and have human captions to score with."""
    verify_shards(shard_set.folder, shard_set.manifest.of_split(split))
    reader: ShardReader = shard_set.reader(split)
    check_references((reader.read(number).captions for number in range(len(reader))), shard_set.vocabulary.tokenizer)
    return reader


def _caption_all(
    captioner: Captioner, reader: ShardReader, *, skip_bad: bool, progress: Callable[[int], None]
) -> list[tuple[Sample, str]]:
    """Return the samples of a split, without their JPEGs, each with its caption; images left out are logged."""
    samples: list[Sample] = []
    bad: dict[int, str] = {}
    written: list[str] = []
    for found in captioner.caption(_read_jpegs(reader, samples), on_bad=bad.__setitem__ if skip_bad else None):
        written.append(found.captions[0])
        progress(len(written))
    if bad:
        first, reason = next(iter(bad.items()))
        logger.warning(
            "%d of %d images are left out, because they do not decode (first: %s: %s)",
            len(bad),
            len(samples),
            samples[first].key,
            reason,
        )
    good = [sample for number, sample in enumerate(samples) if number not in bad]
    return list(zip(good, written, strict=True))


def _read_jpegs(reader: ShardReader, samples: list[Sample]) -> Iterator[bytes]:
    """Read each sample once; yield its JPEG, and append the sample without it to ``samples``."""
    for number in range(len(reader)):
        sample = reader.read(number)
        samples.append(sample._replace(jpeg=b""))  # the JPEGs of a whole split might not fit in memory
        yield sample.jpeg


def caption_variants(
    checkpoint: Path,
    shard_set: ShardSet,
    split: str,
    *,
    num_images: int,
    seed: int,
    generation: GenerationConfig | None = None,
    batch_size: int,
    precision: Precision = "fp32",
    progress: Callable[[int], None] = lambda count: None,
) -> dict[Variant, dict[ImageId, str]]:
    """Caption variants of some images of a split.

    Args:
        checkpoint: folder of the checkpoint.
        shard_set: shard set that has the split.
        split: name of the split.
        num_images: number of images to draw at random; all if the split has no more.
        seed: seed of the draw.
        generation: settings of the search for captions; None for the defaults.
        batch_size: number of images per batch.
        precision: precision in which the model computes.
        progress: callback, called with the number of captions written.

    Returns:
        Captions by image id, for each variant.

    Raises:
        ValueError: there is no such split, or a shard differs from the manifest.
        FileNotFoundError: a shard is missing.
    """
    verify_shards(shard_set.folder, shard_set.manifest.of_split(split))
    reader: ShardReader = shard_set.reader(split)
    chosen = draw_images(len(reader), num_images, seed=seed)
    captioner = load_captioner(checkpoint, generation=generation, batch_size=batch_size, precision=precision)
    cases: list[tuple[Variant, ImageId]] = []
    captions: dict[Variant, dict[ImageId, str]] = {variant: {} for variant in Variant}
    for number, written in enumerate(captioner.caption(_varied(reader, chosen, cases))):
        variant, image_id = cases[number]  # by number, because the captioner reads ahead by a batch
        captions[variant][image_id] = written.captions[0]
        progress(number + 1)
    return captions


def _varied(reader: ShardReader, chosen: Iterable[int], cases: list[tuple[Variant, ImageId]]) -> Iterator[bytes]:
    """Yield the JPEG of each variant of the chosen images, and append the variant and the image to ``cases``."""
    for number in chosen:
        sample = reader.read(number)
        for variant in Variant:
            cases.append((variant, sample.image_id))
            yield make_variant(sample.jpeg, variant)
