import typing
from dataclasses import fields

import pytest

from captioning.config import ModelConfig
from captioning.decoder_config import DECODERS, DecoderName
from tests.support.case_table import each_case


def test_each_decoder_has_settings():
    assert tuple(DECODERS) == typing.get_args(DecoderName)


@each_case("decoder", DECODERS)
def test_each_setting_of_a_decoder_can_be_given(decoder):
    kind, given = DECODERS[decoder], typing.get_type_hints(ModelConfig)
    for name, hint in typing.get_type_hints(kind).items():
        assert given[name] == hint | None


@each_case("decoder", DECODERS)
def test_a_setting_that_is_not_given_has_its_decoders_default(decoder):
    assert ModelConfig(decoder=decoder).decoder_config == DECODERS[decoder]()
    assert ModelConfig(decoder=decoder, hidden_size=7).decoder_config == DECODERS[decoder](hidden_size=7)


def test_the_settings_of_a_model_are_those_of_its_decoder_and_no_others():
    names = {decoder: list(ModelConfig(decoder=decoder).resolved())[5:] for decoder in DECODERS}
    assert names == {decoder: [field.name for field in fields(kind)] for decoder, kind in DECODERS.items()}


def test_settings_that_all_releases_had_are_stored_as_they_were():
    assert ModelConfig(hidden_size=8).resolved() == {
        "backbone": "resnet152", "weights": "DEFAULT", "trainable_from": None, "image_size_px": 224, "decoder": "lstm",
        "pooling": "mean", "image_input": "first", "embedding_size": 512, "hidden_size": 8, "dropout": 0.5,
    }  # fmt: skip


@each_case("decoder", DECODERS)
def test_stored_settings_give_the_same_model(decoder):
    config = ModelConfig(decoder=decoder, dropout=0.0)
    stored = ModelConfig(**config.resolved())
    assert (stored, hash(stored)) == (config, hash(config))
    assert stored != ModelConfig(decoder=decoder, dropout=0.2)


@each_case(
    ("given", "message"),
    [
        ({"num_heads": 4}, "num_heads 4 is a setting of decoders attend and transformer, not of lstm; leave it out"),
        (
            {"decoder": "attend", "pooling": "none"},
            "pooling none is a setting of decoder lstm, not of attend; leave it out",
        ),
        (
            {"decoder": "transformer", "embedding_size": 512},  # also if it is another decoder's default
            "embedding_size 512 is a setting of decoders lstm and attend, not of transformer; leave it out",
        ),
    ],
)
def test_a_setting_of_another_decoder_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**given)


@each_case(("decoder", "reads"), [("lstm", False), ("attend", True), ("transformer", True)])
def test_decoders_that_attend_read_every_region(decoder, reads):
    assert ModelConfig(decoder=decoder).reads_regions == reads


def test_without_pooling_every_region_is_read():
    assert ModelConfig(pooling="none").reads_regions
