"""The stubs in typings/ say what aiostream does: names, parameters, defaults, the three forms."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING

import aiostream.pipe
import aiostream.stream
import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

ROOT = Path(__file__).parents[2]
TYPINGS = ROOT / "typings" / "aiostream"
CHAINS = (ROOT / "tests" / "typesafety" / "aiostream_chains.py").read_text()

MODULES = {
    module.name: import_module(f"aiostream.stream.{module.name}")
    for module in pkgutil.iter_modules(aiostream.stream.__path__)
}
ANY_NUMBER = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def operators(module: ModuleType) -> dict[str, inspect.Signature]:
    """Return the operators that a module defines."""
    return {
        name: inspect.signature(value.original)
        for name, value in vars(module).items()
        if hasattr(value, "original") and type(value).__module__ == module.__name__
    }


OPERATORS = [(name, found) for name, module in MODULES.items() for found in operators(module)]
each_operator = pytest.mark.parametrize(("module", "name"), OPERATORS)


def stub(module: str) -> tuple[dict[str, ast.ClassDef], dict[str, str]]:
    """Return a stub's classes, and the class of each of its variables."""
    body = ast.parse((TYPINGS / "stream" / f"{module}.pyi").read_text()).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    variables = [node for node in body if isinstance(node, ast.AnnAssign)]
    return classes, {ast.unparse(v.target): ast.unparse(v.annotation) for v in variables}


def overloads(module: str, name: str) -> Mapping[str, list[inspect.Signature]]:
    """Return the signatures of the forms of an operator, annotations as text."""
    classes, variables = stub(module)
    found: dict[str, list[inspect.Signature]] = {}
    for method in classes[variables[name]].body:
        assert isinstance(method, ast.FunctionDef)
        static = "staticmethod" in map(ast.unparse, method.decorator_list)
        assert static == (method.name != "__call__")
        method.decorator_list = []
        namespace: dict[str, object] = {}
        exec(f"from __future__ import annotations\n{ast.unparse(method)}", namespace)
        function = namespace[method.name]
        assert callable(function)
        signature = inspect.signature(function)
        if not static:
            _, *parameters = signature.parameters.values()
            signature = signature.replace(parameters=parameters)
        found.setdefault(method.name, []).append(signature)
    return found


def is_piped(module: str, name: str) -> bool:
    return hasattr(getattr(MODULES[module], name), "pipe")


def test_each_operator_is_in_the_stub_and_nothing_else_is() -> None:
    for name, module in MODULES.items():
        _, variables = stub(name)
        assert variables.keys() == operators(module).keys(), name


def test_the_pipe_module_has_the_piped_form_of_each_operator() -> None:
    names = {name for name, value in vars(aiostream.pipe).items() if inspect.isfunction(value)}
    body = ast.parse((TYPINGS / "pipe.pyi").read_text()).body
    assigned = {ast.unparse(node) for node in body if isinstance(node, ast.Assign)}
    assert assigned == {f"{name} = stream.{name}.pipe" for name in names}


@each_operator
def test_every_overload_fits_the_operator_and_together_they_name_all_parameters(
    module: str, name: str
) -> None:
    by_name = operators(MODULES[module])[name].parameters
    in_place = [p for p in by_name.values() if p.kind is not Parameter.KEYWORD_ONLY]
    required = {p.name for p in in_place if p.default is p.empty and p.kind not in ANY_NUMBER}
    named: set[str] = set()
    for signature in overloads(module, name)["__call__"]:
        given: set[str] = set()
        for i, parameter in enumerate(signature.parameters.values()):
            if parameter.kind is Parameter.POSITIONAL_ONLY:  # its name is of no account
                real = in_place[min(i, len(in_place) - 1)]
            else:
                real = by_name[parameter.name]
                # A positional parameter may be keyword-only in the stub, not the reverse.
                assert parameter.kind in (real.kind, Parameter.KEYWORD_ONLY)
            if parameter.default is not parameter.empty and real.kind not in ANY_NUMBER:
                assert parameter.default == real.default
            given.add(real.name)
        assert required <= given
        named |= given
        if is_piped(module, name):  # aiostream takes the source by its place alone
            first = next(iter(signature.parameters.values()))
            assert first.kind in (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL)
    assert named == by_name.keys()


@each_operator
def test_the_forms_differ_by_the_source_and_by_what_they_give(module: str, name: str) -> None:
    found = overloads(module, name)
    assert ("pipe" in found) == is_piped(module, name)
    for call, raw in zip(found["__call__"], found["raw"], strict=True):
        assert raw.parameters == call.parameters
        gives: str = call.return_annotation
        assert raw.return_annotation == gives.replace("Stream", "AsyncIterator", 1)
    if not is_piped(module, name):
        return
    for call, pipe in zip(found["__call__"], found["pipe"], strict=True):
        parameters = list(call.parameters.values())
        source = parameters[0]
        if source.kind is Parameter.POSITIONAL_ONLY:
            del parameters[0]
        assert list(pipe.parameters.values()) == parameters
        assert pipe.return_annotation == (
            f"Callable[[{source.annotation}], {call.return_annotation}]"
        )


@each_operator
def test_the_chains_have_each_form_of_each_operator(module: str, name: str) -> None:
    chains = CHAINS.replace("\n        ", "")
    place = "stream" if hasattr(aiostream.stream, name) else module
    assert f"assert_type({place}.{name}" in chains
    if hasattr(aiostream.pipe, name):
        assert f" | pipe.{name}(" in chains


@pytest.mark.slow
def test_stubtest_finds_the_modules_as_the_stubs_have_them(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    allowlist = tmp_path / "allowlist"
    # These two are left to aiostream's own types, as py.typed allows.
    allowlist.write_text("aiostream.manager\naiostream.test_utils\n")
    assert (TYPINGS / "py.typed").read_text() == "partial\n"
    command = [sys.executable, "-m", "mypy.stubtest", "aiostream", "--concise"]
    command += ["--mypy-config-file", str(ROOT / "mypy.ini"), "--allowlist", str(allowlist)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
