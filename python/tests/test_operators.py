"""Operators, curvature, maintenance and recovery."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from conftest import numbers

import gradix
from gradix import operators


def test_sources_are_summed(filled: gradix.Index) -> None:
    """Catches sources that are swapped, and settings that do not reach the operator."""
    query = numbers(1, seed=5)
    scores = numbers(40).astype(float) @ query[0].astype(float)
    with filled.snapshot() as snapshot:
        (sources,) = operators.by_source(snapshot, query, replicates=50, confidence=0.5, seed=3)
        assert [source["source"] for source in sources] == ["news", "wiki"]
        numpy.testing.assert_allclose([source["sum"] for source in sources], [scores[::2].sum(), scores[1::2].sum()], rtol=1e-4)
        assert len(operators.by_source(snapshot, numbers(3), mean_over_queries=True)) == 1
        with pytest.raises(gradix.InvalidInputError):
            operators.by_source(snapshot, query, confidence=2.0)
        with pytest.raises(gradix.InvalidInputError):
            operators.by_source(snapshot, query, memory=1)


def test_selection_is_by_task(filled: gradix.Index) -> None:
    """Catches tasks that are ranges of other queries, and a fraction that is taken for a count."""
    queries = numbers(3, seed=5)
    scores = queries.astype(float) @ numbers(40).astype(float).T
    with filled.snapshot() as snapshot:
        selected = operators.select(snapshot, queries, count=4, tasks=[(0, 2), (2, 3)])
        expected = numpy.maximum(scores[:2].mean(axis=0), scores[2])
        best = numpy.argsort(-expected)[:4]
        assert [example["id"] for example in selected] == [f"x{row:02}" for row in best]
        assert [example["task"] for example in selected] == [int(scores[2, row] > scores[:2, row].mean()) for row in best]
        assert len(operators.select(snapshot, queries, fraction=0.25)) == 10
        for wrong in ({}, {"count": 1, "fraction": 0.5}, {"fraction": 0.0}, {"count": 1, "tasks": [(0, 4)]}):
            with pytest.raises(gradix.InvalidInputError):
                operators.select(snapshot, queries, **wrong)


def test_coreset_covers_the_queries(index: gradix.Index) -> None:
    """Catches an objective that is not the one asked for."""
    rows = numpy.zeros((3, 48), numpy.float32)
    rows[0, 0], rows[1, 0], rows[2, 1] = 1, 0.9, 0.5
    queries = numpy.eye(2, 48, dtype=numpy.float32)
    with index.writer() as writer:
        writer.append_batch(["best", "nearly the same", "another"], rows)
    with index.snapshot() as snapshot:
        chosen = operators.coreset(snapshot, queries, 2, facility_location=True)
        assert [example["id"] for example in chosen["examples"]] == ["best", "another"]
        assert (chosen["kept"], chosen["value"]) == ([1.0, 1.0], 1.5)
        assert operators.coreset(snapshot, queries[:1], 1, share=1.0)["examples"][0]["id"] == "best"
        with pytest.raises(gradix.InvalidInputError):
            operators.coreset(snapshot, queries, 2, facility_location=True, share=0.5)


def test_duplicates_are_found(filled: gradix.Index) -> None:
    """Catches pairs that are missing, and filters that apply to one side."""
    with filled.writer() as writer:
        writer.append("x07 again", numbers(40)[7], source="wiki")
        writer.append("x08 again", numbers(40)[8], source="wiki")
    with filled.snapshot() as snapshot:
        pairs = list(operators.duplicates(snapshot, 0.999))
        assert [pair[:2] for pair in pairs] == [("x07", "x07 again"), ("x08", "x08 again")]
        assert operators.duplicate_clusters(snapshot, 0.999, threads=1) == [["x07", "x07 again"], ["x08", "x08 again"]]
        assert [pair[0] for pair in operators.duplicates(snapshot, 0.999, sources=["wiki"])] == ["x07"]
        with pytest.raises(TypeError, match="can be set here"):
            operators.duplicates(snapshot, 0.999, ids=["x07"])
        with pytest.raises(gradix.InvalidInputError):
            list(operators.duplicates(snapshot, 2.0))


def test_curvature_is_fitted_and_used(filled: gradix.Index) -> None:
    """Catches a curvature whose name or damping does not reach the fit or the scan."""
    query = numbers(1, seed=5)
    with filled.writer() as writer:
        fit = writer.fit_curvature("mine", estimates={"layers.0": 8, "layers.1": "full"})
        assert (fit["added"], fit["covered"]["rows"]) == (40, 40)
        mine = gradix.Curvature("mine", kappa=0.5, rank=4, allow_missing=1.0)
        writer.fit_self_influence(mine)
        with pytest.raises(gradix.InvalidInputError):
            writer.fit_curvature("mine", estimates={"layers.0": "half"})
    rows, blocks = numbers(40).astype(float), [slice(0, 32), slice(32, 48)]
    with filled.snapshot() as snapshot:
        state = snapshot.curvature(mine)
        assert (state["name"], state["kappa"], state["rank"]) == ("mine", 0.5, 4)
        plain = snapshot.scan(query, top_k=40).to_numpy()["score"]
        ranking = snapshot.scan(query, top_k=40, curvature="mine")
        assert ranking.statistics["curvature"]["name"] == "mine"
        # The second block in full, with the default damping: lambda is kappa times the mean squared norm over N.
        block = rows[:, blocks[1]]
        damping = 2.0 * (block**2).sum(axis=1).mean() / 40
        inverse = numpy.linalg.inv(block.T @ block / 40 + damping * numpy.eye(16))
        expected = numpy.sort(block @ inverse @ query[0, blocks[1]])[::-1]
        found = snapshot.scan(query, top_k=40, curvature="mine", blocks="layers.1").to_numpy()["score"]
        numpy.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        assert not numpy.allclose(plain, ranking.to_numpy()["score"])
        highest = operators.highest_self_influence(snapshot, 3, mine)
        values = {row.id: row.self_influence for row in snapshot.rows(self_influence=mine)}
        assert [row["id"] for row in highest] == sorted(values, key=lambda found: -values[found])[:3]
        with pytest.raises(gradix.NotFoundError):
            snapshot.scan(query, top_k=1, curvature=True)
    with filled.writer() as writer:
        assert writer.drop_curvature("mine")
        assert not writer.drop_curvature("mine")


def test_observed_sketches_are_a_curvature(index: gradix.Index) -> None:
    """Catches observations of tokens that are not summed up with the commit."""
    with index.writer() as writer:
        writer.append("a", numbers(1)[0])
        writer.observe("tokens", "a", numbers(20, seed=3))
    with index.snapshot() as snapshot:
        assert [block["rows"] for block in snapshot.curvature("tokens")["blocks"]] == [20, 20]


def test_stored_rows_are_queries(filled: gradix.Index) -> None:
    """Catches a mean that is a sum, and missing ids that are left out in silence."""
    rows = numbers(40)
    with filled.snapshot() as snapshot:
        numpy.testing.assert_allclose(operators.sum_of(snapshot, ["x01", "x02"]).values, rows[1] + rows[2], rtol=1e-6)
        mean = operators.mean_of(snapshot, ["x01", "x02"])
        numpy.testing.assert_allclose(mean.values, (rows[1] + rows[2]) / 2, rtol=1e-6)
        both = operators.informative([mean, mean], [1.0, 3.0])
        assert both.spec == mean.spec
        with pytest.raises(gradix.NotFoundError, match="nothing"):
            operators.mean_of(snapshot, ["x01", "nothing"])


def test_compaction_and_collection_say_what_they_did(filled: gradix.Index) -> None:
    """Catches fractions and times that do not reach the engine."""
    with filled.writer() as writer:
        writer.delete("x00")
        writer.commit()
        assert writer.compact(dead_fraction=0.5, small_fraction=0.0)["segments_removed"] == 0
        assert writer.compact(all=True)["rows_dropped"] == 1
        assert writer.gc()["segments"] == 0
        assert writer.gc(keep_generations=9, grace=0)["segments"] == 0
        assert writer.gc(grace=0)["segments"] == 1
        for wrong in (-1.0, float("nan")):
            with pytest.raises(gradix.InvalidInputError, match="grace"):
                writer.gc(grace=wrong)
        writer.append("pending", numbers(1)[0])
        with pytest.raises(gradix.InvalidStateError):
            writer.compact()
        writer.abort()
    assert filled.verify()["findings"] == []
    assert filled.stats()["rows"] == 39


def test_lost_manifest_comes_back(filled: gradix.Index, tmp_path: Path) -> None:
    """Catches a recovery that overwrites, or that says nothing of what it found."""
    with pytest.raises(gradix.AlreadyExistsError):
        gradix.Index.recover(filled.path)
    (filled.path / "manifest").rename(tmp_path / "lost")
    recovery = gradix.Index.recover(filled.path)
    assert (recovery["rows"], recovery["left_out"]) == (40, [])
    assert len(gradix.Index.open(filled.path).snapshot()) == 40
