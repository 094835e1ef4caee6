from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from captioning.model.encoder import Encoder, check_backbone
from tests.support.case_table import each_case
from tests.support.tiny_models import MODEL, classifier_of

RESNET = replace(MODEL, backbone="resnet18")
IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def encoder_of(classifier, name):
    """Return an encoder with the classifier's weights, loaded like a checkpoint's."""
    encoder = Encoder(replace(MODEL, backbone=name, weights="DEFAULT"), load_weights=False)
    tensors = classifier.state_dict()
    encoder.backbone.load_state_dict({key: tensors[key] for key in encoder.backbone.state_dict()})
    return encoder


def normalized(images):
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)


def pooled_scores(classifier, features):
    """Apply the classifier's own pooling and head to features of the encoder."""
    if isinstance(classifier, torchvision.models.SqueezeNet):
        side = int(features.shape[1] ** 0.5)
        return classifier.classifier(features.transpose(1, 2).unflatten(2, (side, side))).flatten(1)
    pooled = features.mean(1)
    heads = [getattr(classifier, name) for name in ("fc", "classifier", "head") if hasattr(classifier, name)]
    return heads[0](pooled)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("squeezenet1_1", {}),
        ("mobilenet_v2", {}),
        ("mobilenet_v3_small", {}),  # has a convolution after its stages
        ("swin_t", {}),  # computes in channels-last order
        ("shufflenet_v2_x0_5", {}),  # pools by a function, not a layer
        ("googlenet", {"transform_input": True, "init_weights": False}),  # as torchvision builds it for its own weights
    ],
)
@torch.no_grad()
def test_features_are_what_the_classifier_pools(name, options):
    classifier = classifier_of(name, **options)
    encoder = encoder_of(classifier, name)
    torch.testing.assert_close(
        pooled_scores(classifier, encoder(IMAGES)), classifier(normalized(IMAGES)), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_a_vision_transformers_features_are_its_patches(monkeypatch):
    sizes = {"image_size": 36, "patch_size": 12, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 16}
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: torchvision.models.VisionTransformer(**sizes))
    monkeypatch.setattr("captioning.model.backbone._cuts", {})
    classifier, seen = torchvision.models.VisionTransformer(**sizes).eval(), []
    classifier.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = IMAGES[..., :36, :36]
    classifier(normalized(images))
    features = encoder_of(classifier, "vit_b_32")(images)
    torch.testing.assert_close(features, seen[0][:, 1:])


@pytest.mark.parametrize(
    ("name", "size_px", "shape"),
    [("resnet18", 96, (2, 9, 512)), ("squeezenet1_1", 64, (2, 9, 512)), ("vit_b_16", 32, (2, 4, 768))],
)
def test_features_are_regions_of_channels(name, size_px, shape):
    encoder = Encoder(replace(MODEL, backbone=name, image_size_px=size_px), load_weights=False)
    features = encoder(torch.zeros(2, 3, size_px, size_px, dtype=torch.uint8))
    assert (features.shape, encoder.num_regions, encoder.num_channels) == (shape, *shape[1:])


@pytest.mark.parametrize("mode", [True, False])
def test_it_is_in_eval_mode_whatever_it_is_told(mode):
    encoder = Encoder(RESNET, load_weights=False).train(mode)
    assert not any(module.training for module in encoder.modules() if isinstance(module, nn.BatchNorm2d))
    assert not encoder.training


def trained_names(**changes):
    encoder = Encoder(replace(RESNET, **changes), load_weights=False)
    return {name.removeprefix("backbone.") for name, one in encoder.named_parameters() if one.requires_grad}


def test_without_a_stage_it_is_frozen():
    assert trained_names() == set()


def test_all_trains_everything_but_the_head():
    names = {name for name, _ in classifier_of("resnet18").named_parameters()}
    assert trained_names(trainable_from="all") == {name for name in names if not name.startswith("fc.")}


@pytest.mark.parametrize(
    ("name", "stage", "first", "last_frozen"),
    [
        ("resnet18", "layer4", "layer4.0.conv1.weight", "layer3.1.bn2.bias"),
        ("resnet18", "layer4.1", "layer4.1.conv1.weight", "layer4.0.downsample.1.bias"),
        ("squeezenet1_1", "features.12", "features.12.squeeze.weight", "features.11.expand3x3.bias"),
    ],
)
def test_a_stage_trains_from_its_first_parameter_on(name, stage, first, last_frozen):
    config = replace(MODEL, backbone=name, trainable_from=stage)
    encoder = Encoder(config, load_weights=False)
    flags = [(key.removeprefix("backbone."), one.requires_grad) for key, one in encoder.named_parameters()]
    start = flags.index((first, True))
    assert (flags[start - 1], {flag for _, flag in flags[:start]}, {flag for _, flag in flags[start:]}) == (
        (last_frozen, False),
        {False},
        {True},
    )


@pytest.mark.parametrize(
    ("name", "stage", "stages"),
    [
        ("resnet18", "layer9", "conv1, bn1, layer1, layer2, layer3, layer4$"),
        ("squeezenet1_1", "features.1", r"features\.0, features\.3, .*, features\.12$"),  # must not match features.12
    ],
)
def test_an_unknown_stage_is_refused_with_those_there_are(name, stage, stages):
    with pytest.raises(ValueError, match=f"{name} has no stage {stage}; use all or one of {stages}"):
        Encoder(replace(MODEL, backbone=name, trainable_from=stage), load_weights=False)


@each_case(
    ("name", "near"),
    [("resnet125", "resnet152"), ("ResNet18", "resnet18"), ("mobilenet2", "mobilenet_v2"), ("", "alexnet")],
)
def test_an_unknown_backbone_is_refused_with_the_nearest(name, near):
    with pytest.raises(
        ValueError, match=f"backbone {name} is not a torchvision classifier; similar names are .*{near}"
    ):
        check_backbone(name)
