import hashlib
import json
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from tiny import CPU, MODEL, OPTIMIZER, TRAINING, VOCABULARY, batch, batches, training_state

from captioning import checkpoint
from captioning.checkpoint import (
    CheckpointDescription,
    describe_checkpoint,
    inference_files,
    load_model,
    restore,
    save_checkpoint,
)
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


def trained(num_steps=2):
    state = training_state(trainable_from="features.12")
    list(
        train(
            state,
            state.model,
            batches(range(num_steps)),
            optimizer_config=OPTIMIZER,
            config=TRAINING,
            num_steps=num_steps,
            device=CPU,
        )
    )
    return state


def save(folder, state):
    save_checkpoint(folder, state, VOCABULARY, description=DESCRIPTION, config="name: r\n")
    return folder


@pytest.fixture(scope="module")
def state():
    return trained()


@pytest.fixture(scope="module")
def original(tmp_path_factory, state):
    return save(tmp_path_factory.mktemp("run") / "checkpoint", state)


@pytest.fixture
def folder(original, tmp_path):
    """Return a copy to be damaged."""
    return shutil.copytree(original, tmp_path / "checkpoint")


def edit_description(folder, **changes):
    path = folder / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


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
    again = save(tmp_path / "again", state)
    names = ("model.safetensors", "optimizer.pt", "vocabulary.txt")
    assert [(again / name).read_bytes() for name in names] == [(original / name).read_bytes() for name in names]


def test_an_existing_folder_is_not_written_over(original, state):
    with pytest.raises(FileExistsError, match="checkpoint"):
        save(original, state)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "vocabulary.txt", "config.yaml"])
@pytest.mark.parametrize("damage", ["altered", "truncated"])
def test_a_damaged_file_is_named(folder, name, damage):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content if damage == "altered" else content[:-1])
    with pytest.raises(ValueError, match=f"{name} is missing or altered; use another checkpoint"):
        describe_checkpoint(folder)


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
        (b"[]", "no attribute 'get'"),
        (b'{"format_version": 1}', "step Field required"),
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


@pytest.mark.parametrize("version", [0, 2, None])
def test_another_formats_checkpoint_is_refused(folder, version):
    edit_description(folder, format_version=version)
    with pytest.raises(ValueError, match=f"has format version {version}, this release reads 1; use the one that wrote"):
        describe_checkpoint(folder)


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
