"""Checks of arguments: one for each kind of value, used by everything that takes one.

A check runs at the call, before anything is read or started. It returns the value in the form that
the engine computes with: a count as an ``int``, a time as a ``float`` in seconds.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable
from datetime import timedelta
from operator import index
from typing import Any, SupportsFloat, TypeAlias, TypeVar

from returns_pipeline._engine.future_results import refuse_lost
from returns_pipeline._engine.names import name_of, shown
from returns_pipeline.errors import InvalidArgument

__all__ = [
    "Seconds",
    "async_function",
    "choice",
    "count",
    "exact",
    "function",
    "item_function",
    "number",
    "out_of_range",
    "seconds",
    "source",
    "takes_two",
    "truth",
]

N = TypeVar("N")
S = TypeVar("S")

# How a duration may be written: seconds as a number, or a `timedelta`.
Seconds: TypeAlias = float | timedelta


def count(name: str, value: int, *, least: int = 1) -> int:
    """Return a whole number that is at least ``least``.

    Raises:
        InvalidArgument: It is smaller, a ``bool``, or not a whole number (``1.5``, ``"3"``).
    """
    # Not by `isinstance(value, SupportsIndex)`, which takes as long as starting a task.
    try:
        whole = index(value)
    except TypeError:
        whole = None
    if whole is None or isinstance(value, bool):
        raise InvalidArgument(f"{name} must be a whole number, not {value!r}")
    if whole < least:
        raise InvalidArgument(f"{name} must be at least {least}, not {value!r}")
    return whole


def number(name: str, value: float, *, zero: bool = False, finite: bool = False) -> float:
    """Return a number above 0, or with ``zero`` at least 0; with ``finite``, below infinity.

    Raises:
        InvalidArgument: It is out of range, not a number (``nan``, ``"1"``), or a ``bool``.
    """
    return _in_range(name, value, "", zero=zero, finite=finite)


def exact(name: str, value: N, *, zero: bool = False, signed: bool = False) -> N:
    """Return a number above 0, or with ``zero`` at least 0, or with ``signed`` any, as it is.

    Other checks return a ``float``. But the ``Decimal`` 0.3 is not the ``float`` 0.3, and an
    ``int`` may be larger than any ``float``.

    Raises:
        InvalidArgument: It is out of range, not a number (``nan``, ``"1"``), or a ``bool``.
    """
    compared: Any = value
    try:
        # All of these are false for nan.
        in_range = compared <= math.inf if signed else compared >= 0 if zero else compared > 0
    except TypeError:
        in_range = False
    if not in_range or isinstance(value, bool | str):
        wanted = "a number" if signed else "at least 0" if zero else "above 0"
        raise out_of_range(name, value, wanted)
    return value


def out_of_range(name: str, value: object, wanted: str) -> InvalidArgument:
    """Return the error for a number that is out of range."""
    return InvalidArgument(f"{name} must be {wanted}, not {value!r}")


def choice(name: str, value: object, *options: str) -> None:
    """Refuse what is none of the options.

    Raises:
        InvalidArgument: It is another value.
    """
    if value not in options:
        *most, last = map(repr, options)
        raise InvalidArgument(f"{name} must be {', '.join(most)} or {last}, not {value!r}")


def seconds(
    name: str, value: Seconds, *, zero: bool = False, finite: bool = False, signed: bool = False
) -> float:
    """Return a duration in seconds, above 0, or with ``zero`` at least 0; infinity means no limit.

    With ``signed`` it may be any finite number. A `datetime.timedelta` is taken everywhere, and so
    is any real number (a ``Decimal``, a ``Fraction``).

    Raises:
        InvalidArgument: It is out of range, no duration (``nan``, ``"1"``), or a ``bool``.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return _in_range(name, value, " seconds", zero=zero, finite=finite, signed=signed)


def function(taken_by: str, value: Callable[..., Any], *, use: str) -> None:
    """Refuse what is not a function, or one whose coroutines would not be awaited.

    Args:
        taken_by: What the function is given to.
        value: The function.
        use: What takes a coroutine function instead.

    Raises:
        TypeError: It cannot be called, or is a coroutine function.
    """
    callable_only(taken_by, value)
    if _is_async(value):
        raise TypeError(f"{taken_by}() does not await {name_of(value)}(): use {use}()")


def item_function(name: str, value: Callable[[Any], Any] | None, *, optional: bool = False) -> None:
    """Refuse an argument that is not a function of an item, such as a key, or is not awaited.

    Each coroutine would be a key of its own.

    Raises:
        TypeError: It cannot be called, or is a coroutine function.
    """
    if optional and value is None:
        return
    if not callable(value):
        raise TypeError(f"{name}= takes a function, not {shown(value)}")
    if _is_async(value):
        raise TypeError(f"{name}= does not await {name_of(value)}(): use map_async() before")


def _is_async(value: Callable[..., Any]) -> bool:
    """Whether this is a coroutine function, or an object that is called like one."""
    call: object = getattr(type(value), "__call__", None)  # noqa: B004  # its function is wanted
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(call)


def async_function(taken_by: str, value: Callable[..., Any]) -> None:
    """Refuse what is not a function, or a generator function, which would not be iterated.

    Raises:
        TypeError: It cannot be called, or is an async generator function.
    """
    callable_only(taken_by, value)
    if inspect.isasyncgenfunction(value):
        raise TypeError(f"{taken_by}() does not iterate over {name_of(value)}(): use flat_map()")


def callable_only(taken_by: str, value: object) -> None:
    """Refuse what is not a function.

    Raises:
        TypeError: It cannot be called.
    """
    if not callable(value):
        raise TypeError(f"{taken_by}() takes a function, not {shown(value)}")


def truth(kept: object, predicate: Callable[..., Any]) -> bool:
    """Return what a predicate returned, if that is a ``bool``; NumPy's counts as one.

    A `Result`, a coroutine and most other objects are always true, and `None` never is: an item
    would be kept, or dropped, whatever it is.

    Raises:
        TypeError: It is not a ``bool``.
    """
    if isinstance(kept, bool) or type(kept).__name__ in {"bool", "bool_"}:
        return bool(kept)
    name = name_of(predicate)
    refuse_lost(kept, f"the predicate {name}()", "bind() or bind_async()")
    raise TypeError(
        f"the predicate {name}() returned {kept!r}, which is not a bool: wrap it in bool()"
    )


def source(value: S, *, of_results: bool = False) -> S:
    """Return an async iterable as it is, which has to be one ``of_results`` or of any items.

    Raises:
        TypeError: It cannot be iterated by ``async for``. For a list, a queue and the like, the
            message names the function that makes a stream of it.
    """
    if not hasattr(value, "__aiter__"):
        message = f"expected an async iterable, not {type(value).__name__!r}"
        if hasattr(value, "__iter__"):
            message += ": use sources.from_iterable() or, if reading it blocks, from_thread()"
        elif hasattr(value, "get_nowait"):
            message += ": use sources.from_queue()"
        if of_results:
            message += ", and ResultStream.of()"
        raise TypeError(message)
    return value


def _in_range(
    name: str, value: object, unit: str, *, zero: bool, finite: bool, signed: bool = False
) -> float:
    # The usual case, without a message that is not needed.
    if isinstance(value, float) and 0 < value < math.inf:
        return float(value)
    if signed:
        wanted = f"{name} must be finite"
    else:
        bound = f"at least 0{unit}" if zero else f"above 0{unit}"
        wanted = f"{name} must be {bound}{' and finite' if finite else ''}"
    if not isinstance(value, SupportsFloat) or isinstance(value, bool):
        raise InvalidArgument(f"{wanted}, not {value!r}")
    try:
        converted = float(value)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{wanted}, not {value!r}") from None
    except OverflowError:
        raise InvalidArgument(f"{name} is too large: math.inf means no limit") from None
    in_range = signed or (converted >= 0 if zero else converted > 0)  # false for nan
    if not in_range or ((finite or signed) and not math.isfinite(converted)):
        raise InvalidArgument(f"{wanted}, not {value!r}")
    return converted


def takes_two(func: Callable[..., object]) -> bool:
    """Whether a function must be called with two positional arguments, and can be."""
    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
    with contextlib.suppress(TypeError):
        _ = signature.bind(None)
        return False
    with contextlib.suppress(TypeError):
        _ = signature.bind(None, None)
        return True
    return False
