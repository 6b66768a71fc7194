"""Annotations can be read while the program runs, as validation libraries and tools do."""

from __future__ import annotations

import inspect
import pkgutil
import typing
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import returns_pipeline
from returns_pipeline.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGINS = {"returns_pipeline.mypy_plugin", "returns_pipeline.pytest_plugin"}


def public() -> Iterator[tuple[str, Any]]:
    """Yield every public function, class, method and operator with the name users call it by."""
    names = ["returns_pipeline"] + [
        module.name
        for module in pkgutil.walk_packages(returns_pipeline.__path__, "returns_pipeline.")
        if "._" not in module.name and module.name not in PLUGINS
    ]
    for name in names:
        with suppress(MissingExtra):
            module = import_module(name)
            for member in getattr(module, "__all__", ()):
                thing = getattr(module, member)
                if callable(thing) and not isinstance(thing, typing._GenericAlias):  # type: ignore[attr-defined]
                    yield from parts(f"{name}.{member}", thing)


def parts(name: str, thing: Any) -> Iterator[tuple[str, Any]]:
    yield name, thing
    if inspect.isclass(thing):
        for member, value in inspect.getmembers(thing):
            ours = getattr(value, "__module__", None) or ""
            if not member.startswith("_") and callable(value) and ours.startswith("returns_pip"):
                yield f"{name}.{member}", value
    elif hasattr(thing, "raw"):
        for form in ("__call__", "raw", "pipe"):
            if hasattr(thing, form):
                yield f"{name}.{form}", getattr(thing, form)


PUBLIC = dict(public())


# Rooms whose imports are still for type checkers alone: each deletes its name when it is done.
LATER = {
    "combine",
    "compensation",
    "context",
    "cron",
    "journal",
    "policies",
    "retry",
    "saga",
    "testing",
}


def room_of(name: str) -> str:
    """Return the room that defines a name, which the root may export too."""
    return (getattr(PUBLIC[name], "__module__", None) or name).split(".")[1]


@pytest.mark.parametrize("room", sorted({room_of(name) for name in PUBLIC}))
def test_type_hints_of_every_public_callable_can_be_read(room: str) -> None:
    failed = {}
    for name, thing in PUBLIC.items():
        if room_of(name) == room:
            try:
                typing.get_type_hints(thing)
            except (NameError, TypeError, AttributeError) as error:
                failed[name] = repr(error)
    if failed and room in LATER:
        pytest.xfail(f"{len(failed)} are not readable yet")
    assert not failed, "\n".join(f"{name}: {error}" for name, error in failed.items())


def test_the_public_callables_are_found() -> None:
    assert len(PUBLIC) > 300


def test_every_operator_has_a_signature_and_a_docstring_in_each_form() -> None:
    operators = {
        name: thing
        for name, thing in PUBLIC.items()
        if hasattr(thing, "raw") and "combine" not in name
    }
    assert operators
    for name, thing in operators.items():
        for form in ("__call__", "raw", "pipe"):
            if hasattr(thing, form):
                assert "kwargs" not in inspect.signature(getattr(thing, form)).parameters, name
                assert inspect.getdoc(getattr(thing, form)), name
        assert inspect.signature(thing) == inspect.signature(thing.__call__), name


@pytest.mark.parametrize(
    "name",
    [name for name, thing in PUBLIC.items() if hasattr(thing, "pipe") and "combine" not in name],
)
def test_an_operator_is_pickled_and_shown_by_the_name_users_import_it_by(name: str) -> None:
    import copy
    import pickle

    operator = PUBLIC[name]
    assert pickle.loads(pickle.dumps(operator)) is operator
    assert copy.copy(operator) is copy.deepcopy(operator) is operator
    module, _, own = repr(operator).removeprefix("<operator ").removesuffix(">").rpartition(".")
    assert getattr(import_module(module), own) is operator
    assert "._" not in module
