"""Sketches of the rows of a batch: by the engine's kernel on the CPU, by torch operations elsewhere."""

from __future__ import annotations

import json

import numpy as np
import torch

from . import _kronecker, _rapid_grad
from ._errors import GradientError, TapError
from ._factors import Factors


class RowSketcher:
    """Sketches of a spec.

    `kernel` is `"engine"`, `"torch"`, or None: the engine's for gradients on the CPU under a `RapidGrad` spec, torch
    operations otherwise. Both have the same signs and buckets; their sums differ by rounding.
    """

    def __init__(self, spec, kernel: str | None = None):
        if kernel not in (None, "engine", "torch"):
            raise ValueError(f"kernel is {kernel!r}; 'engine' and 'torch' are possible")
        self.spec = spec
        self.kernel = kernel
        described = json.loads(spec.to_json())
        sketcher = described["sketcher"]
        self.kind = sketcher["kind"]
        if self.kind not in ("rapid_grad", "kronecker"):
            raise TapError(f"a spec of kind {self.kind!r} says nothing of how gradients become sketches")
        if "optimizer" in described:
            raise TapError("the spec has an optimizer's step, and these are plain gradients")
        self._seed = int(sketcher["seed"])
        self._is_per_tensor = sketcher.get("normalisation") == "per_tensor"
        self._is_global = sketcher.get("routing") == "global"
        self._sides = [tuple(sides) for sides in sketcher.get("sides", [])]
        self._blocks = [(block["name"], block["dims"]) for block in described["blocks"]]
        self.dims = sum(dims for _, dims in self._blocks)
        self._projections = _kronecker.Projections(self._seed)
        self._engine = None

    def block_of(self, name: str) -> int:
        """The ordinal of the block that takes a parameter."""
        if self._is_global:
            return 0
        fitting = [
            (len(block.encode()), ordinal)
            for ordinal, (block, _) in enumerate(self._blocks)
            if name == block or name.startswith(block + ".")
        ]
        if not fitting:
            raise TapError(f"no block of the spec takes parameter {name!r}")
        return max(fitting)[1]

    def check(self, parameter) -> None:
        """Refuses a parameter that the spec cannot take."""
        self.block_of(parameter.name)
        if self.kind == "kronecker" and not parameter.is_matrix:
            raise TapError(f"{parameter.own_name} is no matrix, and a Kronecker spec takes nothing else")

    def sketch(self, factors: Factors) -> tuple[np.ndarray, dict[int, str]]:
        """The sketches `[rows, dims]`, and what is wrong with the rows that have none."""
        if self.kind == "kronecker":
            return self._kronecker(factors)
        is_on_host = factors.device.type == "cpu"
        if self.kernel == "engine" or (self.kernel is None and is_on_host):
            return self._by_engine(factors)
        return self._by_torch(factors)

    def _by_engine(self, factors):
        if self._engine is None:
            from gradix import Sketcher

            self._engine = Sketcher(self.spec)
        folds = self._engine.start_batch(factors.rows)
        for parameter, first, gradients in factors.gradients():
            folds.add(parameter.name, first, gradients.contiguous().cpu().numpy())
        return folds.finish()

    def _by_torch(self, factors):
        sums = self._zeros(factors)
        for parameter, first, gradients in factors.gradients():
            if self._is_per_tensor:
                gradients = _rapid_grad.per_tensor(gradients)
            block = sums[self.block_of(parameter.name)][first : first + len(gradients)]
            _rapid_grad.fold(block, self._seed, parameter.name, gradients)
        return self._finish(sums)

    def _kronecker(self, factors):
        sums = self._zeros(factors)
        for parameter in factors.parameters:
            self.check(parameter)
            block = self.block_of(parameter.name)
            uses = list(factors.uses(parameter, 0, factors.rows))
            if uses:
                sums[block] += self._projections.project(
                    parameter.name, parameter.matrix_shape(), self._sides[block], uses, factors.device
                )
        return self._finish(sums)

    def _zeros(self, factors):
        return [torch.zeros(factors.rows, dims, device=factors.device) for _, dims in self._blocks]

    def _finish(self, sums):
        values = torch.cat(sums, 1).cpu().numpy()
        wrong = np.flatnonzero(~np.isfinite(values).all(1))
        return values, {int(row): "the gradient or its sketch is not finite" for row in wrong}


def sketch_or_raise(sketcher: RowSketcher, factors: Factors) -> np.ndarray:
    """The sketches of all rows; a row without one is an error."""
    values, wrong = sketcher.sketch(factors)
    for row, reason in wrong.items():
        raise GradientError(row, reason)
    return values
