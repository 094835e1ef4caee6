"""Validation by the ranks: all ranks together score the validation split while training pauses."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from captioning.data.batches import CaptionBatch
from captioning.evaluation.behaviour import caption_health
from captioning.evaluation.bootstrap import score_intervals
from captioning.evaluation.health import NUM_EXCHANGED
from captioning.evaluation.health_probe import probe_health
from captioning.evaluation.metrics import ImageId, score_captions
from captioning.generation.beam_search import beam_search
from captioning.model.caption_model import CaptionModel
from captioning.training.collectives import gather
from captioning.training.validation import validation_loss
from cluster.config import TrainRun
from cluster.data.loading import validation_batches
from cluster.data.shard_set import ShardSet
from cluster.runs.score_history import VALIDATION_LOSS
from cluster.runs.validation_captions import NUM_IMAGES, ValidationCaptions, save_captions

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

    keeps_captions: bool = True
    """Whether rank 0 keeps the captions of the first images in the run's folder, for the page of the run."""

    def score(self, model: CaptionModel, *, step: int) -> dict[str, float]:
        """Return the validation loss, in nats per word, the caption scores if they choose the best, and health metrics.

        Every rank must call it.

        Args:
            model: the bare model, not its DDP replica.
            step: number of training steps done.

        Raises:
            BadSampleError, FloatingPointError: raised on every rank, as by ``validation_loss``.
        """
        basic = {VALIDATION_LOSS: self.loss(model)} | self._probe(model)
        tokenizer = self.shard_set.vocabulary.tokenizer
        if self.run.validation.best_by == VALIDATION_LOSS:
            if not self.keeps_captions:
                return basic
            captions = self._captions(model, most=NUM_IMAGES)
            self._keep(step, captions, {})
            return basic | caption_health(captions.values(), tokenizer=tokenizer)
        captions = self._captions(model)
        reader = self.shard_set.reader(self.run.validation_split)
        references: dict[ImageId, tuple[str, ...]] = {number: reader.read(number).captions for number in captions}
        candidates: dict[ImageId, str] = {**captions}
        found = score_captions(candidates, references, tokenizer=tokenizer)
        if found.left_out and self.ranks[0] == 0:
            logger.warning(
                "%d of %d validation images are left out of the caption scores, because no caption of theirs has a "
                "word (first: sample %s)",
                len(found.left_out),
                len(candidates),
                found.left_out[0],
            )
        if self.keeps_captions:
            self._keep(step, captions, score_intervals(found.images) if self.ranks[0] == 0 else {})
        scores = found.as_dict()
        named = {name: scores[key] for key, name in SCORE_NAMES.items()}
        return basic | named | caption_health(captions.values(), tokenizer=tokenizer)

    def loss(self, model: CaptionModel) -> float:
        """Return the validation loss, in nats per word; every rank must call it."""
        return validation_loss(model, self._batches(), config=self.run.training, device=self.device)

    def _probe(self, model: CaptionModel) -> dict[str, float]:
        return probe_health(model, self._batches(most=NUM_EXCHANGED), config=self.run.training, device=self.device)

    def _captions(self, model: CaptionModel, *, most: int | None = None) -> dict[int, str]:
        """Return the captions of all images, or of the first ones, by number in the split; the same on every rank."""
        return caption_split(model, self._batches(most=most), self.shard_set, self.run, device=self.device)

    def _keep(self, step: int, captions: Mapping[int, str], intervals: Mapping[str, tuple[float, float]]) -> None:
        if self.ranks[0] == 0:
            named = {SCORE_NAMES[name]: ends for name, ends in intervals.items() if name in SCORE_NAMES}
            save_captions(self.run.folder, ValidationCaptions(step, captions, named))

    def _batches(self, *, most: int | None = None) -> Iterator[CaptionBatch]:
        batches = validation_batches(
            self.shard_set,
            self.run.validation_split,
            model=self.run.model,
            config=self.run.training,
            ranks=self.ranks,
            num_loader_processes=self.run.cluster.num_loader_processes if most is None else 0,
            num_cpus=self.run.cluster.cpus_per_worker,
            most=most,
        )
        for batch in batches:
            self.heartbeat()
            yield batch


@torch.no_grad()
def caption_split(
    model: CaptionModel, batches: Iterable[CaptionBatch], shard_set: ShardSet, run: TrainRun, *, device: torch.device
) -> dict[int, str]:
    """Caption this rank's share of the validation split, and gather the captions of all ranks.

    Every rank must call it.

    Args:
        model: the bare model, not its DDP replica.
        batches: batches of this rank's share.
        shard_set: shard set that the batches are read from.
        run: settings of the run: beam size and caption length.
        device: device of the model.

    Returns:
        The best caption of each image by its number in the split; the same on every rank.
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
    return dict(gather(written))
