from dataclasses import replace

import pytest
import torch
from torch import nn

from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.model.caption_model import CaptionModel, count_parameters, meta_model
from captioning.training.losses import cross_entropy_sum
from tests.support import tiny_models
from tests.support.case_table import each_case

SEED = 5


@pytest.fixture(scope="module", params=tiny_models.DECODERS.values(), ids=tiny_models.DECODERS)
def model(request):
    return tiny_models.model(**request.param).double()


@pytest.fixture(scope="module")
def batch(model):
    """Return a batch with the features of its images, which the encoder computes once."""
    made = tiny_models.batch(range(4))
    return made._replace(images=model.encode(made.images))


def padded(batch, num_columns=6):
    return batch.with_tokens(nn.functional.pad(batch.tokens, (0, num_columns), value=PAD))


def caption_of(batch, row):
    """Return a batch of only one caption and its image."""
    image = int(batch.image_of_caption[row])
    return batch._replace(
        images=batch.images[image : image + 1],
        image_of_caption=torch.tensor([0]),
        position=batch.position[row : row + 1],
        caption=batch.caption[row : row + 1],
        keys=batch.keys[image : image + 1],
        shards=batch.shards[image : image + 1],
    ).with_tokens(batch.tokens[row : row + 1])


def test_there_are_scores_for_every_target(model, batch):
    assert model(batch).shape == (batch.num_targets, len(tiny_models.VOCABULARY))


def test_scores_are_in_the_order_of_the_targets(model, batch):
    captions = [model(caption_of(batch, row)) for row in range(len(batch.tokens))]
    torch.testing.assert_close(torch.cat(captions), model(batch), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", [None, SEED])
def test_no_score_sees_a_later_word(model, batch, seed):
    row = 1
    words = (batch.tokens[row] >= 4).nonzero().flatten().tolist()
    first = batch.tokens[:row, 1:].ne(PAD).sum()
    for at in words[1:]:
        tokens = batch.tokens.clone()
        tokens[row, at:] = torch.where(tokens[row, at:] >= 4, (tokens[row, at:] - 3) % 12 + 4, tokens[row, at:])
        seen, changed = model(batch, seed), model(batch._replace(tokens=tokens), seed)
        assert torch.equal(seen[: first + at], changed[: first + at])
        assert not torch.equal(seen[first + at], changed[first + at])


@pytest.mark.parametrize("seed", [None, SEED])
def test_padding_changes_no_loss(model, batch, seed):
    losses = [cross_entropy_sum(model(one, seed), one.targets()) for one in (batch, padded(batch))]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)


def test_padding_changes_no_gradient(model, batch):
    gradients = []
    for one in (batch, padded(batch)):
        model.zero_grad()
        cross_entropy_sum(model(one, SEED), one.targets()).backward()
        gradients.append([each.grad.clone() for each in model.decoder.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_dropout_does_not_depend_on_the_rest_of_the_batch(model, batch):
    together = model(batch, SEED)
    apart = [model(caption_of(batch, row), SEED) for row in range(len(batch.tokens))]
    torch.testing.assert_close(torch.cat(apart), together, rtol=1e-9, atol=1e-9)


def test_all_captions_of_an_image_share_one_pass_through_the_encoder(model):
    batch, rows = tiny_models.batch(range(4)), []
    handle = model.encoder.backbone.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    model(batch, SEED)
    handle.remove()
    assert (rows, len(batch.tokens)) == ([4], 7)


def test_without_a_seed_nothing_is_dropped(model, batch):
    assert torch.equal(model.train()(batch), model.eval()(batch))


def test_another_seed_drops_other_units(model, batch):
    assert not torch.equal(model(batch, SEED), model(batch, SEED + 1))


def test_an_empty_caption_has_eos_as_its_only_target(model, batch):
    empty = caption_of(batch, 0).with_tokens(torch.tensor([[BOS, EOS, PAD]]))
    assert (empty.targets().tolist(), len(model(empty))) == ([EOS], 1)


@each_case("label_smoothing", [0.0, 0.2])
def test_the_loss_is_the_sum_over_words_of_the_smoothed_likelihood(model, batch, label_smoothing):
    logits, targets = model(batch), batch.targets()
    likelihood = torch.log_softmax(logits, dim=-1)
    wanted = torch.full_like(logits, label_smoothing / logits.shape[1])
    wanted[torch.arange(len(targets)), targets] += 1 - label_smoothing
    loss = cross_entropy_sum(logits, targets, label_smoothing=label_smoothing)
    torch.testing.assert_close(loss, -(wanted * likelihood).sum())


@pytest.mark.parametrize(("dtype", "wide"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_the_loss_is_summed_in_a_wide_type(dtype, wide):
    loss = cross_entropy_sum(torch.zeros(1000, 8, dtype=dtype), torch.zeros(1000, dtype=torch.int64))
    torch.testing.assert_close(loss, torch.tensor(8.0, dtype=wide).log() * 1000)


def test_parameters_are_counted_as_a_built_model_has_them():
    size = len(tiny_models.VOCABULARY)
    built = CaptionModel(tiny_models.MODEL, vocabulary_size=size)
    counted = count_parameters(tiny_models.MODEL, vocabulary_size=size)
    assert counted == sum(parameter.numel() for parameter in built.parameters())


@pytest.mark.parametrize(
    "changes",
    [*tiny_models.DECODERS.values(), {"backbone": "regnet_y_400mf"}],  # the last computes its sizes with tensors
    ids=str,
)
def test_a_model_without_memory_has_the_shapes_of_one_with(changes):
    config = replace(tiny_models.MODEL, **changes)
    real = CaptionModel(config, vocabulary_size=9, load_weights=False)
    meta = meta_model(config, vocabulary_size=9)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (real, meta)]
    assert shapes[0] == shapes[1]
    assert all(parameter.is_meta for parameter in meta.parameters())
