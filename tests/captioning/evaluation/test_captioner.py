import copy

import pytest
import torch

from captioning.data.pixels import decode_image
from captioning.data.vocabulary import EOS
from captioning.evaluation.captioner import Captioner, coco_results
from captioning.generation.beam_search import beam_search
from captioning.generation.config import GenerationConfig
from captioning.generation.constraints import Constraints
from captioning.training.checkpoint_description import CheckpointDescription
from tests.support import tiny_models

GREEDY = GenerationConfig(beam_size=1)


JPEGS = [tiny_models.jpeg(number) for number in range(5)]
DESCRIPTION = CheckpointDescription(
    step=1, model=tiny_models.MODEL, vocabulary_digest=tiny_models.VOCABULARY.digest, max_caption_words=6
)


@pytest.fixture(scope="module")
def model():
    model = tiny_models.model(seed=2).eval()
    torch.nn.init.normal_(model.decoder.word_embedding.weight)
    torch.nn.init.normal_(model.decoder.output.weight)
    torch.nn.init.normal_(model.decoder.image_embedding.weight)
    return model


def write(model, jpegs=JPEGS, **options):
    return list(Captioner(model, tiny_models.VOCABULARY, DESCRIPTION, **options).caption(jpegs))


def test_a_caption_is_what_beam_search_finds(model):
    images = torch.stack([decode_image(jpeg, tiny_models.MODEL.image_size_px) for jpeg in JPEGS])
    options = {"max_words": 6, "constraints": Constraints(no_repeat_ngram=3)}
    found = beam_search(model.decoder, model.encoder(images), beam_size=3, **options)
    captions = [tuple(tiny_models.VOCABULARY.decode(ids) for ids in rows) for rows in found.tokens.tolist()]
    assert [one.captions for one in write(model)] == captions


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_captions_do_not_depend_on_how_many_images_go_at_once(model, batch_size):
    together, apart = write(model, batch_size=5), write(model, batch_size=batch_size)
    assert [one.captions for one in apart] == [one.captions for one in together]


def test_log_probability_is_that_of_the_best_caption(model):
    images = torch.stack([decode_image(jpeg, tiny_models.MODEL.image_size_px) for jpeg in JPEGS])
    found = beam_search(model.decoder, model.encoder(images), beam_size=3, max_words=6)
    assert [one.log_probability for one in write(model)] == pytest.approx(
        found.log_probability[:, 0].tolist(), abs=1e-5
    )


def test_captions_in_bf16_are_those_in_fp32_up_to_rounding(model):
    exact, coarse = write(model, generation=GREEDY), write(copy.deepcopy(model), generation=GREEDY, precision="bf16")
    differences = [abs(one.log_probability - two.log_probability) for one, two in zip(exact, coarse, strict=True)]
    assert 0 < max(differences) < 0.5


def test_images_are_read_a_batch_at_a_time(model):
    read = []
    written = Captioner(model, tiny_models.VOCABULARY, DESCRIPTION, batch_size=2).caption(
        jpeg for number, jpeg in enumerate(JPEGS) if read.append(number) is None
    )
    next(written)
    assert read == [0, 1]


def test_no_images_have_no_captions(model):
    assert write(model, jpegs=[]) == []


def test_an_image_that_does_not_decode_is_named_by_its_number(model):
    with pytest.raises(ValueError, match=r"image 1: the image does not decode .*; leave it out, or fetch it again"):
        write(model, jpegs=[JPEGS[0], JPEGS[1][:300]])


def test_captions_that_cannot_be_are_left_out():
    model = tiny_models.model().eval()
    torch.nn.init.constant_(model.decoder.output.bias, -torch.inf)
    model.decoder.output.bias.data[EOS] = 0.0  # only <eos> is possible, so the only caption is empty
    assert [one.captions for one in write(model, generation=GenerationConfig(beam_size=4))] == [("",)] * 5


def test_results_are_in_the_form_of_the_coco_evaluation():
    assert coco_results({7: "a dog", 3: "a cat"}) == [
        {"image_id": 3, "caption": "a cat"},
        {"image_id": 7, "caption": "a dog"},
    ]
