"""Tensors of PyTorch as gradients and rows."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import child, numbers

import gradix

torch = pytest.importorskip("torch", reason="SKIPPED: PyTorch is not installed")

SKETCHER = gradix.Sketcher(gradix.SketchSpec.rapid_grad(7, 64))


def folded(values: Any) -> bytes:
    return SKETCHER.sketch({"w": values}).values.tobytes()


@pytest.mark.parametrize("number", ["float32", "float16", "bfloat16"])
def test_tensor_is_taken_exactly(number: str) -> None:
    """Catches a type of numbers whose bits are read as another's."""
    given = torch.from_numpy(numbers(6)).to(getattr(torch, number))
    assert folded(given) == folded(given.float().numpy())
    assert folded(given.t()) == folded(given.float().t().contiguous().numpy())


def test_tensor_that_takes_gradients_is_taken() -> None:
    """Catches the error that numpy() of a tensor raises which is part of a graph."""
    given = torch.from_numpy(numbers(6)).requires_grad_()
    assert folded(given) == folded(given.detach().numpy())
    assert folded(torch.nn.Parameter(given.detach())) == folded(given.detach().numpy())


@pytest.mark.parametrize("number", ["float64", "int16"])
def test_other_tensors_are_refused(number: str) -> None:
    """Catches numbers that are rounded in silence; and bits of int16 that are taken for bfloat16."""
    with pytest.raises(TypeError, match=number):
        folded(torch.ones(4, dtype=getattr(torch, number)))


def test_rows_of_tensors_are_appended(index: gradix.Index) -> None:
    """Catches a batch or a query that only numpy can make."""
    rows = torch.from_numpy(numbers(3))
    with index.writer() as writer:
        writer.append_batch(["a", "b"], rows[:2])
        writer.append("c", rows[2])
    with index.snapshot() as snapshot:
        stored = [row.sketch.values.tobytes() for row in snapshot.rows(sketches=True)]
        assert stored == [row.numpy().tobytes() for row in rows]
        assert [snapshot.scan(rows, top_k=1).proponents(query)[0].id for query in range(3)] == ["a", "b", "c"]


def test_tensor_on_the_device_is_copied_to_the_host() -> None:
    """Catches a tensor of CUDA that is taken for one of the host."""
    if not torch.cuda.is_available():
        pytest.skip("SKIPPED: no CUDA device")
    given = torch.from_numpy(numbers(6))
    assert folded(given.cuda()) == folded(given)


def test_tensor_is_not_copied() -> None:
    """Catches a copy of a tensor on the way to the engine: of 256 MiB, the process would grow by them."""
    grown = child("""
        import resource, torch, gradix
        sketcher = gradix.Sketcher(gradix.SketchSpec.rapid_grad(7, 4096))
        sketcher.sketch({"w": torch.ones(1 << 12)})
        gradient = torch.ones((1 << 13, 1 << 13))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sketcher.sketch({"w": gradient})
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    assert int(grown) < 32 << 10, "in KiB"
