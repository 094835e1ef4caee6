from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from captioning.model.encoder import Encoder
from tests.support.tiny_models import MODEL, quick_draws

IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def encoder_of(name, trainable_from=None):
    """Return an encoder whose batch norms have statistics, as after a training."""
    torch.manual_seed(0)
    with quick_draws():
        encoder = Encoder(replace(MODEL, backbone=name, trainable_from=trainable_from))
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return encoder


def folded(encoder):
    """Return the network that the encoder computes with, folded as on a GPU."""
    (network,) = encoder.fold("bf16")._folded
    return network


def num_batch_norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def small_densenet(*_, **__):
    return torchvision.models.DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8)


@pytest.mark.parametrize(("name", "num_left"), [("resnet18", 0), ("mobilenet_v2", 0), ("densenet121", 6)])
@torch.no_grad()
def test_a_folded_network_computes_the_same_features(monkeypatch, name, num_left):
    if name == "densenet121":  # half of its batch norms come before their convolution
        monkeypatch.setattr(torchvision.models, "get_model", small_densenet)
        monkeypatch.setattr("captioning.model.backbone._cuts", {})
    encoder = encoder_of(name)
    before = encoder(IMAGES)
    assert num_batch_norms(folded(encoder)) == num_left
    torch.testing.assert_close(encoder(IMAGES), before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))


def test_layers_that_train_are_not_folded_and_learn_as_before():
    encoder, other = encoder_of("resnet18", "layer4"), encoder_of("resnet18", "layer4")
    assert num_batch_norms(folded(encoder)) == 5
    for one in (encoder, other):
        one(IMAGES).square().mean().backward()
    learnt = [(name, weight.grad) for name, weight in encoder.named_parameters() if weight.grad is not None]
    assert [name for name, _ in learnt] == [name for name, weight in other.named_parameters() if weight.requires_grad]
    for name, gradient in learnt:
        torch.testing.assert_close(gradient, other.get_parameter(name).grad, rtol=1e-3, atol=1e-5)


def test_folding_changes_no_state():
    encoder = encoder_of("resnet18")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    after = encoder.fold("bf16").state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@torch.no_grad()
def test_features_in_fp32_on_a_cpu_keep_their_bits():
    encoder = encoder_of("resnet18")
    before = encoder(IMAGES)
    assert torch.equal(encoder.fold("fp32")(IMAGES), before)
