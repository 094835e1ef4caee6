"""Scores of the captions that the ranks write about a validation split, while training pauses."""

from collections.abc import Iterable

import torch

from captioning.agreement import gather
from captioning.batches import CaptionBatch
from captioning.decoding import beam_search
from captioning.metrics import score_captions
from captioning.model import CaptionModel
from cluster.config import TrainRun
from cluster.data import ShardSet

SCORE_NAMES = {"BLEU-4": "validation_bleu_4", "ROUGE-L": "validation_rouge_l", "CIDEr-D": "validation_cider_d"}


@torch.no_grad()
def caption_scores(
    model: CaptionModel, batches: Iterable[CaptionBatch], shard_set: ShardSet, run: TrainRun, *, device: torch.device
) -> dict[str, float]:
    """Caption a rank's share of the validation split, and score the captions of all ranks; each must call it.

    Args:
        model: the bare model.
        batches: of this rank's share.
        shard_set: that they are of.
        run: names the split, and how captions are searched.
        device: of the model.
    """
    was_training = model.training
    model.eval()
    written: list[tuple[int, str]] = []
    for batch in batches:
        found = beam_search(
            model.decoder,
            model.look(batch.to(device).images),
            beam_size=run.validation.beam_size,
            max_words=run.training.max_caption_words,
        )
        captions = [shard_set.vocabulary.decode(tokens[0]) for tokens in found.tokens.tolist()]
        written += zip(batch.positions(), captions, strict=False)  # a blank batch has no position
    model.train(was_training)
    candidates = dict(gather(written))
    reader = shard_set.reader(run.validation_split)
    references = {number: reader.read(number).captions for number in candidates}
    scores = score_captions(candidates, references).as_dict()
    return {name: scores[key] for key, name in SCORE_NAMES.items()}
