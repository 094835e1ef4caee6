"""Images of an evaluation for a page: captions with scores and references, alone or beside those of another model."""

from collections.abc import Sequence

from captioning.evaluation.metrics import ImageId
from captioning.pages.gallery import GalleryItem, choose
from cluster.data.shard_set import ShardSet
from cluster.evaluation.evaluate import Evaluation

FIRST_SCORE = "CIDEr-D"


def evaluation_items(
    evaluation: Evaluation, shard_set: ShardSet, rival: Evaluation | None = None
) -> Sequence[GalleryItem]:
    """Return the images of a page, best first, or those first in which two models differ most.

    Of a split with more images than a page shows, these are the best, the worst, and an even spread between.

    Args:
        evaluation: captions of a split, with the scores of each image.
        shard_set: shard set with the split.
        rival: captions of the same images by the model to compare with.
    """
    scored = evaluation.images or evaluation.captions  # an image without a reference has no scores, and is left out
    ranked = sorted(scored, key=lambda image: (-_rank(image, evaluation, rival), str(image)))
    chosen = choose(ranked)
    if rival:
        chosen.sort(key=lambda image: -abs(_rank(image, evaluation, rival)))
    wanted, samples = set(chosen), {}
    reader = shard_set.reader(evaluation.split)
    for number in range(len(reader)):
        sample = reader.read(number)
        if sample.image_id in wanted:
            samples[sample.image_id] = sample
    return [
        GalleryItem(
            name=samples[image].key,
            jpeg=samples[image].jpeg,
            captions=[evaluation.captions[image]],
            references=samples[image].captions,
            scores=_scores(image, evaluation),
            rival=rival.captions.get(image, "") if rival else "",
            gain=_rank(image, evaluation, rival) if rival else None,
        )
        for image in chosen
        if image in samples
    ]


def _scores(image: ImageId, evaluation: Evaluation) -> list[tuple[str, float]]:
    if image not in evaluation.images:
        return []
    scores = evaluation.images[image]
    return [(FIRST_SCORE, scores.cider_d), ("BLEU-4", scores.bleu_4), ("ROUGE-L", scores.rouge_l)]


def _rank(image: ImageId, evaluation: Evaluation, rival: Evaluation | None) -> float:
    """Return an image's CIDEr-D, without the rival's; 0 for an image that has none."""
    own, other = (one.images.get(image) if one else None for one in (evaluation, rival))
    return (own.cider_d if own else 0.0) - (other.cider_d if other else 0.0)
