"""`Publisher`: messages to a broker, which count as published when it has confirmed them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar, overload
from uuid import uuid4

from returns.result import Failure, Result, Success

from returns_pipeline._engine import checks, observing
from returns_pipeline._engine.cancellation import wait_uncancelled
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.logs import Repeats, facts
from returns_pipeline._engine.observing import Observed
from returns_pipeline._engine.retry_loop import next_delay
from returns_pipeline.connectors._decode import json_encoder
from returns_pipeline.connectors._events import PublishEvents
from returns_pipeline.connectors._message import DeadLetter, Message
from returns_pipeline.connectors._sender import Outgoing, OutgoingBatch, Sender, SenderConnection
from returns_pipeline.connectors._session import bounded
from returns_pipeline.errors import ConnectionLost, InvalidArgument, PublishError
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.telemetry import Observer

__all__ = ["Publisher", "PublisherStatistics"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

_log = logging.getLogger("returns_pipeline.connectors")

_FOR_A_WHILE: Final = RetryPolicy(attempts=2**31, total_timeout=30.0)

_Item: TypeAlias = T | Outgoing[T] | Message[T] | DeadLetter[object]

# Characters of the error that a dead letter is published with.
_ERROR_LENGTH: Final = 1000


@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """What a publisher has done. `Publisher.statistics` makes it.

    Attributes:
        confirmed: Messages that the broker has confirmed.
        refused: Messages that it does not take.
        unconfirmed: Messages that it may have or not: the last connection was lost, or the caller
            was cancelled.
        connections: Connections that were made: 1 if none was lost.

    >>> PublisherStatistics(confirmed=3).refused
    0
    """

    confirmed: int = 0
    refused: int = 0
    unconfirmed: int = 0
    connections: int = 0


class Publisher(Generic[T_contra]):
    """Messages to a broker, which count as published when it has confirmed them.

    Its methods are steps of a pipeline:

    .. code-block:: python

        async with Publisher(stream.sender("invoices.new"), encode=Invoice) as publisher:
            await invoices.bind_async(publisher.publish, concurrency=100).run()
            await others.chunks_or_timeout(500, 2.0).bind_async(publisher.publish_all).run()

    1. **Confirmed.** A step succeeds when the broker has confirmed its messages, and not before.
       What that means depends on the broker; see the page on connectors.
    2. **Failures** are a `PublishError`, which says which messages were refused, and which may have
       arrived. All others have arrived.
    3. **Lost connections.** It connects again, after a wait, and sends what was not confirmed. So a
       message may be there twice, unless the sender deduplicates: each message has an id, which
       stays the same. When ``reconnect`` allows no other attempt, the step fails. The next step
       connects again.
    4. **Undo.** What was published cannot be taken back. Publish in the last part of a step that
       can be undone, or in a stage after it.

    Order: the messages of a call are sent in their order; so are those of calls one after the
    other. A message that has to be sent again may follow later ones.

    Cancel safety: a message whose call is cancelled may have been published or not; other calls are
    not disturbed. The connection stays.

    Backpressure: it holds nothing but the messages of the calls under way.

    Known elsewhere as: producer sinks (Alpakka, fs2-kafka), ``Output`` (Redpanda Connect).

    Args:
        sender: Where to, and how.
        encode: The type of the values, which msgspec writes as JSON; or a function that makes bytes
            of a value, whose exceptions are raised. By default any value is written as JSON, and
            bytes are left as they are.
        reconnect: How long to wait after a lost connection, and how many attempts to make for each
            step. By default attempts begin for 30 seconds.
        request_timeout: Seconds, above 0, after which a broker that does not answer counts as lost.
        observer: Gets an event before and after each call; besides the observers of
            `returns_pipeline.telemetry.use`, and those of the step that publishes.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.

    >>> from returns_pipeline import ResultStream
    >>> from returns_pipeline.sources import from_iterable
    >>> from returns_pipeline.testing import MemoryBroker, run
    >>> broker = MemoryBroker()
    >>> async def main() -> None:
    ...     async with Publisher(broker.sender(), encode=int) as publisher:
    ...         numbers = ResultStream.of(from_iterable([1, 2, 3]))
    ...         print(await numbers.bind_async(publisher.publish).run())
    ...         print(await publisher.publish_all([4, Outgoing(5, key=b"k")]))
    >>> run(main())
    <IOResult: <Success: 3>>
    <Success: 2>
    >>> broker.backlog("readers")
    5
    """

    @overload
    def __init__(
        self: Publisher[object],
        sender: Sender,
        *,
        encode: None = None,
        reconnect: RetryPolicy = _FOR_A_WHILE,
        request_timeout: Seconds = 30.0,
        observer: Observer | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Publisher[T],
        sender: Sender,
        *,
        encode: type[T],
        reconnect: RetryPolicy = _FOR_A_WHILE,
        request_timeout: Seconds = 30.0,
        observer: Observer | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Publisher[T],
        sender: Sender,
        *,
        encode: Callable[[T], bytes],
        reconnect: RetryPolicy = _FOR_A_WHILE,
        request_timeout: Seconds = 30.0,
        observer: Observer | None = None,
    ) -> None: ...
    def __init__(
        self,
        sender: Sender,
        *,
        encode: type[Any] | Callable[[Any], bytes] | None = None,
        reconnect: RetryPolicy = _FOR_A_WHILE,
        request_timeout: Seconds = 30.0,
        observer: Observer | None = None,
    ) -> None:
        if not hasattr(sender, "connect"):
            raise TypeError(f"expected a sender, not {type(sender).__name__!r}")
        if not isinstance(reconnect, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"reconnect must be a RetryPolicy, not {reconnect!r}")
        self._sender = sender
        self._encode = _encoder(encode)
        self._reconnect = reconnect
        self._limit = checks.seconds("request_timeout", request_timeout)
        self._observers = () if observer is None else (observer,)
        self._observed: Observed | None = None
        self._state = "new"  # open, closed
        self._closed = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None  # for all calls that wait for it
        self._ids = uuid4().hex
        self._numbers = itertools.count()
        self._connection: SenderConnection | None = None
        self._repeats = Repeats(_log)
        self._connections = self._confirmed = self._refused = self._unconfirmed = 0

    async def __aenter__(self) -> Self:
        """Accept messages; it connects when it has some.

        Raises:
            RuntimeError: It was entered before.
        """
        if self._state != "new":
            raise RuntimeError("a publisher can be entered once")
        self._state = "open"
        self._observed = observing.opened(None, self._observers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Disconnect. Calls that are under way fail."""
        self._state = "closed"
        self._closed.set()
        cancelled = None
        if (connecting := self._connecting) is not None:
            connecting.cancel()
            cancelled = await wait_uncancelled(connecting)
        if (connection := self._connection) is not None:
            await self._give_up(connection)
        if cancelled is not None:
            raise cancelled

    async def publish(self, item: _Item[T_contra], /) -> Result[int, PublishError]:
        """Publish one value, and return when the broker has confirmed it.

        Args:
            item: The value; or the value with a key, headers and so on; or a message that was read,
                of which the value, the key and the headers are published; or a `DeadLetter`, of
                which the message is, with the headers ``error`` and ``read-from``. The value of a
                message that could not be read is published as it came.

        Returns:
            1: the number of messages.

        Raises:
            RuntimeError: Outside of ``async with``.
            TypeError: A key is not bytes, a header or an id is not text, and so on.
            Exception: What ``encode`` raises; what the client raises, if it is not about the
                connection.

        >>> from returns_pipeline.testing import MemoryBroker, run
        >>> async def main() -> None:
        ...     async with Publisher(MemoryBroker().sender()) as publisher:
        ...         print(await publisher.publish(Outgoing({"seats": 3}, partition=9)))
        >>> run(main())
        <Failure: memory: 0 of 1 messages were confirmed: there is no partition 9>
        """
        return await self.publish_all((item,))

    async def publish_all(self, items: Sequence[_Item[T_contra]], /) -> Result[int, PublishError]:
        """Publish a window as a batch, and return when the broker has confirmed all of it.

        Redis and PostgreSQL take a window whole or not at all. Of other brokers a part may have
        arrived when this fails: the error says which.

        Args:
            items: Each as for `publish`.

        Returns:
            The number of messages.

        Raises:
            RuntimeError: Outside of ``async with``.
            TypeError: As by `publish`; or it is not a window, but a text, bytes or a mapping.
            Exception: As by `publish`. Nothing was sent, unless the client has raised it.

        >>> from returns_pipeline.testing import MemoryBroker, run
        >>> async def main() -> None:
        ...     async with Publisher(MemoryBroker().sender()) as publisher:
        ...         print(await publisher.publish_all([b"a", b"b"]))
        >>> run(main())
        <Success: 2>
        """
        if self._state != "open":
            raise RuntimeError("publish inside of `async with publisher:`")
        if isinstance(items, str | bytes | bytearray | Mapping):
            raise TypeError(f"publish_all() takes a list of values, not {items!r}: use publish()")
        observed = observing.in_effect(self._observed)
        if observed is None or not len(items):
            return await self._publish(items, None)
        events = PublishEvents(observed, self._sender.name, len(items))
        try:
            done = await self._publish(items, events)
        except BaseException as error:
            events.ended(error)
            raise
        events.ended(done.failure() if isinstance(done, Failure) else None)
        return done

    async def _publish(
        self, items: Sequence[_Item[T_contra]], events: PublishEvents | None
    ) -> Result[int, PublishError]:
        added = None if events is None else events.headers
        batch = OutgoingBatch([self._outgoing(item, added) for item in items])
        if not batch.messages:
            return Success(0)
        reason = "the caller was cancelled"
        try:
            reason = await self._send(batch)
        finally:
            unconfirmed = tuple([number for number, _ in batch.unanswered()])
            self._confirmed += batch.confirmed
            self._refused += len(batch.refused)
            self._unconfirmed += len(unconfirmed)
            if events is not None:
                events.answered(batch.confirmed, len(batch.refused), len(unconfirmed))
        if not unconfirmed and not batch.refused:
            return Success(len(batch.messages))
        refused = tuple(sorted(batch.refused))
        if refused:
            reason = batch.refused[refused[0]]
        count = len(batch.messages)
        return Failure(PublishError(self._sender.name, reason, count, refused, unconfirmed))

    def _outgoing(self, item: Any, added: Mapping[str, str] | None) -> Outgoing[bytes]:
        """Return a message with its bytes, and an id that all attempts share.

        Args:
            item: What is published.
            added: The headers that observers add. Those that a message was read with give way to
                them: they tell of the trace in which it was sent before.
        """
        kind = item.__class__
        is_encoded = False
        if kind is Message:
            item = Outgoing(item.value, item.key, item.headers)
        elif kind is DeadLetter:
            is_encoded = isinstance(item.message.value, bytes)
            item = _of_dead_letter(item)
        elif kind is not Outgoing:
            item = Outgoing(item)
        number: str | None = item.id
        headers: Mapping[str, str] = item.headers
        if added:
            headers = {**added, **headers} if kind is Outgoing else {**headers, **added}
        if self._sender.deduplicates:
            number = number or f"{self._ids}.{next(self._numbers)}"
        elif number is not None:
            headers = {**headers, "message-id": number}
        value = item.value if is_encoded else self._encode(item.value)
        made = Outgoing(value, item.key, headers, item.partition, item.destination, number)
        _check(made)
        return made

    async def _send(self, batch: OutgoingBatch) -> str:
        """Send a batch until all is answered; return why something is not."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._reconnect.total_timeout
        failed = 0
        while True:
            try:
                await self._send_once(batch)
            except ConnectionLost as lost:
                failed += 1
                if not any(True for _ in batch.unanswered()):
                    return ""
                delay = None
                if self._state == "open":
                    delay = await next_delay(self._reconnect, failed, lost, due)
                if delay is None:
                    return lost.reason
                self._repeats.warning(
                    "%s; the next attempt is in %.1f s",
                    lost,
                    delay,
                    extra=facts(source=self._sender.name, attempt=failed, delay=delay),
                )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        _ = await self._closed.wait()
            else:
                return "the broker has not answered"

    async def _send_once(self, batch: OutgoingBatch) -> None:
        connection = await self._connected()
        try:
            await bounded(self._sender.name, "send", self._limit, connection.send(batch))
        except Exception:
            await self._give_up(connection)
            raise

    async def _connected(self) -> SenderConnection:
        """Return the connection that all calls share; make it, if there is none.

        If that fails, it has failed for all calls that wait for it: they do not try one after the
        other. It does not end with a call that is cancelled.
        """
        while self._state == "open":
            if self._connection is not None:
                return self._connection
            connecting = self._connecting
            if connecting is None or connecting.done():
                connecting = asyncio.get_running_loop().create_task(
                    self._connect(), name=f"{self._sender.name}: connecting"
                )
                connecting.add_done_callback(_hear)
                self._connecting = connecting
            _ = await asyncio.wait({connecting})
            if not connecting.cancelled() and (error := connecting.exception()) is not None:
                if isinstance(error, ConnectionLost):
                    raise ConnectionLost(error.source, error.reason) from error
                raise error
        raise ConnectionLost(self._sender.name, "the publisher was closed")

    async def _connect(self) -> None:
        connect = self._sender.connect()
        self._connection = await bounded(self._sender.name, "connect", self._limit, connect)
        self._connections += 1
        if self._connections > 1:
            name = self._sender.name
            self._repeats.info("%s is connected again", name, extra=facts(source=name))

    async def _give_up(self, connection: SenderConnection) -> None:
        """Close a connection, unless another call has done so."""
        if self._connection is connection:
            self._connection = None
            await self._close(connection)

    async def _close(self, connection: SenderConnection) -> None:
        try:
            await bounded(self._sender.name, "close", self._limit, connection.close())
        except ConnectionLost as error:
            _log.debug("%s", error)

    def statistics(self) -> PublisherStatistics:
        """Return what it has done.

        >>> from returns_pipeline.testing import MemoryBroker
        >>> Publisher(MemoryBroker().sender()).statistics().confirmed
        0
        """
        return PublisherStatistics(
            self._confirmed, self._refused, self._unconfirmed, self._connections
        )

    def __repr__(self) -> str:
        return f"<Publisher {self._sender.name}, {self._state}>"


def _hear(connecting: asyncio.Task[None]) -> None:
    """Read the error of an attempt for which no call waits any more: asyncio would log it."""
    if not connecting.cancelled():
        _ = connecting.exception()


def _of_dead_letter(letter: DeadLetter[object]) -> Outgoing[object]:
    message, error = letter.message, letter.error
    text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
    # On one line: not every broker has headers of several.
    told = " ".join(text.split())[:_ERROR_LENGTH]
    place = ".".join(map(str, message.position))
    headers = {**message.headers, "error": told, "read-from": f"{message.partition} {place}"}
    return Outgoing(message.value, message.key, headers)


def _check(message: Any) -> None:
    """Refuse what no client can send.

    One would raise an exception in the middle of a batch, and the connection, which other calls
    use, would be given up. Another one would send something else.

    Raises:
        TypeError: A part is of another type.
        UnicodeEncodeError: A text cannot be encoded.
    """
    # Not a loop over all parts: this is on the path of each message.
    if not isinstance(message.value, bytes):
        raise _wrong("the encoded value", message.value, "bytes")
    if message.key is not None and not isinstance(message.key, bytes):
        raise _wrong("key", message.key, "bytes")
    if message.partition is not None and not isinstance(message.partition, int):
        raise _wrong("partition", message.partition, "a number")
    for what, text in (("id", message.id), ("destination", message.destination)):
        if text is not None and not isinstance(text, str):
            raise _wrong(what, text, "a text")
    for name, text in message.headers.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise _wrong("a header", {name: text}, "a text with a name")
        if not (name.isascii() and text.isascii()):
            _ = (name + text).encode()


def _wrong(what: str, part: object, wanted: str) -> TypeError:
    return TypeError(f"{what} must be {wanted}, not {part!r}")


def _encoder(encode: type[Any] | Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
    # `list[int]` is not a class, and can be called.
    if encode is None or isinstance(encode, type) or hasattr(encode, "__origin__"):
        return json_encoder(bytes_as_they_are=encode is None or encode is bytes)
    checks.function("encode", encode, use="map_async")
    return encode
