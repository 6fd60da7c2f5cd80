"""Reading: scans, rankings, scores, rows, ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import DIMS, numbers

import gradix


def found(snapshot: gradix.Snapshot, queries: Any, **options: Any) -> list[Any]:
    return [hit.id for hit in snapshot.scan(queries, **{"top_k": 40, **options}).proponents()]


def test_ranking_is_that_of_numpy(filled: gradix.Index) -> None:
    """Catches queries in another order, ends that are swapped, and scores of other rows."""
    rows, queries = numbers(40).astype(float), numbers(3, seed=5)
    expected = queries.astype(float) @ rows.T
    with filled.snapshot() as snapshot:
        ranking = snapshot.scan(queries, top_k=7, bottom_k=4)
        for query in range(3):
            best = numpy.argsort(-expected[query])
            assert [hit.id for hit in ranking.proponents(query)] == [f"x{row:02}" for row in best[:7]]
            assert [hit.id for hit in ranking.opponents(query)] == [f"x{row:02}" for row in best[::-1][:4]]
            scores = [hit.score for hit in ranking.proponents(query)]
            numpy.testing.assert_allclose(scores, expected[query][best[:7]], rtol=1e-5)
        assert ranking.queries == 3
        for wrong in (3, -1):
            with pytest.raises((IndexError, OverflowError)):
                ranking.proponents(wrong)


def test_every_kind_of_query_is_taken(filled: gradix.Index) -> None:
    """Catches a sketch, a list, a vector or a matrix that is read as another."""
    query = numbers(1, seed=5)
    sketch = gradix.Sketch(filled.schema.spec, query[0])
    with filled.snapshot() as snapshot:
        expected = found(snapshot, query)
        assert len(expected) == 40
        for same in (query[0], sketch, [sketch], (sketch, sketch)):
            assert found(snapshot, same) == expected
        for wrong in (query[:, :-1], query[None], numpy.float32(1), []):
            with pytest.raises((ValueError, TypeError)):
                snapshot.scan(wrong, top_k=1)


def test_options_reach_the_scan(filled: gradix.Index) -> None:
    """Catches an option that is read and not set, or set as another."""
    query = numbers(1, seed=5)[0]
    rows = numbers(40).astype(float)
    first, second = rows[:, :32] @ query[:32], rows[:, 32:] @ query[32:]

    def order(scores: Any) -> list[str]:
        return [f"x{row:02}" for row in numpy.argsort(-scores)]

    with filled.snapshot() as snapshot:
        assert found(snapshot, query, blocks="layers.0") == order(first)
        assert found(snapshot, query, blocks=["layers.1"]) == order(second)
        assert found(snapshot, query, blocks="layers") == order(first + second)
        assert found(snapshot, query, weights={"layers.0": 0.25}) == order(first / 4 + second)
        assert found(snapshot, query, metric="unit_rows") == order((first + second) / numpy.linalg.norm(rows, axis=1))
        assert found(snapshot, query, ids=["x01", b"x02"]) == [
            row for row in order(first + second) if row in ("x01", "x02")
        ]
        assert len(found(snapshot, query, exclude_ids=["x01", "x02"])) == 38
        assert len(found(snapshot, query, sources="wiki")) == 20
        assert len(found(snapshot, query, sources=["wiki", "news"])) == 40
        assert found(snapshot, query, spans="tokens") == []
        assert found(snapshot, query, spans=(3, 4)) == found(snapshot, query, spans="whole", grouping="max")
        cosine = snapshot.scan(rows[3].astype(numpy.float32), top_k=1, metric="cosine").proponents()[0]
        assert (cosine.id, round(cosine.score, 6)) == ("x03", 1.0)
        ranking = snapshot.scan(query, top_k=1, threads=1, kernel="scalar", path="full", reading="buffered")
        assert {name: ranking.statistics[name] for name in ("threads", "kernel", "path", "reading", "rows")} == {
            "threads": 1,
            "kernel": "scalar",
            "path": "full",
            "reading": "buffered",
            "rows": 40,
        }
        assert found(snapshot, query, top_k=None, bottom_k=3, keep_cache=False) == []


def test_tiers_give_the_same_ranking(tmp_path: Path, spec: gradix.SketchSpec) -> None:
    """Catches tiers that are not those asked for, and a guarantee that is not passed on."""
    index = gradix.Index.create(tmp_path / "i", gradix.Schema(spec, "f16", tiers=["i8", ("sign", 3)]))
    with index.writer() as writer:
        writer.append_batch([f"x{row:02}" for row in range(40)], numbers(40))
    query = numbers(1, seed=5)[0]
    with index.snapshot() as snapshot:
        expected = found(snapshot, query, path="full")
        assert found(snapshot, query, path="i8_tier") == expected
        ranking = snapshot.scan(query, top_k=40, guarantee=1e-6, path="sign_tier")
        assert [hit.id for hit in ranking.proponents()] == expected
        assert (ranking.statistics["path"], ranking.statistics["delta"]) == ("sign_tier", 1e-6)
        assert "full" in snapshot.explain(query, top_k=40)
        with pytest.raises(gradix.UnsupportedError):
            snapshot.scan(query, top_k=1, path="sign_tier")


@pytest.mark.parametrize(
    "options",
    [
        {"metric": "l2"},
        {"grouping": "mean"},
        {"guarantee": "maybe"},
        {"guarantee": 2.0},
        {"path": "fast"},
        {"reading": "slowly"},
        {"kernel": "gpu"},
        {"spans": "some"},
        {"top_k": 0},
        {"weights": {"layers.0": float("nan")}},
    ],
    ids=str,
)
def test_options_that_are_not_there_are_refused(filled: gradix.Index, options: Any) -> None:
    """Catches a misspelt value that is ignored."""
    with filled.snapshot() as snapshot:
        with pytest.raises(gradix.InvalidInputError):
            snapshot.scan(numbers(1)[0], **{"top_k": 1, **options})
        with pytest.raises(TypeError, match="no option"):
            snapshot.scan(numbers(1)[0], topk=1)


def test_hits_of_spans_are_grouped(index: gradix.Index) -> None:
    """Catches spans that hits lose, and metadata that is read without being asked for."""
    values = numbers(2)
    with index.writer() as writer:
        rows = [gradix.Row(values[0], span=(0, 4), source="a", metadata=b"m"), gradix.Row(values[1], span=(4, 9))]
        writer.append_rows("x", rows)
    with index.snapshot() as snapshot:
        hits = snapshot.scan(values[0], top_k=2, metadata=True).proponents()
        assert [(hit.id, hit.span, hit.source, hit.metadata) for hit in hits] == [
            ("x", (0, 4), "a", b"m"),
            ("x", (4, 9), None, b""),
        ]
        assert repr(hits[0]).startswith("Hit(id='x', score=")
        grouped = snapshot.scan(values[0], top_k=2, grouping="max").proponents()
        assert [(hit.id, hit.span, hit.metadata) for hit in grouped] == [("x", (0, 4), None)]
        summed = snapshot.scan(values[0], top_k=2, grouping="sum").proponents()
        assert [(hit.id, hit.span) for hit in summed] == [("x", None)]


def test_columns_hold_the_ranking(index: gradix.Index) -> None:
    """Catches columns of different lengths or orders, and ids that are not text."""
    with index.writer() as writer:
        writer.append_batch(["a", b"\xff", "c"], numbers(3), sources=["s", None, "t"], spans=[None, (1, 2), None])
    with index.snapshot() as snapshot:
        ranking = snapshot.scan(numbers(2, seed=5), top_k=2, bottom_k=1, metadata=True)
    hits = [
        (query, end, rank, hit)
        for query in range(2)
        for end, hits in (("proponents", ranking.proponents(query)), ("opponents", ranking.opponents(query)))
        for rank, hit in enumerate(hits)
    ]
    columns = ranking.to_numpy()
    assert len(hits) == 6
    assert columns["query"].tolist() == [query for query, *_ in hits]
    assert columns["end"].tolist() == [end for _, end, *_ in hits]
    assert columns["rank"].tolist() == [rank for _, _, rank, _ in hits]
    assert columns["id"].tolist() == [hit.id for *_, hit in hits]
    assert columns["score"].tolist() == [hit.score for *_, hit in hits]
    assert columns["source"].tolist() == [hit.source for *_, hit in hits]
    assert columns["metadata"].tolist() == [b""] * 6
    spans = list(zip(columns["span_start"].tolist(), columns["span_end"].tolist()))
    assert spans == [hit.span or (0, 2**32 - 1) for *_, hit in hits]
    whole = ranking.to_dict()
    assert [hit["score"] for hit in whole["proponents"][1]] == [hit.score for hit in ranking.proponents(1)]


def test_columns_of_pandas(filled: gradix.Index) -> None:
    """Catches a frame whose columns have other types or an order of their own."""
    pandas = pytest.importorskip("pandas")
    with filled.snapshot() as snapshot:
        ranking = snapshot.scan(numbers(2, seed=5), top_k=3)
        empty = snapshot.scan(numbers(1), top_k=3, spans="tokens").to_pandas()
    frame = ranking.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["id"].tolist() == ranking.to_numpy()["id"].tolist()
    assert frame["score"].dtype == numpy.float64
    assert (len(empty), list(empty.columns)) == (0, list(frame.columns))


def test_columns_of_arrow(index: gradix.Index) -> None:
    """Catches ids that are cut at a byte that is not text, and missing sources that become text."""
    pyarrow = pytest.importorskip("pyarrow")
    with index.writer() as writer:
        writer.append_batch(["a", "b"], numbers(2), sources=["s", None])
    with index.snapshot() as snapshot:
        text = snapshot.scan(numbers(1), top_k=2).to_arrow()
    with index.writer() as writer:
        writer.append(b"\xff", numbers(1)[0])
    with index.snapshot() as snapshot:
        binary = snapshot.scan(numbers(1), top_k=3).to_arrow()
    assert (text.schema.field("id").type, sorted(text["id"].to_pylist())) == (pyarrow.string(), ["a", "b"])
    assert text["source"].null_count == 1
    assert binary.schema.field("id").type == pyarrow.binary()
    assert sorted(binary["id"].to_pylist()) == [b"a", b"b", b"\xff"]


def test_scores_are_those_of_all_rows(filled: gradix.Index) -> None:
    """Catches pieces that are lost, repeated or out of order, and queries that are swapped."""
    queries = numbers(2, seed=5)
    with filled.snapshot() as snapshot:
        pieces = list(snapshot.scores(queries))
        assert [row for piece in pieces for row in piece.ids] == [f"x{row:02}" for row in range(40)]
        assert [source for piece in pieces for source in piece.sources] == ["news", "wiki"] * 20
        assert {span for piece in pieces for span in piece.spans} == {None}
        scores = numpy.concatenate([piece.scores for piece in pieces], axis=1)
        numpy.testing.assert_allclose(scores, queries.astype(float) @ numbers(40).astype(float).T, rtol=1e-4, atol=1e-4)
        assert sum(map(len, snapshot.scores(queries, sources="wiki"))) == 20
        with pytest.raises(gradix.NotFoundError):
            list(snapshot.scores(queries, sources="no such"))
        next(snapshot.scores(queries))  # and drops the rest


def test_ids_are_listed_by_prefix_and_range(filled: gradix.Index) -> None:
    """Catches an end that is included, and a range that is taken for a prefix."""
    with filled.snapshot() as snapshot:
        assert list(snapshot.ids("x1")) == [f"x1{row}" for row in range(10)]
        assert list(snapshot.ids(start="x37")) == ["x37", "x38", "x39"]
        assert list(snapshot.ids(start="x03", end="x05")) == ["x03", "x04"]
        assert list(snapshot.ids(end=b"x02")) == ["x00", "x01"]
        with pytest.raises(gradix.InvalidInputError):
            snapshot.ids("x", start="x1")
        assert "x03" in snapshot
        assert "nothing" not in snapshot
        assert snapshot.get("nothing") is None


def test_snapshot_is_of_one_generation(filled: gradix.Index) -> None:
    """Catches a view that moves on with the writer, or is used after its end."""
    with filled.snapshot() as snapshot:
        with filled.writer() as writer:
            writer.delete("x00")
            writer.commit()
            writer.gc(grace=0)
            assert len(snapshot) == 40
            assert snapshot.get("x00") is not None
        assert [row.id for row in snapshot] == [f"x{row:02}" for row in range(40)]
        assert snapshot.sources() == [
            {"source": "news", "rows": 20, "examples": 20},
            {"source": "wiki", "rows": 20, "examples": 20},
        ]
    for use in (len, list, lambda closed: closed.scan(numbers(1), top_k=1), lambda closed: closed.stats()):
        with pytest.raises(gradix.InvalidStateError, match="closed"):
            use(snapshot)
    snapshot.close()
    with filled.writer() as writer:
        writer.gc(grace=0)
    with pytest.raises(gradix.ExpiredError):
        filled.snapshot_at(1)
    with filled.snapshot() as newest:
        assert (len(newest), newest.generation, newest.stats()["dead_rows"]) == (39, 2, 1)
        assert newest.listing()["generation"] == 2


def test_iterator_outlives_what_made_it(filled: gradix.Index) -> None:
    """Catches rows that are read from an index that was dropped."""
    rows = filled.snapshot().rows(sketches=True)
    first = next(rows)
    del filled
    rest = list(rows)
    assert first.sketch is not None
    assert (first.sketch.values.size, len(rest), rest[-1].id) == (DIMS, 39, "x39")
    assert list(rows) == []
