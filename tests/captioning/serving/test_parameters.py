import pytest

from captioning.generation.config import GenerationConfig
from captioning.serving.parameters import check_served, default_parameters, requested_settings

DEFAULT = GenerationConfig()
SAMPLING = GenerationConfig(temperature=0.8, top_p=0.9, num_samples=4)


def requested(config=DEFAULT, **params):
    return requested_settings(default_parameters(config, 30) | params, config)


@pytest.mark.parametrize("config", [DEFAULT, SAMPLING, GenerationConfig(beam_size=6, groups=2, min_words=4)])
def test_a_request_that_names_nothing_has_the_versions_settings(config):
    assert requested(config) == config


@pytest.mark.parametrize(
    ("config", "params", "changes"),
    [
        (DEFAULT, {"beam": 6, "groups": 3, "group_penalty": 0.2}, {"beam_size": 6, "groups": 3, "group_penalty": 0.2}),
        (
            DEFAULT,
            {"length_power": 0.7, "min_words": 4, "no_repeat_ngram": 3},
            {"length_power": 0.7, "min_words": 4, "no_repeat_ngram": 3},
        ),
        (DEFAULT, {"temperature": 1.0, "num_captions": 5}, {"temperature": 1.0, "num_samples": 5}),
        # What turns a version's beam search into sampling, or back, need not undo its other settings.
        (
            GenerationConfig(beam_size=6, groups=2),
            {"temperature": 1.0, "sampling_seed": 2},
            {"temperature": 1.0, "sampling_seed": 2},
        ),
        (SAMPLING, {"temperature": 0.0, "beam": 5}, {"beam_size": 5}),
        (SAMPLING, {"num_captions": 2}, {"temperature": 0.8, "top_p": 0.9, "num_samples": 4}),
    ],
)
def test_a_request_changes_what_it_names(config, params, changes):
    assert requested(config, **params) == GenerationConfig(**changes)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"beam": 21}, "^beam cannot be 21; use 1 to 20"),
        ({"max_length": 0}, "max_length cannot be 0; use 1 to 100"),
        ({"num_captions": 4}, "num_captions cannot be 4; use 1 to 3, at most the beam"),
        ({"num_captions": 21, "temperature": 1.0}, "num_captions cannot be 21; use 1 to 20$"),
        ({"beam": 4, "groups": 3}, "groups 3 do not divide a beam of 4; use a divisor of the beam size"),
        ({"beam": 5, "temperature": 1.0}, "^beam 5 has no effect in sampling; leave it out, or use a temperature of 0"),
        ({"top_p": 0.5}, "top_p 0.5 has no effect in beam search; leave it out, or use a temperature above 0"),
        ({"min_words": 9, "max_length": 8}, "min_words 9 is more than the 8 words at which captions are cut"),
        ({"temperature": -1.0, "top_p": 3.0}, "top_p 3.0 is not a probability.*; temperature -1.0 is out of range"),
    ],
)
def test_a_request_that_cannot_be_is_refused_in_one_line(params, message):
    with pytest.raises(ValueError, match=message) as error:
        requested(**params)
    assert "\n" not in str(error.value)


def test_captions_are_no_longer_than_a_request_may_ask_for():
    assert [default_parameters(DEFAULT, words)["max_length"] for words in (8, 500)] == [8, 100]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GenerationConfig(beam_size=21), "beam size 21 is out of range; use 1 to 20"),
        (GenerationConfig(temperature=1.0, num_samples=30), "number of samples 30 is out of range; use 1 to 20"),
    ],
)
def test_defaults_that_no_request_could_ask_for_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        check_served(config)
