"""Settings of a conversion. Imports no torch, Ray or MLflow."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shards.images import ImageSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionConfig:
    """Which images of a COCO folder to convert, and how."""

    splits: tuple[str, ...] = ()
    """Splits to convert; all splits of the folder if not given."""
    karpathy: Path | None = None
    """Karpathy split file; COCO's own splits if not given."""
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
    in the manifest."""
    seed: int = 0
    """Seed of the shuffle that assigns images to shards."""
