import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from captioning.model.word_loss import word_loss_sum, word_losses

M, H, V = 1_100, 16, 300  # targets of three pieces


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is computed."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [one.numel() for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        self.size = max([self.size, *sizes])
        return result


def made(dtype=torch.float32):
    """Return hidden states, projection and targets."""
    torch.manual_seed(0)
    hidden, output = torch.randn(M, H, dtype=dtype, requires_grad=True), nn.Linear(H, V).to(dtype)
    return hidden, output, torch.randint(0, V, (M,))


def gradients(loss, hidden, output):
    return torch.autograd.grad(loss, [hidden, output.weight, output.bias])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_loss_and_gradients_are_those_of_all_words_at_once(smoothing, dtype, tolerance):
    hidden, output, targets = made(dtype)
    plain = F.cross_entropy(output(hidden), targets, reduction="sum", label_smoothing=smoothing)
    found = word_loss_sum(hidden, output, targets, label_smoothing=smoothing)
    torch.testing.assert_close(found, plain, rtol=tolerance, atol=0)
    for one, other in zip(gradients(found * 2, hidden, output), gradients(plain * 2, hidden, output), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_losses_of_words_are_those_of_all_words_at_once(smoothing):
    hidden, output, targets = made()
    plain = F.cross_entropy(output(hidden), targets, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(word_losses(hidden, output, targets, label_smoothing=smoothing), plain)


def test_in_bf16_the_sum_is_in_float32():
    hidden, output, targets = made()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, each = word_loss_sum(hidden, output, targets), word_losses(hidden, output, targets)
    assert (found.dtype, each.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(found, word_loss_sum(hidden, output, targets), rtol=1e-3, atol=0)
    torch.testing.assert_close(found, each.sum())


def test_no_tensor_has_a_score_of_every_word_for_every_target():
    hidden, output, targets = made()
    with LargestTensor() as largest:
        word_loss_sum(hidden, output, targets).backward()
    assert largest.size == 512 * V


def test_no_targets_have_no_loss_and_gradients_of_zero():
    hidden, output, _ = made()
    loss = word_loss_sum(hidden[:0], output, torch.zeros(0, dtype=torch.int64))
    assert loss == 0
    assert [float(one.abs().sum()) for one in gradients(loss, hidden, output)] == [0.0] * 3
