"""What a channel holds: its items, and the line of senders that wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from typing import Generic, TypeVar

from returns_pipeline._engine.reader import Pump, notify
from returns_pipeline.errors import ChannelClosed

__all__ = ["ChannelPump", "Turn", "Waiting"]

T = TypeVar("T")


class Turn(Generic[T]):
    """A coroutine in line. It puts its item in by itself, so a cancelled one has put in none."""

    __slots__ = ("granted",)

    def __init__(self, granted: asyncio.Future[None]) -> None:
        self.granted = granted


class Waiting(Generic[T]):
    """An item in line, and the future of either kind that tells when it is accepted."""

    __slots__ = ("item", "sent")

    def __init__(
        self, item: T, sent: asyncio.Future[None] | concurrent.futures.Future[None]
    ) -> None:
        self.item = item
        self.sent = sent

    def claim(self) -> bool:
        """Return whether the item is still to be sent; from now on it cannot be taken back."""
        if isinstance(self.sent, asyncio.Future):
            return not self.sent.done()
        return self.sent.set_running_or_notify_cancel()


class ChannelPump(Pump[T]):
    """The items and the line of senders. It has no task: senders fill it.

    States: *open*; *closed*, when nothing more is accepted (what is held may still be taken); the
    loop is bound before anything is sent. All methods run in the loop's thread.

    While a sender waits in line, the channel counts as full for all others: so the line is served
    in order. At its head may be a `Turn` that was granted, whose task has not run yet; its place
    is kept.
    """

    __slots__ = ("bound_to", "capacity", "failure", "is_open", "items", "line")

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.items: deque[T] = deque()
        self.line: deque[Turn[T] | Waiting[T]] = deque()
        self.is_open = True
        self.failure: BaseException | None = None  # what each reader raises at the end
        self.bound_to: asyncio.AbstractEventLoop | None = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind the channel to a loop.

        Raises:
            RuntimeError: It belongs to another.
        """
        if self.bound_to is not None and self.bound_to is not loop:
            raise RuntimeError("the channel belongs to another event loop: use send_from_thread()")
        self.bound_to = self.loop = loop

    def start(self) -> None:
        """Bind the channel to the reader's loop: there is no task to start."""
        self.bind(asyncio.get_running_loop())
        self.error = self.failure

    def has_room(self) -> bool:
        return not self.line and len(self.items) < self.capacity

    def accept(self, item: T) -> int:
        """Hold an item for the reader; return its number, if it may be acknowledged."""
        self.items.append(item)
        if len(self.items) == 1:
            self.notify_reader()
        return 0

    def serve_line(self) -> None:
        """Serve the waiting senders, in order, until the channel is full."""
        line = self.line
        while line and len(self.items) < self.capacity:
            head = line[0]
            if isinstance(head, Turn):
                notify(head.granted)
                return  # it serves the next when it has run
            _ = line.popleft()
            if head.claim():
                self.accept(head.item)
                head.sent.set_result(None)

    def leave_line(self, turn: Turn[T]) -> None:
        """Take back a turn whose task was cancelled; it may have been granted."""
        if turn in self.line:
            self.line.remove(turn)
            self.serve_line()

    def on_sent(self, sent: asyncio.Future[None]) -> None:
        """Forget an item that was taken back."""
        if sent.cancelled():
            self.forget_cancelled()

    def forget_cancelled(self) -> None:
        """Drop the items that were taken back, before their turn, which may be long in coming."""
        self.line = deque(
            [each for each in self.line if isinstance(each, Turn) or not each.sent.cancelled()]
        )

    def take_ticket(self, item: T, ticket: concurrent.futures.Future[None]) -> None:
        """Accept an item of another thread, or put it in line."""
        waiting = Waiting(item, ticket)
        if not self.is_open:
            if waiting.claim():
                ticket.set_exception(ChannelClosed(item))
        elif not self.has_room():
            self.line.append(waiting)
        elif waiting.claim():
            self.accept(item)
            ticket.set_result(None)

    def shut(self, error: BaseException | None) -> None:
        """Accept nothing more, and refuse the senders that wait in line."""
        if not self.is_open:
            return
        self.is_open = False
        self.error = self.failure = error
        self.ended: bool = True
        line, self.line = self.line, deque()
        for each in line:
            if isinstance(each, Turn):
                if not each.granted.done():
                    each.granted.set_result(None)  # it sees that the channel is closed
            elif each.claim():
                each.sent.set_exception(ChannelClosed(each.item))
        self.notify_reader()

    # The reader.

    def sources(self) -> tuple[()]:
        return ()

    def has_next(self) -> bool:
        return bool(self.items)

    def take(self) -> T:
        item = self.items.popleft()
        if self.line:
            self.serve_line()
        return item

    def close(self) -> None:
        """Record that the reader left; items that it has not taken stay."""
        self.shut(None)
        self.error = None
        self.notify_reader()
