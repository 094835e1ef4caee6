"""Validation by the ranks: all ranks together score the validation split while training pauses."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from captioning.data.batches import CaptionBatch
from captioning.evaluation.metrics import ImageId, score_captions
from captioning.generation.beam_search import beam_search
from captioning.model.caption_model import CaptionModel
from captioning.training.collectives import gather
from captioning.training.validation import validation_loss
from cluster.config import TrainRun
from cluster.data.loading import validation_batches
from cluster.data.shard_set import ShardSet
from cluster.runs.record import VALIDATION_LOSS

logger = logging.getLogger(__name__)

SCORE_NAMES = {"BLEU-4": "validation_bleu_4", "ROUGE-L": "validation_rouge_l", "CIDEr-D": "validation_cider_d"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Validator:
    """Scores a model on the validation split, of which every rank computes its share."""

    run: TrainRun
    shard_set: ShardSet
    ranks: tuple[int, int]
    """(rank, world size)."""
    device: torch.device
    """Device of the model."""
    heartbeat: Callable[[], None]
    """Function called for every batch, so that a long validation does not count as a hang."""

    def score(self, model: CaptionModel) -> dict[str, float]:
        """Return the validation loss, in nats per word, and the caption scores if they choose the best checkpoint.

        Every rank must call it.

        Args:
            model: the bare model, not its DDP replica.

        Raises:
            BadSampleError, FloatingPointError: raised on every rank, as by ``validation_loss``.
        """
        loss = validation_loss(model, self._batches(), config=self.run.training, device=self.device)
        if self.run.validation.best_by == VALIDATION_LOSS:
            return {VALIDATION_LOSS: loss}
        scores = caption_scores(model, self._batches(), self.shard_set, self.run, device=self.device)
        return {VALIDATION_LOSS: loss} | scores

    def _batches(self) -> Iterator[CaptionBatch]:
        batches = validation_batches(
            self.shard_set,
            self.run.validation_split,
            model=self.run.model,
            config=self.run.training,
            ranks=self.ranks,
            num_loader_processes=self.run.cluster.num_loader_processes,
        )
        for batch in batches:
            self.heartbeat()
            yield batch


@torch.no_grad()
def caption_scores(
    model: CaptionModel, batches: Iterable[CaptionBatch], shard_set: ShardSet, run: TrainRun, *, device: torch.device
) -> dict[str, float]:
    """Caption this rank's share of the validation split, and score the captions of all ranks.

    Every rank must call it.

    Args:
        model: the bare model, not its DDP replica.
        batches: batches of this rank's share.
        shard_set: shard set that the batches are read from.
        run: settings of the run: the validation split, beam size and caption length.
        device: device of the model.

    Returns:
        The caption scores of the whole split, by name; the same on every rank.
    """
    was_training = model.training
    model.eval()
    written: list[tuple[int, str]] = []
    for batch in batches:
        found = beam_search(
            model.decoder,
            model.encode(batch.to(device).images),
            beam_size=run.validation.beam_size,
            max_words=run.training.max_caption_words,
        )
        captions = [shard_set.vocabulary.decode(tokens[0]) for tokens in found.tokens.tolist()]
        written += zip(batch.positions(), captions, strict=False)  # a blank batch has no positions
    model.train(was_training)
    candidates: dict[ImageId, str] = dict(gather(written))
    reader = shard_set.reader(run.validation_split)
    references: dict[ImageId, tuple[str, ...]] = {number: reader.read(int(number)).captions for number in candidates}
    scored = score_captions(candidates, references, tokenizer=shard_set.vocabulary.tokenizer)
    scores = scored.as_dict()
    if scored.left_out and not (dist.is_initialized() and dist.get_rank()):
        logger.warning(
            "%d of %d validation images are left out of the caption scores, because no caption of theirs has a word "
            "(first: sample %s)",
            len(scored.left_out),
            len(candidates),
            scored.left_out[0],
        )
    return {name: scores[key] for key, name in SCORE_NAMES.items()}
