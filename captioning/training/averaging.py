"""Moving average of the trained weights: its captions are often better than those of the last step's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def decay_at(step: int, decay: float) -> float:
    """Return the share of the old average that a step keeps, smaller at first so that the initial weights soon fade.

    The rise is that of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.

    Args:
        step: number of steps done, the one to average included.
        decay: share in the long run.
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """Exponential moving average of a model's trainable weights, the same in every process of a group.

    Args:
        model: the bare model; the average begins with its weights.
        decay: share of the old average that a step keeps in the long run.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._decay = decay
        self.weights: dict[str, Tensor] = {name: weight.detach().clone() for name, weight in self._trained.items()}
        """Averaged weights by their names in the model, in its precision and on its device."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the model's weights after a step to the average.

        Args:
            step: number of steps done, this one included.
        """
        average: list[Tensor] = list(self.weights.values())
        trained: list[Tensor] = [*self._trained.values()]
        torch._foreach_lerp_(average, trained, 1 - decay_at(step, self._decay))  # pyright: ignore[reportPrivateImportUsage]  one kernel for all on a GPU

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights for the time of a block; it then has its own again, bit for bit."""
        own = {name: weight.detach().clone() for name, weight in self._trained.items()}
        self._set(self.weights)
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again with the model's weights."""
        for name, weight in self.weights.items():
            weight.copy_(self._trained[name])

    def restore(self, trained: dict[str, Tensor]) -> None:
        """Take the model's weights, which are an average, over, and give the model weights of its own, by name."""
        self.restart()
        self._set(trained)

    @torch.no_grad()
    def _set(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self._trained.items():
            weight.copy_(weights[name])
