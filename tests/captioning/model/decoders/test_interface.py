import pytest
import torch

from captioning.data.vocabulary import EOS, PAD
from captioning.hashing import DropoutKeys
from captioning.model.packing import Packing
from tests.support.case_table import each_case
from tests.support.tiny_decoders import forced, random_features, random_tokens, tiny_decoder
from tests.support.tiny_models import DECODERS, VOCABULARY

KEYS = DropoutKeys.of(0, torch.arange(3), torch.zeros(3, dtype=torch.int64))


@pytest.fixture(
    params=[
        DECODERS["lstm"],
        {"pooling": "none"},
        {"image_input": "every"},
        DECODERS["attend"],
        DECODERS["transformer"],
    ],
    ids=["lstm", "lstm, all regions", "lstm, the image at every word", "attend", "transformer"],
)
def decoder(request):
    return tiny_decoder(**request.param)


@pytest.fixture
def features():
    return random_features()


@pytest.fixture
def tokens():
    return random_tokens()


@torch.no_grad()
def test_stepping_gives_the_logits_of_teacher_forcing(decoder, features, tokens):
    state, stepped = decoder.start(features), []
    for column in tokens.unbind(1):
        logits, state = decoder.step(state, column)
        stepped.append(logits)
    torch.testing.assert_close(torch.stack(stepped, dim=1), forced(decoder, features, tokens))


@torch.no_grad()
def test_many_rows_are_scored_as_few_are(decoder, features, tokens):
    many = features.repeat(9, 1, 1)
    together, _ = decoder.step(decoder.start(many), tokens[:1, 0].expand(len(many)))
    alone, _ = decoder.step(decoder.start(features), tokens[:1, 0].expand(len(features)))
    torch.testing.assert_close(together[-len(alone) :], alone)


@torch.no_grad()
def test_rows_of_a_state_may_be_repeated_and_reordered(decoder, features, tokens):
    rows = torch.tensor([2, 0, 0, 1])
    whole, _ = decoder.step(decoder.start(features), tokens[:, 0])
    state = tuple(part[rows] for part in decoder.start(features))
    chosen, _ = decoder.step(state, tokens[rows, 0])
    torch.testing.assert_close(chosen, whole[rows])


@each_case("position", range(1, 7))
@torch.no_grad()
def test_a_word_leaves_all_scores_before_it_bit_for_bit(decoder, features, tokens, position):
    others = tokens.clone()
    others[:, position:] = (others[:, position:] - 4 + 1) % (len(VOCABULARY) - 4) + 4
    before, after = forced(decoder, features, tokens), forced(decoder, features, others)
    assert torch.equal(before[:, :position], after[:, :position])


@torch.no_grad()
def test_a_word_changes_the_scores_after_it(decoder, features, tokens):
    others = tokens.clone()
    others[:, 3] = (others[:, 3] - 4 + 1) % (len(VOCABULARY) - 4) + 4
    assert (forced(decoder, features, tokens) != forced(decoder, features, others))[:, 3:].any(-1).all()


@torch.no_grad()
def test_a_caption_is_about_its_own_image(decoder, features, tokens):
    image_of_caption = torch.tensor([1, 1, 2])
    hidden = decoder(features, tokens, image_of_caption, None)
    torch.testing.assert_close(hidden, decoder(features[image_of_caption], tokens, torch.arange(3), None))


@torch.no_grad()
def test_every_image_changes_the_scores(decoder, features, tokens):
    same_words = tokens[:1].expand(3, -1)
    scores = forced(decoder, features, same_words)
    assert len({tuple(row) for row in scores[:, 0].tolist()}) == 3


@torch.no_grad()
def test_calibration_takes_the_scale_of_features_away(decoder, features, tokens):
    decoder.calibrate(features)
    plain = forced(decoder, features, tokens)
    decoder.calibrate(features * 7 + 3)
    torch.testing.assert_close(forced(decoder, features * 7 + 3, tokens), plain)


def test_dropout_keys_drop_units(decoder, features, tokens):
    dropped, whole = (decoder(features, tokens, torch.arange(3), one) for one in (KEYS, None))
    assert (dropped != whole).float().mean() > 0.7


def test_every_parameter_learns(decoder, features, tokens):
    forced(decoder, features, tokens).square().sum().backward()
    assert [name for name, one in decoder.named_parameters() if not one.grad.any()] == []


def test_it_reads_bfloat16_features(decoder, features, tokens):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = forced(decoder, features.bfloat16(), tokens)
    torch.testing.assert_close(scores.float(), forced(decoder, features, tokens), atol=0.02, rtol=0.1)


@pytest.mark.parametrize("keys", [None, KEYS], ids=["nothing dropped", "units dropped"])
def test_packing_changes_no_hidden_state_of_a_word(decoder, features, tokens, keys):
    captions = torch.nn.functional.pad(tokens, (0, 1), value=EOS)
    captions[1, 4:], captions[2, 6:] = PAD, PAD
    is_input = captions[:, 1:] != PAD
    packed, padded = (
        decoder(features, captions[:, :-1], torch.arange(3), keys, packing) for packing in (Packing.of(captions), None)
    )
    torch.testing.assert_close(packed[is_input], padded[is_input])
    assert not packed[~is_input].any()


@torch.no_grad()
def test_the_width_of_the_padding_changes_no_unit_that_is_dropped(decoder, features, tokens):
    wide = torch.nn.functional.pad(tokens, (0, 5), value=PAD)
    narrow, cut = (
        decoder(features, tokens, torch.arange(3), KEYS),
        decoder(features, wide, torch.arange(3), KEYS)[:, :7],
    )
    torch.testing.assert_close(narrow, cut)
