import hashlib
import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from captioning.data.vocabulary import Vocabulary
from captioning.training import checkpoint
from captioning.training.checkpoint import load_model, restore
from captioning.training.checkpoint_description import describe_checkpoint, inference_files, seal
from tests.support.checkpoints import save, trained
from tests.support.tiny_models import VOCABULARY, training_state


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save(tmp_path_factory.mktemp("run") / "checkpoint", trained())


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Return a checkpoint with no file equal to the original's."""
    more = Vocabulary([*VOCABULARY.words, "more"])
    return save(tmp_path_factory.mktemp("run") / "other", trained(num_steps=1), vocabulary=more, config="name: s\n")


@pytest.fixture
def folder(original, tmp_path):
    """Return a copy that a test may damage."""
    return shutil.copytree(original, tmp_path / "checkpoint")


def edit_description(folder, **changes):
    """Change a description, and renew its own digest."""
    path = folder / "checkpoint.json"
    content = json.loads(path.read_text())
    del content["digest"]
    path.write_bytes(seal(content | changes))


def digests(folder):
    """Return the actual digests of a checkpoint's files."""
    names = json.loads((folder / "checkpoint.json").read_text())["files"]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def truncated(size):
    return lambda content: content[:size]


def flipped(index):
    """Return a function that flips one bit, in the byte at an index or at a fraction of the length."""

    def flip(content):
        where = int(index * len(content)) if isinstance(index, float) else index
        altered = bytearray(content)
        altered[where] ^= 1 << where % 8
        return bytes(altered)

    return flip


DAMAGES = {
    "is empty": truncated(0),
    "ends after its first byte": truncated(1),
    "ends in its middle": lambda content: content[: len(content) // 2],
    "lacks its last byte": truncated(-1),
    "goes on for a byte": lambda content: content + b"\n",
    "has another bit at its start": flipped(0),
    "has another bit in its middle": flipped(0.5),
    "has another bit at its end": flipped(-1),
}
FILE_NAMES = ["checkpoint.json", "model.safetensors", "optimizer.pt", "vocabulary.txt", "config.yaml"]


@pytest.mark.faults
@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_damaged_file_is_named_however_it_is_damaged(folder, name):
    content = (folder / name).read_bytes()
    reason = r"is damaged \(.*\)" if name == "checkpoint.json" else "is missing or altered"
    for damage in DAMAGES.values():
        (folder / name).write_bytes(damage(content))
        with pytest.raises(ValueError, match=f"{name} {reason}; use another checkpoint"):
            describe_checkpoint(folder)


@pytest.mark.faults
def test_no_altered_bit_of_a_description_goes_unseen(folder):
    path = folder / "checkpoint.json"
    content = path.read_bytes()
    for index in range(len(content)):
        path.write_bytes(flipped(index)(content))
        with pytest.raises(ValueError, match=r"checkpoint\.json is damaged|use a newer release"):
            describe_checkpoint(folder)


@pytest.mark.faults
@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_file_of_another_checkpoint_is_noticed(folder, other, name):
    shutil.copyfile(other / name, folder / name)
    with pytest.raises(ValueError, match=r"is missing or altered; use another checkpoint"):
        describe_checkpoint(folder)


@pytest.mark.parametrize("make", [lambda path: path.touch(), lambda path: path.mkdir()])
def test_a_file_too_many_is_named(folder, make):
    make(folder / "notes")
    with pytest.raises(ValueError, match="notes is not part of the checkpoint; remove it from the folder"):
        describe_checkpoint(folder)


def test_hidden_files_of_the_operating_system_do_not_matter(folder):
    (folder / ".DS_Store").touch()
    assert describe_checkpoint(folder)
    assert ".DS_Store" not in inference_files(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.txt", "config.yaml"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing or altered"):
        load_model(folder)


def test_a_folder_without_description_is_no_checkpoint(folder):
    (folder / "checkpoint.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"is not a checkpoint: it has no checkpoint\.json; give a checkpoint's"
    ):
        describe_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"format_version": 1, "st', "Unterminated string"),
        (b"\xff\xfe\x00", "can't decode"),
        (b"[]", "it is not a JSON object"),
        (b"[" * 200_000, "maximum recursion depth"),
        (b" " * (2**24 + 1), "it has 16777217 bytes"),
        (b'{"format_version": 1}', "step Field required"),
        (b'{"format_version": 2}', "its digest does not match"),
        (b'{"format_version": 0}', "it has format version 0, which no release wrote"),
        (b'{"format_version": true}', "it has format version True, which"),
        (b"{}", "it has format version None, which"),
    ],
)
def test_a_garbled_description_is_named(folder, content, reason):
    (folder / "checkpoint.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"checkpoint\.json is damaged \(.*{reason}.*\); use another checkpoint"):
        describe_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"files": {}}, "it does not list config.yaml"),  # otherwise no file would be verified
        ({"model": {"dropout": 2.0}}, "dropout 2.0 is not a fraction"),
        ({"model": {"image_size_px": 10**6}}, "image_size_px 1000000 is too large; use at most 1024"),
        ({"model": {"decoder": "gru"}}, "Input should be 'lstm', 'attend' or 'transformer'"),
        ({"model": {"decoder": "transformer", "num_layers": 10**6}}, "num_layers 1000000 is too large; use at most 64"),
        ({"model": {"decoder": "attend", "num_heads": 10**6}}, "num_heads 1000000 is too large; use at most 64"),
        ({"model": {"num_heads": 8}}, "num_heads 8 is a setting of decoders attend and transformer, not of lstm"),
        ({"max_caption_words": 10**9}, "max_caption_words 1000000000 is not from 1 to 1000"),
        ({"max_caption_words": 0}, "max_caption_words 0 is not from 1 to 1000"),
        ({"files": {"../../secret": "0"}}, "it lists ../../secret, which is not in its folder"),
        ({"step": "many"}, "step Input should be a valid integer"),
    ],
)
def test_a_description_that_says_nonsense_is_refused(folder, changes, reason):
    edit_description(folder, **changes)
    with pytest.raises(ValueError, match=rf"checkpoint\.json is damaged \(.*{reason}"):
        describe_checkpoint(folder)


def test_a_newer_formats_checkpoint_is_refused(folder):
    edit_description(folder, format_version=4)
    with pytest.raises(
        ValueError, match="has format version 4, but this release reads only up to 3; use a newer release, such as"
    ):
        describe_checkpoint(folder)


class Command:
    """Content of a malicious file: unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("write", [torch.save, lambda found, path: path.write_bytes(pickle.dumps(found, protocol=2))])
def test_a_malicious_optimizers_state_is_refused_and_not_run(folder, tmp_path, write):
    trace = tmp_path / "trace"
    write({"state": Command(trace)}, folder / "optimizer.pt")
    edit_description(folder, files=digests(folder))
    with pytest.raises(
        ValueError, match=r"optimizer\.pt is unsafe: it holds more than tensors and numbers; use another"
    ):
        restore(training_state(trainable_from="features.12"), folder, VOCABULARY)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "tensor"),
    [
        ({"hidden_size": 16_000}, r"decoder\.\S+ has shape \[.*\] and not \[.*\]"),
        ({"backbone": "vgg19"}, r"\S+ has shape .* and not .*"),
        ({"embedding_size": 17}, r"decoder\.\S+ has shape .* and not .*"),
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused_before_a_model_is_built(folder, monkeypatch, change, tensor):
    model = json.loads((folder / "checkpoint.json").read_text())["model"]
    edit_description(folder, model=model | change)
    monkeypatch.setattr(checkpoint, "load_file", None)
    with pytest.raises(ValueError, match=rf"safetensors does not fit the model: {tensor}; use another checkpoint"):
        load_model(folder)


def test_a_vocabulary_of_another_size_than_the_weights_is_refused(folder):
    with (folder / "vocabulary.txt").open("a") as file:
        file.write("more\n")
    edit_description(folder, files=digests(folder))
    with pytest.raises(ValueError, match=r"does not fit the model: decoder\.output\.bias has shape"):
        load_model(folder)


def test_weights_of_another_shape_are_not_restored(folder):
    model = training_state(trainable_from="features.12").model
    save_file({**load_file(folder / "model.safetensors"), "more": model.encoder.mean}, folder / "model.safetensors")
    edit_description(folder, files=digests(folder))
    with pytest.raises(ValueError, match=r"does not fit the model: more has shape \[3, 1, 1\] and not none; use anoth"):
        restore(training_state(trainable_from="features.12"), folder, VOCABULARY)


def test_weights_that_are_none_are_named(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 99)
    edit_description(folder, files=digests(folder))
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged \(.*\); use another checkpoint"):
        load_model(folder)
