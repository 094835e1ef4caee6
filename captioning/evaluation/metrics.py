"""Metrics of captions: BLEU-1 to 4, ROUGE-L, CIDEr-D and METEOR, as the official COCO evaluation computes them.

- BLEU: Papineni et al. 2002, https://aclanthology.org/P02-1040; over the whole corpus, by the closest reference length.
- ROUGE-L: Lin 2004, https://aclanthology.org/W04-1013; with beta = 1.2, and the best precision and the best recall
  among an image's references.
- CIDEr-D: Vedantam et al. 2015, https://arxiv.org/abs/1411.5726. The class ``Cider`` of pycocoevalcap, which the COCO
  server reports as CIDEr, is CIDEr-D and not the paper's plain CIDEr: it clips n-gram weights to the reference's, has a
  Gaussian length penalty (sigma = 6) and does no stemming. A perfect score is 10.
- METEOR 1.5: Denkowski and Lavie 2014, https://aclanthology.org/W14-3348; for English alone, by ``evaluation.meteor``.

The other scorers are the official ones, from pycocoevalcap; the words come from ``captioning.data.tokenizers`` instead
of pycocoevalcap's Java. SPICE is left out: it needs a parser in Java.
"""

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, PlainSerializer

from captioning.data.tokenizers import PTB, Tokenizer
from captioning.evaluation.meteor.scorer import Meteor, MeteorStatistics, score_of_statistics

# JSON has texts alone as keys: there a number is 12 and a text "12", with its quotes.
ImageId = Annotated[
    int | str,
    BeforeValidator(lambda value: json.loads(value) if isinstance(value, str) else value),
    PlainSerializer(json.dumps, when_used="json"),
]
"""An image's id: a number, as in COCO, or a text."""

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D", "METEOR")
"""Names of the scores; METEOR, the last, is left out where captions are not English, and in scores of version 0.3."""
_NUM_WITHOUT_METEOR = 12  # columns of ``summands``
_BLEU_ORDER = 4
# The official scorer adds these to numerators and denominators to avoid division by zero.
_TINY, _SMALL = 1e-15, 1e-9
_NO_REFERENCES = "give images with human captions"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageScores:
    """Scores of one caption. A corpus's CIDEr-D and ROUGE-L are their means over images; BLEU and METEOR are not."""

    bleu_4: float
    rouge_l: float
    cider_d: float
    bleu_counts: tuple[int, ...]
    """The counts that BLEU sums over images: matching 1- to 4-grams, all 1- to 4-grams, words, and words of the closest
    reference."""
    meteor: float | None = None
    meteor_statistics: tuple[float, ...] = ()
    """What METEOR sums over images, as ``MeteorStatistics``; empty without METEOR."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionScores:
    """Scores of a corpus: BLEU, ROUGE-L and METEOR from 0 to 1, CIDEr-D from 0 to 10."""

    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float
    rouge_l: float
    cider_d: float
    meteor: float | None = None
    images: dict[ImageId, ImageScores]
    """Scores of each image, by image id, ascending."""
    left_out: tuple[ImageId, ...] = ()
    """Ids of the images that are not scored, because none of their references has a word."""

    def as_dict(self) -> dict[str, float]:
        """Return the corpus scores by the names of ``METRICS``, without METEOR if it was left out."""
        scores = (self.bleu_1, self.bleu_2, self.bleu_3, self.bleu_4, self.rouge_l, self.cider_d, self.meteor)
        return {name: score for name, score in zip(METRICS, scores, strict=True) if score is not None}


def score_captions(
    candidates: Mapping[ImageId, str],
    references: Mapping[ImageId, Sequence[str]],
    *,
    tokenizer: Tokenizer = PTB,
    meteor: Meteor | None = None,
) -> CaptionScores:
    """Score one caption for each image against the image's references.

    CIDEr-D weights n-grams by their rarity in these references, so it is comparable only on the same images, and is 0
    for a single image.

    Args:
        candidates: untokenized caption of each image, by image id; a caption without words scores 0.
        references: untokenized references of each image, by image id; references without words are left out, and so
            are images that have no others.
        tokenizer: tokenizer of both; scores by different tokenizers cannot be compared.
        meteor: scorer of METEOR, as ``open_meteor`` returns it; None leaves METEOR out.

    Raises:
        ValueError: there are no images, candidates and references are of different images, or no reference of any image
            has words.
    """
    _check_same_images(candidates.keys(), references.keys())
    # Sorted, so that the floating-point sums do not depend on the order of the captions.
    words = {image_id: _reference_words(references[image_id], tokenizer) for image_id in sorted(candidates)}
    truths = {image_id: found for image_id, found in words.items() if found}
    if not truths:
        raise ValueError(f"none of {len(words)} images has a reference with words; {_NO_REFERENCES}")
    results = {image_id: [_joined_words(candidates[image_id], tokenizer)] for image_id in truths}
    bleu, images = _score(truths, results)
    if meteor:
        images = _with_meteor(images, meteor.statistics([one for (one,) in results.values()], list(truths.values())))
    return CaptionScores(
        bleu_1=bleu[0],
        bleu_2=bleu[1],
        bleu_3=bleu[2],
        bleu_4=bleu[3],
        rouge_l=fmean(image.rouge_l for image in images),
        cider_d=fmean(image.cider_d for image in images),
        meteor=_meteor_of(images) if meteor else None,
        images=dict(zip(results, images, strict=True)),
        left_out=tuple(image_id for image_id, found in words.items() if not found),
    )


def check_references(references: Iterable[Sequence[str]], tokenizer: Tokenizer = PTB) -> None:
    """Check that captions can be scored, before they are written; stops at the first image with a reference with words.

    Args:
        references: untokenized references of each image.
        tokenizer: tokenizer of the references.

    Raises:
        ValueError: no reference of any image has words.
    """
    if not any(_reference_words(captions, tokenizer) for captions in references):
        raise ValueError(f"no image has a reference with words; {_NO_REFERENCES}")


def summands(images: Mapping[ImageId, ImageScores]) -> np.ndarray:
    """Return the statistics of each image; their sums over any images give the scores of these images.

    Args:
        images: scores of each image, by image id.

    Returns:
        (N, 12) float64 rows of BLEU counts, ROUGE-L and CIDEr-D, by ascending image id; (N, 18) with METEOR's
        statistics if all images have them.
    """
    with_meteor = all(image.meteor_statistics for image in images.values())
    rows = [
        (*image.bleu_counts, image.rouge_l, image.cider_d, *(image.meteor_statistics if with_meteor else ()))
        for _, image in sorted(images.items())
    ]
    return np.array(rows, dtype=np.float64)


def common_summands(
    first: Mapping[ImageId, ImageScores], second: Mapping[ImageId, ImageScores]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``summands`` of two systems, without METEOR's statistics if one has none."""
    rows = summands(first), summands(second)
    width = min(found.shape[-1] for found in rows)
    return rows[0][:, :width], rows[1][:, :width]


def scores_of_sums(sums: np.ndarray, num_images: int) -> dict[str, np.ndarray]:
    """Return the corpus scores of some images, from sums of their statistics.

    CIDEr-D keeps the n-gram weights of the corpus that the images were scored with.

    Args:
        sums: (..., 12) or (..., 18) float64 sums of rows of ``summands``.
        num_images: number of rows in each sum.

    Returns:
        (...) float64 score for each of ``METRICS``, METEOR if it is in the sums.
    """
    right, of, (length, reference_length) = sums[..., :4], sums[..., 4:8], np.moveaxis(sums[..., 8:10], -1, 0)
    precisions = np.cumprod((right + _TINY) / (of + _SMALL), axis=-1)
    brevity = np.exp(np.minimum(0.0, 1 - (reference_length + _SMALL) / (length + _TINY)))
    bleu = [precisions[..., n] ** (1 / (n + 1)) * brevity for n in range(_BLEU_ORDER)]
    meteor = sums[..., _NUM_WITHOUT_METEOR:]
    scores = (*bleu, sums[..., 10] / num_images, sums[..., 11] / num_images)
    return dict(zip(METRICS, (*scores, score_of_statistics(meteor)) if meteor.shape[-1] else scores, strict=False))


def _with_meteor(images: Sequence[ImageScores], statistics: Iterable[MeteorStatistics]) -> list[ImageScores]:
    return [
        replace(image, meteor=float(score_of_statistics(np.array(found))), meteor_statistics=tuple(found))
        for image, found in zip(images, statistics, strict=True)
    ]


def _meteor_of(images: Sequence[ImageScores]) -> float:
    return float(score_of_statistics(np.array([image.meteor_statistics for image in images]).sum(axis=0)))


def _score(
    truths: dict[ImageId, list[str]], results: dict[ImageId, list[str]]
) -> tuple[list[float], list[ImageScores]]:
    # Imported here, because it takes 0.1 s, which reading a config should not cost.
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    scorer = BleuScorer(n=_BLEU_ORDER)
    for image_id, (candidate,) in results.items():
        scorer += (candidate, truths[image_id])
    bleu, (*_, bleu_4) = scorer.compute_score(option="closest", verbose=0)  # larger values print
    _, rouge_l = Rouge().compute_score(truths, results)
    _, cider_d = Cider().compute_score(truths, results)
    per_image = zip(bleu_4, rouge_l, cider_d, map(_bleu_counts, scorer.ctest), strict=True)
    return bleu, [
        ImageScores(bleu_4=float(b), rouge_l=float(r), cider_d=float(c), bleu_counts=counts)
        for b, r, c, counts in per_image
    ]


def _bleu_counts(found: Mapping[str, Any]) -> tuple[int, ...]:
    length = found["testlen"]
    closest = min(found["reflen"], key=lambda words: (abs(words - length), words))
    return *found["correct"], *found["guess"], length, closest


def _joined_words(caption: str, tokenizer: Tokenizer) -> str:
    return " ".join(tokenizer.tokenize(caption))


def _reference_words(captions: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    return [joined for caption in captions if (joined := _joined_words(caption, tokenizer))]


def _check_same_images(candidates: Set[ImageId], references: Set[ImageId]) -> None:
    if not candidates and not references:
        raise ValueError("there are no images to score; give at least 1 caption")
    if missing := sorted(candidates - references):
        raise ValueError(
            f"no references for {len(missing)} of {len(candidates)} candidates (first: image {missing[0]}); "
            "score captions and references of the same split"
        )
    if missing := sorted(references - candidates):
        raise ValueError(
            f"no candidate for {len(missing)} of {len(references)} images with references (first: image {missing[0]}); "
            "caption every image, or leave its references out"
        )
