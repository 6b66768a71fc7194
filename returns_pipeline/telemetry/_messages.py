"""Messages in what a step handles: objects with headers, whichever connector has made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

__all__ = ["headers_of", "messages_in"]

_NONE: Final[Mapping[str, str]] = {}
_PLAIN: Final = (str, bytes, int, float, type(None))


def headers_of(message: Any) -> Mapping[str, str]:
    """Return the headers of a message; none, if it has no such thing."""
    headers: Any = getattr(message, "headers", None)
    return cast("Mapping[str, str]", headers) if isinstance(headers, Mapping) else _NONE


def messages_in(item: object) -> list[object]:
    """Return the messages in an item: itself, or those of a window, which may have a key.

    Whether a list has messages is seen by its first item, so that one without costs nothing.
    """
    found: list[object] = []
    todo: list[Any] = [item]
    while todo:
        each = todo.pop()
        if isinstance(each, _PLAIN):
            continue
        if isinstance(each, tuple):
            todo += reversed(cast("Sequence[Any]", each))
        elif isinstance(each, list):
            window = cast("Sequence[Any]", each)
            first = window[0] if window else None
            if _is_message(first):
                found += window
            elif isinstance(first, list | tuple):
                todo += reversed(window)
        elif _is_message(each):
            found.append(each)
        elif isinstance(inside := getattr(each, "items", None), list):  # an `EventWindow`
            todo.append(inside)
    return found


def _is_message(each: Any) -> bool:
    return isinstance(getattr(each, "headers", None), Mapping)
