"""What the tests share."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy
import pytest

import gradix

DIMS = 48


@pytest.fixture
def spec() -> gradix.SketchSpec:
    """Two blocks of numbers made elsewhere."""
    return gradix.SketchSpec.dense("tests", "v1", [("layers.0", 32), ("layers.1", 16)])


@pytest.fixture
def index(tmp_path: Path, spec: gradix.SketchSpec) -> gradix.Index:
    """An empty index that keeps every bit."""
    return gradix.Index.create(tmp_path / "i.gradix", gradix.Schema(spec, "f32"))


@pytest.fixture
def filled(index: gradix.Index) -> gradix.Index:
    """An index of 40 rows of two sources."""
    with index.writer() as writer:
        sources = ["wiki" if row % 2 else "news" for row in range(40)]
        writer.append_batch([f"x{row:02}" for row in range(40)], numbers(40), sources=sources)
    return index


def numbers(*shape: int, dims: int = DIMS, seed: int = 0) -> Any:
    """Gaussian float32 of shape [*shape, dims]."""
    return numpy.random.default_rng(seed).standard_normal((*shape, dims)).astype(numpy.float32)


def child(program: str, *arguments: str, wait: bool = True) -> Any:
    """Runs a program in an interpreter of its own: its output, or the running process."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if not wait:
        return process
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip()
