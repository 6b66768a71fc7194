"""The calls of a user's that made streams: for ``repr()``, for messages, and for drawings.

Each function that makes a stream, and each method that adds to a chain, records the call in what it
returns. What an operator is called, and how, is then known in one place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

__all__ = ["Call", "call_of", "record_call", "recorded"]

M = TypeVar("M", bound=Callable[..., Any])


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """One call, and what it was given.

    Attributes:
        func: The function that was called: of a method, with its parameter ``self``.
        args: The positional arguments; not ``self``.
        kwargs: The arguments by name.
        is_method: Whether it was called on the stream before it.
        errors: Returns the types of the failures that it adds, if the signature does not tell.
        bounds: In words, what is held between the senders and the stream, if there are senders.
        name: What is shown in its place, if it is not written as a call.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    is_method: bool = False
    errors: Callable[[], tuple[str, ...]] | None = None
    bounds: str = ""
    name: str = ""


def recorded(func: M) -> M:
    """Decorate a function that makes a stream, or a tuple of streams: they know the call."""

    @functools.wraps(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        made: Any = func(*args, **kwargs)
        record_call(made if made.__class__ is tuple else (made,), func, *args, **kwargs)
        return made

    return cast("M", call)


def record_call(made: Iterable[Any], func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Record in streams the call that made them, which they share."""
    call = Call(func, args, kwargs)
    for stream in made:
        stream._call = call


def call_of(stream: object) -> Call | None:
    """Return the call that made a stream, if it knows."""
    call: object = getattr(stream, "_call", None)
    return call if isinstance(call, Call) else None
