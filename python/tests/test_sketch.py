"""Specs, schemas, sketches, and the arrays that they are made of."""

from __future__ import annotations

import pickle
from typing import Any

import numpy
import pytest
from conftest import child, numbers

import gradix

SPECS = [
    gradix.SketchSpec.rapid_grad(7, 64),
    gradix.SketchSpec.rapid_grad(7, 64, normalisation="per_tensor"),
    gradix.SketchSpec.rapid_grad_blocks(2**64 - 1, [("a", 64), ("b", 32)]),
    gradix.SketchSpec.kronecker(3, [("a", 4, 8), ("b", 2, 2)]),
    gradix.SketchSpec.dense("logra", "sha256:1f", [("a", 5), ("b", 7)]),
    gradix.SketchSpec.rapid_grad(7, 64).with_adam(0.9, 0.999, 1e-8, "step 100"),
]


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_spec_survives_json_and_pickle(spec: gradix.SketchSpec) -> None:
    """Catches a part of a spec that JSON, pickle, equality or the hash forgets."""
    for copy in (gradix.SketchSpec.from_json(spec.to_json()), pickle.loads(pickle.dumps(spec))):
        assert copy == spec
        assert hash(copy) == hash(spec)
    assert sum(other == spec for other in SPECS) == 1
    assert len({*SPECS, spec}) == len(SPECS)


def test_spec_says_what_it_is() -> None:
    """Catches getters that read another field."""
    whole, normalised, blocks, kronecker, dense, adam = SPECS
    assert (whole.kind, whole.seed, whole.normalisation, whole.blocks) == ("rapid_grad", 7, "none", [("all", 64)])
    assert normalised.normalisation == "per_tensor"
    assert (blocks.seed, blocks.dims, blocks.blocks) == (2**64 - 1, 96, [("a", 64), ("b", 32)])
    assert (kronecker.kind, kronecker.sides, kronecker.dims) == ("kronecker", [(4, 8), (2, 2)], 36)
    assert (dense.kind, dense.seed, dense.normalisation, dense.sides) == ("dense", None, None, [])
    assert adam.for_queries() == whole != adam
    assert whole.nested(2).dims == 32


def test_schema_survives_pickle() -> None:
    """Catches encodings or tiers that get lost, or a schema that equals another."""
    spec = gradix.SketchSpec.rapid_grad_blocks(7, [("a", 64), ("b", 64)])
    one = gradix.Schema(spec, ["f16", "i8"], tiers=["i8", ("sign", 5)])
    copy = pickle.loads(pickle.dumps(one))
    assert copy == one
    assert (copy.spec, copy.encodings, copy.tiers) == (spec, ["f16", "i8"], [("sign", 5), "i8"])
    assert gradix.Schema(spec, "f16") != one


def folded(values: Any) -> Any:
    return gradix.Sketcher(SPECS[0]).sketch({"w": values}).values


def test_half_precision_is_taken_exactly() -> None:
    """Catches a conversion that rounds, or mixes up the two kinds of sixteen bits."""
    given = numbers(6).astype(numpy.float16)
    given[0, :3] = [6e-8, -0.0, 65504]
    assert folded(given).tobytes() == folded(given.astype(numpy.float32)).tobytes()


def test_other_layouts_are_copied_into_order() -> None:
    """Catches elements that are taken in the order of memory instead of that of rows, or from an odd address."""
    given = numbers(6)
    expected = folded(numpy.ascontiguousarray(given.T)).tobytes()
    assert folded(given.T).tobytes() == expected
    assert folded(numpy.asfortranarray(given.T)).tobytes() == expected
    every_other = numpy.repeat(given, 2, axis=0)[::2]
    assert folded(every_other).tobytes() == folded(given).tobytes()
    odd = numpy.frombuffer(b"\0" + given.tobytes(), dtype=numpy.uint8)[1:].view(numpy.float32)
    assert odd.ctypes.data % 4 != 0
    assert folded(odd).tobytes() == folded(given).tobytes()
    big_endian = given.astype(">f4")
    with pytest.raises(TypeError, match="float32"):
        folded(big_endian)


@pytest.mark.parametrize("dtype", ["float64", "int32", "complex64", "bool"])
def test_other_types_are_refused(dtype: str) -> None:
    """Catches numbers that are rounded or reinterpreted in silence."""
    with pytest.raises(TypeError, match=f"float32, float16 or bfloat16, and not {dtype}"):
        folded(numpy.ones(4, dtype))


@pytest.mark.parametrize("given", [[1.0, 2.0], 3.0, "w", None])
def test_what_is_no_array_is_refused(given: Any) -> None:
    """Catches an obscure error where a list or a number is given."""
    with pytest.raises(TypeError, match="an array of numpy or a tensor of PyTorch"):
        folded(given)


def test_gradient_is_not_copied() -> None:
    """Catches a copy on the way to the engine: of 256 MiB, the process would grow by them."""
    grown = child("""
        import resource, numpy, gradix
        sketcher = gradix.Sketcher(gradix.SketchSpec.rapid_grad(7, 4096))
        sketcher.sketch({"w": numpy.ones(1 << 12, numpy.float32)})
        gradient = numpy.ones((1 << 13, 1 << 13), numpy.float32)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sketcher.sketch({"w": gradient})
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    assert int(grown) < 32 << 10, "in KiB"


def test_batch_is_not_copied(tmp_path: Any) -> None:
    """Catches a copy of the rows of a batch; the engine's own buffers are less than half of these 256 MiB."""
    grown = child(
        """
        import resource, sys, numpy, gradix
        schema = gradix.Schema(gradix.SketchSpec.dense("t", "v1", [("all", 1024)]), "i8")
        with gradix.Index.create(sys.argv[1], schema).writer() as writer:
            rows = numpy.ones((1 << 16, 1024), numpy.float32)
            ids = [str(row) for row in range(1 << 16)]
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            writer.append_batch(ids, rows)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """,
        str(tmp_path / "i"),
    )
    assert int(grown) < 200 << 10, "in KiB"


def test_fold_equals_sketch() -> None:
    """Catches tensors that are added twice, in another order, or to another block."""
    spec = gradix.SketchSpec.rapid_grad_blocks(7, [("a", 64), ("b", 32)])
    sketcher = gradix.Sketcher(spec)
    gradient = {"a.w": numbers(3), "b.w": numbers(2, seed=1), "a.b": numbers(1, seed=2)}
    fold = sketcher.start()
    for name, values in gradient.items():
        fold.add(name, values)
    sketch = fold.finish()
    assert sketch == sketcher.sketch(gradient)
    assert (sketch.block("a").size, sketch.block("b").size, len(sketch)) == (64, 32, 96)
    with pytest.raises(gradix.InvalidStateError, match="finished"):
        fold.add("a.w", gradient["a.w"])
    with pytest.raises(gradix.NotFoundError, match="no block"):
        sketch.block("c")
    with pytest.raises(gradix.InvalidInputError, match="c.w"):
        sketcher.sketch({"c.w": numbers(1)})


def test_projections_give_the_kronecker_sketch() -> None:
    """Catches sides that are swapped, or a matrix whose rows are taken for columns."""
    sketcher = gradix.Sketcher(gradix.SketchSpec.kronecker(3, [("a", 4, 8)]))
    gradient = numbers(40, dims=24)
    block, inputs, outputs = sketcher.projections("a.weight", 40, 24)
    assert (block, inputs.shape, outputs.shape) == (0, (4, 40), (8, 24))
    expected = (inputs.astype(float) @ gradient @ outputs.T.astype(float)).ravel()
    numpy.testing.assert_allclose(sketcher.sketch({"a.weight": gradient}).values, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(gradix.InvalidInputError, match="a matrix of shape"):
        sketcher.sketch({"a.weight": gradient.ravel()})


def test_prefixes_share_a_sketch() -> None:
    """Catches a prefix that is dropped, and sums that are not of both."""
    sketcher = gradix.Sketcher(gradix.SketchSpec.rapid_grad_blocks(7, [("early", 32), ("late", 32)]))
    early = sketcher.under("early").sketch({"w": numbers(1)})
    late = sketcher.under("late").sketch({"w": numbers(1, seed=1)})
    both = early + late
    assert (both.block("early") == early.block("early")).all()
    assert (both.block("late") == late.block("late")).all()
    assert both - late == early
    assert (2 * early).values.tobytes() == (early.values * 2).tobytes()
    assert numpy.asarray(both).tobytes() == both.values.tobytes()


def test_values_that_are_not_finite_are_refused() -> None:
    """Catches NaN and infinity that pass the border."""
    for wrong in (numpy.nan, numpy.inf):
        values = numbers(1, dims=12)[0]
        values[3] = wrong
        with pytest.raises(gradix.InvalidInputError):
            gradix.Sketch(SPECS[4], values)
        with pytest.raises(gradix.InvalidInputError):
            folded(values)
    with pytest.raises(gradix.InvalidInputError, match="5"):
        gradix.Sketch(SPECS[4], numbers(1, dims=5)[0])
