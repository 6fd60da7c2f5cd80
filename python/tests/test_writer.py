"""Writing: rows in, commits, context managers, threads, kills."""

from __future__ import annotations

import gc
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import DIMS, child, numbers

import gradix


def ids(index: gradix.Index) -> list[Any]:
    with index.snapshot() as snapshot:
        return list(snapshot.ids())


def test_rows_come_back_bit_for_bit(index: gradix.Index) -> None:
    """Catches a value, span, source or metadata that another row gets, or that is changed on its way."""
    values = numbers(5)
    values[0, :4] = [1e-45, -0.0, 3e18, 1.5]
    with index.writer() as writer:
        writer.append("one", values[0], source="wiki", metadata=b"\0\xff")
        rows = [
            gradix.Row(values[1], span=(0, 4), source="news", metadata="text"),
            gradix.Row(gradix.Sketch(index.schema.spec, values[2]), span=(4, 9)),
        ]
        writer.append_rows(b"\xff\xfe", rows)
        writer.append_batch(["p", b"q"], values[3:], sources=["a", None], spans=[None, (1, 2)], metadata=[None, b"m"])
    with index.snapshot() as snapshot:
        got = [
            (row.id, row.span, row.source, row.metadata, row.sketch.values.tobytes())
            for row in snapshot.rows(sketches=True)
        ]
        assert [row.sketch for row in snapshot.rows()] == [None] * 5
        one = snapshot.get("one")[0]
    assert got == [
        ("one", None, "wiki", b"\0\xff", values[0].tobytes()),
        (b"\xff\xfe", (0, 4), "news", b"text", values[1].tobytes()),
        (b"\xff\xfe", (4, 9), None, b"", values[2].tobytes()),
        ("p", None, "a", b"", values[3].tobytes()),
        ("q", (1, 2), None, b"m", values[4].tobytes()),
    ]
    assert (one.metadata, one.sketch.values.tobytes()) == (b"\0\xff", values[0].tobytes())
    assert one.norms.shape == (2,)


@pytest.mark.parametrize(("encoding", "relative"), [("f16", 2**-11), ("i8", 1 / 127)])
def test_encodings_round_as_they_say(tmp_path: Path, spec: gradix.SketchSpec, encoding: str, relative: float) -> None:
    """Catches a binding that encodes twice, or block by the scale of another."""
    values = numbers(8) * numpy.float32(1e-6)
    index = gradix.Index.create(tmp_path / encoding, gradix.Schema(spec, encoding))
    with index.writer() as writer:
        writer.append_batch([str(row) for row in range(8)], values)
    with index.snapshot() as snapshot:
        for row, expected in zip(snapshot.rows(sketches=True), values):
            assert row.sketch is not None
            for block in (slice(0, 32), slice(32, 48)):
                error = numpy.abs(row.sketch.values[block] - expected[block]).max()
                assert 0 < error <= relative * numpy.abs(expected[block]).max()


def test_lists_of_sketches_are_a_batch(index: gradix.Index) -> None:
    """Catches a list of sketches that is taken for an array, or of which only the first is appended."""
    sketches = [gradix.Sketch(index.schema.spec, row) for row in numbers(3)]
    with index.writer() as writer:
        writer.append_batch(["a", "b", "c"], sketches, sources="all")
        other = gradix.Sketch(gradix.SketchSpec.dense("other", "v1", [("all", DIMS)]), numbers(1)[0])
        with pytest.raises(gradix.InvalidInputError, match="spec"):
            writer.append_batch(["d"], [other])
    with index.snapshot() as snapshot:
        assert [row.source for row in snapshot] == ["all"] * 3
        assert snapshot.get("b")[0].sketch == sketches[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ({"ids": ["a"]}, "1 ids for 2 rows"),
        ({"sources": ["a"]}, "1 sources for 2 rows"),
        ({"spans": [None] * 3}, "3 spans for 2 rows"),
        ({"metadata": []}, "0 metadata for 2 rows"),
        ({"values": numbers(2, dims=47)}, "shape"),
        ({"values": numbers(2, 1)}, "shape"),
    ],
    ids=lambda given: given[1],
)
def test_batches_that_do_not_fit_append_nothing(index: gradix.Index, arguments: Any) -> None:
    """Catches rows that are dropped or get a neighbour's id where lengths differ."""
    given, message = arguments
    with index.writer() as writer:
        with pytest.raises(ValueError, match=message):
            writer.append_batch(**{"ids": ["a", "b"], "values": numbers(2), **given})
        assert not writer.has_changes


def test_commit_at_the_end_of_a_with_statement(index: gradix.Index) -> None:
    """Catches a clean end that loses rows, and one that makes a generation for nothing."""
    with index.writer() as writer:
        writer.append("a", numbers(1)[0])
        commit = writer.commit(b"payload")
        assert (commit.generation, commit.appended, commit.deleted) == (1, 1, 0)
        assert writer.payload(1) == b"payload"
        assert writer.payload(9) is None
    with index.writer() as writer:
        assert writer.generation == 1
        assert "a" in writer
        assert writer.delete("a")
        assert not writer.delete("a")
        assert "a" not in writer
    assert ids(index) == []
    with index.snapshot() as snapshot:
        assert (snapshot.generation, snapshot.payload(), snapshot.payload(1)) == (2, b"", b"payload")
        assert [commit["appended"] for commit in snapshot.commits()][-2:] == [1, 0]


def test_exception_in_a_with_statement_commits_nothing(index: gradix.Index) -> None:
    """Catches half of a batch that becomes visible because an exception ended it; and a lock that stays."""
    with pytest.raises(ZeroDivisionError):
        with index.writer() as writer:
            writer.append("kept", numbers(1)[0])
            writer.commit()
            writer.append("lost", numbers(1)[0])
            raise ZeroDivisionError
    assert ids(index) == ["kept"]
    with index.writer() as writer:
        writer.append("lost", numbers(1)[0])
        writer.abort()
        assert not writer.has_changes
    assert ids(index) == ["kept"]


def test_writer_that_is_dropped_commits_nothing(index: gradix.Index) -> None:
    """Catches a destructor that commits, or that does not release the lock."""
    writer = index.writer()
    writer.append("lost", numbers(1)[0])
    del writer
    gc.collect()
    index.writer().close()
    assert ids(index) == []


def test_closed_writer_is_not_used(index: gradix.Index) -> None:
    """Catches a closed writer that writes on, or closes somebody else's lock."""
    writer = index.writer()
    writer.close()
    writer.close()
    for use in (writer.commit, writer.abort, lambda: writer.append("a", numbers(1)[0]), lambda: writer.generation):
        with pytest.raises(gradix.InvalidStateError, match="closed"):
            use()
    with index.writer():
        writer.close()
        with pytest.raises(gradix.BusyError):
            index.writer()


def test_replace_takes_the_place_of_all_rows(filled: gradix.Index) -> None:
    """Catches rows that stay beside those that replace them."""
    values = numbers(2, seed=9)
    with filled.writer() as writer:
        writer.replace("x00", [gradix.Row(values[0], span=(0, 1)), gradix.Row(values[1], span=(1, 2))])
        with pytest.raises(gradix.NotFoundError):
            writer.replace("new", values)
    with filled.snapshot() as snapshot:
        assert [row.span for row in snapshot.get("x00")] == [(0, 1), (1, 2)]
        assert len(snapshot) == 41
    with filled.snapshot_at(1) as snapshot:
        assert len(snapshot) == 40


def test_threads_share_a_writer(index: gradix.Index) -> None:
    """Catches a panic, a deadlock or a lost row where two threads append at once."""
    values = numbers(64)
    with index.writer() as writer:

        def append(first: int) -> None:
            for row in range(first, 64, 4):
                writer.append(f"{row:02}", values[row])

        threads = [threading.Thread(target=append, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with index.snapshot() as snapshot:
        assert list(snapshot.ids()) == [f"{row:02}" for row in range(64)]
        for row in snapshot.rows(sketches=True):
            assert row.sketch is not None
            assert row.sketch.values.tobytes() == values[int(row.id)].tobytes()


def test_writer_at_work_is_busy(filled: gradix.Index) -> None:
    """Catches a deadlock where the progress of a writer uses the writer."""
    errors = []
    with filled.writer() as writer:

        def progress(done: int, total: int) -> None:
            with pytest.raises(gradix.BusyError) as caught:
                writer.append("a", numbers(1)[0])
            errors.append(caught.value)
            with pytest.raises(gradix.BusyError):
                writer.close()

        writer.compact(all=True, progress=progress)
        assert errors
        writer.append("a", numbers(1)[0])
    assert len(ids(filled)) == 41


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_process_cannot_use_its_parents_writer(index: gradix.Index) -> None:
    """Catches a forked child that commits, or hangs, where it should be told."""
    with index.writer() as writer:
        writer.append("a", numbers(1)[0])
        child_id = os.fork()
        if child_id == 0:
            status = 1
            try:
                with pytest.raises(gradix.InvalidStateError):
                    writer.append("b", numbers(1)[0])
                with pytest.raises(gradix.InvalidStateError):
                    writer.commit()
                with pytest.raises(gradix.InvalidStateError, match="forked"):
                    gradix.Index.create(index.path / "other", index.schema)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child_id, 0)[1] == 0
    assert ids(index) == ["a"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_process_reads(filled: gradix.Index) -> None:
    """Catches a scan that waits for threads which are not there after a fork."""
    query = numbers(1)[0]
    with filled.snapshot() as snapshot:
        expected = [hit.id for hit in snapshot.scan(query, top_k=5).proponents()]
    child_id = os.fork()
    if child_id == 0:
        status = 1
        try:
            with gradix.Index.open(filled.path).snapshot() as snapshot:
                same = [hit.id for hit in snapshot.scan(query, top_k=5).proponents()] == expected
                status = 0 if same and len(list(snapshot.rows())) == 40 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child_id, 0)[1] == 0


def test_kill_between_commits_keeps_what_was_committed(index: gradix.Index) -> None:
    """Catches a commit that returned and is lost, or rows that were never committed and are there."""
    process = child(
        """
        import sys, numpy, gradix
        values = numpy.ones((200, 48), numpy.float32)
        with gradix.Index.open(sys.argv[1]).writer() as writer:
            for batch in range(10**9):
                writer.append_batch([f"{batch}/{row}" for row in range(200)], values)
                writer.commit()
                print(batch, flush=True)
                writer.append_batch([f"later {batch}/{row}" for row in range(200)], values)
                writer.abort()
        """,
        str(index.path),
        wait=False,
    )
    told = -1
    while told < 5:
        told = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    rest = process.communicate()[0].split()
    assert process.returncode == -signal.SIGKILL
    committed = max([told, *map(int, rest)]) + 1
    with index.writer() as writer:
        assert writer.generation >= committed
        generation = writer.generation
    found = ids(index)
    assert len(found) == 200 * generation
    assert not any(found_id.startswith("later") for found_id in found)
    assert index.verify()["findings"] == []


def test_detached_writers_build_parts(index: gradix.Index, tmp_path: Path) -> None:
    """Catches a part that is not finished, or whose rows are lost on attach."""
    values = numbers(4)
    with index.detached(tmp_path / "part") as part:
        part.append("a", values[0])
        part.append_rows("b", [gradix.Row(values[1], span=(0, 1))])
        part.append_batch(["c", "d"], values[2:], sources="s")
        assert "a" in part
        assert "z" not in part
        with pytest.raises(gradix.AlreadyExistsError):
            part.append("a", values[0])
    with pytest.raises(ZeroDivisionError):
        with index.detached(tmp_path / "part") as part:
            part.append("lost", values[0])
            raise ZeroDivisionError
    with index.detached(tmp_path / "part") as part:
        assert part.finished == 1
        part.append("e", values[0])
        second = part.finish(b"payload")
        assert (second.number, second.rows, second.payload) == (2, 1, b"payload")
    with index.writer() as writer:
        attached = writer.attach(tmp_path / "part")
        assert [(part.rows, part.examples) for part in attached] == [(4, 4), (1, 1)]
    assert ids(index) == ["a", "b", "c", "d", "e"]
    with index.snapshot() as snapshot:
        assert snapshot.get("d")[0].sketch.values.tobytes() == values[3].tobytes()
    with index.writer() as writer:
        with pytest.raises(gradix.NotFoundError):
            writer.attach(tmp_path)
        with pytest.raises(gradix.InvalidInputError, match="link, move or copy"):
            writer.attach(tmp_path / "part", "steal")
