"""Per-example gradients of a batch, from one backward.

For one example the gradient of a linear layer's matrix is the sum over its positions of `x_t (x) g_t`, of inputs and
output gradients; a bias's is the sum of `g_t`, a scale's that of `n_t * g_t`. No layer may mix the examples of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator, Sequence

import torch

from ._layers import OneHot

if TYPE_CHECKING:
    from ._taps import Parameter, Tap

#: Gradient elements that are computed at once, unless one row has more: 64 MiB.
CHUNK_ELEMENTS = 1 << 24


class Factors:
    """The factors of the gradients of a batch. Rows are its examples, or spans of their positions."""

    def __init__(self, parameters: list[Parameter], taps: dict[str, list[Tap]], rows: int, scale: float):
        self.parameters = parameters
        self.rows = rows
        self._taps = taps
        self._batch = rows
        #: Gradients are multiplied by it: the inverse of the loss's scale.
        self.scale = scale
        self._spans: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def device(self) -> torch.device:
        return self.parameters[0].tensor.device

    def by_spans(self, spans: Sequence[Sequence[tuple[int, int]]]) -> "Factors":
        """The same with spans of positions for rows: `spans[b]` are pairs of start and end in example b."""
        if len(spans) != self._batch:
            raise ValueError(f"spans of {len(spans)} examples for a batch of {self._batch}")
        flat = [(example, *span) for example, of_one in enumerate(spans) for span in of_one]
        longest = max((end - start for _, start, end in flat), default=0)
        times = {self._time(tap) for of_layer in self._taps.values() for tap in of_layer}
        if len(times) > 1:
            raise ValueError(f"rows of positions need layers that see the same positions, and these saw {sorted(times)}")
        (time,) = times
        for example, start, end in flat:
            if not 0 <= start < end <= time:
                raise ValueError(f"span {start}..{end} of example {example} is not in its {time} positions")
        device = self.device
        at = torch.arange(longest, device=device)[None, :]
        example, start, end = torch.tensor(flat, device=device).reshape(-1, 3, 1).unbind(1)
        mask = at < end - start
        index = example * time + start + at * mask
        other = Factors(self.parameters, self._taps, len(flat), self.scale)
        other._batch = self._batch
        other._spans = (index, mask[:, :, None])
        return other

    def _time(self, tap: Tap) -> int:
        return tap.layer.output_gradient(tap.gradient, self._batch).shape[1]

    def gradients(self) -> Iterator[tuple[Parameter, int, torch.Tensor]]:
        """Parameter, ordinal of the first row, and gradients `[rows, elements]` in float32, each row in the order in
        which it is folded. All rows of a parameter come before the next one."""
        for parameter in self.parameters:
            elements = max(1, parameter.tensor.numel())
            at_once = min(max(1, CHUNK_ELEMENTS // elements), max(1, self.rows))
            for first in range(0, self.rows, at_once):
                yield parameter, first, self.gradient(parameter, first, min(self.rows, first + at_once))

    def gradient(self, parameter: Parameter, first: int, end: int) -> torch.Tensor:
        """The gradients of rows `first..end` of a parameter: `[rows, elements]`."""
        total = None
        for left, right in self.uses(parameter, first, end):
            if left is None:
                part = right.sum(1)
            else:
                if parameter.outputs_first:
                    left, right = right, left
                part = _product(left, right).reshape(end - first, -1)
            total = part if total is None else total + part
        if total is None:
            total = torch.zeros(end - first, parameter.tensor.numel(), device=self.device)
        return total

    def uses(self, parameter: Parameter, first: int, end: int) -> Iterator[tuple]:
        """The factors of every use, inputs on the left, in float32; or None and the terms, for a vector."""
        is_transposed = parameter.uses[0][0].is_transposed
        for layer, role in parameter.uses:
            for tap in self._taps.get(layer.name, []):
                seen, gradient, rows = self._run(tap, first, end)
                gradient = self._spread(layer.output_gradient(gradient, rows), first, end, masked=True).float()
                if self.scale != 1.0:
                    gradient = gradient * self.scale
                if role == "bias":
                    yield None, gradient
                    continue
                left = layer.left(seen, rows)
                if isinstance(left, OneHot):
                    left = OneHot(self._spread(left.places[:, :, None], first, end).squeeze(2), left.width)
                else:
                    left = self._spread(left, first, end).float()
                right = layer.right(left, gradient)
                if not layer.is_matrix:
                    yield None, left * right
                elif layer.is_transposed == is_transposed:
                    yield left, right
                else:
                    # The same parameter, stored for a layer of the other direction: a tied head.
                    yield right, left

    def _run(self, tap: Tap, first: int, end: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """What of a tap is needed for some rows. Spans are of any examples; a batch of one may have other first axes."""
        if self._spans is not None or self._batch == 1:
            return tap.seen, tap.gradient, self._batch
        return tap.seen[first:end], tap.gradient[first:end], end - first

    def _spread(self, x: torch.Tensor, first: int, end: int, masked: bool = False) -> torch.Tensor:
        """Of `[batch, time, width]` the positions of spans `first..end`; `x` itself if rows are examples."""
        if self._spans is None:
            return x
        index, mask = self._spans
        rows = x.reshape(-1, x.shape[2])[index[first:end]]
        return rows * mask[first:end] if masked else rows


def _product(left, right) -> torch.Tensor:
    """`sum over t of left_t (x) right_t`."""
    if isinstance(left, OneHot):
        return left.product(right)
    if isinstance(right, OneHot):
        return right.product(left).transpose(1, 2)
    return left.transpose(1, 2) @ right


def times(factor, matrix: torch.Tensor) -> torch.Tensor:
    """A factor `[rows, time, n]` times a matrix `[n, columns]`."""
    return factor.times(matrix) if isinstance(factor, OneHot) else factor @ matrix
