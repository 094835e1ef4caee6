from dataclasses import replace

import pytest
import torch
import torchvision

from captioning.model.backbone import build_classifier, cut_classifier, normalization
from captioning.model.encoder import Encoder
from tests.support.tiny_models import MODEL


@pytest.mark.parametrize(
    ("name", "regions", "channels"),
    [("resnet18", (2, 2), 512), ("squeezenet1_1", (3, 3), 512), ("swin_t", (2, 2), 768)],
)
def test_a_classifier_is_cut_where_its_output_has_regions(name, regions, channels):
    config = replace(MODEL, backbone=name, image_size_px=64)
    backbone, num_regions, num_channels = cut_classifier(build_classifier(config, load_weights=False), config)
    with torch.no_grad():
        shape = backbone.eval()(torch.zeros(1, 3, 64, 64)).shape
    assert (num_regions, num_channels, shape) == (regions[0] * regions[1], channels, (1, channels, *regions))


def test_each_of_two_that_are_cut_alike_keeps_its_own_weights():
    classifiers = [build_classifier(MODEL, load_weights=True) for _ in range(2)]
    cut = [cut_classifier(classifier, MODEL) for classifier in classifiers]
    assert cut[0][1:] == cut[1][1:]
    for classifier, (backbone, *_) in zip(classifiers, cut, strict=True):
        whole = classifier.state_dict()
        assert all(tensor.data_ptr() == whole[name].data_ptr() for name, tensor in backbone.state_dict().items())


def test_what_is_computed_of_buffers_adds_none_to_the_state(monkeypatch):
    monkeypatch.setattr("captioning.model.backbone._cuts", {})
    small = torchvision.models.MaxVit(
        input_size=(32, 32),
        stem_channels=8,
        partition_size=2,
        block_channels=[8],
        block_layers=[1],
        head_dim=8,
        stochastic_depth_prob=0.0,
    )
    backbone, *_ = cut_classifier(small, replace(MODEL, backbone="maxvit_t", image_size_px=32))
    assert [name for name in backbone.state_dict() if "constant" in name] == []
    assert any("relative_position" in name for name in backbone.state_dict())


def test_a_network_that_saw_other_pixels_gets_them():
    assert [normalization(name) for name in ("efficientnet_v2_l", "resnet18")] == [
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]


@pytest.mark.parametrize(
    ("name", "size_px", "reason"),
    [
        ("inception_v3", 40, "greater than actual input size"),
        ("alexnet", 20, "too small"),
        ("vit_b_16", 50, "indivisible by patch size"),
    ],
)
def test_an_image_size_that_does_not_fit_is_refused(name, size_px, reason):
    message = f"backbone {name} cannot take images of {size_px} px .*{reason}.*; use another --model.image-size-px"
    with pytest.raises(ValueError, match=message):
        Encoder(replace(MODEL, backbone=name, image_size_px=size_px), load_weights=False)


def test_a_pretrained_transformer_takes_its_own_image_size_only():
    with pytest.raises(ValueError, match=r"backbone vit_b_16 cannot take images of 36 px .*expected value 224"):
        Encoder(replace(MODEL, backbone="vit_b_16", weights="DEFAULT"))
