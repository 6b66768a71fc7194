"""`typing.get_type_hints()` works on everything public: tools read it while programs run."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import returns_pipeline
from returns_pipeline.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator


def public_modules() -> Iterator[str]:
    """Yield the names without an underscore, except for plugins of other tools."""
    yield "returns_pipeline"
    for module in pkgutil.walk_packages(returns_pipeline.__path__, "returns_pipeline."):
        parts = module.name.split(".")
        if not any(part.startswith("_") for part in parts) and not parts[-1].endswith("_plugin"):
            yield module.name


def public_things(module: str) -> Iterator[tuple[str, Any]]:
    """Yield the functions and classes of a module, and the methods of the classes."""
    with suppress(MissingExtra):
        found = importlib.import_module(module)
        for name in found.__all__:
            thing = getattr(found, name)
            if inspect.isclass(thing):
                yield name, thing
                for method in vars(thing).values():
                    function = method
                    if isinstance(method, property):
                        function = method.fget
                    elif isinstance(method, classmethod | staticmethod):
                        function = method.__func__
                    if inspect.isfunction(function):
                        yield f"{name}.{function.__name__}", function
            elif callable(thing) and not inspect.ismodule(thing):
                yield name, thing if inspect.isfunction(thing) else type(thing).__call__


@pytest.mark.parametrize("module", list(public_modules()))
def test_the_annotations_of_all_that_is_public_can_be_read(module: str) -> None:
    unreadable: dict[str, str] = {}
    for name, thing in public_things(module):
        try:
            typing.get_type_hints(thing)
        except (NameError, TypeError, AttributeError) as error:
            unreadable[name] = str(error)
    assert not unreadable
