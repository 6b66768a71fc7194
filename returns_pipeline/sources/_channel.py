"""`Channel`: a bounded pipe from callbacks, tasks and threads to one stream."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, TypeVar

from returns_pipeline._engine import checks
from returns_pipeline._engine.calls import Call
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.draining import Drainable
from returns_pipeline._engine.marks import Markable, MarkedItems
from returns_pipeline._engine.reader import Reader
from returns_pipeline.errors import ChannelClosed, NotHandled
from returns_pipeline.sources._channel_pump import ChannelPump, Turn, Waiting
from returns_pipeline.sources._deliveries import Deliveries, DeliveryPump

__all__ = ["Channel", "ChannelStatistics"]

T = TypeVar("T")
U = TypeVar("U")

# How often, in real seconds, a thread that waits looks whether the loop is closed.
_GLANCE: Final = 0.2


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """What a `Channel` holds. `Channel.statistics` makes it.

    Attributes:
        buffered: The items that were accepted and not emitted.
        waiting_senders: The senders that wait for room.
        waiting_readers: How many readers wait for an item.
        is_open: Whether items are accepted.

    >>> ChannelStatistics(buffered=5, waiting_senders=2, waiting_readers=0, is_open=True).buffered
    5
    """

    buffered: int
    waiting_senders: int
    waiting_readers: int
    is_open: bool


class Channel(Markable, Generic[T]):
    """A bounded pipe: any number of senders, and one reader, which reads it as a stream.

    It is an async iterable: ``ResultStream.of(channel)``, ``async for item in channel``.

    =============================  ===============================================================
    to send from                   use
    =============================  ===============================================================
    a coroutine, a web handler     ``await channel.send(item)``: waits while the channel is full
    the same, acknowledged         ``await channel.deliver(item)``: waits until it is handled
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
        acknowledged: Whether `deliver` may be used. Such a channel is read by ``ResultStream.of``,
            and what cannot tell when an item is handled is refused: slices, operators that are not
            methods, ``hold=True``.

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

    def __init__(self, capacity: int, *, acknowledged: bool = False) -> None:
        size = checks.count("capacity", capacity)
        self._call = Call(Channel, (capacity,), bounds=f"holds up to {size}")
        self._pump: ChannelPump[T]
        self._marked: MarkedItems | None = None
        if acknowledged:
            pump: DeliveryPump[T] = DeliveryPump(size)
            self._pump = pump
            self._marked = Deliveries(self._open_reader, self._is_read, pump, self._call)
        else:
            self._pump = ChannelPump(size)
        self._reader: weakref.ref[_ChannelReader[T]] | None = None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._pump.bind(loop)

    def __aiter__(self) -> Reader[T]:
        """Read the channel.

        Raises:
            RuntimeError: It has a reader; or it is ``acknowledged``, and must be read by
                `ResultStream.of`.
        """
        if self._marked is not None:
            raise RuntimeError(
                "a loop does not tell what it has handled: read the channel by ResultStream.of()"
            )
        return self._open_reader()

    def _is_read(self) -> bool:
        reader = None if self._reader is None else self._reader()
        return reader is not None and reader.is_open()

    def _open_reader(self) -> Reader[T]:
        if self._is_read():
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
        _ = await self._send(item)

    async def _send(self, item: T) -> int:
        pump = self._bound()
        if not pump.is_open:
            raise ChannelClosed(item)
        if pump.has_room():
            return pump.accept(item)
        turn = Turn[T](pump.loop.create_future())
        pump.line.append(turn)
        try:
            await turn.granted
        except BaseException:
            pump.leave_line(turn)
            raise
        if not pump.is_open:  # it was closed after the turn had come
            raise ChannelClosed(item)
        _ = pump.line.popleft()  # this turn: a turn that was granted stays at the head
        number = pump.accept(item)
        pump.serve_line()
        return number

    async def deliver(self, item: T) -> None:
        """Send an item, and wait until everything made of it has been handled by a terminal.

        So a web handler answers when its event is persisted. What the item becomes on the way makes
        no difference: it may be filtered, expanded, retried or put into a window with others. A
        failure that `run_all` has counted, or a step has recovered from, is handled.

        It returns as a source is acknowledged to: with `run`, `run_all`, `for_each` and
        `for_each_all` soon after the item was handled, with `collect` and the others at their end.
        A window must be closed by a time limit, or by the end, as no item follows while all callers
        wait. Until a stream reads the channel, it waits for one.

        Raises:
            ChannelClosed: The channel is closed, or is closed before it has room: the item was not
                accepted.
            NotHandled: The stream ended before it had handled the item: by a failure, an exception
                or a cancellation, or because its reader left. It has perhaps handled a part of it.
            RuntimeError: The channel is not ``acknowledged``, or belongs to another event loop.
            CancelledError: The caller was cancelled. While it waited for room, the item was not
                accepted; afterwards the item is handled nevertheless.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.testing import run
        >>> async def handle(channel: Channel[int], number: int) -> str:
        ...     await channel.deliver(number)
        ...     return f"{number} is persisted"
        >>> async def main() -> None:
        ...     channel: Channel[int] = Channel(100, acknowledged=True)
        ...     windows = ResultStream.of(channel).chunks_or_timeout(10, 2.0).tap(print)
        ...     pipeline = asyncio.ensure_future(windows.run())
        ...     print(await asyncio.gather(handle(channel, 1), handle(channel, 2)))
        ...     channel.close()
        ...     await pipeline
        >>> run(main())
        [1, 2]
        ['1 is persisted', '2 is persisted']
        """
        pump = self._pump
        if not isinstance(pump, DeliveryPump):
            raise RuntimeError(  # noqa: TRY004  # no argument has a wrong type
                "deliver() needs Channel(capacity, acknowledged=True)"
            )
        number = await self._send(item)
        # There was no await since it was accepted.
        receipt = pump.receipts[number] = pump.loop.create_future()
        if not await receipt:
            raise NotHandled(item)

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
            pump.line.append(Waiting(item, sent))
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

    def statistics(self) -> ChannelStatistics:
        """Return what it holds at this moment.

        >>> channel: Channel[int] = Channel(5)
        >>> channel.statistics()
        ChannelStatistics(buffered=0, waiting_senders=0, waiting_readers=0, is_open=True)
        """
        pump = self._pump
        return ChannelStatistics(
            len(pump.items), len(pump.line), pump.waiting_readers(), pump.is_open
        )

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

    def _bound(self) -> ChannelPump[T]:
        """Return the pump, in the loop that it belongs to."""
        loop = asyncio.get_running_loop()
        if self._pump.bound_to is not loop:
            self._pump.bind(loop)
        return self._pump


class _ChannelReader(Reader[T], Drainable):
    """The reader, as long as it is open."""

    __slots__ = ("_channel_pump",)

    def __init__(self, pump: ChannelPump[T]) -> None:
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
