import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from captioning.data.vocabulary import BOS, EOS, PAD
from captioning.model.packing import Packing, run_packed

TOKENS = torch.tensor([[BOS, 5, EOS, PAD, PAD], [BOS, 6, 7, 8, EOS], [BOS, EOS, PAD, PAD, PAD], [BOS, 9, 5, EOS, PAD]])


@pytest.fixture
def lstm():
    torch.manual_seed(0)
    return nn.LSTM(3, 4, batch_first=True).double()


@pytest.fixture
def inputs():
    return torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_it_has_the_image_and_the_words_before_the_last_of_each_caption():
    packing = Packing.of(TOKENS)
    assert packing.batch_sizes == (4, 4, 3, 2, 1)
    assert sorted(packing.rows.tolist()) == [0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 15, 16, 17, 18]


def test_hidden_states_are_those_without_packing_and_zero_where_there_is_padding(lstm, inputs):
    is_input = (TOKENS != PAD)[..., None]
    wanted = torch.where(is_input, lstm(inputs)[0], 0.0)
    torch.testing.assert_close(run_packed(lstm, inputs, Packing.of(TOKENS)), wanted)


def test_gradients_are_those_without_packing(lstm, inputs):
    is_input = (TOKENS != PAD)[..., None]
    wanted = torch.autograd.grad((lstm(inputs)[0] * is_input).square().sum(), list(lstm.parameters()))
    found = torch.autograd.grad(run_packed(lstm, inputs, Packing.of(TOKENS)).square().sum(), list(lstm.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("is_bf16", [False, True], ids=["fp32", "bf16"])
def test_it_has_the_bits_of_torchs_own_packed_lstm(lstm, inputs, is_bf16):
    lstm, inputs, packing = lstm.float(), inputs.float().requires_grad_(), Packing.of(TOKENS)
    found = []
    for run in (
        lambda: run_packed(lstm, inputs, packing).flatten(0, 1)[packing.rows],
        lambda: lstm(PackedSequence(inputs.flatten(0, 1)[packing.rows], torch.tensor(packing.batch_sizes)))[0].data,
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16):
            hidden = run()
        found.append([hidden, *torch.autograd.grad(hidden.square().sum(), [inputs, *lstm.parameters()])])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_batch_without_targets_has_its_images(lstm, inputs):
    packing = Packing.of(torch.tensor([[BOS, PAD]]))
    assert (packing.rows.tolist(), packing.batch_sizes) == ([0], (1,))
    assert run_packed(lstm, inputs[:1, :2], packing)[:, 1].abs().sum() == 0
