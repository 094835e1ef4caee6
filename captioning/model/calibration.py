"""Calibration: data-dependent initialization of a new model, from the first images of the training stream.

It depends only on the images, so it is the same on every rank and for any number of ranks.
"""

import torch
from torch import Tensor, nn

from captioning.config import ModelConfig
from captioning.model.caption_model import CaptionModel

NUM_CALIBRATION_IMAGES = 256
_CHUNK, _STANDARDIZING = 32, 64  # images per forward pass, limited by memory


@torch.no_grad()
def calibrate(model: CaptionModel, images: Tensor, config: ModelConfig) -> None:
    """Standardize the layers of an encoder without pretrained weights, and the features that the decoder reads.

    If such an encoder trains, each of its layers is scaled and shifted so that its outputs have mean 0 and standard
    deviation 1 over the images (Salimans and Kingma, 2016, https://arxiv.org/abs/1602.07868, section 3). The decoder
    centres its features: with a large common mean, they differ little between images, and the model learns to ignore
    them.

    Args:
        model: newly built model, on its device.
        images: (K, 3, S, S) uint8 pixels, or (K, R, C) features of a frozen encoder, on the model's device.
        config: settings of the model.
    """
    if config.weights == "none" and config.trainable_from:
        _standardize_layers(model, images)
    features = torch.cat([model.encode(chunk) for chunk in images.split(_CHUNK)])
    model.decoder.calibrate(features)


def _standardize_layers(model: CaptionModel, images: Tensor) -> None:
    hooks = [
        module.register_forward_hook(_standardize)
        for module in model.encoder.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None
    ]
    model.encoder(images[:_STANDARDIZING])
    for hook in hooks:
        hook.remove()


def _standardize(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Forward hook: standardize a layer's output by its weight and bias; return the new output for the next layer."""
    weight, bias = module.get_parameter("weight"), module.get_parameter("bias")
    channel = 1 if isinstance(module, nn.Conv2d) else output.ndim - 1
    others = [dimension for dimension in range(output.ndim) if dimension != channel]
    mean, deviation = output.mean(others), output.std(others).clamp(min=1e-6)
    weight.div_(deviation.view(-1, *[1] * (weight.ndim - 1)))
    bias.sub_(mean).div_(deviation)
    shape = [-1 if dimension == channel else 1 for dimension in range(output.ndim)]
    return (output - mean.view(shape)) / deviation.view(shape)
