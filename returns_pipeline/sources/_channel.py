"""`Channel`: a bounded pipe from callbacks, tasks and threads to one stream."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import time
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, TypeVar

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.draining import Drainable
from returns_pipeline._engine.reader import Pump, Reader, notify
from returns_pipeline.errors import ChannelClosed

__all__ = ["Channel"]

T = TypeVar("T")
U = TypeVar("U")

# How often, in real seconds, a thread that waits looks whether the loop is closed.
_GLANCE: Final = 0.2


class Channel(Generic[T]):
    """A bounded pipe: any number of senders, and one reader, which reads it as a stream.

    It is an async iterable: ``ResultStream.of(channel)``, ``async for item in channel``.

    =============================  ===============================================================
    to send from                   use
    =============================  ===============================================================
    a coroutine, a web handler     ``await channel.send(item)``: waits while the channel is full
    a callback in the loop         ``channel.send_soon(item)``: returns a future to pause by
    another thread                 ``channel.send_from_thread(item)``: blocks while it is full
    =============================  ===============================================================

    1. Items are emitted in the order in which they were accepted. Senders that wait are served in
       the order in which they came, whatever their kind.
    2. The stream ends after `close`, when everything that was accepted is emitted; or it raises
       the error that `close` was given.
    3. When the reader leaves (it is closed or dropped), the channel is closed, and senders that
       wait get `ChannelClosed`. A reader that only stops for a while leaves it open.
    4. With `ResultStream.drain_on`, the channel is closed when the event is set: what was accepted
       is emitted, senders that wait get `ChannelClosed`.

    Backpressure: ``capacity`` items are held; then senders wait.

    Nothing is lost: if a call returns, its item was accepted; if it raises, also because it was
    cancelled or timed out, the item was not accepted. Items that were accepted and not emitted when
    the reader left are in `unread`.

    Cancel safety: a cancelled read loses nothing; the next read continues where it was. To close it
    is also safe at any time, from any thread, more than once.

    It belongs to the event loop in which it is made or, if none runs then, first used.

    Known elsewhere as: ``mpsc::channel`` (tokio), ``Channel`` (fs2, Kotlin), memory object streams
    (anyio, trio), ``Source.queue`` (Akka and Pekko), ``Subject`` (Rx, which has no bound).

    Args:
        capacity: How many items are held for the reader, at least 1.

    Raises:
        InvalidArgument: At the call, if ``capacity`` is out of range.

    >>> from returns_pipeline import chunks_or_timeout
    >>> from returns_pipeline.testing import run, timeline
    >>> async def produce(channel: Channel[int]) -> None:
    ...     async with channel:
    ...         for n in range(5):
    ...             await channel.send(n)
    >>> async def main() -> None:
    ...     channel: Channel[int] = Channel(2)
    ...     producer = asyncio.create_task(produce(channel))
    ...     print(await timeline(chunks_or_timeout(channel, 2, 1.0)))
    ...     await producer
    >>> run(main())
    [(0.0, [0, 1]), (0.0, [2, 3]), (0.0, [4])]
    """

    def __init__(self, capacity: int) -> None:
        self._pump: _ChannelPump[T] = _ChannelPump(checks.count("capacity", capacity))
        self._reader: weakref.ref[_ChannelReader[T]] | None = None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._pump.bind(loop)

    def __aiter__(self) -> Reader[T]:
        """Read the channel.

        Raises:
            RuntimeError: It has a reader.
        """
        before = None if self._reader is None else self._reader()
        if before is not None and before.is_open():
            raise RuntimeError("the channel has a reader: use combine.broadcast() for several")
        reader = _ChannelReader(self._pump)
        self._reader = weakref.ref(reader)
        return reader

    def __or__(self, stage: Callable[[Channel[T]], U]) -> U:
        """Apply an operator, as ``channel | pipe.chunks_or_timeout(500, 2.0)``."""
        return stage(self)

    async def send(self, item: T) -> None:
        """Send an item; wait while the channel is full.

        Raises:
            ChannelClosed: The channel is closed, or is closed while this waits.
            RuntimeError: The channel belongs to another event loop.
            CancelledError: The caller was cancelled while this waited; the item was not accepted.
        """
        pump = self._bound()
        if not pump.is_open:
            raise ChannelClosed(item)
        if pump.has_room():
            pump.accept(item)
            return
        turn = _Turn[T](pump.loop.create_future())
        pump.line.append(turn)
        try:
            await turn.granted
        except BaseException:
            pump.leave_line(turn)
            raise
        if not pump.is_open:  # it was closed after the turn had come
            raise ChannelClosed(item)
        _ = pump.line.popleft()  # this turn: a turn that was granted stays at the head
        pump.accept(item)
        pump.serve_line()

    def send_soon(self, item: T) -> asyncio.Future[None]:
        """Send an item from a callback, which cannot wait.

        If the channel is full the item waits in line, as if a coroutine had sent it. Nothing else
        bounds the line, so pause the caller of the callback until the future is done:

        .. code-block:: python

            def data_received(self, data: bytes) -> None:
                sent = channel.send_soon(data)
                if not sent.done():
                    self.transport.pause_reading()
                    sent.add_done_callback(lambda _: self.transport.resume_reading())

        Returns:
            A future that is done when the item is accepted: at once, if there is room. It gets
            `ChannelClosed` if the channel is closed before; asyncio logs that if no code reads it.
            Cancelling it takes the item back if it was not accepted.

        Raises:
            ChannelClosed: At the call, if the channel is closed.
            RuntimeError: The channel belongs to another event loop, or this thread runs none.
        """
        pump = self._bound()
        if not pump.is_open:
            raise ChannelClosed(item)
        sent: asyncio.Future[None] = pump.loop.create_future()
        if pump.has_room():
            pump.accept(item)
            sent.set_result(None)
        else:
            pump.line.append(_Waiting(item, sent))
            sent.add_done_callback(pump.on_sent)
        return sent

    def send_from_thread(self, item: T, *, timeout: Seconds = math.inf) -> None:
        """Send an item from another thread; block it while the channel is full.

        Args:
            item: The item.
            timeout: Seconds to wait, above 0; in real time, like everything in threads.

        Raises:
            ChannelClosed: The channel, or its event loop, is closed.
            TimeoutError: The time has passed; the item was not accepted.
            RuntimeError: This thread runs an event loop, or no loop has used the channel yet.
        """
        limit = time.monotonic() + checks.seconds("timeout", timeout)
        if _running_loop() is not None:
            raise RuntimeError("this would block the event loop: use send() or send_soon()")
        loop = self._pump.bound_to
        if loop is None:
            raise RuntimeError("no event loop has used the channel yet: make it inside of one")
        ticket: concurrent.futures.Future[None] = concurrent.futures.Future()
        try:
            _ = loop.call_soon_threadsafe(self._pump.take_ticket, item, ticket)
        except RuntimeError:  # the loop is closed
            raise ChannelClosed(item) from None
        try:
            _wait_for(ticket, limit, loop, item)
        except BaseException:
            _ = ticket.cancel()  # for an interrupt: the other reasons have done so
            with contextlib.suppress(RuntimeError):  # the loop is closed
                _ = loop.call_soon_threadsafe(self._pump.forget_cancelled)
            raise

    def close(self, error: BaseException | None = None) -> None:
        """Accept no more items; what was accepted is still emitted, then the stream ends.

        It may be called from any thread, and more than once: the first call counts.

        Args:
            error: The reader raises it at the end, after the items.
        """
        loop = self._pump.bound_to
        if loop is not None and loop is not _running_loop():
            try:
                _ = loop.call_soon_threadsafe(self._pump.shut, error)
            except RuntimeError:
                pass  # the loop is closed: nothing else touches the channel
            else:
                return
        self._pump.shut(error)

    @property
    def closed(self) -> bool:
        """Whether no more items are accepted."""
        return not self._pump.is_open

    @property
    def unread(self) -> list[T]:
        """The items that were accepted and not emitted, in order; they may still be read."""
        return list(self._pump.items)

    async def __aenter__(self) -> Channel[T]:
        """Close the channel at the end of the block, for a sender."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close it; an exception of the block is raised by the reader, too.

        If the block was cancelled, the reader gets a ``RuntimeError``: it must not take what came
        before for everything.
        """
        if error is not None and not isinstance(error, Exception):
            stopped = RuntimeError("a sender was stopped before the end of its items")
            stopped.__cause__ = error
            error = stopped
        self.close(error)

    def __repr__(self) -> str:
        pump = self._pump
        state = "open" if pump.is_open else "closed"
        return f"<Channel {state}, {len(pump.items)} of {pump.capacity} items>"

    def _bound(self) -> _ChannelPump[T]:
        """Return the pump, in the loop that it belongs to."""
        loop = asyncio.get_running_loop()
        if self._pump.bound_to is not loop:
            self._pump.bind(loop)
        return self._pump


class _Turn(Generic[T]):
    """A coroutine in line. It puts its item in by itself, so a cancelled one has put in none."""

    __slots__ = ("granted",)

    def __init__(self, granted: asyncio.Future[None]) -> None:
        self.granted = granted


class _Waiting(Generic[T]):
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


class _ChannelPump(Pump[T]):
    """The items and the line of senders. It has no task: senders fill it.

    States: *open*; *closed*, when nothing more is accepted (what is held may still be taken); the
    loop is bound before anything is sent. All methods run in the loop's thread.

    While a sender waits in line, the channel counts as full for all others: so the line is served
    in order. At its head may be a `_Turn` that was granted, whose task has not run yet; its place
    is kept.
    """

    __slots__ = ("bound_to", "capacity", "failure", "is_open", "items", "line")

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.items: deque[T] = deque()
        self.line: deque[_Turn[T] | _Waiting[T]] = deque()
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

    def accept(self, item: T) -> None:
        self.items.append(item)
        if len(self.items) == 1:
            self.notify_reader()

    def serve_line(self) -> None:
        """Serve the waiting senders, in order, until the channel is full."""
        line = self.line
        while line and len(self.items) < self.capacity:
            head = line[0]
            if isinstance(head, _Turn):
                notify(head.granted)
                return  # it serves the next when it has run
            _ = line.popleft()
            if head.claim():
                self.accept(head.item)
                head.sent.set_result(None)

    def leave_line(self, turn: _Turn[T]) -> None:
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
            [each for each in self.line if isinstance(each, _Turn) or not each.sent.cancelled()]
        )

    def take_ticket(self, item: T, ticket: concurrent.futures.Future[None]) -> None:
        """Accept an item of another thread, or put it in line."""
        waiting = _Waiting(item, ticket)
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
            if isinstance(each, _Turn):
                if not each.granted.done():
                    each.granted.set_result(None)  # it sees that the channel is closed
            elif each.claim():
                each.sent.set_exception(ChannelClosed(each.item))
        self.notify_reader()

    # The reader.

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


class _ChannelReader(Reader[T], Drainable):
    """The reader, as long as it is open."""

    __slots__ = ("_channel_pump",)

    def __init__(self, pump: _ChannelPump[T]) -> None:
        super().__init__(pump)
        self._channel_pump = pump

    def is_open(self) -> bool:
        """Whether it was read, and is not closed."""
        return self._started and not self._closed

    def drain(self) -> None:
        """Close the channel; what was accepted is emitted."""
        self._channel_pump.shut(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that this thread runs at this moment, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _wait_for(
    ticket: concurrent.futures.Future[None],
    limit: float,
    loop: asyncio.AbstractEventLoop,
    item: object,
) -> None:
    """Wait until an item is accepted. A ticket that can be cancelled has not been."""
    while True:
        left = limit - time.monotonic()
        try:
            return ticket.result(max(0.0, min(left, _GLANCE)))
        except concurrent.futures.TimeoutError:
            # A loop that was closed with something in it never looks at the ticket.
            if loop.is_closed() and ticket.cancel():
                raise ChannelClosed(item) from None
            if left <= _GLANCE and time.monotonic() >= limit and ticket.cancel():
                raise TimeoutError("the channel was full for too long") from None
