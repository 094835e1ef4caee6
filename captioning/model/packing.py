"""Packing: the order in which an LSTM reads captions of different lengths without computing their padding.

Shapes: N captions, T words with <bos> and <eos>, P inputs of the LSTM.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from captioning.data.vocabulary import PAD


class Packing(NamedTuple):
    """Places of the inputs that an LSTM computes: each caption's image, then its words before the last one.

    Attributes:
        rows: (P,) int64 index of each input in the flattened (N, T) inputs, longest caption first at every step.
        batch_sizes: number of captions that go on at every step.
    """

    rows: Tensor
    batch_sizes: tuple[int, ...]

    @classmethod
    def of(cls, tokens: Tensor) -> "Packing":
        """Return the packing of captions, (N, T) int64; in CPU memory, because a GPU would have to be waited for."""
        lengths = (tokens.cpu() != PAD).sum(1)
        order = lengths.argsort(descending=True, stable=True)
        steps = torch.arange(int(lengths.max()))[:, None]
        goes_on = steps < lengths[order]
        return cls((order * tokens.shape[1] + steps)[goes_on], tuple(goes_on.sum(1).tolist()))

    def to(self, device: torch.device) -> "Packing":
        """Return the packing for a model on a device; a copy from pinned memory is asynchronous."""
        return self._replace(rows=self.rows.to(device, non_blocking=True))


def word_rows(tokens: Tensor, packing: Packing | None) -> Tensor:
    """Return where the words are that are no padding.

    Args:
        tokens: (N, T) int64 word ids without the last word of each caption.
        packing: packing of the captions; None takes padding for words.

    Returns:
        (P,) int64 index of each word in the flattened tokens.
    """
    if packing is None:
        return torch.arange(tokens.numel(), device=tokens.device)
    length = tokens.shape[1] + 1  # with the image, which is the first input of each caption
    rows = packing.rows[packing.batch_sizes[0] :]
    return rows // length * tokens.shape[1] + rows % length - 1


def run_packed(lstm: nn.LSTM, inputs: Tensor, packing: Packing) -> Tensor:
    """Run an LSTM over the inputs of a packing.

    Args:
        lstm: LSTM of one layer.
        inputs: (N, T, E) image and words of each caption.
        packing: places of the inputs to compute.

    Returns:
        (N, T, H) hidden states, 0 where there is padding.
    """
    rows = inputs.flatten(0, 1).index_select(0, packing.rows)
    if inputs.is_cuda:
        # In autocast, torch computes an LSTM on a GPU in float16, also if bfloat16 is asked for.
        with torch.autocast("cuda", enabled=False):
            rows = rows.to(next(lstm.parameters()).dtype)
            hidden = lstm(PackedSequence(rows, torch.tensor(packing.batch_sizes)))[0].data
    else:
        hidden = _run_steps(lstm, rows, packing.batch_sizes)
    padded = hidden.new_zeros(len(inputs) * inputs.shape[1], hidden.shape[1])
    return padded.index_copy(0, packing.rows, hidden).unflatten(0, inputs.shape[:2])


def _run_steps(lstm: nn.LSTM, rows: Tensor, batch_sizes: tuple[int, ...]) -> Tensor:
    """Run an LSTM over packed inputs, (P, E) -> (P, H), with the bits of ``nn.LSTM``.

    ``nn.LSTM`` cuts each step out of all inputs, so that its backward pass fills a gradient of all inputs with zeros at
    every step, which takes up to 40 % of its time on a CPU.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = lstm.parameters()
    hidden = cell = rows.new_zeros(batch_sizes[0], lstm.hidden_size)
    states = []
    for step in F.linear(rows, weight_ih, bias_ih).split(batch_sizes):
        hidden, cell = hidden[: len(step)], cell[: len(step)]
        into, keep, new, out = F.linear(hidden, weight_hh, bias_hh).add_(step).unsafe_chunk(4, 1)
        cell = (keep.sigmoid_() * cell).add_(into.sigmoid_() * new.tanh_())
        hidden = out.sigmoid_() * cell.tanh()
        states.append(hidden)
    return torch.cat(states)
