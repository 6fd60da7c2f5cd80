"""The stubs say what the module has."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import gradix
from gradix import _gradix

STUBS = Path(gradix.__file__).with_name("_gradix.pyi")


def parameters(function: ast.FunctionDef) -> list[str]:
    """The names of all but self and cls, `*` for the keyword-only ones and `**` before options."""
    names = [argument.arg for argument in function.args.posonlyargs + function.args.args]
    if not any(isinstance(item, ast.Name) and item.id == "staticmethod" for item in function.decorator_list):
        names = [name for name in names if name not in ("self", "cls")]
    if function.args.kwonlyargs:
        names += ["*", *(argument.arg for argument in function.args.kwonlyargs)]
    return [*names, f"**{function.args.kwarg.arg}"] if function.args.kwarg else names


def real_parameters(function: object) -> list[str]:
    names = []
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        if parameter.kind == parameter.KEYWORD_ONLY and "*" not in names:
            names.append("*")
        names.append(f"**{parameter.name}" if parameter.kind == parameter.VAR_KEYWORD else parameter.name)
    return [name for name in names if name not in ("self", "$self")]


def test_stubs_name_what_is_there() -> None:
    """Catches a method that the stubs forget or invent, and parameters of other names or orders."""
    module = ast.parse(STUBS.read_text())
    stubs = {node.name: node for node in module.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    public = {name for name in vars(_gradix) if not name.startswith("_")}
    assert {name for name in stubs if not name.startswith("_")} == public
    for name in public:
        stub, real = stubs[name], getattr(_gradix, name)
        if isinstance(stub, ast.FunctionDef):
            assert parameters(stub) == real_parameters(real), name
            continue
        members = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
        own = {member for member in vars(real) if not member.startswith("_")}
        assert {member for member in members if not member.startswith("_")} == own, name
        for member in own:
            if callable(getattr(real, member)):
                assert parameters(members[member]) == real_parameters(getattr(real, member)), f"{name}.{member}"


def test_stubs_pass_mypys_test() -> None:
    """Catches stubs with other types of parameters, defaults or classes than the module has."""
    pytest.importorskip("mypy", reason="mypy is not installed: run with current packages")
    command = [sys.executable, "-m", "mypy.stubtest", "gradix._gradix", "--ignore-missing-stub"]
    command += ["--mypy-config-file", str(Path(__file__).parents[1] / "pyproject.toml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
