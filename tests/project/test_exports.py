"""What each module offers is listed, documented, and held by type tests."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import os
import pkgutil
import pydoc
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, get_origin

import pytest

import returns_pipeline
from returns_pipeline import pipe
from returns_pipeline.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

TYPE_TESTS = Path(__file__).parents[1] / "typesafety"


def importable() -> Iterator[ModuleType]:
    """Yield the package and its modules, except those whose extra, or tool, is absent."""
    yield returns_pipeline
    for module in pkgutil.walk_packages(returns_pipeline.__path__, "returns_pipeline."):
        if module.name not in {"returns_pipeline.mypy_plugin", "returns_pipeline.pytest_plugin"}:
            with suppress(MissingExtra):
                yield import_module(module.name)


MODULES = list(importable())

PLAIN: pydoc.Doc = vars(pydoc)["plaintext"]  # typeshed lacks it

each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)


def is_for_users(module: ModuleType) -> bool:
    """Whether users import from it: neither it nor a package around it has an underscore."""
    return not any(part.startswith("_") for part in module.__name__.split("."))


FOR_USERS = {
    getattr(module, name)
    for module in filter(is_for_users, MODULES)
    for name in module.__all__
    if inspect.isclass(getattr(module, name))
}


def bound(module: ModuleType) -> set[str]:
    """Return the public names that the module's own statements bind, type variables aside."""
    assert module.__file__
    names: set[str] = set()
    for node in ast.parse(Path(module.__file__).read_text()).body:
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.AnnAssign(target=ast.Name(id=name))
            ):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                if ast.unparse(value).split("(")[0] not in {"TypeVar", "TypeVarTuple", "ParamSpec"}:
                    names.add(name)
            case _:
                pass
    return {name for name in names if not name.startswith("_")}


@each_module
def test_all_is_sorted_and_lists_every_name_for_users(module: ModuleType) -> None:
    listed: list[str] = module.__all__
    # Constants, then classes, then the others; each once.
    assert listed == sorted(
        set(listed), key=lambda name: (name.islower(), not name.isupper(), name)
    )
    assert all(hasattr(module, name) for name in listed)
    if is_for_users(module):
        assert bound(module) <= set(listed)


def test_the_package_has_its_version_and_a_table_of_contents() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert returns_pipeline.__version__ == project["project"]["version"]
    assert "__version__" in dir(returns_pipeline)
    contents = str(returns_pipeline.__doc__)
    rooms = {m.__name__.split(".")[1] for m in MODULES[1:] if is_for_users(m)}
    lacking = {
        room for room in rooms if f"`{room}`" not in contents and f".{room}`" not in contents
    }
    assert lacking <= {"compensation", "context", "cron", "result_stream", "retry", "saga"}


def test_the_package_offers_names_of_its_modules_alone() -> None:
    listed = {name for module in MODULES[1:] for name in module.__all__}
    modules = {module.__name__.rpartition(".")[2] for module in MODULES}
    assert set(returns_pipeline.__all__) <= listed | modules


@each_module
def test_every_name_listed_has_a_docstring(module: ModuleType) -> None:
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isroutine(thing) or inspect.isclass(thing) or hasattr(thing, "pipe"):
            assert inspect.getdoc(thing), name


each_module_for_users = pytest.mark.parametrize(
    "module",
    [module for module in MODULES if is_for_users(module)],
    ids=lambda module: module.__name__,
)


@each_module_for_users
def test_help_shows_every_name_with_its_signature(module: ModuleType) -> None:
    text = pydoc.render_doc(module, renderer=PLAIN)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing):
            assert re.search(rf"^    (class )?{name}(\(| = class )", text, re.MULTILINE), name
        elif callable(thing) and get_origin(thing) is None:  # no alias
            assert re.search(rf"^    (async )?{name}\(", text, re.MULTILINE), name
            # What Sphinx documents as a function: a routine, whose docstring is not its class's.
            assert inspect.isroutine(thing), name
            assert inspect.isfunction(thing) or type(thing).__doc__ is None, name
        elif not inspect.ismodule(thing):
            assert re.search(rf"^    {name} = ", text, re.MULTILINE), name


@each_module_for_users
def test_help_shows_no_function_that_is_not_for_users(module: ModuleType) -> None:
    text = pydoc.render_doc(module, renderer=PLAIN)
    functions = text.partition("\nFUNCTIONS\n")[2].partition("\nDATA\n")[0]
    shown = set(re.findall(r"^    (?:async )?(\w+)(?: = \w+)?\(", functions, re.MULTILINE))
    assert shown <= set(module.__all__)


@each_module_for_users
def test_every_function_has_a_docstring_of_its_own_and_annotations(module: ModuleType) -> None:
    functions = {
        name: thing
        for name in module.__all__
        if callable(thing := getattr(module, name))
        and not inspect.isclass(thing)
        and get_origin(thing) is None
    }
    texts = [str(thing.__doc__) for thing in functions.values()]
    assert len({*texts}) == len(texts)
    for name, thing in functions.items():
        signature = inspect.signature(thing)
        assert signature.return_annotation is not signature.empty, name
        for parameter in signature.parameters.values():
            assert parameter.annotation is not parameter.empty, (name, parameter.name)


def test_the_piped_form_of_an_operator_does_not_document_the_source() -> None:
    for name in pipe.__all__:
        text = inspect.getdoc(getattr(pipe, name)) or ""
        assert f"| pipe.{name}(" in text, name
        assert not re.search(r"^    sources?: ", text, re.MULTILINE), name
    assert "    more: Sources, besides" in str(pipe.merge.__doc__)
    assert "    n: Items in a list" in str(pipe.sliding.__doc__)
    assert "It returns a stream of lists." in str(pipe.sliding.__doc__)


def with_docstrings(module: ModuleType) -> tuple[set[str], set[str]]:
    """Return the aliases that a module assigns, and those of them that have a docstring there."""
    aliases: set[str] = set()
    documented: set[str] = set()
    for block in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
        statements: list[ast.stmt] = block.body if isinstance(block, ast.Module | ast.If) else []
        for node, after in itertools.pairwise([*statements, None]):
            match node:
                case ast.AnnAssign(target=ast.Name(name), annotation=ast.Name("TypeAlias")):
                    aliases.add(name)
                    match after:
                        case ast.Expr(ast.Constant(str(text))) if ": " not in text:
                            documented.add(name)
                        case _:
                            pass
                case _:
                    pass
    return aliases, documented


def test_an_alias_has_a_docstring_in_the_module_from_which_users_import_it() -> None:
    """Sphinx looks for it there alone, and takes what comes before a colon for a type."""
    everywhere = set[str]().union(*[with_docstrings(module)[0] for module in MODULES])
    count = 0
    for module in filter(is_for_users, MODULES):
        public = {
            name
            for name in everywhere & set(module.__all__)
            if not inspect.isclass(getattr(module, name))
        }
        assert public <= with_docstrings(module)[1], module.__name__
        count += len(public)
    assert count >= 7


def methods(name: str, cls: type) -> set[str]:
    """Return a class's own public methods; what it overrides is held by its base class's type.

    A base class of the engine is a part of it.
    """
    if issubclass(cls, BaseException):
        return set()
    parts = [
        base
        for base in cls.__bases__
        if base.__module__.startswith("returns_pipeline.") and base not in FOR_USERS
    ]
    others = [base for base in cls.__bases__ if base not in parts]
    return {
        f"{name}.{member}"
        for member, value in vars(cls).items()
        if not member.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, staticmethod | classmethod))
        and not any(hasattr(base, member) for base in others)
    }.union(*[methods(name, part) for part in parts])


def expected() -> dict[str, str]:
    """Return what to look for in the type tests, by the public name that it tests."""
    found: dict[str, str] = {}
    for module in filter(is_for_users, MODULES):
        short = module.__name__.rpartition(".")[2]
        for name in set(module.__all__):
            thing = getattr(module, name)
            if inspect.ismodule(thing):
                continue
            if short in {"pipe", "results"}:  # the same names in both
                found[f"{short}.{name}"] = f"{short}.{name}("
                continue
            found[name] = name
            if isinstance(thing, type):
                for method in methods(name, thing):
                    found[method] = f".{method.partition('.')[2]}("
    return found


def statements() -> tuple[str, str]:
    """Return the statements of the type tests that are to pass, and those that are refused."""
    passing: list[str] = []
    refused: list[str] = []
    for path in TYPE_TESTS.glob("*.py"):
        source = path.read_text()
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, ast.stmt):
                # Of a function or class, its first line.
                end = node.body[0].lineno - 1 if hasattr(node, "body") else node.end_lineno
                text = "\n".join(lines[node.lineno - 1 : end])
                (refused if "# type: ignore[" in text else passing).append(text)
    return "\n".join(passing), "\n".join(refused)


@pytest.mark.slow
def test_pyright_knows_the_type_of_every_name() -> None:
    pytest.importorskip("pyright")
    # It looks for the package in the environment of the `python` on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "pyright", "--verifytypes", "returns_pipeline"]
    done = subprocess.run(
        [*command, "--ignoreexternal", "--outputjson"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    unknown = {
        symbol["name"]: symbol["diagnostics"] for symbol in found if not symbol["isTypeKnown"]
    }
    exported = [symbol for symbol in found if symbol["isExported"]]
    assert 100 < len(exported) < 800
    assert not unknown


def test_every_name_for_users_has_a_type_test_that_passes_and_one_that_is_refused() -> None:
    passing, refused = statements()
    names = expected()
    lacking = [f"{name}: passing" for name, text in names.items() if text not in passing]
    lacking += [f"{name}: refused" for name, text in names.items() if text not in refused]
    assert not lacking, "\n".join(["to be added to tests/typesafety:", *sorted(lacking)])


LAZY = [
    module for module in MODULES if " = lazy_exports(" in Path(str(module.__file__)).read_text()
]


@pytest.mark.parametrize("module", LAZY, ids=lambda module: module.__name__)
def test_a_package_imports_a_name_when_it_is_used_and_offers_what_checkers_see(
    module: ModuleType,
) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    seen = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("returns_pipeline")
        for alias in node.names
        # What needs an extra is imported as itself: it is there, and is not listed.
        if alias.name == "__version__" or not (alias.name.startswith("_") or alias.asname)
    } - {"lazy_exports"}
    seen |= with_docstrings(module)[0]
    assert seen - {"__version__"} == set(module.__all__)
    code = f"""
import sys, {module.__name__} as module
loaded = [name for name in sys.modules if name.startswith("returns_pipeline.")]
own = {{module.__name__, "returns_pipeline._engine", "returns_pipeline._engine.lazy_exports"}}
assert set(loaded) <= own, loaded
assert {sorted(seen)!r} == sorted(set(dir(module)) & set({sorted(seen)!r}))
assert not [name for name in dir(module) if name not in module.__all__ and name[:2] != "__"]
for name in {sorted(seen)!r}:
    assert getattr(module, name) is vars(module)[name], name
assert not hasattr(module, "nothing")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_name_that_needs_an_extra_can_be_imported_and_is_not_listed() -> None:
    """Else tools that read all names of the package would need the extra."""
    code = """
import sys
sys.modules["rich"] = None  # as if it were absent
from returns_pipeline import telemetry
from returns_pipeline.errors import MissingExtra
assert "LiveView" not in dir(telemetry)
try:
    from returns_pipeline.telemetry import LiveView
except MissingExtra as error:
    assert "[live]" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    pytest.importorskip("rich")
    from returns_pipeline import telemetry
    from returns_pipeline.telemetry import live

    assert telemetry.LiveView is live.LiveView
    assert "LiveView" not in dir(telemetry)


@pytest.mark.parametrize("module", LAZY, ids=lambda module: module.__name__)
def test_a_star_import_of_a_package_imports_what_it_lists(module: ModuleType) -> None:
    code = f"""
from {module.__name__} import *
names = {{name for name in globals() if name[:2] != "__"}}
assert names == {{*{module.__all__!r}}}, names
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_packages_that_import_lazily() -> None:
    names = {module.__name__.removeprefix("returns_pipeline.") for module in LAZY}
    assert names >= {"returns_pipeline", "combine", "windows"}


def test_a_chain_without_windows_loads_none() -> None:
    code = """
import sys
earlier = {*sys.modules}  # a tool that measures the process, as coverage, has modules of its own
from returns_pipeline import CompensationRegistry, ResultStream, StepContext, cases
loaded = [name for name in sys.modules if name.startswith("returns_pipeline.")]
heavy = {"windows._chunks", "combine._broadcast", "journal", "policies", "saga", "sources"}
assert not {f"returns_pipeline.{name}" for name in heavy} & {*loaded}, loaded
for library in ("pathlib", "tenacity", "msgspec", "asyncpg", "sqlite3"):
    assert library not in {*sys.modules} - earlier, library
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
