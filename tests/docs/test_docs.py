"""The examples in docstrings run, and print what they say."""

from __future__ import annotations

import contextlib
import doctest
import inspect
import pkgutil
from importlib import import_module
from typing import Any

import pytest

import returns_pipeline
from returns_pipeline.errors import MissingExtra

# The plugins import the tools they plug into, which may be absent.
MODULES = ["returns_pipeline"] + [
    module.name
    for module in pkgutil.walk_packages(returns_pipeline.__path__, "returns_pipeline.")
    if module.name not in {"returns_pipeline.mypy_plugin", "returns_pipeline.pytest_plugin"}
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    try:
        module = import_module(name)
        _ = doctest.testmod(module, raise_on_error=True)
    except MissingExtra as error:
        pytest.skip(str(error))
    except doctest.UnexpectedException as error:
        if isinstance(error.exc_info[1], MissingExtra):
            pytest.skip(str(error.exc_info[1]))
        raise
    except doctest.DocTestFailure as error:
        pytest.fail(f"{error.example.source}printed {error.got!r}, not {error.example.want!r}")


def test_what_users_hold_has_an_example() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in (
        "compensation",
        "context",
        "pipe",
        "result_stream",
        "results",
        "saga",
        "windows._chunks",
    ):
        found = finder.find(import_module(f"returns_pipeline.{name}"))
        assert any(test.examples for test in found), name


def test_every_method_of_a_stream_has_an_example() -> None:
    stream: Any = returns_pipeline.ResultStream
    names = [name for name in dir(stream) if not name.startswith("_")]
    lacking = [
        name for name in names if ">>> " not in (inspect.getdoc(getattr(stream, name)) or "")
    ]
    assert len(names) > 50
    assert not lacking


def test_every_public_name_has_an_example() -> None:
    lacking: set[str] = set()
    for name in MODULES:
        if any(part.startswith("_") for part in name.split(".")):
            continue
        with contextlib.suppress(MissingExtra):
            module = import_module(name)
            for each in module.__all__:
                thing = getattr(module, each)
                if inspect.isroutine(thing) or inspect.isclass(thing) or hasattr(thing, "pipe"):
                    example = ">>> " in (inspect.getdoc(thing) or "")
                    lacking |= set() if example else {each}
    assert not lacking
