import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from captioning.data.vocabulary import Vocabulary
from captioning.training import checkpoint
from captioning.training.checkpoint import load_model, restore, save_checkpoint, snapshot
from captioning.training.checkpoint_description import describe_checkpoint, inference_files
from tests.support.checkpoints import DESCRIPTION, go_on, save, trained
from tests.support.tiny_models import DECODERS, EMA_DECAY, MODEL, VOCABULARY, batch, training_state


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(original, tmp_path):
    """Return a copy that a test may damage."""
    return shutil.copytree(original, tmp_path / "checkpoint")


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


@pytest.mark.parametrize("changes", DECODERS.values(), ids=DECODERS)
@torch.no_grad()
def test_the_loaded_model_scores_as_the_saved_one(tmp_path, changes):
    state, config = training_state(**changes), replace(MODEL, **changes)
    save_checkpoint(tmp_path / "c", state, VOCABULARY, description=replace(DESCRIPTION, model=config), config="")
    model, vocabulary, description = load_model(tmp_path / "c")
    assert torch.equal(model(batch()), state.model(batch()))
    assert (vocabulary.words, description.model) == (VOCABULARY.words, config)
    assert [one.requires_grad for one in model.parameters()] == [one.requires_grad for one in state.model.parameters()]


@torch.no_grad()
def test_weights_of_another_decoder_are_refused(tmp_path, state):
    other = replace(DESCRIPTION, model=replace(MODEL, **DECODERS["attend"]))
    save_checkpoint(tmp_path / "c", state, VOCABULARY, description=other, config="")
    with pytest.raises(ValueError, match=r"does not fit the model: decoder.feature_deviation has shape .* use another"):
        load_model(tmp_path / "c")


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
    assert contents(save(tmp_path / "d", taken)) == contents(original)  # the steps did not change the snapshot
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


@pytest.fixture(scope="module")
def averaged():
    return trained(ema_decay=EMA_DECAY)


@pytest.fixture
def averaged_folder(averaged, tmp_path):
    return save(tmp_path / "averaged", averaged)


def test_the_model_of_a_checkpoint_has_the_averaged_weights_and_earlier_releases_refuse_it(averaged, averaged_folder):
    found = dict(load_model(averaged_folder)[0].named_parameters())
    assert all(torch.equal(found[name], weight) for name, weight in averaged.average.weights.items())
    assert json.loads((averaged_folder / "checkpoint.json").read_text())["format_version"] == 3


def test_earlier_releases_read_a_checkpoint_without_an_average(original):
    assert json.loads((original / "checkpoint.json").read_text())["format_version"] == 2


def test_training_goes_on_from_the_last_weights_and_their_average(averaged, averaged_folder):
    other = training_state(seed=1, trainable_from="features.12", ema_decay=EMA_DECAY)
    restore(other, averaged_folder, VOCABULARY)
    go_on(other, 1)
    again = trained(3, ema_decay=EMA_DECAY)
    torch.testing.assert_close(other.model.state_dict(), again.model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(other.average.weights, again.average.weights, rtol=0, atol=0)


def test_a_copy_for_captioning_has_the_average_alone(averaged_folder, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, path in inference_files(averaged_folder).items():
        shutil.copyfile(path, copy / name)
    assert load_model(copy)[2] == describe_checkpoint(averaged_folder)
    with pytest.raises(ValueError, match=r"last\.safetensors is missing or altered"):
        describe_checkpoint(copy, for_training=True)


@pytest.mark.parametrize("is_averaged", [False, True])
def test_an_average_is_not_begun_or_dropped_on_the_way(original, averaged_folder, is_averaged):
    state = training_state(trainable_from="features.12", ema_decay=None if is_averaged else EMA_DECAY)
    with pytest.raises(ValueError, match=r"moving average of the weights; resume with the --training\.ema-decay that"):
        restore(state, averaged_folder if is_averaged else original, VOCABULARY)


def test_an_existing_folder_is_not_written_over(original, state):
    with pytest.raises(FileExistsError, match="checkpoint"):
        save(original, state)


def test_a_checkpoint_of_format_version_1_is_restored(folder, original):
    content = json.loads((folder / "checkpoint.json").read_text())
    del content["digest"]
    (folder / "checkpoint.json").write_text(json.dumps(content | {"format_version": 1}, indent=1) + "\n")
    assert restore(training_state(trainable_from="features.12"), folder, VOCABULARY) == describe_checkpoint(original)


def test_a_checkpoint_of_another_vocabulary_is_not_restored(folder):
    other = Vocabulary([*VOCABULARY.words, "more"])
    with pytest.raises(ValueError, match=r"has another vocabulary .* than the shard set .*; train under another"):
        restore(training_state(), folder, other)


@pytest.mark.parametrize("read", [describe_checkpoint, load_model])
def test_a_copy_for_captioning_has_no_optimizers_state(folder, read):
    (folder / "optimizer.pt").unlink()
    assert read(folder)


def test_a_copy_for_captioning_is_not_restored(folder):
    (folder / "optimizer.pt").unlink()
    with pytest.raises(
        ValueError, match=r"has no optimizer\.pt, so it is a copy for captioning; resume from the run's own"
    ):
        restore(training_state(), folder, VOCABULARY)


def test_captioning_needs_all_but_the_optimizers_state(original, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, path in inference_files(original).items():
        shutil.copyfile(path, copy / name)
    assert load_model(copy)[2] == describe_checkpoint(original)


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
    with pytest.raises(FileNotFoundError, match="is not a checkpoint"):
        describe_checkpoint(tmp_path / "checkpoint")
