"""Settings of a conversion, and of an index of tars. Imports no torch, Ray or MLflow."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from captioning.bounds import outside, raise_mistakes
from cluster.settings import differences
from shards.images import ImageSpec
from shards.manifest import Manifest
from shards.sources.annotations import Annotations
from shards.sources.recognition import SourceOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionConfig:
    """Which captioned images to convert, and how."""

    splits: tuple[str, ...] = ()
    """Splits to convert; all splits of the source if not given."""
    format: Literal["auto", "coco", "karpathy", "flickr", "table", "datasets", "sidecars"] = "auto"
    """Form of the source; auto tells it by what is there: coco, annotations/captions_<split>.json; karpathy,
    dataset_*.json; flickr, *.token and lists of images; table, captions or metadata as .csv, .tsv, .jsonl or .parquet,
    in the folder or in one a split; datasets, what Hugging Face's save_to_disk wrote; sidecars, dog.txt beside dog.jpg,
    a caption a line."""
    karpathy: Path | None = None
    """Karpathy split file; the source's own splits if not given."""
    annotations: tuple[str, ...] = ()
    """Files of captions by split, such as train=captions.csv or val=my.json; those of the source if not given."""
    image_column: str | None = None
    """Column of a table that names the image's file; found by its name if not given."""
    caption_column: str | None = None
    """Column of a table that holds the caption, or a list of them; found by its name if not given."""
    split_by: str | None = None
    """Ratio of train, val and test, such as 90:5:5, by which images of a source without splits are dealt, each by a
    hash of its id; all are train if not given."""
    on_leak: Literal["stop", "keep"] | None = None
    """What to do with equal images in different splits: stop, because scores would be too good, or keep and name
    them. If not given, keep those of published splits, whose scores are compared with others' (coco, karpathy,
    flickr); otherwise stop."""
    image: Annotated[ImageSpec, tyro.conf.arg(name="")] = field(default_factory=ImageSpec)
    samples_per_shard: int = 1000
    """Number of images per shard."""
    minimum_word_count: int = 4
    """Occurrences in the training captions below which a word is left out of the vocabulary (and becomes <unk>)."""
    vocabulary_split: str = "train"
    """Split whose captions the vocabulary is made of."""
    tokenizer: Literal["auto", "ptb", "unicode", "whitespace"] = "auto"
    """How captions are split into words: ptb, as the COCO evaluation does, for Latin, Greek and Cyrillic script;
    unicode, the same, with one word a character in scripts without spaces; whitespace, for captions that another
    program has segmented; auto, ptb or unicode by the script."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do with a faulty image or caption (without words, or over 5,000 characters): stop, or skip it and list it
    in the manifest and in rejected.jsonl."""
    max_rejected: float = 0.01
    """Largest share of the images that may be skipped, though one always may; with more the job fails, and what is
    written is kept."""
    seed: int = 0
    """Seed of the shuffle that assigns images to shards."""
    rebuild: bool = False
    """Write a finished shard set again whose source or settings have changed: write the shards that differ, and remove
    those that the new set does not have, which --dry-run lists. The set is unfinished until that is done, and the same
    command goes on with it. A set of another source is refused."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(outside(self, samples_per_shard=(1, 10_000_000), minimum_word_count=(1, 1_000_000_000)))
        raise_mistakes(outside(self, max_rejected=(0, 1)))

    def source_options(self) -> SourceOptions:
        """Return how the source is read."""
        return SourceOptions(
            form=None if self.format == "auto" else self.format,
            karpathy=self.karpathy,
            annotations=self.annotations,
            image_column=self.image_column,
            caption_column=self.caption_column,
            split_by=self.split_by,
        )


def changes_since(manifest: Manifest, config: ConversionConfig, annotations: Annotations) -> str:
    """Return what differs from a finished shard set's, in brackets: settings, numbers of images, annotation files.

    Args:
        manifest: manifest of the shard set.
        config: settings of a conversion.
        annotations: images of its source.

    Returns:
        The first three differences; empty if there is none.
    """
    known = annotations.files if manifest.annotations else {}  # an earlier release kept no checksums
    before = _settings_of(manifest, manifest.image_spec) | _images_of(manifest)
    now = _settings_of(config, config.image)
    now |= {f"{split} images": len(images) for split, images in annotations.splits.items()}
    found = differences(before, now)
    found += differences(*({name: one[:8] for name, one in of.items()} for of in (manifest.annotations, known)))
    return f" ({', '.join(found[:3])})" if found else ""


def other_source(manifest: Manifest, annotations: Annotations) -> str:
    """Return why a source is another one than a finished shard set's, as a clause; empty if it may be the same.

    Args:
        manifest: manifest of the shard set.
        annotations: images of the source.
    """
    kinds = (
        ("annotation file", manifest.annotations, annotations.files),  # an earlier release kept none
        ("split", manifest.splits, annotations.splits),
    )
    for kind, before, now in kinds:
        if before and not before.keys() & now.keys():
            return f"of another source, with no {kind} in common ({', '.join(before)}; now {', '.join(now) or 'none'})"
    return ""


def _images_of(manifest: Manifest) -> dict[str, int]:
    """Return the number of images of each split, with those that were set aside."""
    counts = Counter[str]()
    for shard in manifest.shards:
        counts[f"{shard.split} images"] += shard.num_samples + len(shard.set_aside)
    return dict(counts)


def _settings_of(config: ConversionConfig | Manifest, spec: ImageSpec) -> dict[str, int | str]:
    counts = {name: getattr(config, name) for name in ("samples_per_shard", "minimum_word_count", "seed")}
    return counts | {"shorter_side_px": spec.shorter_side_px, "quality": spec.quality}


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """How the samples of tars are read, and which split they belong to."""

    captions: str | None = None
    """Where a sample's captions are: txt, a caption a line; json.FIELD, a text or a list of texts in the JSON; json, as
    captioning convert writes it. If not given, what the first tar has."""
    split_by: str | None = None
    """Ratio of train, val and test, such as 95:5, by which whole tars are dealt by a hash of their names, at least one
    to each; without it, tars that no SPLIT= precedes are train."""
    minimum_word_count: int = 4
    """Occurrences in the training captions below which a word is left out of the vocabulary (and becomes <unk>)."""
    vocabulary_split: str = "train"
    """Split whose captions the vocabulary is made of."""
    tokenizer: Literal["auto", "ptb", "unicode", "whitespace"] = "auto"
    """How captions are split into words, as in captioning convert."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do with a file that is no whole tar: stop, or leave it out and list it in the manifest. Samples without
    an image or a usable caption are always left out, and told."""
    rebuild: bool = False
    """Scan the tars again although the index is finished, because they have changed."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        raise_mistakes(outside(self, minimum_word_count=(1, 1_000_000_000)))
        field = (self.captions or "txt").partition(".")
        if (self.captions or "txt") not in ("txt", "json") and (field[0] != "json" or not field[2]):
            raise_mistakes([f"captions {self.captions} is not one of txt, json and json.FIELD, such as json.caption"])
