import pytest
import torch

from captioning.config import ModelConfig
from captioning.model.calibration import calibrate
from captioning.model.caption_model import CaptionModel
from shards.synthetic.scenes import draw_scene, render
from tests.support.tiny_models import quick_draws

VOCABULARY_SIZE = 9


@pytest.fixture(scope="module")
def images():
    scenes = [render(draw_scene(0, index, size_px=64)) for index in range(32)]
    pixels = [torch.frombuffer(bytearray(scene.tobytes()), dtype=torch.uint8).view(64, 64, 3) for scene in scenes]
    return torch.stack(pixels).permute(0, 3, 1, 2)


def calibrated(images, **changes):
    settings = {"backbone": "squeezenet1_1", "weights": "none", "trainable_from": "all", "image_size_px": 64, **changes}
    config = ModelConfig(embedding_size=8, hidden_size=8, dropout=0.0, **settings)
    torch.manual_seed(0)
    with quick_draws():
        model = CaptionModel(config, vocabulary_size=VOCABULARY_SIZE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calibrate(model, images, config)
    return model, before


def outputs_of_layers(model, images):
    outputs = []
    layers = [module for module in model.encoder.modules() if isinstance(module, torch.nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[-1].clone())) for layer in layers]
    with torch.no_grad():
        model.encoder(images)
    for hook in hooks:
        hook.remove()
    return outputs


def test_every_layer_of_an_encoder_without_weights_is_standardised(images):
    model, _ = calibrated(images, backbone="alexnet")
    means, deviations = zip(
        *((out.mean((0, 2, 3)), out.std((0, 2, 3))) for out in outputs_of_layers(model, images)), strict=True
    )
    assert torch.cat(means).abs().max() < 1e-3
    assert (torch.cat(deviations) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("changes", [{"trainable_from": None}])
def test_an_encoder_that_does_not_train_keeps_its_weights(images, changes):
    model, before = calibrated(images, **changes)
    assert all(torch.equal(before[f"encoder.{name}"], tensor) for name, tensor in model.encoder.state_dict().items())


@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_what_the_decoder_reads_is_centred(images, pooling):
    model, _ = calibrated(images, pooling=pooling)
    with torch.no_grad():
        read = model.decoder.start(model.encoder(images))[2] - model.decoder.image_embedding.bias
    assert read.mean(0).abs().max() < 1e-4
    assert 0.5 < read.std(0).mean() < 2


def test_calibration_is_kept_with_the_weights(images):
    model, _ = calibrated(images)
    assert {"decoder.feature_mean", "decoder.feature_deviation"} <= set(model.state_dict())


def test_constant_images_are_no_division_by_zero():
    model, _ = calibrated(torch.zeros(4, 3, 64, 64, dtype=torch.uint8))
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
