"""Sketches made in PyTorch are those that burn makes from the same weights and examples (tests/agreement.rs)."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="SKIPPED: PyTorch is not installed, so gradix.torch is not tested")

import gradix  # noqa: E402
import gradix.torch as gt  # noqa: E402
from torch import nn  # noqa: E402
from torch_models import RMSNorm  # noqa: E402

AGREEMENT = json.loads((Path(__file__).parents[2] / "tests/fixtures/torch_agreement.json").read_text())


class Model(nn.Module):
    """As that of tests/agreement.rs."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.first = RMSNorm(8)
        self.first.variance_epsilon = 1e-5
        self.shared = nn.Linear(8, 8)
        self.second = nn.LayerNorm(8)
        self.down = nn.Linear(8, 8, bias=False)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, input_ids, attention_mask=None):
        x = self.tokens(input_ids)
        y = self.shared(self.first(x)).cumsum(1).tanh()
        y = self.shared(self.second(y)).tanh()
        return self.head(x + self.down(y))


def load():
    model = Model().eval()
    taps = gt.Taps(model, convention="burn")
    assert sorted(it.name for it in taps.parameters) == sorted(AGREEMENT["weights"])
    for parameter in taps.parameters:
        shape, values = AGREEMENT["weights"][parameter.name]
        weights = torch.tensor(values).reshape(shape)
        # burn has the inputs of a linear layer first.
        is_linear = parameter.name in ("shared.weight", "down.weight")
        parameter.tensor.data = weights.t().contiguous() if is_linear else weights
    model.head.weight = model.tokens.weight
    return model


@pytest.mark.parametrize("kernel", ["engine", "torch"])
@pytest.mark.parametrize("made", AGREEMENT["sketches"], ids=lambda it: f"{it['spec']['sketcher']['kind']} {it['rows']}")
def test_sketches_are_those_of_burn(made, kernel):
    """Catches names, an order of axes or of parameters, and a loss that differ from burn's: rows of the two could not be in
    one index."""
    collector = gt.Collector(load(), gradix.SketchSpec.from_json(json.dumps(made["spec"])), convention="burn", kernel=kernel)
    assert [list(it) for it in collector.parameters] == made["parameters"]
    examples = [
        {"input_ids": tokens, "labels": [-100] * first + tokens[first:]} for tokens, first in AGREEMENT["examples"]
    ]
    if made["rows"] == "losses":
        found = collector.sketch(examples)
    else:
        found = np.concatenate([collector.positions(example, AGREEMENT["spans"]) for example in examples])
    expected = np.array(made["values"], np.float32)
    assert found.shape == expected.shape
    difference = np.linalg.norm(found - expected, axis=1)
    assert (difference <= 1e-5 * np.linalg.norm(expected, axis=1)).all(), difference


def test_convention_of_pytorch_differs():
    """Catches a test of agreement that could not fail: as PyTorch stores its weights, the sketches are others."""
    made = AGREEMENT["sketches"][0]
    spec = gradix.SketchSpec.from_json(json.dumps(made["spec"]))
    examples = [{"input_ids": tokens} for tokens, _ in AGREEMENT["examples"]]
    found = gt.Collector(load(), spec).sketch(examples)
    assert not np.allclose(found, np.array(made["values"], np.float32), rtol=1e-2)
