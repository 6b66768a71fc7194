"""Generic records are made with their types spelled out, on each Python; none is left out."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import Any

import pytest

import returns_pipeline
from returns_pipeline import FailedItems, RetryPolicy
from returns_pipeline.errors import MissingExtra


def generic_records() -> dict[str, Any]:
    """Return the public generic dataclasses that are frozen."""
    found: dict[str, Any] = {}
    for module in pkgutil.walk_packages(returns_pipeline.__path__, "returns_pipeline."):
        if "._" in module.name or module.name.endswith("_plugin"):
            continue
        try:
            names = vars(importlib.import_module(module.name))
        except MissingExtra:
            continue
        for name in names.get("__all__", ()):
            thing: Any = getattr(importlib.import_module(module.name), name)
            if (
                isinstance(thing, type)
                and bool(getattr(thing, "__parameters__", None))
                and dataclasses.is_dataclass(thing)
                and vars(thing)["__dataclass_params__"].frozen
            ):
                found[name] = thing
    return found


def test_types_may_be_spelled_out() -> None:
    assert FailedItems[int, str]([1], ["no"]) == FailedItems([1], ["no"])
    assert RetryPolicy[object](attempts=2) == RetryPolicy(attempts=2)


def test_every_generic_record_refuses_an_attribute_as_python_expects() -> None:
    records = generic_records()
    assert {"FailedItems", "RetryPolicy", "Outgoing", "DeadLetter", "EventWindow"} <= {*records}
    for record in records.values():
        made = object.__new__(record)
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field"):
            made.__orig_class__ = record
