"""Sketches of the gradients of PyTorch models, one for each example, from one backward a batch.

>>> import gradix, gradix.torch
>>> collector = gradix.torch.Collector(model.eval(), gradix.SketchSpec.rapid_grad(7, 4096))   # doctest: +SKIP
>>> collector.run(examples, index, ids="id", sources="source")                                # doctest: +SKIP
>>> ranking = index.snapshot().scan(collector.sketch([output])).top_k(10)                      # doctest: +SKIP

The gradient of a linear layer's matrix for one example is the sum over its positions of inputs times output gradients.
Hooks record both for a whole batch, and the sum is folded by the formula of the spec (format-spec/sketch.md and
kronecker.md), so that rows made here, by `gradix.Sketcher` or by burn from the same gradients may meet in an index.

Layers: `nn.Linear`, Hugging Face's `Conv1D`, `nn.Embedding`, `nn.Conv1d` and `nn.Conv2d` without groups, layer norms and
RMS norms. Weights may be tied, modules called several times, and activations checkpointed. Everything else is an error
that names the parameter, and the first batch is compared with autograd's gradients.
"""

from __future__ import annotations

from ._collect import Collected, Collector
from ._errors import CollectError, GradientError, ResumeError, TapError
from ._examples import cut, next_token_loss, pad
from ._factors import Factors
from ._sketch import RowSketcher
from ._taps import Parameter, Record, Taps

__all__ = [
    "CollectError",
    "Collected",
    "Collector",
    "Factors",
    "GradientError",
    "Parameter",
    "Record",
    "ResumeError",
    "RowSketcher",
    "TapError",
    "Taps",
    "cut",
    "next_token_loss",
    "pad",
]
