"""Records, in a forward and its backward, what layers see and what is sent back to them."""

from __future__ import annotations

import contextlib
import fnmatch
import math
from dataclasses import dataclass, field
from typing import Callable, Iterable, Iterator

import torch
from torch import nn

from ._errors import TapError
from ._factors import Factors
from ._layers import Layer, layer_of

#: Modules that make rows random, or mix the examples of a batch, while they are trained.
_RANDOM_OR_MIXING = (
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._BatchNorm,
    nn.RReLU,
)

#: Experts gather tokens of all examples: that as many as there are examples come says nothing of whose they are.
CONDITIONAL_ROWS = "conditional layers see tokens, not examples, on their first axis: batch_rows=1 is needed"


@dataclass
class Parameter:
    """A parameter that is sketched."""

    #: Its name in the sketch.
    name: str
    #: Its name in the model.
    own_name: str
    tensor: nn.Parameter
    #: As it is folded, with the inputs first for a matrix under a `Kronecker` spec.
    shape: list[int]
    #: Whether the gradient is folded with the outputs first.
    outputs_first: bool
    #: The layers that have it, and what it is to each: "weight" or "bias".
    uses: list[tuple[Layer, str]] = field(default_factory=list)

    @property
    def is_matrix(self) -> bool:
        layer, role = self.uses[0]
        return role == "weight" and layer.is_matrix

    def matrix_shape(self) -> list[int]:
        """The shape with the inputs first."""
        return self.uses[0][0].weight_shape()


@dataclass
class Tap:
    """One use of a layer."""

    layer: Layer
    #: What the layer keeps of its input.
    seen: torch.Tensor
    #: The gradient of its output.
    gradient: torch.Tensor


class Taps:
    """The parameters of a model whose gradients are recorded, and the hooks that do it.

    - `select`: patterns (as of `fnmatch`) or a function that say which parameters, by their names in the model. A
      pattern also stands for all parameters of the modules that it matches. Default: all.
    - `lora_only`: only parameters with `lora_` in their names.
    - `frozen`: also parameters that do not require gradients. By default they are left out.
    - `convention`: `"torch"` folds a parameter as PyTorch stores it, under its name. `"burn"` folds it as burn does:
      weights of linear layers with the inputs first, and `gamma` and `beta` in place of a norm's `weight` and `bias`.
    - `rename`: a function from such a name to the one in the sketch.
    - `inputs_first`: fold all matrices with the inputs first, as a `Kronecker` spec needs it, and without `select` leave
      out what is no matrix.
    - `conditional`: layers may be left out by a forward; their gradient is zero then. Only for batches of one example.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        select: str | Iterable[str] | Callable[[str], bool] | None = None,
        lora_only: bool = False,
        frozen: bool = False,
        convention: str = "torch",
        rename: Callable[[str], str] | None = None,
        inputs_first: bool = False,
        conditional: bool = False,
    ):
        if convention not in ("torch", "burn"):
            raise ValueError(f"convention is {convention!r}; 'torch' and 'burn' are possible")
        self.model = model
        self._conditional = conditional
        leave_vectors = inputs_first and select is None
        inputs_first = inputs_first or convention == "burn"
        wanted = _selection(select)
        modules = dict(model.named_modules())
        layers, reasons = {}, {}
        for name, module in modules.items():
            if any(parameter is not None for parameter in module._parameters.values()):
                layers[name], reasons[name] = layer_of(name, module)
        owners = _owners(modules)
        self.parameters: list[Parameter] = []
        refused = []
        for own_name, tensor in model.named_parameters():
            if not (tensor.requires_grad or frozen) or not tensor.is_floating_point():
                continue
            if lora_only and "lora_" not in own_name or not wanted(own_name):
                continue
            uses = [(layers[module], key) for module, key in owners[id(tensor)]]
            if any(layer is None for layer, _ in uses):
                module = next(module for module, _ in owners[id(tensor)] if layers[module] is None)
                refused.append(f"{own_name} ({reasons[module]})")
                continue
            layer, role = uses[0]
            is_matrix = role == "weight" and layer.is_matrix
            if any((role == "weight" and layer.is_matrix) != is_matrix for layer, role in uses):
                refused.append(f"{own_name} (it is shared by layers of different kinds)")
                continue
            if leave_vectors and not is_matrix:
                continue
            outputs_first = is_matrix and layer.is_transposed and not inputs_first
            name = _burn_name(own_name, layer, role) if convention == "burn" else own_name
            shape = list(tensor.shape)
            if is_matrix and inputs_first:
                shape = layer.weight_shape()
            self.parameters.append(
                Parameter(rename(name) if rename else name, own_name, tensor, shape, outputs_first, uses)
            )
        if refused:
            raise TapError(
                "these parameters cannot be tapped, select others: " + ", ".join(refused[:8])
                + (f" and {len(refused) - 8} more" if len(refused) > 8 else "")
            )
        if not self.parameters:
            raise TapError("no parameter is selected; frozen ones are only with frozen=True")
        names = [parameter.name for parameter in self.parameters]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise TapError(f"two parameters are called {twice!r} in the sketch")
        devices = sorted({str(parameter.tensor.device) for parameter in self.parameters})
        if len(devices) > 1:
            raise TapError(f"the selected parameters are on several devices: {', '.join(devices)}; one is needed")
        tapped = {layer.name: layer for parameter in self.parameters for layer, _ in parameter.uses}
        self._layers: list[Layer] = list(tapped.values())

    @property
    def device(self) -> torch.device:
        return self.parameters[0].tensor.device

    @contextlib.contextmanager
    def record(self, rows: int, loss_scale: float = 1.0) -> Iterator["Record"]:
        """Records one forward and one backward of `rows` examples, which must be the first axis of all layers' inputs.

        In the block no parameter requires gradients, so that the backward computes none of its own and leaves
        `.grad` alone. Call `backward()` on the *sum* of the examples' losses, times `loss_scale`, in it. The hooks are
        gone behind it, whatever happens.
        """
        if self._conditional and rows > 1:
            raise TapError(CONDITIONAL_ROWS)
        for module in self.model.modules():
            if module.training and isinstance(module, _RANDOM_OR_MIXING) and getattr(module, "p", 1.0) > 0:
                raise TapError(f"a {type(module).__name__} is in training mode: call model.eval()")
        record = Record(self, rows, loss_scale)
        handles = []
        try:
            with self._requiring([]):
                for layer in self._layers:
                    handles.append(layer.module.register_forward_hook(record.hook(layer)))
                yield record
        finally:
            for handle in handles:
                handle.remove()

    @contextlib.contextmanager
    def _requiring(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        """Only these parameters require gradients in the block."""
        before = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        try:
            for parameter, required in before:
                if required:
                    parameter.requires_grad_(False)
            for parameter in parameters:
                parameter.requires_grad_(True)
            yield
        finally:
            for parameter, required in before:
                if parameter.requires_grad != required:
                    parameter.requires_grad_(required)

    def check(self, losses: Callable[[], torch.Tensor], factors: Factors) -> bool:
        """Compares the sum of the rows' gradients, and the last row's, with what autograd computes from `losses()`.

        The sums differ if a parameter is used elsewhere than in its module, if the forward is random, or if the gradients
        of a narrow number type are too coarse. The rows differ if a layer's first axis is not that of the examples, or if
        the forward mixes them. Returns whether they could be compared: gradients that are not finite cannot.
        """
        sums: dict[str, torch.Tensor] = {}
        for parameter, _, gradients in factors.gradients():
            part = gradients.sum(0)
            sums[parameter.name] = sums[parameter.name] + part if parameter.name in sums else part
        causes = "it is used elsewhere than in its module, or the forward is random or too coarse"
        what = "the gradients of the taps are"
        if not self._compare(losses, factors.scale, lambda parameter: sums[parameter.name], what, causes):
            return False
        last = factors.rows - 1
        if last == 0:
            return True
        causes = (
            "the first axis of its layer's input is not that of the examples, or the forward mixes the examples of a batch; "
            "try batch_rows=1"
        )
        return self._compare(
            lambda: losses()[last],
            factors.scale,
            lambda parameter: factors.gradient(parameter, last, last + 1)[0],
            "the gradient of the last example of a batch is",
            causes,
        )

    def _compare(
        self, losses, scale: float, found: Callable[[Parameter], torch.Tensor], what: str, causes: str
    ) -> bool:
        """Whether the gradients of the sum of `losses()` are finite; a `TapError` if what was found is something else.

        The loss is scaled as it was for the taps, since a narrow number type loses small gradients.
        """
        tensors = [parameter.tensor for parameter in self.parameters]
        kept = [tensor.grad for tensor in tensors]
        # Not torch.autograd.grad, which reentrant checkpoints do not bear.
        try:
            for tensor in tensors:
                tensor.grad = None
            with torch.enable_grad(), self._requiring(tensors):
                (losses().float().sum() / scale).backward()
            expected = [tensor.grad for tensor in tensors]
        finally:
            for tensor, gradient in zip(tensors, kept):
                tensor.grad = gradient
        narrow = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in tensors)
        tolerance = 0.05 if narrow else 1e-3
        norms = []
        for parameter, gradient in zip(self.parameters, expected):
            if gradient is None:
                gradient = torch.zeros_like(parameter.tensor)
            gradient = gradient.detach().float() * scale
            if parameter.is_matrix:
                layer = parameter.uses[0][0]
                gradient = gradient.reshape(gradient.shape[0], -1)
                if layer.is_transposed and not parameter.outputs_first:
                    gradient = gradient.t()
            gradient = gradient.reshape(-1)
            norms.append((parameter, gradient.norm().item(), (gradient - found(parameter)).norm().item()))
        largest = max(norm for _, norm, _ in norms)
        if not all(math.isfinite(norm) for _, norm, _ in norms):
            return False
        for parameter, norm, difference in norms:
            # A gradient that is zero but for rounding differs from itself.
            if not difference <= tolerance * (norm + 1e-2 * largest):
                raise TapError(
                    f"{parameter.own_name}: {what} not autograd's (they differ by {difference:.3g}, of a norm of "
                    f"{norm:.3g}): {causes}; check=False leaves this comparison out"
                )
        return True


class Record:
    """What the taps of one forward and backward have seen."""

    def __init__(self, taps: Taps, rows: int, loss_scale: float):
        self._taps = taps
        self._rows = rows
        self._loss_scale = loss_scale
        self._seen: list[Tap] = []
        self._called: set[str] = set()

    def hook(self, layer: Layer):
        def after(module, inputs, output):
            if not torch.is_grad_enabled():
                return None
            if not inputs:
                raise TapError(f"{layer.name}: its input must be given by position, not by keyword")
            x = inputs[0].detach()
            output, x = self._by_rows(layer, output, x)
            self._called.add(layer.name)
            with torch.no_grad():
                seen = layer.seen(x)
            anchor = torch.zeros((), device=output.device, requires_grad=True)
            return _Watch.apply(output, anchor, lambda gradient: self._seen.append(Tap(layer, seen, gradient)))

        return after

    def _by_rows(self, layer, output, x):
        rows, given = self._rows, output.shape[0]
        if given == rows or rows == 1:
            return output, x
        if given == 1:
            # As positions are embedded: once for all rows.
            return output.expand(rows, *output.shape[1:]), x.expand(rows, *x.shape[1:])
        raise TapError(
            f"{layer.name}: the first axis of its output has {given} places for a batch of {rows} examples; "
            "such a layer is sketched with batches of one example (batch_rows=1), or not selected"
        )

    def factors(self) -> Factors:
        """The factors of the gradients of all parameters, after the backward."""
        taps: dict[str, list[Tap]] = {}
        for tap in self._seen:
            taps.setdefault(tap.layer.name, []).append(tap)
        for parameter in self._taps.parameters:
            names = [layer.name for layer, _ in parameter.uses]
            if not self._taps._conditional and not any(name in taps for name in names):
                called = any(name in self._called for name in names)
                why = (
                    "the loss does not depend on its layer's output; under gradient checkpointing, use_reentrant=False helps"
                    if called
                    else "its layer was not called, or the backward was not in the block"
                )
                raise TapError(f"{parameter.own_name} has no gradient: {why}")
        return Factors(self._taps.parameters, taps, self._rows, 1.0 / self._loss_scale)


class _Watch(torch.autograd.Function):
    """The identity, which tells what gradient comes back.

    It copies: the caller may change its output in place. The anchor makes the output require a gradient though no
    parameter does.
    """

    @staticmethod
    def forward(ctx, output, anchor, tell):
        ctx.tell = tell
        return output.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.tell(gradient.detach())
        return gradient, None, None


def _selection(select) -> Callable[[str], bool]:
    if select is None:
        return lambda name: True
    if callable(select):
        return select
    patterns = [select] if isinstance(select, str) else list(select)

    def matches(name: str) -> bool:
        parts = name.split(".")
        heads = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        return any(fnmatch.fnmatchcase(head, pattern) for pattern in patterns for head in heads)

    return matches


def _owners(modules: dict[str, nn.Module]) -> dict[int, list[tuple[str, str]]]:
    """The modules that have a parameter as their own, and under which key."""
    owners: dict[int, list[tuple[str, str]]] = {}
    for name, module in modules.items():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((name, key))
    return owners


def _burn_name(name: str, layer: Layer, role: str) -> str:
    if layer.is_matrix or role not in name:
        return name
    return name[: -len(role)] + {"weight": "gamma", "bias": "beta"}[role]
