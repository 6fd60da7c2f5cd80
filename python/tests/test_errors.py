"""Exceptions by kind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import numbers

import gradix


def segment(index: gradix.Index) -> Path:
    (file,) = (index.path / "segments").glob("*.seg")
    return file


def patched(path: Path, offset: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value
    path.write_bytes(content)


def not_found(index: gradix.Index, folder: Path) -> Any:
    return gradix.Index.open(folder / "nothing")


def already_exists(index: gradix.Index, folder: Path) -> Any:
    return gradix.Index.create(index.path, index.schema)


def invalid_input(index: gradix.Index, folder: Path) -> Any:
    return gradix.Schema(index.schema.spec, "f8")


def invalid_state(index: gradix.Index, folder: Path) -> Any:
    return gradix.Index.open(index.path, read_only=True).writer()


def busy(index: gradix.Index, folder: Path) -> Any:
    with index.writer():
        return index.writer()


def unsupported(index: gradix.Index, folder: Path) -> Any:
    return index.snapshot().scan(numbers(1), top_k=1, path="sign_tier")


def expired(index: gradix.Index, folder: Path) -> Any:
    with index.writer() as writer:
        writer.delete("x00")
        writer.commit()
        writer.gc(grace=0)
    return index.snapshot_at(1)


def damaged(index: gradix.Index, folder: Path) -> Any:
    copy = folder / "copy"
    shutil.copytree(index.path, copy)
    broken = gradix.Index.open(copy)
    file = segment(broken)
    patched(file, file.stat().st_size // 2, b"\xa5" * 4096)
    report = broken.verify()
    assert report["findings"], report
    return list(gradix.Index.open(copy, map_files=False).snapshot().rows(sketches=True))


def newer(index: gradix.Index, folder: Path) -> Any:
    copy = folder / "copy"
    shutil.copytree(index.path, copy)
    header = (copy / "INDEX").read_bytes()
    at = header.index((1).to_bytes(4, "little"))
    patched(copy / "INDEX", at, (99).to_bytes(4, "little"))
    return gradix.Index.open(copy)


def io(index: gradix.Index, folder: Path) -> Any:
    (folder / "file").write_text("")
    return gradix.Index.create(folder / "file" / "index", index.schema)


def poisoned(index: gradix.Index, folder: Path) -> Any:
    writer = index.writer()
    writer.append("a", numbers(1)[0])
    # The folder is replaced under the writer, whose next write fails.
    index.path.rename(folder / "moved")
    with pytest.raises(gradix.Error):
        writer.commit()
    return writer.commit()


CASES = [
    (not_found, gradix.NotFoundError, KeyError),
    (already_exists, gradix.AlreadyExistsError, gradix.Error),
    (invalid_input, gradix.InvalidInputError, ValueError),
    (invalid_state, gradix.InvalidStateError, RuntimeError),
    (busy, gradix.BusyError, gradix.Error),
    (unsupported, gradix.UnsupportedError, gradix.Error),
    (expired, gradix.ExpiredError, gradix.Error),
    (damaged, gradix.DamagedError, gradix.Error),
    (newer, gradix.NewerError, gradix.Error),
    (io, gradix.IoError, OSError),
    (poisoned, gradix.PoisonedError, gradix.Error),
]


@pytest.mark.parametrize(("fail", "kind", "also"), CASES, ids=lambda given: getattr(given, "__name__", None))
def test_exception_of_each_kind(filled: gradix.Index, tmp_path: Path, fail: Any, kind: Any, also: Any) -> None:
    """Catches a kind that is raised as another, or whose message is lost."""
    with pytest.raises(kind) as caught:
        fail(filled, tmp_path)
    error = caught.value
    assert type(error) is kind
    assert isinstance(error, also)
    assert isinstance(error, gradix.Error)
    assert error.kind == fail.__name__
    assert len(str(error)) > 10
    assert not str(error).startswith("'"), "KeyError shows its argument as repr does"
    if fail is io:
        assert os.strerror(error.errno) in str(error)


def test_cancelled_is_raised_where_a_callback_cannot_be(filled: gradix.Index) -> None:
    """Catches a kind without a class: every kind that the engine has is raised as one of its own."""
    kinds = {error.kind for error in gradix.Error.__subclasses__()}
    assert kinds == {name.__name__ for name, *_ in CASES} | {"cancelled"}
    assert issubclass(gradix.CancelledError, gradix.Error)


def test_message_names_file_and_cause(filled: gradix.Index, tmp_path: Path) -> None:
    """Catches messages without the chain of causes, and causes that are said twice."""
    with pytest.raises(gradix.IoError) as caught:
        io(filled, tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "file") in message
    assert message.count(os.strerror(caught.value.errno)) == 1


def test_spec_that_is_no_json_is_refused() -> None:
    """Catches a panic on text that is not a spec."""
    spec = json.loads(gradix.SketchSpec.rapid_grad(7, 64).to_json())
    for wrong in ("", "{}", json.dumps({**spec, "more": 1}), json.dumps({**spec, "blocks": []})):
        with pytest.raises(gradix.InvalidInputError):
            gradix.SketchSpec.from_json(wrong)
