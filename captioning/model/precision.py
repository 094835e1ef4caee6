"""Precision of a model's computation: float32, or bfloat16 where that is safe. Weights stay in float32."""

import torch

from captioning.config import Precision


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the autocast context in which a model computes in a precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
