"""One worker of `route`: the items of its key, and the forms that it may have."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from returns.future import FutureResult

from returns_pipeline._engine.frozen import allow_type_arguments
from returns_pipeline._engine.future_results import outcome_of
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.pydantic_fields import PydanticField
from returns_pipeline._engine.task_owner import notify, was_stopped
from returns_pipeline.context import StepContext, _steps

__all__ = ["Inbox", "InboxOwner", "KeyFailed", "as_generator", "as_step"]

K = TypeVar("K")
T = TypeVar("T")
K_co = TypeVar("K_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)


@allow_type_arguments
@dataclass(frozen=True, slots=True)
class KeyFailed(PydanticField, Generic[K_co, T_co]):
    """Emitted by `route(failing="isolate")` for a worker that raised an exception.

    Attributes:
        key: The worker's key.
        error: The exception.
        items: The items that it did not finish: the one that it took last, if it took one, and
            those that still waited for it, in order.

    >>> KeyFailed("berlin", OSError("gone"), (1, 2)).items
    (1, 2)
    """

    key: K_co
    error: Exception
    items: tuple[T_co, ...]


class InboxOwner(ABC):
    """The object to which an inbox reports."""

    @abstractmethod
    def mark_idle(self, inbox: Inbox[Any, Any]) -> None:
        """Add a worker to the idle ones: it is the first to be retired."""

    @abstractmethod
    def mark_busy(self, inbox: Inbox[Any, Any]) -> None:
        """Remove a worker from the idle ones: it has an item, or stops waiting."""


class Inbox(Generic[K, T]):
    """The items of one key, as its worker reads them.

    States: *open*; *closed*, when no more items will come, so that the worker can end; *abandoned*,
    when the worker has ended, although a task that it started may still wait for an item.

    Attributes:
        key: The key of its items.
        queue: The items that wait, in order.
        last: The item that was taken last, if any.
        is_closed: Whether no more items will come.
    """

    __slots__ = ("_owner", "_waiter", "is_closed", "key", "last", "queue")

    def __init__(self, owner: InboxOwner, key: K) -> None:
        self._owner: InboxOwner | None = owner  # `None` when it is abandoned
        self._waiter: asyncio.Future[None] | None = None
        self.key = key
        self.queue: deque[T] = deque()
        self.last: tuple[T, ...] = ()
        self.is_closed = False

    def __aiter__(self) -> Inbox[K, T]:
        return self

    async def __anext__(self) -> T:
        if self._waiter is not None:
            raise RuntimeError("another task is reading these items")
        while not self.queue:
            if self.is_closed or was_stopped():
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            if self._owner is not None:
                self._owner.mark_idle(self)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if self._owner is not None:
                    self._owner.mark_busy(self)
        item = self.queue.popleft()
        self.last = (item,)
        if self._owner is not None:
            self._owner.mark_busy(self)
        return item

    def put(self, item: T) -> None:
        """Add an item."""
        self.queue.append(item)
        notify(self._waiter)

    def close(self) -> None:
        """End the items: the worker can end."""
        self.is_closed = True
        notify(self._waiter)

    def abandon(self) -> deque[T]:
        """Take the items back from a worker that has ended, and cancel a read that waits."""
        self._owner = None
        self.is_closed = True
        queue, self.queue = self.queue, deque()
        if self._waiter is not None:
            _ = self._waiter.cancel()
        return queue


def as_generator(worker: Callable[..., Any]) -> Callable[[Inbox[Any, Any]], AsyncIterator[Any]]:
    """Return a worker of any form as an async generator function of its inbox."""

    async def work(inbox: Inbox[Any, Any]) -> AsyncGenerator[Any, None]:
        made = worker(inbox.key, inbox)
        if _is_future_result(made):
            yield await outcome_of(made)
        elif hasattr(made, "__aiter__"):
            async with plain_iterator(made) as items:
                async for item in items:
                    yield item
        elif inspect.isawaitable(made):
            yield await made
        else:
            raise TypeError(f"a worker must be asynchronous, not return a {type(made).__name__!r}")

    return work


def _is_future_result(made: object) -> bool:
    """Recognize a `FutureResult`, although it has ``__aiter__``, too."""
    return isinstance(made, FutureResult)


def as_step(
    worker: Callable[..., Any], ctx: StepContext, *, hold: bool
) -> Callable[[Inbox[Any, Any]], AsyncIterator[Any]]:
    """Do the same for a worker that takes a context, which is settled when the worker ends."""

    async def work(inbox: Inbox[Any, Any]) -> AsyncGenerator[Any, None]:
        def call(_: object, step: StepContext) -> Any:
            return worker(inbox.key, inbox, step)

        yield await _steps.with_child(ctx, call, name=str(inbox.key), hold=hold)(None)

    return work
