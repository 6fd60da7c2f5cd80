"""The code of the documentation runs as it is written."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

import gradix

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "python.md"


@pytest.mark.parametrize(("page", "least"), [(PAGE, 7), (ROOT / "README.md", 1)], ids=["python.md", "README.md"])
def test_page_runs(page: Path, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a snippet that does not run: all of a page do, one after the other, in an empty folder."""
    snippets = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(snippets) >= least
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"{page.name}, snippet {number}", "exec"), names)


def documented() -> list[Any]:
    from gradix import _gradix

    objects = [_gradix, gradix, gradix.errors, gradix.formats, gradix.operators]
    return [found for thing in objects for found in doctest.DocTestFinder(recurse=True).find(thing) if found.examples]


@pytest.mark.parametrize("found", documented(), ids=lambda found: found.name)
def test_docstring_runs(found: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an example of a docstring whose result is another."""
    monkeypatch.chdir(tmp_path)
    result = doctest.DocTestRunner().run(found)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_everything_is_documented() -> None:
    """Catches a class or method without a docstring, and a page that does not name a class."""
    from gradix import _gradix

    page = PAGE.read_text()
    for name, thing in vars(_gradix).items():
        if name.startswith("_"):
            continue
        assert thing.__doc__, name
        for member, value in vars(thing).items() if isinstance(thing, type) else ():
            assert member.startswith("_") or value.__doc__, f"{name}.{member}"
    for name in gradix.errors.__all__:
        assert name == "Error" or f"`{name}`" in page, name
