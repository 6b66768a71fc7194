"""Subscriptions that were never read, and the streams that would have read them.

A branch of a broadcast is subscribed before it is read: the source waits for it once its buffer is
full. If the stream that was to read it is closed first, or ends before it comes to that, the branch
must leave, or it would stop all others. So each stream knows its sources, opened or not.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Iterable
from types import AsyncGeneratorType
from typing import Any

__all__ = ["Composite", "Subscription", "leave", "leave_unread", "unread_among"]


# The methods have an underscore because streams that users hold have them, too.


class Composite(ABC):
    """A stream that reads other streams."""

    __slots__ = ()

    @abstractmethod
    def _sources(self) -> Iterable[AsyncIterable[Any]]:
        """Return all streams that it reads itself, also those that it has not opened."""


class Subscription(ABC):
    """A stream that others wait for, until it is read or has left."""

    @abstractmethod
    def _is_unread(self) -> bool:
        """Return whether it was neither opened nor closed."""

    @abstractmethod
    async def aclose(self) -> None:
        """Leave."""


def unread_among(sources: Iterable[AsyncIterable[Any]]) -> list[Subscription]:
    """Return the subscriptions among some streams, and their sources, that were not opened.

    Those that were opened are closed by the task that opened them.
    """
    unread: list[Subscription] = []
    # Nearly every source is a generator, which is neither; the checks of abstract classes are slow.
    waiting = [stream for stream in sources if type(stream) is not AsyncGeneratorType]
    while waiting:
        stream = waiting.pop()
        if isinstance(stream, Subscription):
            if stream._is_unread():  # pyright: ignore[reportPrivateUsage]
                unread.append(stream)
        elif isinstance(stream, Composite):
            waiting.extend(stream._sources())  # pyright: ignore[reportPrivateUsage]
    return unread


async def leave(unread: list[Subscription]) -> None:
    """Close subscriptions: all of them, whatever one raises."""
    async with contextlib.AsyncExitStack() as closing:
        for subscription in unread:
            _ = closing.push_async_callback(subscription.aclose)


async def leave_unread(sources: Iterable[AsyncIterable[Any]]) -> None:
    """Leave the subscriptions that are `unread_among` some streams."""
    if unread := unread_among(sources):
        await leave(unread)
