"""The code of docs/torch.md runs."""

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="SKIPPED: PyTorch is not installed, so gradix.torch is not tested")

PAGE = Path(__file__).parents[2] / "docs/torch.md"


def code(word):
    blocks = re.findall(r"^```python *(\w*)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [block for given, block in blocks if given == word]


@pytest.mark.parametrize("word", ["", "transformers"])
def test_code_of_the_page_runs(word, tmp_path, monkeypatch, capsys):
    """Catches a page that promises what the package does not do."""
    if word:
        pytest.importorskip(word, reason=f"SKIPPED: {word} is not installed, so that half of docs/torch.md is not tested")
    monkeypatch.chdir(tmp_path)
    blocks = code(word)
    assert len(blocks) >= 2
    names = {"torch": torch}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert capsys.readouterr().out
