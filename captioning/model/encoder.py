"""The encoder: region features of images, from any torchvision classifier.

Shapes: B images, R regions, C channels, S pixels per side.
"""

import difflib
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.fx import GraphModule

from captioning.config import ModelConfig, Precision
from captioning.model.folding import fold_batch_norms
from captioning.model.weights import is_weights_file, require_weights_file

_FEWEST_STAGES = 4


class Encoder(nn.Module):
    """A classifier without its pooling and head; always in eval mode, so that batch norm keeps its statistics.

    Args:
        config: settings of the model: classifier, weights, and the first stage to train.
        load_weights: whether to load ``config.weights``; otherwise parameters are uninitialized, to be loaded next.

    Raises:
        ValueError: the classifier or stage is unknown, or the image size or the weights do not fit.
        FileNotFoundError: the weights file does not exist.
        ConnectionError: torchvision's weights cannot be downloaded.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ModelConfig, *, load_weights: bool = True) -> None:
        # Importing torchvision takes as long as importing torch: processes that build no model do not wait for it.
        from captioning.model.backbone import build_classifier, cut_classifier, normalization

        super().__init__()
        self.image_size_px = config.image_size_px
        check_backbone(config.backbone)
        classifier = build_classifier(config, load_weights=load_weights)
        self.backbone, self.num_regions, self.num_channels = cut_classifier(classifier, config)
        if load_weights and is_weights_file(config.weights):
            _load(self.backbone, classifier, require_weights_file(config.weights))
        # On a CPU, convolutions are 1.3 to 3.3 times as fast in this layout, most of all in bfloat16.
        self.backbone.to(memory_format=torch.channels_last)
        for name, values in zip(("mean", "deviation"), normalization(config.backbone), strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        _freeze(self.backbone, config)
        self._folded: tuple[GraphModule, ...] = ()  # a tuple, because it is no part of the module's state
        self.is_held = False
        """Whether the trainable part does not learn yet, and gets no gradients."""
        self.is_replicated = False
        """Whether DDP wraps the model; a held part then gets zeros, because DDP waits for all of its gradients."""
        self.eval()

    def train(self, mode: bool = True) -> "Encoder":
        """Stay in eval mode, whatever ``mode`` is."""
        return super().train(False)

    def fold(self, precision: Precision) -> "Encoder":
        """Compute features faster from now on, with other rounding; return the encoder.

        Frozen batch norms are folded into convolutions, except in fp32 on a CPU: there, features have the same bits as
        in a training run. The state of the module does not change. Call this on the final device and after the weights
        are loaded.

        Args:
            precision: precision in which the encoder will compute.
        """
        if precision == "bf16" or self.mean.is_cuda:
            self._folded = (fold_batch_norms(self.backbone),)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Compute the region features of images.

        Args:
            images: (B, 3, S, S) uint8 pixels.

        Returns:
            (B, R, C) features.
        """
        if not (self.is_held and torch.is_grad_enabled()):
            return self._features(images)
        with torch.no_grad():
            features = self._features(images)
        if not self.is_replicated:
            return features
        return features + 0.0 * sum(weight.sum() for weight in self.parameters() if weight.requires_grad)

    def _features(self, images: Tensor) -> Tensor:
        values = images.to(self.mean.dtype, memory_format=torch.channels_last)
        backbone = self._folded[0] if self._folded else self.backbone
        features = backbone((values / 255 - self.mean) / self.deviation)
        if features.ndim == 3:  # a vision transformer, where the first token is the class token
            return features[:, 1:]
        return features.flatten(2).transpose(1, 2)


def check_backbone(name: str) -> None:
    """Check that torchvision has a classifier of this name.

    Raises:
        ValueError: there is none; the message lists similar names.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or known[:3]
        raise ValueError(f"backbone {name} is not a torchvision classifier; similar names are {', '.join(near)}")


def _load(backbone: GraphModule, classifier: nn.Module, path: Path) -> None:
    """Load a file of the classifier's weights; only weights of the head may be missing."""
    tensors = _read_weights(path)
    wanted = {
        name: tensor for name, tensor in backbone.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    known = classifier.state_dict()
    misfits = [f"{name} is missing" for name in wanted if name not in tensors]
    misfits += [f"{name} is unknown" for name in tensors if name not in known]
    misfits += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if misfits:
        raise ValueError(
            f"{path} does not fit the backbone: {misfits[0]} (mismatched tensors: {len(misfits)}); "
            "use weights of the same classifier"
        )
    backbone.load_state_dict({name: tensors[name] for name in wanted}, strict=False)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, weights_only=True, map_location="cpu")
        return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    except pickle.UnpicklingError:
        reason = "it holds more than tensors"  # torch's message recommends unsafe loading
    except Exception as error:  # the parsers of torch and safetensors raise many types
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise ValueError(f"{path} cannot be loaded safely ({reason}); use a .pth state dict or .safetensors")


def _freeze(backbone: GraphModule, config: ModelConfig) -> None:
    """Enable gradients only for the parameters from ``config.trainable_from`` on."""
    names = [name for name, _ in backbone.named_parameters()]
    stage = config.trainable_from
    starts = [
        index for index, name in enumerate(names) if stage == "all" or (stage and f"{name}.".startswith(f"{stage}."))
    ]
    if stage and not starts:
        raise ValueError(f"{config.backbone} has no stage {stage}; use all or one of {', '.join(_stages(names))}")
    for index, parameter in enumerate(backbone.parameters()):
        parameter.requires_grad_(bool(starts) and index >= starts[0])


def _stages(names: Sequence[str]) -> Sequence[str]:
    """Return the stages: the first part of the parameters' names, or the first two parts if one gives too few."""
    modules = [name.rpartition(".")[0] or name for name in names]
    first, second = (list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in modules)) for depth in (1, 2))
    return first if len(first) >= _FEWEST_STAGES else second
