"""What a function is called in paths, reports, messages and reprs."""

from __future__ import annotations

import functools
import types
from typing import cast

__all__ = ["name_of", "shown"]


def name_of(step: object) -> str:
    """Return the name of a function, also in a ``functools.partial``, or of a callable's class."""
    while isinstance(step, functools.partial):
        step = cast("functools.partial[object]", step).func
    name: object = getattr(step, "__name__", None)
    return name if isinstance(name, str) else type(step).__name__


def shown(value: object) -> str:
    """Show a function by its name, and any other value by its ``repr()``."""
    if isinstance(value, types.MethodDescriptorType):
        return value.__qualname__  # str.upper
    is_function = isinstance(
        value, types.FunctionType | types.MethodType | types.BuiltinFunctionType
    )
    return name_of(value) if is_function else repr(value)
