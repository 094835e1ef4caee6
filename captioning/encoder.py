"""Any torchvision classifier -> region features.

Shapes: B images, R regions, C channels, S pixels a side.
"""

import difflib
import hashlib
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.fx import GraphModule
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from captioning.config import ModelConfig

# The normalisation that torchvision's classifiers were trained with.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HEADS = ("classifier", "fc", "head", "heads")
_FEATURES = "features"


class Encoder(nn.Module):
    """A classifier without its pooling and head; always in eval mode, so that its batch-norm never learns from a batch.

    Args:
        config: which classifier, its weights and which part of it trains.
        load_weights: start from ``config.weights``; otherwise from any values, to be overwritten.

    Raises:
        ValueError: the classifier or stage is not known, or the weights do not fit.
        FileNotFoundError: the weights file does not exist.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ModelConfig, *, load_weights: bool = True) -> None:
        super().__init__()
        classifier = _classifier(config, load_weights=load_weights)
        self.backbone, self.num_channels = _cut(classifier, config)
        if load_weights and is_weights_file(config.weights):
            _load(self.backbone, classifier, Path(config.weights))
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(3, 1, 1), persistent=False)
        _freeze(self.backbone, config)

    def train(self, mode: bool = True) -> "Encoder":
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Describe the regions of images.

        Args:
            images: (B, 3, S, S) uint8.

        Returns:
            (B, R, C) features.
        """
        pixels = (images.to(self.mean.dtype) / 255 - self.mean) / self.deviation
        features = self.backbone(pixels)[_FEATURES]
        if features.ndim == 3:  # a vision transformer: the first token is the class
            return features[:, 1:]
        return features.flatten(2).transpose(1, 2)


def is_weights_file(weights: str) -> bool:
    """Return whether the weights are a local file's, not torchvision's own or none."""
    return weights not in ("DEFAULT", "none")


def weights_identity(weights: str) -> str:
    """Return what the weights are, wherever they lie: their name, or the sha256 of their file."""
    if not is_weights_file(weights):
        return weights
    return f"sha256:{hashlib.sha256(_require_file(Path(weights)).read_bytes()).hexdigest()}"


def check_backbone(name: str) -> None:
    """Check that torchvision has a classifier of this name.

    Raises:
        ValueError: it has not; the message names the nearest.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or known[:3]
        raise ValueError(f"backbone {name} is no torchvision classifier; the nearest are {', '.join(near)}")


def _require_file(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist; give a file, DEFAULT or none")
    return path


def _classifier(config: ModelConfig, *, load_weights: bool) -> nn.Module:
    check_backbone(config.backbone)
    weights = "DEFAULT" if load_weights and config.weights == "DEFAULT" else None
    asks_for_initial_weights = config.backbone in ("googlenet", "inception_v3") and not weights
    options = {"init_weights": True} if asks_for_initial_weights else {}
    return torchvision.models.get_model(config.backbone, weights=weights, **options).eval()


def _cut(classifier: nn.Module, config: ModelConfig) -> tuple[GraphModule, int]:
    """Cut a classifier after the last layer whose output still has regions; also its number of channels."""
    if isinstance(classifier, torchvision.models.VisionTransformer):
        backbone = create_feature_extractor(classifier, {"encoder.ln": _FEATURES}, suppress_diff_warning=True)
        return backbone, classifier.hidden_dim
    names = [
        name
        for name in get_graph_node_names(classifier, suppress_diff_warning=True)[1]
        if name.split(".")[0] not in _HEADS and "avgpool" not in name and "dropout" not in name
    ]
    probe = torch.zeros(1, 3, config.image_size_px, config.image_size_px)
    try:
        with torch.no_grad():
            outputs = create_feature_extractor(classifier, names, suppress_diff_warning=True)(probe)
    except RuntimeError as error:
        raise ValueError(
            f"backbone {config.backbone} cannot take images of {config.image_size_px} px "
            f"({str(error).splitlines()[0]}); use a larger --model.image-size-px"
        ) from error
    maps = [name for name in names if isinstance(outputs[name], Tensor) and outputs[name].ndim == 4]
    last = next(name for name in reversed(maps) if not name.startswith("adaptive"))
    return create_feature_extractor(classifier, {last: _FEATURES}, suppress_diff_warning=True), outputs[last].shape[1]


def _load(backbone: GraphModule, classifier: nn.Module, path: Path) -> None:
    """Load a file of the classifier's weights; it may lack the head, and nothing else."""
    _require_file(path)
    try:
        found = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, weights_only=True, map_location="cpu")
        )
        tensors = {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    except Exception as error:  # torch and safetensors raise whatever their parsers meet
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} holds no weights that load safely ({reason}); use a .pth state dict or .safetensors"
        ) from error
    wanted = {
        name: tensor for name, tensor in backbone.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    misfits = [f"{name} is missing" for name in wanted if name not in tensors]
    misfits += [f"{name} is unknown" for name in tensors if name not in classifier.state_dict()]
    misfits += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if misfits:
        raise ValueError(
            f"{path} does not fit the backbone: {misfits[0]} ({len(misfits)} such); use weights of the same classifier"
        )
    backbone.load_state_dict({name: tensors[name] for name in backbone.state_dict() if name in tensors}, strict=False)


def _freeze(backbone: GraphModule, config: ModelConfig) -> None:
    """Leave gradients to the parameters from the named stage on."""
    names = [name for name, _ in backbone.named_parameters()]
    stage = config.trainable_from
    starts = [
        index for index, name in enumerate(names) if stage == "all" or (stage and f"{name}.".startswith(f"{stage}."))
    ]
    if stage and not starts:
        stages = dict.fromkeys(
            ".".join(name.split(".")[:2]).removesuffix(".weight").removesuffix(".bias") for name in names
        )
        raise ValueError(f"{config.backbone} has no stage {stage}; use all or one of {', '.join(stages)}")
    for index, parameter in enumerate(backbone.parameters()):
        parameter.requires_grad_(bool(starts) and index >= starts[0])
