"""Weights load from files that fit and are safe; other files are refused."""

import hashlib
import io
import pickle
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from captioning.data.pixels import decode_image
from captioning.model.backbone import fetch_weights
from captioning.model.encoder import Encoder
from captioning.model.weights import weights_identity
from tests.support.tiny_models import MODEL, batch, classifier_of

RESNET = replace(MODEL, backbone="resnet18")


@pytest.mark.parametrize("weights", ["mobilenet_v2-imagenet-features.pth", "squeezenet1_1-imagenet.pth"])
@torch.no_grad()
def test_real_weights_describe_a_photograph(shared_data, weights):
    photograph = decode_image(min((shared_data / "coco-mini" / "images").glob("*.jpg")).read_bytes(), 224)
    config = replace(MODEL, backbone=weights.split("-")[0], weights=str(shared_data / "weights" / weights))
    features = Encoder(replace(config, image_size_px=224))(photograph[None])
    assert torch.isfinite(features).all()
    assert features.std() > 0.1


def test_weights_that_do_not_download_are_named(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(
        ConnectionError,
        match=r"weights of resnet18 cannot be downloaded .*no route.*; set --model.weights to a local file",
    ):
        Encoder(replace(RESNET, weights="DEFAULT"))
    with pytest.raises(ConnectionError, match=r"weights of resnet18 cannot be downloaded"):
        fetch_weights("resnet18")


def test_weights_that_are_here_are_not_downloaded_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", None)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth").touch()
    fetch_weights("resnet18")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("has_head", [True, False])
def test_a_weights_file_of_either_kind_loads_with_or_without_its_head(tmp_path, suffix, has_head):
    tensors = classifier_of("squeezenet1_1").state_dict()
    tensors = {name: tensor for name, tensor in tensors.items() if has_head or not name.startswith("classifier.")}
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tensors, path)
    backbone = Encoder(replace(MODEL, weights=str(path))).backbone
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in backbone.state_dict().items())


def test_weights_without_counters_of_batches_load(tmp_path):
    # Files older than torch 0.4.1 have no counters, and eval mode reads none.
    tensors = classifier_of("resnet18").state_dict()
    torch.save(
        {key: one for key, one in tensors.items() if not key.endswith("num_batches_tracked")}, tmp_path / "w.pth"
    )
    encoder = Encoder(replace(RESNET, weights=str(tmp_path / "w.pth")))
    assert int(encoder.backbone.state_dict()["bn1.num_batches_tracked"]) == 0


def changed(**changes):
    """Return the weights of a classifier with some added, replaced, or (if None) removed."""
    tensors = classifier_of("squeezenet1_1").state_dict() | changes.pop("also", {})
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


@pytest.mark.parametrize(
    ("also", "misfit"),
    [
        (
            {"features.0.weight": None, "features.0.bias": None},
            r"features\.0\.weight is missing \(mismatched tensors: 2\)",
        ),
        ({"layer1.weight": torch.zeros(1)}, r"layer1\.weight is unknown \(mismatched tensors: 1\)"),
        ({"features.0.bias": torch.zeros(3)}, r"features\.0\.bias is \(3,\), not \(64,\) \(mismatched tensors: 1\)"),
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
    """Content of a malicious file: unpickling it creates a file."""

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
    with pytest.raises(ValueError, match=rf"{name} cannot be loaded safely \(.*({reason}).*use a \.pth"):
        Encoder(replace(MODEL, weights=str(path)))


@pytest.mark.parametrize("save", [torch.save, lambda found, path: path.write_bytes(pickle.dumps(found, protocol=2))])
def test_a_malicious_file_is_refused_and_not_run(tmp_path, save):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    save({"features.0.weight": Command(trace)}, path)
    with pytest.raises(ValueError, match=r"cannot be loaded safely \(it holds more than tensors\)"):
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
