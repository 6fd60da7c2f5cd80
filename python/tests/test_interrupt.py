"""Ctrl-C, progress, and other threads of Python while the engine works."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import child, numbers

import gradix

# A scan of minutes: on one thread, with the slowest kernel, for very many queries.
SLOW = """
import sys, numpy, gradix
index = gradix.Index.open(sys.argv[1])
queries = numpy.random.default_rng(0).standard_normal((4000, 2048)).astype(numpy.float32)
slow = {"kernel": "scalar", "path": "full", "threads": 1}
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> gradix.Index:
    """An index that takes long to scan."""
    spec = gradix.SketchSpec.dense("wide", "v1", [("all", 2048)])
    index = gradix.Index.create(tmp_path_factory.mktemp("wide") / "i", gradix.Schema(spec, "f32"))
    with index.writer() as writer:
        writer.append_batch([str(row) for row in range(8000)], numbers(8000, dims=2048))
    return index


@pytest.mark.parametrize(
    "work",
    [
        "index.snapshot().scan(queries, top_k=3, **slow)",
        "[len(piece) for piece in index.snapshot().scores(queries, **slow)]",
        "gradix.operators.select(index.snapshot(), queries, count=3, **slow)",
        "list(gradix.operators.duplicates(index.snapshot(), 0.9, batch=1, **slow))",
    ],
)
def test_ctrl_c_ends_what_takes_long(wide: gradix.Index, work: str) -> None:
    """Catches work that does not look for signals: it ends first, or never."""
    program = f"""{SLOW}
print("begins", flush=True)
try:
    {work}
    print("ended first")
except KeyboardInterrupt:
    print("interrupted")
with index.writer() as writer:
    writer.delete("nothing")
"""
    process = child(program, str(wide.path), wait=False)
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (out, process.returncode) == ("interrupted\n", 0), err


class Stop(Exception):
    """Raised by a progress callback."""


def stop(done: int, total: int) -> None:
    raise Stop


def test_callback_that_raises_ends_the_work(wide: gradix.Index) -> None:
    """Catches an exception of a callback that is swallowed, and a writer that cannot be used after it."""
    generation = wide.snapshot().generation
    with pytest.raises(Stop):
        wide.verify(progress=stop)
    with pytest.raises(Stop):
        wide.snapshot().scan(numbers(64, dims=2048), top_k=1, kernel="scalar", progress=stop)
    with wide.writer() as writer:
        for work in (writer.fit_curvature, writer.compact):
            with pytest.raises(Stop):
                work(progress=stop, **({"all": True} if work == writer.compact else {}))
        assert not writer.has_changes
    assert len(wide.snapshot()) == 8000
    assert wide.snapshot().generation >= generation


def test_progress_ends_at_the_total(filled: gradix.Index) -> None:
    """Catches progress that is not reported at the end, or not in order."""
    with filled.writer() as writer:
        writer.append("late", numbers(1)[0])
        writer.commit()
        calls: dict[str, list[tuple[int, int]]] = {}

        def told(name: str) -> Any:
            calls[name] = []
            return lambda done, total: calls[name].append((done, total))

        snapshot = filled.snapshot()
        snapshot.scan(numbers(1), top_k=1, progress=told("scan"))
        filled.verify(progress=told("verify"))
        writer.fit_curvature(progress=told("fit"))
        writer.fit_self_influence(progress=told("self-influence"))
        writer.compact(all=True, progress=told("compact"))
        gradix.operators.duplicate_clusters(snapshot, 0.9, progress=told("clusters"))
    for name, told_calls in calls.items():
        assert told_calls, name
        assert told_calls == sorted(told_calls)
        assert told_calls[-1][0] == told_calls[-1][1], name


def test_progress_is_a_bar_or_a_callable(filled: gradix.Index, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a value that is neither and is ignored; and a bar that does not reach its end."""
    snapshot = filled.snapshot()
    for wrong in (3, "yes"):
        with pytest.raises(TypeError, match="progress"):
            snapshot.scan(numbers(1), top_k=1, progress=wrong)
    snapshot.scan(numbers(1), top_k=1, progress=False)
    assert capsys.readouterr().err == ""
    snapshot.scan(numbers(1), top_k=1, progress=True)
    assert "40/40" in capsys.readouterr().err.replace(".0", "")


def test_bar_without_tqdm_says_what_to_do(filled: gradix.Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a bar that is silently left out."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="needs tqdm"):
        filled.verify(progress=True)


@pytest.fixture
def counter() -> Any:
    """Counts as long as it gets Python's lock, which nobody is made to give up."""
    count = [0]
    ends = threading.Event()
    interval = sys.getswitchinterval()

    def run() -> None:
        while not ends.is_set():
            count[0] += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=run)
    thread.start()
    sys.setswitchinterval(1000)
    yield count
    ends.set()
    sys.setswitchinterval(interval)
    thread.join()


def test_other_threads_run_while_the_engine_works(wide: gradix.Index, tmp_path: Path, counter: list[int]) -> None:
    """Catches a call that keeps Python's lock: a second thread stands still meanwhile."""
    snapshot = wide.snapshot()
    sketcher = gradix.Sketcher(gradix.SketchSpec.rapid_grad(7, 4096))
    gradient = {"w": numpy.ones(1 << 25, numpy.float32)}
    half = {"w": numpy.ones(1 << 24, numpy.float16)}
    queries = numbers(16, dims=2048)
    values, ids = numbers(8000, dims=2048), [f"new {row}" for row in range(8000)]
    index = gradix.Index.create(tmp_path / "i", wide.schema)
    writer = index.writer()
    work: dict[str, Any] = {
        "sketch": lambda: sketcher.sketch(gradient),
        "convert": lambda: sketcher.sketch(half),
        "scan": lambda: snapshot.scan(queries, top_k=1, kernel="scalar"),
        "scores": lambda: list(snapshot.scores(queries, kernel="scalar")),
        "rows": lambda: list(snapshot.rows(sketches=True)),
        "verify": lambda: wide.verify(),
        "append": lambda: writer.append_batch(ids, values),
        "commit": lambda: writer.commit(),
        "compact": lambda: writer.compact(all=True),
    }
    for name, run in work.items():
        before = counter[0]
        run()
        assert counter[0] > before, name
    writer.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_main_thread_is_asked_for_signals_only(wide: gradix.Index) -> None:
    """Catches an error where another thread waits for the engine: it cannot look for signals."""
    found: list[Any] = []
    snapshot = wide.snapshot()

    def scan() -> None:
        found.append(snapshot.scan(numbers(8, dims=2048), top_k=1, kernel="scalar", threads=1))

    thread = threading.Thread(target=scan)
    thread.start()
    thread.join()
    assert found[0].queries == 8
