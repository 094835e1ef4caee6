import hashlib
import io
import pickle
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from tiny import MODEL, batch
from torch import nn

from captioning.backbone import normalization
from captioning.encoder import Encoder, check_backbone
from captioning.pixels import decode_image
from captioning.weights import weights_identity

RESNET = replace(MODEL, backbone="resnet18")
IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def classifier_of(name, **options):
    """Return a classifier with random weights, and batch-norm statistics that are not the trivial ones."""
    torch.manual_seed(0)
    classifier = torchvision.models.get_model(name, weights=None, **options).eval()
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return classifier


def encoder_of(classifier, name):
    """Return an encoder with the classifier's weights, put into it as a checkpoint's are."""
    encoder = Encoder(replace(MODEL, backbone=name, weights="DEFAULT"), load_weights=False)
    tensors = classifier.state_dict()
    encoder.backbone.load_state_dict({key: tensors[key] for key in encoder.backbone.state_dict()})
    return encoder


def normalized(images):
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)


def pooled_scores(classifier, features):
    """Finish what the encoder leaves out: pool its features as the classifier does, and score the classes."""
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
        ("mobilenet_v3_small", {}),  # a convolution after its stages
        ("swin_t", {}),  # channels last inside
        ("shufflenet_v2_x0_5", {}),  # pooled by a function, not a layer
        ("googlenet", {"transform_input": True, "init_weights": False}),  # as torchvision makes it for its own weights
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
def test_a_vision_transformers_features_are_its_patches():
    classifier = classifier_of("vit_b_32", image_size=64)
    seen = []
    classifier.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    classifier(normalized(IMAGES))
    features = encoder_of(classifier, "vit_b_32")(IMAGES)
    torch.testing.assert_close(features, seen[0][:, 1:])


@pytest.mark.parametrize(
    ("name", "size_px", "shape"),
    [("resnet18", 96, (2, 9, 512)), ("squeezenet1_1", 64, (2, 9, 512)), ("vit_b_16", 32, (2, 4, 768))],
)
def test_features_are_regions_of_channels(name, size_px, shape):
    encoder = Encoder(replace(MODEL, backbone=name, image_size_px=size_px), load_weights=False)
    features = encoder(torch.zeros(2, 3, size_px, size_px, dtype=torch.uint8))
    assert (features.shape, encoder.num_regions, encoder.num_channels) == (shape, *shape[1:])


def test_what_is_computed_of_buffers_adds_none_to_the_state():
    encoder = Encoder(replace(MODEL, backbone="maxvit_t", image_size_px=224), load_weights=False)
    assert [name for name in encoder.state_dict() if "constant" in name] == []


def test_a_network_that_saw_other_pixels_gets_them():
    assert [normalization(name) for name in ("efficientnet_v2_l", "resnet18")] == [
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]


@pytest.mark.parametrize("weights", ["mobilenet_v2-imagenet-features.pth", "squeezenet1_1-imagenet.pth"])
@torch.no_grad()
def test_real_weights_describe_a_photograph(shared_data, weights):
    photograph = decode_image(min((shared_data / "coco-mini" / "images").glob("*.jpg")).read_bytes(), 224)
    config = replace(MODEL, backbone=weights.split("-")[0], weights=str(shared_data / "weights" / weights))
    features = Encoder(replace(config, image_size_px=224))(photograph[None])
    assert torch.isfinite(features).all()
    assert features.std() > 0.1


@pytest.mark.parametrize("mode", [True, False])
def test_it_is_in_eval_mode_whatever_it_is_told(mode):
    encoder = Encoder(RESNET).train(mode)
    assert not any(module.training for module in encoder.modules() if isinstance(module, nn.BatchNorm2d))
    assert not encoder.training


def trained_names(**changes):
    encoder = Encoder(replace(RESNET, **changes))
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
    flags = [(key.removeprefix("backbone."), one.requires_grad) for key, one in Encoder(config).named_parameters()]
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
        ("squeezenet1_1", "features.1", r"features\.0, features\.3, .*, features\.12$"),  # not features.12
    ],
)
def test_an_unknown_stage_is_refused_with_those_there_are(name, stage, stages):
    with pytest.raises(ValueError, match=f"{name} has no stage {stage}; use all or one of {stages}"):
        Encoder(replace(MODEL, backbone=name, trainable_from=stage))


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet125", "resnet152"), ("ResNet18", "resnet18"), ("mobilenet2", "mobilenet_v2"), ("", "alexnet")],
)
def test_an_unknown_backbone_is_refused_with_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"backbone {name} is no torchvision classifier; the nearest are .*{near}"):
        check_backbone(name)


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
        Encoder(replace(MODEL, backbone=name, image_size_px=size_px))


def test_a_pretrained_transformer_takes_its_own_image_size_only():
    with pytest.raises(ValueError, match=r"backbone vit_b_16 cannot take images of 64 px .*expected value 224"):
        Encoder(replace(MODEL, backbone="vit_b_16", weights="DEFAULT"))


def test_weights_that_do_not_download_are_named(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(ConnectionError, match=r"weights of resnet18 do not download .*no route.*; give a local file"):
        Encoder(replace(RESNET, weights="DEFAULT"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("has_head", [True, False])
def test_a_weights_file_of_either_kind_loads_with_or_without_its_head(tmp_path, suffix, has_head):
    tensors = classifier_of("resnet18").state_dict()
    tensors = {name: tensor for name, tensor in tensors.items() if has_head or not name.startswith("fc.")}
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tensors, path)
    backbone = Encoder(replace(RESNET, weights=str(path))).backbone
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in backbone.state_dict().items())


def test_weights_without_counters_of_batches_load(tmp_path):
    # Files older than torch 0.4.1 have none, and eval mode reads none.
    tensors = classifier_of("resnet18").state_dict()
    torch.save(
        {key: one for key, one in tensors.items() if not key.endswith("num_batches_tracked")}, tmp_path / "w.pth"
    )
    encoder = Encoder(replace(RESNET, weights=str(tmp_path / "w.pth")))
    assert int(encoder.backbone.state_dict()["bn1.num_batches_tracked"]) == 0


def changed(**changes):
    """Return the weights of a classifier with some added, replaced or, as None, left out."""
    tensors = classifier_of("squeezenet1_1").state_dict() | changes.pop("also", {})
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


@pytest.mark.parametrize(
    ("also", "misfit"),
    [
        ({"features.0.weight": None, "features.0.bias": None}, r"features\.0\.weight is missing \(2 such\)"),
        ({"layer1.weight": torch.zeros(1)}, r"layer1\.weight is unknown \(1 such\)"),
        ({"features.0.bias": torch.zeros(3)}, r"features\.0\.bias is \(3,\), not \(64,\) \(1 such\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_first_misfit(tmp_path, also, misfit):
    path = tmp_path / "weights.pth"
    torch.save(changed(also=also), path)
    with pytest.raises(ValueError, match=rf"weights\.pth does not fit the backbone: {misfit}; use weights of the same"):
        Encoder(replace(MODEL, weights=str(path)))


def test_a_head_of_other_classes_does_not_matter(tmp_path):
    torch.save(changed(also={"classifier.1.weight": torch.zeros(7, 512, 1, 1)}), tmp_path / "weights.pth")
    assert Encoder(replace(MODEL, weights=str(tmp_path / "weights.pth"))).num_channels == 512


def saved(found):
    buffer = io.BytesIO()
    torch.save(found, buffer)
    return buffer.getvalue()


class Command:
    """What a malicious file holds: unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("weights.pth", b"hello, these are no weights\n", "KeyError"),
        ("weights.pth", b"", "EOFError"),
        ("weights.pth", saved([torch.zeros(1)]), "AttributeError"),
        ("weights.pth", pickle.dumps([1, 2], protocol=2), "Invalid magic number"),
        ("weights.safetensors", b"hello, these are no weights\n", "SafetensorError"),
        ("weights.safetensors", b"", "SafetensorError"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} holds no weights that load safely \(.*({reason}).*use a \.pth"):
        Encoder(replace(MODEL, weights=str(path)))


@pytest.mark.parametrize("save", [torch.save, lambda found, path: path.write_bytes(pickle.dumps(found, protocol=2))])
def test_a_malicious_file_is_refused_and_not_run(tmp_path, save):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    save({"features.0.weight": Command(trace)}, path)
    with pytest.raises(ValueError, match=r"holds no weights that load safely \(it holds more than tensors\)"):
        Encoder(replace(MODEL, weights=str(path)))
    assert not trace.exists()


def test_a_missing_weights_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.pth does not exist; give a file, DEFAULT or none"):
        Encoder(replace(MODEL, weights=str(tmp_path / "no.pth")))


@pytest.mark.parametrize("weights", ["DEFAULT", "none"])
def test_named_weights_are_identified_by_their_name(weights):
    assert weights_identity(weights) == weights


def test_a_weights_file_is_identified_by_its_content(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"anything")
    assert weights_identity(str(tmp_path / "weights.pth")) == f"sha256:{hashlib.sha256(b'anything').hexdigest()}"


def test_a_weights_file_to_be_identified_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.pth does not exist"):
        weights_identity(str(tmp_path / "no.pth"))


def test_half_precision_weights_load(tmp_path):
    tensors = {name: tensor.half() for name, tensor in classifier_of("squeezenet1_1").state_dict().items()}
    torch.save(tensors, tmp_path / "weights.pth")
    features = Encoder(replace(MODEL, weights=str(tmp_path / "weights.pth")))(batch(range(2)).images)
    assert features.dtype == torch.float32
