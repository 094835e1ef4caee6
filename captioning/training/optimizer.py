"""AdamW and its learning rate schedule: linear warm-up, then cosine decay."""

import math

import torch

from captioning.config import OptimizerConfig
from captioning.model.caption_model import CaptionModel


def build_optimizer(model: CaptionModel, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters: vectors without decay, the encoder with its own learning rate."""
    groups = []
    for part, factor in ((model.encoder, config.encoder_learning_rate_factor), (model.decoder, 1.0)):
        parameters = [parameter for parameter in part.parameters() if parameter.requires_grad]
        for decay, chosen in (
            (config.weight_decay, [parameter for parameter in parameters if parameter.ndim > 1]),
            (0.0, [parameter for parameter in parameters if parameter.ndim <= 1]),
        ):
            if chosen:
                groups.append(
                    {"params": chosen, "weight_decay": decay, "factor": factor, "is_encoder": part is model.encoder}
                )
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def learning_rate_at(step: int, config: OptimizerConfig, *, num_steps: int) -> float:
    """Return the learning rate of a step, counted from 0: linear warm-up, then cosine decay.

    The decay is that of Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983, equation 5, without restarts.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return config.learning_rate * (config.final_factor + (1 - config.final_factor) * cosine)


def encoder_ramp_at(step: int, config: OptimizerConfig) -> float:
    """Return the factor on the encoder's learning rate at a step: 0 during the delay, then a linear rise to 1."""
    if not config.encoder_delay_steps:
        return 1.0
    return min(1.0, max(0.0, step / config.encoder_delay_steps - 1))
