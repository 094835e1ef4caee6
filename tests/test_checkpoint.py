import hashlib
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tiny import CPU, MODEL, OPTIMIZER, TRAINING, VOCABULARY, batch, batches, training_state

from captioning import checkpoint
from captioning.checkpoint import (
    CheckpointDescription,
    describe_checkpoint,
    load_model,
    restore,
    save_checkpoint,
    snapshot,
)
from captioning.description import inference_files, seal
from captioning.training import train
from captioning.vocabulary import Vocabulary

DESCRIPTION = CheckpointDescription(
    step=2,
    model=MODEL,
    vocabulary_digest=VOCABULARY.digest,
    max_caption_words=8,
    lineage={"run": "r"},
    metrics={"validation_loss_nats": 2.5},
)


def go_on(state, num_steps):
    """Train for some more steps."""
    stop = state.step + num_steps
    parts = batches(range(state.step, stop))
    options = {"optimizer_config": OPTIMIZER, "config": TRAINING, "num_steps": stop, "device": CPU}
    list(train(state, state.model, parts, **options))


def trained(num_steps=2):
    state = training_state(trainable_from="features.12")
    go_on(state, num_steps)
    return state


def save(folder, state, *, vocabulary=VOCABULARY, config="name: r\n"):
    save_checkpoint(folder, state, vocabulary, description=DESCRIPTION, config=config)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def state():
    return trained()


@pytest.fixture(scope="module")
def original(tmp_path_factory, state):
    return save(tmp_path_factory.mktemp("run") / "checkpoint", state)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Return a checkpoint that shares no file with the original."""
    more = Vocabulary([*VOCABULARY.words, "more"])
    return save(tmp_path_factory.mktemp("run") / "other", trained(num_steps=1), vocabulary=more, config="name: s\n")


@pytest.fixture
def folder(original, tmp_path):
    """Return a copy to be damaged."""
    return shutil.copytree(original, tmp_path / "checkpoint")


def edit_description(folder, **changes):
    """Change a description in a way that its own digest does not tell."""
    path = folder / "checkpoint.json"
    content = json.loads(path.read_text())
    del content["digest"]
    path.write_bytes(seal(content | changes))


def digests(folder):
    """Return the digests that the files of a checkpoint have now."""
    names = json.loads((folder / "checkpoint.json").read_text())["files"]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_it_holds_all_that_resuming_and_captioning_need(original):
    assert sorted(path.name for path in original.iterdir()) == [
        "checkpoint.json",
        "config.yaml",
        "model.safetensors",
        "optimizer.pt",
        "vocabulary.txt",
    ]


def test_its_description_comes_back(original):
    found = describe_checkpoint(original)
    assert (found.step, found.model, found.lineage, found.metrics) == (
        2,
        MODEL,
        {"run": "r"},
        {"validation_loss_nats": 2.5},
    )


@torch.no_grad()
def test_the_loaded_model_scores_as_the_saved_one(original, state):
    model, vocabulary, _ = load_model(original)
    assert torch.equal(model(batch()), state.model(batch()))
    assert vocabulary.words == VOCABULARY.words


def test_the_loaded_model_is_in_eval_mode(original):
    assert not load_model(original)[0].training


def test_the_loaded_model_needs_no_file_that_training_began_with(tmp_path, state):
    elsewhere = replace(DESCRIPTION, model=replace(MODEL, weights="/not/here.pth"))
    save_checkpoint(tmp_path / "c", state, VOCABULARY, description=elsewhere, config="")
    assert load_model(tmp_path / "c")[2].model.weights == "/not/here.pth"


def test_a_restored_state_is_the_saved_one_bit_for_bit(original, state):
    other = training_state(seed=1, trainable_from="features.12")
    restore(other, original, VOCABULARY)
    moments = [one.optimizer.state_dict()["state"] for one in (state, other)]
    torch.testing.assert_close(other.model.state_dict(), state.model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(*moments, rtol=0, atol=0)
    assert other.step == state.step


def test_the_same_state_has_the_same_bytes(original, state, tmp_path):
    assert contents(save(tmp_path / "again", state)) == contents(original)


def test_it_holds_the_bytes_of_the_state_as_the_libraries_write_them(original, state, tmp_path):
    save_file({name: tensor.contiguous() for name, tensor in state.model.state_dict().items()}, tmp_path / "m")
    torch.save(state.optimizer.state_dict(), tmp_path / "optimizer.pt")
    written = [(tmp_path / name).read_bytes() for name in ("m", "optimizer.pt")]
    assert written == [(original / name).read_bytes() for name in ("model.safetensors", "optimizer.pt")]


def test_a_snapshot_is_written_as_the_state_was_while_training_goes_on(original, tmp_path):
    state = trained()
    taken = snapshot(state)
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(save, tmp_path / "c", taken)
        go_on(state, 2)
        writing.result()
    assert contents(tmp_path / "c") == contents(original)
    assert contents(save(tmp_path / "d", taken)) == contents(original)  # nor did the steps change the snapshot
    assert (taken.step, state.step) == (2, 4)


@pytest.mark.parametrize(("stage", "some_are_shared"), [(None, True), ("features.12", True), ("all", False)])
def test_a_snapshot_shares_frozen_weights_with_the_model_and_nothing_else(stage, some_are_shared):
    state = training_state(trainable_from=stage)
    go_on(state, 1)
    frozen = {name for name, parameter in state.model.named_parameters() if not parameter.requires_grad}
    taken, weights = snapshot(state), state.model.state_dict()
    shared = {name for name, tensor in taken.weights.items() if tensor.data_ptr() == weights[name].data_ptr()}
    moments = state.optimizer.state_dict()["state"]
    assert (shared, bool(shared)) == (frozen, some_are_shared)
    for number, values in taken.optimizer["state"].items():
        assert not any(value.data_ptr() == moments[number][name].data_ptr() for name, value in values.items())


def test_an_existing_folder_is_not_written_over(original, state):
    with pytest.raises(FileExistsError, match="checkpoint"):
        save(original, state)


def truncated(size):
    return lambda content: content[:size]


def flipped(index):
    """Return a damage: one bit is another, in the byte at an index or a share of the length."""

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
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_damaged_file_is_named(folder, name, damage):
    (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes()))
    reason = r"is damaged \(.*\)" if name == "checkpoint.json" else "is missing or altered"
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
    with pytest.raises(ValueError, match="notes is no part of the checkpoint; take it out of the folder"):
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
    with pytest.raises(FileNotFoundError, match=r"is no checkpoint: it has no checkpoint\.json; give a checkpoint's"):
        describe_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"format_version": 1, "st', "Unterminated string"),
        (b"\xff\xfe\x00", "can't decode"),
        (b"[]", "it is no JSON object"),
        (b'{"format_version": 1}', "step Field required"),
        (b'{"format_version": 2}', "its digest does not fit"),
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
        ({"files": {}}, "it does not list config.yaml"),  # else nothing would be checked
        ({"model": {"dropout": 2.0}}, "dropout 2.0 is no share"),
        ({"step": "many"}, "step Input should be a valid integer"),
    ],
)
def test_a_description_that_says_nonsense_is_refused(folder, changes, reason):
    edit_description(folder, **changes)
    with pytest.raises(ValueError, match=rf"checkpoint\.json is damaged \(.*{reason}"):
        describe_checkpoint(folder)


def test_a_newer_formats_checkpoint_is_refused(folder):
    edit_description(folder, format_version=3)
    with pytest.raises(
        ValueError, match="has format version 3, this release reads up to 2; use a newer release, such as"
    ):
        describe_checkpoint(folder)


def test_a_checkpoint_of_format_version_1_is_restored(folder, original):
    content = json.loads((folder / "checkpoint.json").read_text())
    del content["digest"]
    (folder / "checkpoint.json").write_text(json.dumps(content | {"format_version": 1}, indent=1) + "\n")
    assert restore(training_state(trainable_from="features.12"), folder, VOCABULARY) == describe_checkpoint(original)


def test_a_checkpoint_of_another_vocabulary_is_not_restored(folder):
    other = Vocabulary([*VOCABULARY.words, "more"])
    with pytest.raises(ValueError, match=r"is of another vocabulary .* than the shard set's .*; train under another"):
        restore(training_state(), folder, other)


@pytest.mark.parametrize("read", [describe_checkpoint, load_model])
def test_a_copy_for_captioning_has_no_optimizers_state(folder, read):
    (folder / "optimizer.pt").unlink()
    assert read(folder)


def test_a_copy_for_captioning_is_not_restored(folder):
    (folder / "optimizer.pt").unlink()
    with pytest.raises(ValueError, match=r"is a copy for captioning, without optimizer\.pt; resume from the run's own"):
        restore(training_state(), folder, VOCABULARY)


def test_captioning_needs_all_but_the_optimizers_state(original, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, path in inference_files(original).items():
        shutil.copyfile(path, copy / name)
    assert load_model(copy)[2] == describe_checkpoint(original)


class Command:
    """What a malicious file holds: unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("write", [torch.save, lambda found, path: path.write_bytes(pickle.dumps(found, protocol=2))])
def test_a_malicious_optimizers_state_is_refused_and_not_run(folder, tmp_path, write):
    trace = tmp_path / "trace"
    write({"state": Command(trace)}, folder / "optimizer.pt")
    edit_description(folder, files=digests(folder))
    with pytest.raises(ValueError, match=r"optimizer\.pt holds more than tensors and numbers; use another checkpoint"):
        restore(training_state(trainable_from="features.12"), folder, VOCABULARY)
    assert not trace.exists()


@pytest.mark.faults
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (checkpoint, "save_file"),
        (torch, "save"),
        (checkpoint.Path, "write_bytes"),
        (checkpoint.Path, "write_text"),
        (checkpoint.os, "fsync"),
        (checkpoint.Path, "rename"),
    ],
)
def test_killed_while_writing_it_is_no_checkpoint(tmp_path, state, monkeypatch, owner, name):
    def be_killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, be_killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "checkpoint", state)
    with pytest.raises(FileNotFoundError, match="is no checkpoint"):
        describe_checkpoint(tmp_path / "checkpoint")
