"""Which modules can be tapped, and how the gradient of a parameter follows from what they saw.

A layer is asked for two things: what to keep of its input, and the two factors of its weight's gradient,
`sum over t of left_t (x) right_t` with the layer's inputs on the left.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ._errors import TapError


class OneHot:
    """One-hot rows, as the places of their ones: `[rows, time]`, of `width` columns."""

    def __init__(self, places: torch.Tensor, width: int):
        self.places = places
        self.width = width

    def times(self, matrix: torch.Tensor) -> torch.Tensor:
        """The product with a matrix `[width, columns]`: `[rows, time, columns]`."""
        return matrix[self.places]

    def product(self, right: torch.Tensor) -> torch.Tensor:
        """`sum over t of self_t (x) right_t`: `[rows, width, columns]`."""
        rows, time, columns = right.shape
        first = torch.arange(rows, device=right.device)[:, None] * self.width
        sums = right.new_zeros(rows * self.width, columns)
        sums.index_add_(0, (self.places + first).reshape(-1), right.reshape(rows * time, columns))
        return sums.view(rows, self.width, columns)


class Layer:
    """A module whose own parameters are `weight` and perhaps `bias`."""

    #: Whether the weight is stored as `[outputs, inputs]`.
    is_transposed = False
    #: Whether the weight has a gradient with two factors; if not, it scales the output element by element.
    is_matrix = True

    def __init__(self, name: str, module: nn.Module):
        self.name = name
        self.module = module

    def weight_shape(self) -> list[int]:
        """The weight's shape with the inputs first."""
        shape = list(self.module.weight.shape)
        return shape[::-1] if self.is_transposed else shape

    def seen(self, x: torch.Tensor) -> torch.Tensor:
        """What is kept of the input until the backward."""
        return x

    def width(self) -> int:
        """The elements of the output for each position."""
        return self.weight_shape()[-1]

    def output_gradient(self, gradient: torch.Tensor, rows: int) -> torch.Tensor:
        """The gradient of the output, `[rows, time, width]`."""
        return gradient.reshape(rows, -1, self.width())

    def left(self, x: torch.Tensor, rows: int):
        """The left factor of the weight's gradient, or what the output is the weight times: `[rows, time, inputs]`."""
        return x.reshape(rows, -1, x.shape[-1])

    def right(self, left, gradient: torch.Tensor) -> torch.Tensor:
        """The right factor of the weight's gradient, from that of the output: `[rows, time, width]`."""
        return gradient


class Linear(Layer):
    """`y = x W^T + b`, with W stored as `[outputs, inputs]`."""

    is_transposed = True


class Matrix(Layer):
    """`y = x W + b`, with W stored as `[inputs, outputs]`: Hugging Face's `Conv1D`."""


class Embedding(Layer):
    """`y = W[token]`."""

    def left(self, x, rows):
        return OneHot(x.reshape(rows, -1), self.module.num_embeddings)

    def right(self, left, gradient):
        # The row of padding_idx has no gradient.
        padding = self.module.padding_idx
        return gradient if padding is None else gradient * (left.places[:, :, None] != padding)


class Convolution(Layer):
    """A convolution of one or two axes, as a linear layer over the patches that its kernel sees."""

    is_transposed = True

    def weight_shape(self):
        weight = self.module.weight
        return [weight[0].numel(), weight.shape[0]]

    def output_gradient(self, gradient, rows):
        # A batch of one may have any number of images, or none of an axis for them: all their places are the example's.
        places = gradient.flatten(-len(self.module.kernel_size))
        return places.transpose(-1, -2).reshape(rows, -1, self.width())

    def left(self, x, rows):
        module = self.module
        # The attribute has the padding of each side, whether it was given as numbers or as a word.
        x = F.pad(x, module._reversed_padding_repeated_twice)
        kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
        if len(kernel) == 1:
            x = x.unsqueeze(-2)
            kernel, dilation, stride = (1, *kernel), (1, *dilation), (1, *stride)
        patches = F.unfold(x, kernel, dilation=dilation, stride=stride)
        return patches.transpose(-1, -2).reshape(rows, -1, patches.shape[-2])


class Scale(Layer):
    """`y = n(x) * w + b`, element by element: a norm."""

    is_matrix = False

    def weight_shape(self):
        return [self.module.weight.numel()]

    def seen(self, x):
        # The output is affine in the weight, so that n is the difference between weights of one and of zero,
        # also where a model scales by 1 + w.
        module = self.module
        weight, bias = module._parameters["weight"], module._parameters.get("bias")
        forward = type(module).forward
        try:
            if bias is not None:
                module._parameters["bias"] = torch.zeros_like(bias)
            module._parameters["weight"] = torch.ones_like(weight)
            one = forward(module, x)
            module._parameters["weight"] = torch.zeros_like(weight)
            return one - forward(module, x)
        except TypeError as error:
            kind = type(module).__name__
            raise TapError(f"{self.name}: a {kind} that needs more than its input cannot be tapped: {error}") from error
        finally:
            module._parameters["weight"] = weight
            if bias is not None:
                module._parameters["bias"] = bias

    def left(self, x, rows):
        return x.reshape(rows, -1, self.width())


def _is_huggingface_conv1d(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")


def _is_norm(module: nn.Module) -> bool:
    name = type(module).__name__
    return name.endswith(("LayerNorm", "RMSNorm", "LayerNormFP32"))


def layer_of(name: str, module: nn.Module) -> tuple[Layer | None, str]:
    """The layer that a module is, or None and why its parameters cannot be tapped."""
    own = {key for key, value in module._parameters.items() if value is not None}
    forward = type(module).forward
    if own - {"weight", "bias"} or "weight" not in own:
        return None, f"a {type(module).__name__} has parameters of its own besides weight and bias"
    for base, layer in [(nn.Linear, Linear), (nn.Embedding, Embedding), (nn.Conv1d, Convolution), (nn.Conv2d, Convolution)]:
        if not isinstance(module, base):
            continue
        if forward is not base.forward:
            return None, f"a {type(module).__name__} computes something else than a {base.__name__}"
        if layer is Embedding and (module.max_norm is not None or module.scale_grad_by_freq):
            return None, "an embedding with max_norm or scale_grad_by_freq"
        if layer is Convolution and (module.groups != 1 or module.padding_mode != "zeros"):
            return None, "a convolution with groups, or padding that is not of zeros"
        return layer(name, module), ""
    if _is_huggingface_conv1d(module):
        return Matrix(name, module), ""
    if _is_norm(module):
        return Scale(name, module), ""
    return None, f"a {type(module).__name__} is none of the layers that can be tapped"
