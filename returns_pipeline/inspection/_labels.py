"""How calls and their arguments are shown in a drawing: by names, and the same in each run."""

# Annotations have no type themselves, and what is drawn may be of any.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final, cast

from returns_pipeline._engine.calls import Call
from returns_pipeline._engine.names import name_of, shown
from returns_pipeline._engine.operator import Operator

__all__ = ["Argument", "arguments", "label_of", "leaf_label"]

_LONGEST: Final = 60  # characters of one argument
_FUNCTIONS: Final = (
    type,
    functools.partial,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
)
_SINGLE: Final = inspect.Parameter.POSITIONAL_ONLY
_SEVERAL: Final = inspect.Parameter.VAR_POSITIONAL


@dataclass(slots=True)
class Argument:
    """An argument of a call.

    Attributes:
        name: The name of its parameter; empty if it is not written before the value.
        value: The value.
        is_main: Whether a stream in its place is a source of the items, not a signal.
        beside: Of a stream in a tuple or a dictionary: its priority, or its key.
    """

    name: str
    value: Any
    is_main: bool = False
    beside: str = ""

    @property
    def is_stream(self) -> bool:
        """Whether it is something that is read."""
        return hasattr(self.value, "__aiter__") and not isinstance(self.value, type)

    @property
    def is_signal(self) -> bool:
        """Whether it is something else that is waited for, or a stream that is."""
        if self.is_main or isinstance(self.value, type):
            return False
        waits = isinstance(self.value, asyncio.Event) or inspect.isawaitable(self.value)
        return self.is_stream or waits


def arguments(call: Call) -> list[Argument]:
    """Return the arguments that were given to a call, streams out of collections by themselves."""
    is_method = call.is_method
    try:
        parameters = _signature(call.func)
        bound = parameters.bind(*((None,) if is_method else ()), *call.args, **(call.kwargs or {}))
    except (TypeError, ValueError):
        return [Argument("", value) for value in call.args]
    given: list[Argument] = []
    for at, (name, value) in enumerate(bound.arguments.items()):
        if is_method and not at:
            continue
        parameter = parameters.parameters[name]
        kind = parameter.kind
        if _is_default(value, parameter.default):
            continue
        is_bare = kind in {_SINGLE, _SEVERAL}
        is_main = is_bare or not at
        if kind is inspect.Parameter.VAR_KEYWORD:
            given += [Argument(each, option) for each, option in value.items()]
            continue
        for each in value if kind is _SEVERAL else (value,):
            inside = _streams_in(each)
            given += inside or [Argument("" if is_main else name, each, is_main)]
    return given


@functools.lru_cache(maxsize=512)
def _signature(func: Any) -> inspect.Signature:
    return inspect.signature(func)


def _is_default(value: object, default: object) -> bool:
    """Return whether a plain value is that of its parameter's default: it says nothing."""
    return value is default or (type(value) in {int, float, str, bool} and value == default)


def _streams_in(value: Any) -> list[Argument]:
    """Return the streams of ``{key: stream}`` and ``(priority, stream)``."""
    pairs: list[tuple[Any, Any]] = []
    kind = type(value)  # isinstance would take the type `Any` away from what is in it
    if issubclass(kind, Mapping):
        pairs = list(value.items())
    elif kind is tuple and len(value) == 2:
        pairs = [value]
    if not pairs or not all(hasattr(stream, "__aiter__") for _, stream in pairs):
        return []
    return [Argument("", stream, True, _shown(key)) for key, stream in pairs]


def label_of(call: Call, given: list[Argument]) -> str:
    """Return a call as it was written, without streams and signals, which are drawn."""
    if call.name:
        return call.name
    name = call.func.__name__ if isinstance(call.func, Operator) else name_of(call.func)
    texts = [
        f"{each.name}={_shown(each.value)}" if each.name else _shown(each.value)
        for each in given
        if not each.is_stream and not each.is_signal
    ]
    return f"{name}({', '.join(texts)})"


def leaf_label(stream: object) -> str:
    """Return what a source that knows no call is called."""
    if isinstance(stream, types.AsyncGeneratorType):
        return f"{cast('Any', stream).__name__}()"
    return f"<{type(stream).__name__}>"


def _shown(value: Any) -> str:
    """Show a function by its name, a value by its ``repr()``, and nothing that changes."""
    if isinstance(value, _FUNCTIONS):
        return _shown_function(value)
    if isinstance(value, list | set | frozenset | dict):
        return f"<{type(cast('object', value)).__name__}>"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # a drawing must not fail by it
        text = "<"
    if text.startswith("<") or re.search(r" at 0x[0-9a-fA-F]+", text):
        return f"<{type(value).__name__}>"
    text = " ".join(text.removeprefix("datetime.").split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _shown_function(func: Any) -> str:
    while isinstance(func, functools.partial):
        func = func.func
    if isinstance(func, types.FunctionType) and func.__name__ == "<lambda>":
        code = func.__code__
        return f"lambda ({PurePath(code.co_filename).name}:{code.co_firstlineno})"
    return func.__name__ if isinstance(func, type) else shown(func)
