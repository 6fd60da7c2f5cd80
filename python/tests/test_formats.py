"""Files of vectors, and the page."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
from conftest import numbers

import gradix


def test_file_of_numpy_is_appended(tmp_path: Path) -> None:
    """Catches rows that are lost between batches, and ids that begin anew with each."""
    rows = numbers(10)
    numpy.save(tmp_path / "g.npy", rows)
    source = gradix.formats.open(tmp_path / "g.npy", ids="{stem}/{row}", batch=4)
    assert (source.rows, source.spec.dims) == (10, 48)
    index = gradix.Index.create(tmp_path / "i", gradix.Schema(source.spec, "f32"))
    lengths = []
    source.skip(1)
    with index.writer() as writer:
        for batch in source:
            lengths.append(len(batch))
            writer.append_batch(
                batch.ids, batch.values, sources=batch.sources, spans=batch.spans, metadata=batch.metadata
            )
    assert lengths == [4, 4, 1]
    with index.snapshot() as snapshot:
        got = {row.id: row.sketch.values.tobytes() for row in snapshot.rows(sketches=True) if row.sketch}
    assert got == {f"g/{row}": rows[row].tobytes() for row in range(1, 10)}


def test_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Catches files that are read as something else, and options that are ignored."""
    numpy.save(tmp_path / "g.npy", numbers(2))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "g.npy").read_bytes()[:-5])
    with pytest.raises(gradix.IoError):
        gradix.formats.open(tmp_path / "nothing.npy", ids="{row}")
    with pytest.raises(gradix.DamagedError):
        list(gradix.formats.open(tmp_path / "cut.npy", ids="{row}"))
    with pytest.raises(gradix.InvalidInputError, match="no format"):
        gradix.formats.open(tmp_path / "g.npy", format="csv", ids="{row}")
    with pytest.raises(gradix.InvalidInputError, match="not both"):
        gradix.formats.open(tmp_path / "g.npy", ids="{row}", id_file=tmp_path / "ids")
    with pytest.raises(gradix.InvalidInputError, match="batch"):
        gradix.formats.open(tmp_path / "g.npy", ids="{row}", batch=0)
    with pytest.raises(gradix.InvalidInputError, match="not a store"):
        gradix.formats.open_store("mine", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(gradix.Error):
        gradix.formats.open_store("bergson", tmp_path)


def test_page_shows_the_ranking(filled: gradix.Index, tmp_path: Path) -> None:
    """Catches a page without its examples, and one that breaks out of the frame in which a notebook shows it."""
    with filled.snapshot() as snapshot:
        ranking = snapshot.scan(numbers(2, seed=5), top_k=3, bottom_k=1)
    examples = {hit.id: f'the "text" of {hit.id}' for hit in ranking.proponents(1)}
    page = gradix.report("Why?", ranking, tokens=["Lima", " is"], prompt="Where?", examples=examples, facts={"Seed": "5"})
    for id in examples:
        assert id in page.html
        assert f"of {id}" in page.html
    page.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == page.html
    frame = page._repr_html_()
    assert frame.startswith('<iframe srcdoc="')
    assert frame.count('"') == 4
    assert "Lima" in gradix.report("Why?", ranking, answers=["Lima", "Quito"]).html
    for wrong in ({}, {"answers": ["one"]}, {"answers": ["a", "b"], "tokens": ["a", "b"]}):
        with pytest.raises(ValueError, match="queries|query"):
            gradix.report("Why?", ranking, **wrong)
