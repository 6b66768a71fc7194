"""What a function is called in paths, reports, messages and reprs."""

from __future__ import annotations

import functools
import types
from typing import cast

__all__ = ["index_text", "name_of", "shown"]


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


def index_text(index: int | slice) -> str:
    """Return an index or a slice as it is written: ``[2:5]``."""
    if not isinstance(index, slice):
        return f"[{index!r}]"
    parts: list[object] = [index.start, index.stop]
    if index.step is not None:
        parts.append(index.step)
    return f"[{':'.join(['' if part is None else repr(part) for part in parts])}]"
