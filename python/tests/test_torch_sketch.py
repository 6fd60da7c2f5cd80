"""Folds and projections by torch operations equal the engine's."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="SKIPPED: PyTorch is not installed, so gradix.torch is not tested")

import gradix  # noqa: E402
import gradix.torch as gt  # noqa: E402
from gradix.torch import _kronecker, _rapid_grad  # noqa: E402
from torch import nn  # noqa: E402
from torch_models import Language, square_loss, texts  # noqa: E402

LARGEST_SEED = 2**64 - 1


def factors_of(model, batch, rows, loss=square_loss, **options):
    taps = gt.Taps(model, **options)
    with taps.record(rows) as record:
        loss(model, batch).sum().backward()
    return taps, record.factors()


@pytest.mark.parametrize("dims", [16, 64, 4096, 1 << 17])
@pytest.mark.parametrize("elements", [0, 1, 15, 16, 17, 100, 4096, 5000, 70_001])
@pytest.mark.parametrize(("seed", "name"), [(7, "layers.0.weight"), (LARGEST_SEED, "schicht.é")])
def test_fold_equals_the_engine(dims, elements, seed, name):
    """Catches a sign, lane or bucket that differs from the engine's: sums of small whole numbers are exact in any order,
    so that not a bit may differ."""
    generator = torch.Generator().manual_seed(elements)
    gradients = torch.randint(-8, 9, (3, elements), generator=generator).float()
    engine = gradix.Sketcher(gradix.SketchSpec.rapid_grad(seed, dims)).start_batch(3)
    engine.add(name, 0, gradients.numpy())
    expected, wrong = engine.finish()
    assert wrong == {}
    sums = torch.zeros(3, dims)
    _rapid_grad.fold(sums, seed, name, gradients)
    assert np.array_equal(sums.numpy(), expected)


def test_fold_of_scaled_tensors_equals_the_engine():
    """Catches norms that are rounded before the division, and tiny tensors that are not left out."""
    torch.manual_seed(1)
    spec = gradix.SketchSpec.rapid_grad(7, 64, normalisation="per_tensor")
    gradients = torch.randn(4, 333) * torch.tensor([[1.0], [1e20], [1e-30], [1e-42]])
    engine = gradix.Sketcher(spec).start_batch(4)
    engine.add("a", 0, gradients.numpy())
    expected, _ = engine.finish()
    sums = torch.zeros(4, 64)
    _rapid_grad.fold(sums, 7, "a", _rapid_grad.per_tensor(gradients))
    np.testing.assert_allclose(sums.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert not expected[3].any() and expected[:3].any()


@pytest.mark.parametrize(("p", "n"), [(1, 1), (4, 7), (7, 7), (8, 5), (16, 100), (3, 64)])
def test_projections_equal_the_engine(p, n):
    """Catches a sign, a scale, or a form of a side (whole or projected) that differs from the engine's by a bit."""
    spec = gradix.SketchSpec.kronecker(LARGEST_SEED, [("é", p, p)])
    _, inputs, outputs = gradix.Sketcher(spec).projections("é.weight", n, n + 2)
    keys = gt._kronecker.keys(_kronecker.PREFIX, LARGEST_SEED, "é.weight")
    assert np.array_equal(_kronecker.side(tuple(keys[:4]), p, n, "cpu").numpy().T, inputs)
    assert np.array_equal(_kronecker.side(tuple(keys[4:8]), p, n + 2, "cpu").numpy().T, outputs)


def test_sketches_of_a_model_equal_the_engine():
    """Catches parameters in another order, block or orientation than the engine is given."""
    torch.manual_seed(1)
    model, examples = Language().eval(), texts(5)
    modules = ["tokens", "places", "norm", "mlp", "rms", "shifted", "mix"]
    specs = [
        gradix.SketchSpec.rapid_grad(3, 256),
        gradix.SketchSpec.rapid_grad(3, 256, normalisation="per_tensor"),
        gradix.SketchSpec.rapid_grad_blocks(3, [(module, 64) for module in modules] + [("mlp.up", 32)]),
        gradix.SketchSpec.kronecker(3, [("tokens", 4, 8), ("places", 4, 4), ("mlp", 4, 8), ("mlp.up", 3, 5), ("mix", 8, 8)]),
    ]
    for spec in specs:
        is_kronecker = spec.kind == "kronecker"
        taps, factors = factors_of(model, gt.pad(examples), 5, gt.next_token_loss, inputs_first=is_kronecker)
        by_row = [{} for _ in examples]
        for parameter, first, gradients in factors.gradients():
            for row, gradient in enumerate(gradients):
                by_row[first + row][parameter.name] = gradient.reshape(parameter.shape).numpy()
        engine = gradix.Sketcher(spec)
        expected = np.stack([engine.sketch(gradient).values for gradient in by_row])
        for kernel in (None, "torch"):
            values, wrong = gt.RowSketcher(spec, kernel).sketch(factors)
            assert wrong == {} and values.dtype == np.float32
            if spec.kind == "rapid_grad" and kernel is None:
                assert np.array_equal(values, expected)
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_kronecker_of_layers_of_all_kinds():
    """Catches the sides of a convolution or of an embedding that change places."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv1d(3, 6, 2), nn.Flatten(), nn.Linear(24, 5)).eval()
    x = torch.randn(4, 3, 5)
    spec = gradix.SketchSpec.kronecker(1, [("0", 4, 4), ("2", 4, 8)])
    taps, factors = factors_of(model, x, 4, inputs_first=True)
    assert [(it.name, it.shape) for it in taps.parameters] == [("0.weight", [6, 6]), ("2.weight", [24, 5])]
    values, _ = gt.RowSketcher(spec).sketch(factors)
    for row in range(4):
        model.zero_grad()
        square_loss(model, x[row : row + 1]).sum().backward()
        gradient = {
            "0.weight": model[0].weight.grad.reshape(6, 6).t().contiguous().numpy(),
            "2.weight": model[2].weight.grad.t().contiguous().numpy(),
        }
        expected = gradix.Sketcher(spec).sketch(gradient).values
        np.testing.assert_allclose(values[row], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", ["engine", "torch"])
def test_rows_that_are_not_finite(kernel):
    """Catches NaN of one example that spoils the rows of others, or is not told."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 3)).eval()
    x = torch.randn(3, 4)
    x[1, 2] = float("inf")
    _, factors = factors_of(model, x, 3)
    values, wrong = gt.RowSketcher(gradix.SketchSpec.rapid_grad(1, 16), kernel).sketch(factors)
    assert list(wrong) == [1] and ("finite" in wrong[1] or "inf" in wrong[1])
    assert np.isfinite(values[[0, 2]]).all() and values[[0, 2]].any(1).all()


def test_specs_that_cannot_be_used():
    """Catches gradients that are folded under a spec that says something else."""
    model = nn.Sequential(nn.Linear(4, 3))
    dense = gradix.SketchSpec.dense("logra", "1", [("all", 16)])
    with pytest.raises(gt.TapError, match="dense"):
        gt.RowSketcher(dense)
    with pytest.raises(gt.TapError, match="optimizer"):
        gt.RowSketcher(gradix.SketchSpec.rapid_grad(1, 16).with_adam(0.9, 0.999, 1e-8, "state"))
    with pytest.raises(gt.TapError, match="no block of the spec takes parameter '0.weight'"):
        gt.Collector(model, gradix.SketchSpec.rapid_grad_blocks(1, [("layers", 16)]))
    with pytest.raises(gt.TapError, match="0.bias is no matrix"):
        gt.Collector(model, gradix.SketchSpec.kronecker(1, [("0", 4, 4)]), select="0")
    with pytest.raises(ValueError, match="kernel"):
        gt.RowSketcher(gradix.SketchSpec.rapid_grad(1, 16), "gpu")


def test_ranking_is_that_of_exact_gradients(tmp_path):
    """Catches sketches that keep nothing of the inner products: the scores of a linear model are those of its exact
    gradients within the error of a count-sketch, and an index ranks by them."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 16)).eval()
    x, targets = torch.randn(200, 64), torch.randint(0, 16, (200,))
    examples = [{"id": f"{at}", "x": x[at], "y": targets[at]} for at in range(200)]

    def collate(chosen):
        return torch.stack([it["x"] for it in chosen]), torch.stack([it["y"] for it in chosen])

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    dims = 512
    spec = gradix.SketchSpec.rapid_grad(7, dims)
    collector = gt.Collector(model, spec, loss=loss, collate=collate)
    index = gradix.Index.create(tmp_path / "index", gradix.Schema(spec, "f32"))
    assert collector.run(examples, index).rows == 200
    queries = collector.sketch(examples[:5])
    _, factors = factors_of(model, (x, targets), 200, loss)
    exact = torch.cat([gradients for _, _, gradients in factors.gradients()], 1).double().numpy()
    scores = exact[:5] @ exact.T
    norms = np.linalg.norm(exact, axis=1)
    sketched = queries.astype(float) @ collector.sketch(examples).astype(float).T
    error = np.abs(sketched - scores) / (norms[:5, None] * norms[None, :])
    # The variance of a count-sketch is at most 2 |g|^2 |h|^2 / dims; of a thousand errors none is at six deviations.
    assert error.max() <= 6 * np.sqrt(2 / dims) and error.std() > 0.1 * np.sqrt(1 / dims)
    with index.snapshot() as snapshot:
        ranking = snapshot.scan(queries, top_k=10)
    for query in range(5):
        found = [int(hit.id) for hit in ranking.proponents(query)]
        assert found == np.argsort(-sketched[query], kind="stable")[:10].tolist()
        assert found[0] == query
