"""The backbone: a torchvision classifier, cut after its last layer with a spatial output.

Shapes: B images, R regions, C channels, H x W cells of a feature map.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import Graph, GraphModule, Node
from torch.overrides import TorchFunctionMode
from torchvision.models.feature_extraction import NodePathTracer

from captioning.config import ModelConfig

logger = logging.getLogger(__name__)

_HEADS = ("classifier", "fc", "head", "heads")
_SHAPE_KEEPING = {F.batch_norm, F.gelu, F.hardsigmoid, F.hardswish, F.hardtanh, F.layer_norm, F.relu, F.relu6, F.silu}
_cuts: dict[tuple[str, int], tuple[Graph, int, int]] = {}


def build_classifier(config: ModelConfig, *, load_weights: bool) -> nn.Module:
    """Build the whole classifier, in eval mode.

    Args:
        config: settings of the model.
        load_weights: whether to load torchvision's weights, or draw random ones if ``config.weights`` is none.
            Otherwise, and for weights from a file, the parameters are uninitialized.

    Raises:
        ValueError: the classifier cannot take images of this size.
        ConnectionError: torchvision's weights cannot be downloaded.
    """
    has_values = load_weights and config.weights in ("DEFAULT", "none")
    weights = "DEFAULT" if has_values and config.weights == "DEFAULT" else None
    options = _classifier_options(config, is_pretrained=weights is not None, is_random=has_values)
    try:
        with contextlib.nullcontext() if has_values else ParametersOnMeta():
            classifier = torchvision.models.get_model(config.backbone, weights=weights, **options)
    except (ValueError, AssertionError) as error:
        raise _unfit_size(config, error) from error
    except OSError as error:
        raise _no_download(config.backbone, error) from error
    if not torch.empty(0).is_meta:  # on meta, the caller wants no memory either
        give_memory(classifier)
    return classifier.eval()


def fetch_weights(backbone: str) -> None:
    """Download torchvision's weights of a classifier into the cache of this machine, unless they are there.

    Raises:
        ConnectionError: they cannot be downloaded.
    """
    weights: Any = torchvision.models.get_model_weights(backbone)["DEFAULT"]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if (folder / weights.url.rpartition("/")[2]).is_file():
        return
    logger.info("downloading torchvision's weights of %s into %s", backbone, folder)
    try:
        weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise _no_download(backbone, error) from error


def _no_download(backbone: str, error: OSError) -> ConnectionError:
    return ConnectionError(
        f"torchvision's weights of {backbone} cannot be downloaded ({error}); "
        "set --model.weights to a local file or none"
    )


def cut_classifier(classifier: nn.Module, config: ModelConfig) -> tuple[GraphModule, int, int]:
    """Cut a classifier after the last layer with a spatial output, before its pooling and head.

    Where to cut is found once per process, backbone and image size, because that takes as long as building it.

    Returns:
        The backbone, its number of regions R, and its number of channels C.
    """
    key = (config.backbone, config.image_size_px)
    if key not in _cuts:
        backbone, num_regions, num_channels = _find_cut(classifier, config)
        _cuts[key] = (deepcopy(backbone.graph), num_regions, num_channels)  # without the module, and so the weights
    graph, num_regions, num_channels = _cuts[key]
    return GraphModule(classifier, deepcopy(graph)), num_regions, num_channels


def _find_cut(classifier: nn.Module, config: ModelConfig) -> tuple[GraphModule, int, int]:
    tracer = NodePathTracer()
    # Otherwise values computed from buffers are stored in the traced module's state.
    tracer.proxy_buffer_attributes = True
    graph = tracer.trace(classifier)
    named_nodes = tracer.node_to_qualname.items()
    if isinstance(classifier, torchvision.models.VisionTransformer):
        last = next(node for node, name in named_nodes if name == "encoder.ln")  # (B, 1 + R, C)
        return _ending_with(classifier, graph, last), classifier.seq_length - 1, classifier.hidden_dim
    nodes = [node for node, name in named_nodes if _has_regions(node, name)]
    maps = [(node, shape) for node, shape in _shapes(classifier, graph, nodes, config) if len(shape) == 4]
    last, (_, num_channels, height, width) = maps[-1]
    return _ending_with(classifier, graph, last), height * width, num_channels


def normalization(backbone: str) -> tuple[Sequence[float], Sequence[float]]:
    """Return the mean and standard deviation of each colour, from 0 to 1, that normalize a classifier's input."""
    transform: Any = torchvision.models.get_model_weights(backbone)["DEFAULT"].transforms()
    return transform.mean, transform.std


class ParametersOnMeta(TorchFunctionMode):
    """Creates layers' parameters on the meta device, without memory or random values, and nothing else.

    Some classifiers compute their sizes with tensors, so torch's own meta device does not build them.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401  whatever the function returns
        """Call a function of torch; ``torch.empty`` creates its tensor on the meta device."""
        if getattr(func, "__module__", None) == "torch.nn.init":  # there are no values to draw
            tensor: Tensor = args[0] if args else (kwargs or {})["tensor"]
            if tensor.is_meta:
                return tensor
        # Only parameters are created by ``torch.empty``; buffers and computed constants must keep their values.
        return func(*args, **((kwargs or {}) | ({"device": "meta"} if func is torch.empty else {})))


class _ShapesOnly(TorchFunctionMode):
    """Skips layers whose output has the shape of their input; on the meta device they take most of the time."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401  whatever the function returns
        """Call a function of torch, or return its input if the output has the same shape."""
        return args[0] if args and func in _SHAPE_KEEPING else func(*args, **(kwargs or {}))


def give_memory(model: nn.Module) -> None:
    """Replace parameters on the meta device with uninitialized ones on the CPU; what modules share stays shared."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, old in module.named_parameters(recurse=False):
            if old.is_meta:
                new = nn.Parameter(torch.empty_like(old, device="cpu"), requires_grad=old.requires_grad)
                setattr(module, name, made.setdefault(old, new))


def _classifier_options(config: ModelConfig, *, is_pretrained: bool, is_random: bool) -> dict[str, Any]:
    """Return options that build the same network for torchvision's weights and for a checkpoint's."""
    if config.backbone.startswith("vit_"):
        return {"image_size": config.image_size_px}
    if config.backbone.startswith("maxvit_"):
        return {"input_size": (config.image_size_px, config.image_size_px)}
    if config.backbone in ("googlenet", "inception_v3"):
        # torchvision sets this only for its own weights; without it, a resumed run would compute other features.
        return {"transform_input": True} | ({} if is_pretrained else {"init_weights": is_random})
    return {}


def _unfit_size(config: ModelConfig, error: Exception) -> ValueError:
    return ValueError(
        f"backbone {config.backbone} cannot take images of {config.image_size_px} px "
        f"({str(error).splitlines()[0]}); use another --model.image-size-px"
    )


def _has_regions(node: Node, name: str) -> bool:
    """Return whether a node, by its qualified name, can precede the classifier's pooling and head."""
    if node.op == "placeholder" or name.split(".")[0] in _HEADS or name.startswith("adaptive"):
        return False
    return "avgpool" not in name and "dropout" not in name


def _shapes(
    classifier: nn.Module, graph: Graph, nodes: Sequence[Node], config: ModelConfig
) -> list[tuple[Node, torch.Size]]:
    """Return the nodes with a tensor output, and its shape for one image; runs on the meta device, without values."""
    everything = _ending_with(classifier, graph, tuple(nodes))
    tensors = dict(everything.named_parameters()) | dict(everything.named_buffers())
    image = torch.empty(1, 3, config.image_size_px, config.image_size_px, device="meta")
    try:
        with torch.no_grad(), _ShapesOnly():
            outputs = functional_call(everything, {name: tensor.to("meta") for name, tensor in tensors.items()}, image)
    except (RuntimeError, AssertionError) as error:
        raise _unfit_size(config, error) from error
    made = zip(nodes, outputs, strict=True)
    return [(node, output.shape) for node, output in made if isinstance(output, Tensor)]


def _ending_with(classifier: nn.Module, graph: Graph, result: Node | tuple[Node, ...]) -> GraphModule:
    """Return the part of the classifier that computes one node, or several."""
    wanted = (result,) if isinstance(result, Node) else result
    for node in reversed(graph.nodes):
        if node in wanted:
            break
        graph.erase_node(node)
    graph.output(result)
    return GraphModule(classifier, graph)
