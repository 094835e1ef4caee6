from pathlib import Path

import pytest

from captioning.training.loop import num_training_steps
from cluster.presets import TRAIN_PRESETS, preset
from cluster.settings import is_name
from tests.support.case_table import each_case


@each_case("name", TRAIN_PRESETS)
def test_a_preset_says_what_it_is_and_names_its_run(name):
    about, run = TRAIN_PRESETS[name]
    assert (bool(about), is_name(run.name)) == (True, True)


def test_the_default_is_what_the_settings_say_without_a_preset():
    assert TRAIN_PRESETS["default"][1] == type(TRAIN_PRESETS["default"][1])()


def test_the_smoke_run_needs_neither_a_gpu_nor_a_download():
    run = TRAIN_PRESETS["smoke"][1]
    assert (run.cluster.use_gpu, run.cluster.max_workers, run.model.weights) == (False, 2, "none")


@pytest.mark.parametrize("name", ["attend", "transformer"])
def test_a_preset_is_of_the_decoder_that_it_is_named_for(name):
    assert TRAIN_PRESETS[name][1].model.decoder == name


def test_the_tutorials_recipe_is_validated_only_at_its_end():
    training = TRAIN_PRESETS["classic"][1].training
    num_steps = num_training_steps(training, num_samples=118_287)
    assert (training.checkpoint_every_steps > num_steps, training.keep_last) == (True, 2)


def test_a_preset_has_the_home_folder_of_now(monkeypatch):
    monkeypatch.setenv("CAPTIONING_HOME", "/mnt/now")
    assert preset("coco").folder == Path("/mnt/now/training/coco")


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="there is no preset cocoa; use one of default, smoke"):
        preset("cocoa")
