"""Self-critical sequence training: the captions of a batch are sampled by the model, and weighted by their reward.

The gradient is that of REINFORCE (Rennie, Marcheret, Mroueh, Ross and Goel, 2017, https://arxiv.org/abs/1612.00563,
equations 5 to 7) with another baseline: for each sample, the mean reward of the image's other samples (Luo, 2020,
https://arxiv.org/abs/2003.09971, equation 4). It is the gradient of the samples' cross-entropy with the differences as
weights, so all else is as in training by captions of people. Samples are hashes of seed, position and number: they
depend on neither the number of processes nor on the parts of a batch.

Shapes: B images, K samples of each, N captions, T words.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from captioning.config import OptimizerConfig, TrainingConfig
from captioning.data.batches import CaptionBatch, SampledCaptions
from captioning.data.vocabulary import BOS, PAD
from captioning.generation.sampling import sample
from captioning.hashing import fold
from captioning.model.caption_model import CaptionModel
from captioning.model.packing import Packing
from captioning.model.precision import autocast
from captioning.training.caption_reward import DocumentFrequencies, caption_rewards
from captioning.training.transfer import LoadedPart

_SAMPLING_SEED_OFFSET = 2


class SelfCritic:
    """Replaces the captions of batches by samples of the model, with their rewards.

    Args:
        model: the bare model, on its device.
        frequencies: document frequencies of the training split.
        config: settings of the samples, the reward, precision and seed.
        device: device of the model.
    """

    def __init__(
        self, model: CaptionModel, frequencies: DocumentFrequencies, *, config: TrainingConfig, device: torch.device
    ) -> None:
        self._model, self._frequencies, self._config, self._device = model, frequencies, config, device

    @torch.no_grad()
    def resample(self, part: LoadedPart) -> LoadedPart:
        """Return a part with K sampled captions of each image instead of its own; a blank part stays as it is.

        Args:
            part: part of a batch, with captions by people, which are the references.
        """
        batch, config = part.host, self._config
        if not batch.num_images:
            return part
        numbers = torch.arange(config.self_critical_samples)
        positions = torch.tensor(batch.positions())
        keys = fold(config.seed + _SAMPLING_SEED_OFFSET, positions[:, None], numbers).to(self._device)
        with autocast(config.precision, self._device):  # by the probabilities that the loss raises and lowers
            features = self._model.encode(part.batch.images)
            drawn = sample(self._model.decoder, features, keys=keys, max_words=config.max_caption_words)
        tokens = drawn.tokens.cpu()
        rewards = caption_rewards(
            tokens.numpy(),
            batch.tokens[:, 1:].numpy(),
            batch.image_of_caption.numpy(),
            self._frequencies,
            bleu_weight=config.self_critical_bleu_weight,
        )
        sampled = _with_samples(batch, tokens, positions, rewards, drawn.log_probability.cpu())
        on_device = sampled._replace(images=part.batch.images[:0]).to(self._device)
        # A frozen encoder need not run again: features pass through it.
        is_frozen = not any(weight.requires_grad for weight in self._model.encoder.parameters())
        images = features if is_frozen else part.batch.images
        return LoadedPart(sampled, on_device._replace(images=images), Packing.of(sampled.tokens).to(self._device))


def advantages(rewards: np.ndarray) -> np.ndarray:
    """Return each sample's reward minus the mean reward of the image's other samples: (B, K) -> (B, K)."""
    num_samples = rewards.shape[1]
    return (num_samples * rewards - rewards.sum(1, keepdims=True)) / (num_samples - 1)


def _with_samples(
    batch: CaptionBatch, tokens: Tensor, positions: Tensor, rewards: np.ndarray, log_probability: Tensor
) -> CaptionBatch:
    """Return a batch with sampled captions, (B, K, T), instead of its own."""
    num_images, num_samples, _ = tokens.shape
    rows = torch.arange(num_images).repeat_interleave(num_samples)
    words = torch.cat([torch.full((len(rows), 1), BOS), tokens.flatten(0, 1)], dim=1)
    longest = int((words != PAD).sum(1).max())
    weights, rewards_ = (torch.from_numpy(values.flatten()) for values in (advantages(rewards), rewards))
    return batch.with_tokens(words[:, :longest])._replace(
        image_of_caption=rows,
        position=positions[rows],
        caption=torch.arange(num_samples).repeat(num_images),
        sampled=SampledCaptions(weights, rewards_, log_probability.flatten()),
    )


def phase_optimizer(config: OptimizerConfig, training: TrainingConfig) -> OptimizerConfig:
    """Return the settings of the optimizer in self-critical training: a learning rate that stays as it is."""
    return replace(
        config,
        learning_rate=training.self_critical_learning_rate,
        encoder_delay_steps=0,
        warmup_steps=0,
        final_factor=1.0,
    )


def phase_training(config: TrainingConfig) -> TrainingConfig:
    """Return the settings of the loss in self-critical training, without label smoothing."""
    return replace(config, label_smoothing=0.0)
