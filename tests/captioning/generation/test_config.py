import math
from dataclasses import fields

import pytest

from captioning.generation.config import GenerationConfig
from tests.support.case_table import each_case

SAMPLING = GenerationConfig(temperature=0.8, top_p=0.9, sampling_seed=5)


@each_case(
    ("settings", "message"),
    [
        ({"beam_size": 0}, "beam_size 0 is out of range; use 1 to 1000"),
        ({"beam_size": 4, "groups": 3}, "groups 3 do not divide a beam_size of 4; use a divisor of the beam size"),
        ({"groups": 0}, "groups 0 is out of range; use 1 to 1000"),
        ({"beam_size": 4, "groups": 2, "group_penalty": -1.0}, "group_penalty -1.0 is out of range; use 0 to 1000"),
        ({"group_penalty": 1.0}, "group_penalty 1.0 has no effect in one group; leave it out, or use groups above 1"),
        ({"length_power": math.nan}, "length_power nan is out of range; use 0 to 10"),
        ({"min_words": -1}, "min_words -1 is out of range; use 0 to 1000"),
        ({"no_repeat_ngram": -2}, "no_repeat_ngram -2 is out of range; use 0 to 1000"),
        ({"temperature": 1e-9}, "temperature 1e-09 is out of range; use 0.01 to 100"),
        ({"temperature": math.nan}, "temperature nan is out of range"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p 0.0 is not a probability above 0; use a value above 0, up to 1"),
        ({"temperature": 1.0, "num_samples": 0}, "num_samples 0 is out of range"),
        ({"temperature": 1.0, "sampling_seed": -1}, "sampling_seed -1 is out of range"),
        (
            {"temperature": 1.0, "beam_size": 5},
            "beam_size 5 has no effect in sampling; leave it out, or use a temperature",
        ),
        ({"temperature": 1.0, "beam_size": 4, "groups": 2}, "groups 2 has no effect in sampling"),
        (
            {"top_p": 0.9},
            "top_p 0.9 has no effect in beam search; leave it out, or use a temperature above 0, such as 1",
        ),
        ({"num_samples": 4}, "num_samples 4 has no effect in beam search"),
        ({"sampling_seed": 4}, "sampling_seed 4 has no effect in beam search"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GenerationConfig(**settings)


@each_case(
    ("settings", "text"),
    [
        ({}, "beam size 3"),
        ({"beam_size": 6, "groups": 3, "group_penalty": 1.0}, "beam size 6 in 3 groups, group penalty 1"),
        (
            {"length_power": 0.7, "min_words": 5, "no_repeat_ngram": 2},
            "beam size 3, length power 0.7, at least 5 words, no 2 words in a row twice",
        ),
        ({"no_repeat_ngram": 0}, "beam size 3, repetition allowed"),
        ({"temperature": 1.0}, "sampling at temperature 1, seed 0"),
        (
            {"temperature": 0.8, "top_p": 0.9, "num_samples": 4, "sampling_seed": 7},
            "sampling at temperature 0.8 from the likeliest 0.9, 4 an image, seed 7",
        ),
    ],
)
def test_settings_are_told_in_words(settings, text):
    assert GenerationConfig(**settings).describe() == text


def test_every_setting_is_told_where_it_differs():
    told = [
        GenerationConfig(beam_size=4, length_power=0.5, min_words=2, no_repeat_ngram=2, groups=2, group_penalty=0.1),
        GenerationConfig(temperature=1.5, top_p=0.5, num_samples=2, sampling_seed=9),
    ]
    assert {name for one in told for name in one.not_default()} == {one.name for one in fields(GenerationConfig)}
    for one in told:
        assert all(f"{value:g}" in one.describe() for value in one.not_default().values())


def test_a_record_names_what_earlier_releases_did_otherwise():
    assert GenerationConfig().summary() == {"beam_size": 3, "generation": {"no_repeat_ngram": 3}}
    assert GenerationConfig(no_repeat_ngram=0).summary() == {"beam_size": 3}


def test_settings_of_the_other_way_return_to_their_defaults():
    assert GenerationConfig(beam_size=6, groups=2, min_words=4).changed(beam_size=6, temperature=1.0) == (
        GenerationConfig(min_words=4, temperature=1.0)
    )
    assert SAMPLING.changed(temperature=0.0, top_p=0.9, beam_size=5) == GenerationConfig(beam_size=5)
    assert SAMPLING.changed(top_p=0.5) == GenerationConfig(temperature=0.8, top_p=0.5, sampling_seed=5)


def test_a_new_setting_of_the_other_way_is_refused():
    with pytest.raises(ValueError, match="beam_size 7 has no effect in sampling"):
        GenerationConfig().changed(beam_size=7, temperature=1.0)


def test_a_beam_has_as_many_captions_as_its_size_and_sampling_as_are_sampled():
    assert (GenerationConfig(beam_size=5).num_captions, SAMPLING.num_captions) == (5, 1)
