"""The Python API, with a model that never trained; ``tests/integration/test_readme.py`` trains one."""

import pytest
from PIL import Image

from cluster import api
from cluster.errors import GateRefusal

NAME = "captioner"


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (80, 64), "teal").save(path)
    return path


@pytest.fixture(scope="module")
def storage(tiny_run):
    return api.StorageConfig(home=tiny_run.parent.parent)


@pytest.fixture(scope="module")
def model(tiny_run, storage):
    return api.load(tiny_run, beam_size=2, storage=storage)


def test_one_picture_has_the_same_caption_in_whatever_form_it_is_given(model, photo):
    forms = [photo, str(photo), photo.read_bytes(), Image.open(photo)]
    single = [model.caption(form).caption for form in forms]
    assert single == [one.caption for one in model.caption(forms)]
    assert len(set(single)) == 1


def test_a_model_is_loaded_with_a_search_of_its_own(tiny_run, storage, photo):
    loaded = api.load(tiny_run, generation=api.GenerationConfig(temperature=1.0, num_samples=5), storage=storage)
    assert len(loaded.caption(photo).captions) == 5


def test_a_captioned_picture_reads_as_its_caption(model, photo):
    captioned = model.caption(photo)
    assert (str(captioned), len(captioned.captions), captioned.name) == (captioned.captions[0], 2, str(photo))


def test_a_notebook_shows_pictures_with_their_captions(model, photo):
    shown = model.caption([photo, photo])._repr_html_()
    assert (shown.count("data:image/jpeg;base64,"), str(photo) in shown) == (2, True)


def test_a_loaded_model_says_what_it_is(model):
    assert repr(model) == "LoadedModel(step 5 of run r)"


@pytest.mark.parametrize("broken", [b"no image", b""])
def test_a_picture_that_does_not_decode_is_named(model, photo, broken):
    with pytest.raises(ValueError, match="image 1: it "):
        model.caption([photo, broken])


def test_an_evaluation_returns_its_scores_and_prints_nothing(tiny_run, drawn_shards, storage, capfd):
    evaluation = api.evaluate(tiny_run, str(drawn_shards), storage=storage)
    assert (len(evaluation.captions), evaluation.step, "CIDEr-D" in evaluation._repr_html_()) == (30, 5, True)
    assert capfd.readouterr() == ("", "")


def test_a_registered_version_is_promoted_loaded_and_not_promoted_again(tiny_run, drawn_shards, storage, photo):
    version = api.register(tiny_run, NAME, storage=storage)
    gate = {"gate": api.GateConfig(num_resamples=200, num_behaviour_images=2), "shards": str(drawn_shards)}
    refused = api.promote(NAME, storage=storage, **gate | {"gate": api.GateConfig(floors={"BLEU-4": 1.0})})
    promoted = api.promote(NAME, storage=storage, forced_because="a test", **gate)
    assert (refused.is_promoted, promoted.is_promoted, promoted.change.version) == (False, True, str(version.version))
    assert repr(api.load(f"models:/{NAME}@champion", storage=storage)).startswith(f"LoadedModel({NAME} version 1, ")
    with pytest.raises(GateRefusal, match="captioner version 1 is already the champion"):
        api.promote(NAME, version=1, storage=storage, **gate)
