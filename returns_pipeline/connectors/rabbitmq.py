"""Queues of RabbitMQ, read and published to. Needs the extra ``rabbitmq``."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import raise_swallowed, wait_uncancelled
from returns_pipeline.connectors._driver import Driver, Ownership
from returns_pipeline.connectors._lag import report_lag
from returns_pipeline.connectors._message import Message
from returns_pipeline.connectors._sender import Outgoing, OutgoingBatch, Sender, SenderConnection
from returns_pipeline.errors import ConnectionLost, InvalidArgument, MissingExtra

try:
    import aiormq
    from aiormq import spec
    from aiormq.abc import AbstractChannel, AbstractConnection, ArgumentsType, DeliveredMessage
    from aiormq.exceptions import (
        AMQPConnectionError,
        AuthenticationError,
        ChannelClosed,
        ChannelInvalidStateError,
        ChannelNotFoundEntity,
        ChannelPreconditionFailed,
        DeliveryError,
        ProbableAuthenticationError,
        PublishError,
    )
except ImportError as _error:
    raise MissingExtra("rabbitmq", "aiormq") from _error

__all__ = ["RabbitQueue"]
# Seconds that a fetch waits for the first message.
_WAIT: Final = 1.0
# Seconds between two looks whether the connection is lost: aiormq does not always tell.
_LOOK: Final = 0.2
# Turns of the loop without a message after which a fetch returns what has come.
_IDLE_TURNS: Final = 4
# Seconds in which an exchange that is not there may be made, and between two looks for it.
_MADE: Final = 5.0
_LOOK_FOR: Final = 0.5
# Seconds for a request.
_REQUEST: Final = 10.0
# Bytes that the protocol allows in a routing key, and in the name of a header; bytes that a header
# needs besides, and all other properties of a message with its frame.
_LONGEST_KEY: Final = 255
_LONGEST_NAME: Final = 128
_OVERHEAD: Final = 6
_PROPERTIES: Final = 256
# Headers that the server takes for lists of routing keys.
_ROUTING: Final = frozenset({"CC", "BCC"})


class RabbitQueue:
    """A queue of RabbitMQ. It is declared, if it is not there, as a durable *quorum* queue.

    Reading it: ``Source(queue.driver())``. All drivers, in any number of processes, share its
    messages; each is acknowledged by itself.

    Classic queues may forget acknowledgements when the server crashes; quorum queues do not, and
    they count deliveries. So ``kind="classic"`` is only for queues that exist.

    Publishing to it: ``Publisher(queue.sender())``. A message is confirmed when a quorum of the
    queue's members has it, or when a classic queue has written it. One that reaches no queue is
    returned by the server, and counts as refused. So does one that is larger than the server's
    ``max_message_size``. To find it out, a message that is larger than all before is sent alone.

    Acknowledgements belong to a connection. When it is lost, everything in flight is delivered
    again, to this process or another one: it is done twice, and counted as ``fenced``.

    RabbitMQ closes a channel that acknowledges nothing for half an hour (``consumer_timeout``). A
    message must not be in flight for longer.

    Args:
        url: The address, ``"amqp://user:password@host/vhost"``; ``amqps://`` for TLS.
        queue: The name of the queue.
        kind: The type with which it is declared: ``"quorum"`` or ``"classic"``.

    Raises:
        InvalidArgument: At the call, if the name is empty, or ``kind`` is another one.

    >>> RabbitQueue("amqp://localhost", "orders").driver().name
    'rabbitmq orders'
    """

    def __init__(self, url: str, queue: str, *, kind: str = "quorum") -> None:
        if not queue:
            raise InvalidArgument("the queue must have a name")
        checks.choice("kind", kind, "quorum", "classic")
        self._url = url
        self._queue = queue
        self._kind = kind

    def driver(self) -> Driver:
        """Return a driver for one `Source`, which shares the queue with others."""
        return _QueueDriver(self._url, self._queue, self._kind)

    def sender(self, *, exchange: str = "") -> Sender:
        """Return a sender for a `Publisher`.

        Args:
            exchange: An exchange that exists, or is made within five seconds: else messages are
                refused. By default the queue is declared if it is not there,
                and messages go there directly. With an exchange, the name of the queue is only the
                routing key of messages that name no other.

        >>> RabbitQueue("amqp://localhost", "orders").sender().name
        'rabbitmq orders'
        """
        return _Sender(self._url, self._queue, self._kind, exchange)


@contextmanager
def _translated(name: str) -> Generator[None, None, None]:
    """Make errors of the connection a `ConnectionLost`."""
    try:
        yield
    except (AuthenticationError, ProbableAuthenticationError):
        raise
    except (
        AMQPConnectionError,
        ChannelClosed,
        ChannelInvalidStateError,
        OSError,
        TimeoutError,
    ) as error:
        raise ConnectionLost(name, str(error) or repr(error)) from error
    except Exception as error:
        # A call that aiormq begins when its reader has ended gets this very class.
        if type(error) is not Exception:
            raise
        raise ConnectionLost(name, "the connection has ended") from error


async def _channel(connection: AbstractConnection, name: str) -> AbstractChannel:
    """Open a channel, whose messages are confirmed."""
    try:
        return await connection.channel(publisher_confirms=True)
    except RuntimeError as error:  # of a connection that has ended aiormq raises this class
        if not connection.is_closed:
            raise
        raise ConnectionLost(name, "the connection was closed") from error


async def _declare(channel: AbstractChannel, name: str, queue: str, kind: str) -> None:
    arguments: ArgumentsType = {"x-queue-type": kind}
    try:
        _ = await channel.queue_declare(queue, durable=True, arguments=arguments, timeout=_REQUEST)
    except ChannelPreconditionFailed as error:
        raise InvalidArgument(f"{name} exists as another queue: {error}") from error


async def _close_channel(channel: AbstractChannel) -> None:
    if not channel.is_closed:
        with contextlib.suppress(AMQPConnectionError, ChannelInvalidStateError, OSError):
            async with asyncio.timeout(_WAIT):
                await channel.close()


async def _close(connection: AbstractConnection) -> None:
    if connection.is_closed:
        return
    with contextlib.suppress(AMQPConnectionError, ChannelInvalidStateError, OSError):
        async with asyncio.timeout(_WAIT):
            await connection.close()


class _QueueDriver:
    """Consumes a queue. The server sends as many messages as the first fetch has room for.

    A delivery tag is valid on its own channel only; on another one it would acknowledge another
    message. So `open` fences everything, and each connection has a queue of its own, which its
    callback holds: a connection that was given up cannot deliver to the next.
    """

    positioned: bool = False
    positions: None = None
    keep_alive: float = math.inf

    def __init__(self, url: str, queue: str, kind: str) -> None:
        self._url = url
        self._queue = queue
        self._kind = kind
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._ownership: Ownership | None = None
        self._epoch = 0
        self._acked = 0  # the tag up to which this connection has acknowledged
        self._is_consuming = False
        self._arrived: deque[DeliveredMessage] = deque()
        self._changed = asyncio.Event()

    @property
    def name(self) -> str:
        return f"rabbitmq {self._queue}"

    async def open(self, ownership: Ownership, /) -> None:
        ownership.fence()
        self._ownership = ownership
        self._epoch += 1
        self._acked = 0
        self._is_consuming = False
        self._arrived = deque()
        self._changed = asyncio.Event()
        with _translated(self.name):
            self._connection = await aiormq.connect(self._url)
            self._channel = channel = await _channel(self._connection, self.name)
            await _declare(channel, self.name, self._queue, self._kind)

    async def _consume(self, room: int) -> None:
        arrived, changed, channel = self._arrived, self._changed, self._connected()

        async def on_message(message: DeliveredMessage) -> None:
            arrived.append(message)
            changed.set()

        _ = await channel.basic_qos(prefetch_count=min(room, 65535), timeout=_REQUEST)
        _ = await channel.basic_consume(self._queue, on_message, timeout=_REQUEST)
        self._is_consuming = True

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        loop = asyncio.get_running_loop()
        until = loop.time() + _WAIT
        with _translated(self.name):
            if not self._is_consuming:
                await self._consume(room)
            while not self._arrived and (left := until - loop.time()) > 0:
                _ = self._connected()
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _LOOK)):
                        _ = await self._changed.wait()
        # aiormq hands out one message in a turn of the loop, and reads on now and then between two:
        # a call for each would cost more.
        idle = 0
        while self._arrived and len(self._arrived) < room and idle < _IDLE_TURNS:
            before = len(self._arrived)
            await asyncio.sleep(0)
            idle = 0 if len(self._arrived) > before else idle + 1
        _ = self._connected()  # what an old connection has delivered cannot be acknowledged
        count = min(room, len(self._arrived))
        return [self._message(self._arrived.popleft()) for _ in range(count)]

    def _message(self, message: DeliveredMessage) -> Message[bytes]:
        tag = message.delivery_tag or 0
        properties = message.header.properties
        headers = {name: _text(value) for name, value in (properties.headers or {}).items()}
        count = headers.pop("x-delivery-count", None)
        sent = properties.timestamp
        return Message(
            message.body,
            self._queue,
            (self._epoch, tag),
            1 + int(count) if count else 1 + bool(message.redelivered),
            headers,
            None,
            sent.timestamp() if sent is not None else None,
            tag,
        )

    async def ack(self, messages: Sequence[Message[bytes]], /) -> None:
        # In the order of their tags, and nothing before them is left: one frame for all.
        newest = max(message.position[1] for message in messages)
        with _translated(self.name):
            channel = self._connected()
            if newest <= self._acked:
                return  # a tag is unknown once it is acknowledged, and would close the channel
            await channel.basic_ack(newest, multiple=True)
            # RabbitMQ does not confirm it. It carries requests of a channel out in their order.
            _ = await channel.basic_qos(prefetch_count=0, timeout=_REQUEST)
        self._acked = newest

    async def note(self, notes: Mapping[str, str], /) -> None:
        """Do nothing: the broker counts deliveries."""

    async def extend(self, messages: Sequence[Message[bytes]], /) -> None:
        """Do nothing: the connection keeps its messages."""

    async def nack(self, message: Message[bytes], delay: float, /) -> None:
        del delay  # it is delivered again at once
        with _translated(self.name):
            await self._connected().basic_nack(message.position[1], requeue=True)

    async def watch(self) -> None:
        """Report how many messages are left in the queue. There are no partitions."""
        connection, ownership = self._connection, self._ownership
        assert connection is not None
        assert ownership is not None
        with _translated(self.name):
            # Of its own: an answer would wait for what others do with theirs.
            channel = await _channel(connection, self.name)
            raise_swallowed()
            await report_lag(ownership, lambda: self._lag(channel))

    async def _lag(self, channel: AbstractChannel) -> dict[str, int]:
        queue = await channel.queue_declare(self._queue, passive=True, timeout=_REQUEST)
        return {self._queue: (queue.message_count or 0) + len(self._arrived)}

    async def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            await _close(connection)

    def _connected(self) -> AbstractChannel:
        channel, connection = self._channel, self._connection
        if channel is None or connection is None or channel.is_closed or connection.is_closed:
            raise ConnectionLost(self.name, "the connection was closed")
        return channel


class _Sender:
    """Publishes to a queue, or to an exchange."""

    deduplicates: bool = False

    def __init__(self, url: str, queue: str, kind: str, exchange: str) -> None:
        self._url = url
        self._queue = queue
        self._kind = kind
        self._exchange = exchange

    @property
    def name(self) -> str:
        return f"rabbitmq {self._exchange or self._queue}"

    async def connect(self) -> SenderConnection:
        with _translated(self.name):
            connection = await aiormq.connect(self._url)
            try:
                channel = await _channel(connection, self.name)
                if not self._exchange:
                    await _declare(channel, self.name, self._queue, self._kind)
            except BaseException:
                await _close(connection)
                raise
        return _SenderConnection(self.name, self._exchange, self._queue, connection, channel)


class _SenderConnection:
    """Publishes each message in a task, which ends when the server has confirmed it.

    The channel has a lock, which serves tasks in the order in which they came: so the messages are
    sent in their order.

    The server closes the channel of a message that is too large, and what else it had to confirm
    there remains unknown. It does not say beforehand what is too large. So a message that is larger
    than all that it has taken is sent alone, on a channel of its own.
    """

    def __init__(
        self,
        name: str,
        exchange: str,
        key: str,
        connection: AbstractConnection,
        channel: AbstractChannel,
    ) -> None:
        self._name = name
        self._exchange = exchange
        self._key = key
        self._connection = connection
        self._channel = channel
        self._taken = 0  # bytes of the largest message that the server has taken
        self._too_large = math.inf  # bytes of the smallest one that was too large
        self._trying = asyncio.Lock()
        self._is_there = not exchange  # whether the exchange was there
        self._looks_until: float | None = None  # for the exchange

    async def send(self, batch: OutgoingBatch, /) -> None:
        if not (self._is_there or await self._look()):
            for number, _ in list(batch.unanswered()):
                batch.refuse(number, f"there is no exchange {self._exchange!r}")
            return
        run: list[tuple[int, Outgoing[bytes]]] = []
        for number, message in list(batch.unanswered()):
            if (reason := self._refusal(message)) is not None:
                batch.refuse(number, reason)
                continue
            if is_tried := len(message.value) > self._taken:
                await self._send_all(batch, run)
                run = []
            run.append((number, message))
            if is_tried:
                await self._send_all(batch, run)
                run = []
        await self._send_all(batch, run)

    async def _look(self) -> bool:
        """Return whether the exchange is there, or is made soon.

        Without that, the server would close the channel, with all that other calls have sent there.
        The first call waits for it.
        """
        loop = asyncio.get_running_loop()
        if self._looks_until is None:
            self._looks_until = loop.time() + _MADE
        with _translated(self._name):
            while True:
                channel = await _channel(self._connection, self._name)
                try:
                    await channel.exchange_declare(self._exchange, passive=True, timeout=_REQUEST)
                except ChannelNotFoundEntity:
                    if loop.time() >= self._looks_until:
                        return False
                else:
                    self._is_there = True
                    return True
                finally:
                    await _close_channel(channel)
                await asyncio.sleep(_LOOK_FOR)

    async def _send_all(
        self, batch: OutgoingBatch, messages: Sequence[tuple[int, Outgoing[bytes]]]
    ) -> None:
        sending = {
            asyncio.create_task(self._publish(message)): number for number, message in messages
        }
        try:
            pending = {*sending}
            while pending and not self._is_closed():  # aiormq does not always tell
                _, pending = await asyncio.wait(pending, timeout=_LOOK)
        finally:
            lost = await self._answers(batch, sending)
        if lost:
            with _translated(self._name):
                raise lost[0]

    async def _answers(
        self, batch: OutgoingBatch, sending: dict[asyncio.Task[str | None], int]
    ) -> list[Exception]:
        """Record what the server has answered; return why other messages are not answered."""
        for task in sending:
            _ = task.cancel()
        ended = asyncio.gather(*sending, return_exceptions=True)
        cancelled = await wait_uncancelled(ended)
        lost: list[Exception] = []
        for number, done in zip(sending.values(), ended.result(), strict=True):
            if isinstance(done, str):
                batch.refuse(number, done)
            elif done is None:
                batch.confirm(number)
            elif isinstance(done, Exception):
                lost.append(done)
            else:
                lost.append(ConnectionLost(self._name, "the connection was closed"))
        if cancelled is not None:
            raise cancelled
        return lost

    async def _publish(self, message: Outgoing[bytes]) -> str | None:
        """Publish one message, and return why the server does not take it."""
        size = len(message.value)
        if size > self._taken:
            async with self._trying:
                if size >= self._too_large:  # of what another call has tried meanwhile
                    return self._refusal(message)
                if size > self._taken:
                    return await self._try(message)
        return await self._publish_on(self._channel, message)

    async def _try(self, message: Outgoing[bytes]) -> str | None:
        """Publish a message that may be too large."""
        size = len(message.value)
        channel = await _channel(self._connection, self._name)
        try:
            raise_swallowed()
            reason = await self._publish_on(channel, message)
        except ChannelPreconditionFailed as error:
            if "max size" in str(error):
                self._too_large = size
            return str(error)
        finally:
            await _close_channel(channel)
        self._taken = size
        return reason

    async def _publish_on(self, channel: AbstractChannel, message: Outgoing[bytes]) -> str | None:
        # aiormq gives each a ``message_id`` of its own, by which it knows what is returned.
        properties = spec.Basic.Properties(
            headers=dict(message.headers),
            delivery_mode=2,  # it is written to the disk
            timestamp=datetime.now(tz=UTC),
        )
        try:
            publish: Any = channel.basic_publish  # its protocol does not know `wait`
            await publish(
                message.value,
                exchange=self._exchange,
                routing_key=self._key if message.destination is None else message.destination,
                properties=properties,
                mandatory=True,
                wait=False,  # until it is written: the confirmation tells more
            )
        except PublishError as error:
            return f"no queue takes it: {error}"
        except DeliveryError:
            return "the queue does not take it"  # it is full
        return None

    def _refusal(self, message: Outgoing[bytes]) -> str | None:
        """Return why a message cannot be written, if it cannot.

        aiormq would change it, or raise; or the server would end the connection, at each attempt.
        """
        if len((message.destination or "").encode()) > _LONGEST_KEY:
            return f"a routing key has at most {_LONGEST_KEY} bytes"
        if len(message.value) >= self._too_large:
            return f"a message of {self._too_large} bytes was too large for the server"
        if not _ROUTING.isdisjoint(message.headers):
            return "RabbitMQ takes the headers CC and BCC for lists of routing keys"
        size = 0
        for name, text in message.headers.items():
            named = len(name.encode())
            if named > _LONGEST_NAME:
                return f"the name of a header has at most {_LONGEST_NAME} bytes"
            size += named + len(text.encode()) + _OVERHEAD
        largest = self._connection.connection_tune.frame_max
        if largest and size > largest - _PROPERTIES:
            return f"the headers of a message have at most {largest} bytes"
        return None

    def _is_closed(self) -> bool:
        return self._channel.is_closed or self._connection.is_closed

    async def close(self) -> None:
        await _close(self._connection)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
