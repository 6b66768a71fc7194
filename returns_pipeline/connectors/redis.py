# redis-py leaves options without types.
# pyright: reportUnknownMemberType=false, reportArgumentType=false
"""Streams of Redis, read by consumer groups, and published to.

Needs the extra ``redis``, and Redis 6.2 or later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import uuid4

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.logs import Repeats, facts
from returns_pipeline.connectors._driver import Driver, Ownership
from returns_pipeline.connectors._lag import report_lag
from returns_pipeline.connectors._message import Message, Position
from returns_pipeline.connectors._sender import Outgoing, OutgoingBatch, Sender, SenderConnection
from returns_pipeline.errors import ConnectionLost, InvalidArgument, MissingExtra

try:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import (
        AuthenticationError,
        BusyLoadingError,
        ConnectionError,  # noqa: A004  # it is not Python's
        ReadOnlyError,
        RedisError,
        ResponseError,
        TimeoutError,  # noqa: A004  # it is not Python's
    )
except ImportError as _error:
    raise MissingExtra("redis", "redis") from _error

__all__ = ["RedisStream"]

_log = logging.getLogger("returns_pipeline.connectors")

# Seconds that a fetch waits for the first message.
_WAIT: Final = 1.0
# Seconds for a request, beyond those that it waits on purpose.
_REQUEST: Final = 10.0
# Entries that are looked at, at most, when idle ones are claimed.
_CLAIMED: Final = 100


class RedisStream:
    """A stream of Redis.

    Reading it: ``Source(stream.driver("billing"))``. All drivers of a group, in any number of
    processes, share its entries; each is acknowledged by itself. The group, and the stream, are
    created if they are not there; a new group begins with the first entry.

    An entry that its process has not acknowledged, or kept alive, for ``lease`` seconds is claimed
    by another one. The time runs on while Redis is down, so a lease should be longer than a
    restart.

    The order is that of the stream as long as one process reads it and nothing is redelivered.

    Publishing to it: ``Publisher(stream.sender())``. The entries of a window are added in one
    transaction. They are confirmed when Redis has added them, or when replicas have them, too.

    Redis keeps what its persistence keeps: with ``appendfsync everysec`` a crash forgets the last
    second, entries and acknowledgements alike.

    Args:
        url: The address, ``"redis://host:6379/0"``; ``rediss://`` for TLS.
        stream: The key of the stream.
        field: The field of an entry that has the payload; the other fields are headers. An entry
            that lacks it has an empty payload.
        lease: Seconds, above 0, after which an entry of a process that is silent is claimed.
        options: What else ``Redis.from_url()`` takes.

    Raises:
        InvalidArgument: At the call, if ``lease`` is out of range, or a name is empty.

    >>> RedisStream("redis://localhost", "orders").driver("billing").name
    'redis orders/billing'
    """

    def __init__(
        self,
        url: str,
        stream: str,
        *,
        field: str = "value",
        lease: Seconds = 30.0,
        **options: Any,
    ) -> None:
        if not stream:
            raise InvalidArgument("the stream must have a name")
        self._url = url
        self._stream = stream
        self._field = field
        self._lease = checks.seconds("lease", lease, finite=True)
        self._options = options

    def driver(self, group: str) -> Driver:
        """Return a driver for one `Source`, which shares a group with others.

        Raises:
            InvalidArgument: The group has no name.
        """
        if not group:
            raise InvalidArgument("the group must have a name")
        return _GroupDriver(
            self._url, self._stream, group, self._field.encode(), self._lease, self._options
        )

    def sender(self, *, replicas: int = 0) -> Sender:
        """Return a sender for a `Publisher`.

        Args:
            replicas: How many replicas must have an entry before it counts as confirmed: the
                command ``WAIT``. They may still lose it, if they are made the master too early, or
                are killed before they have written it to the disk; but one machine alone does not
                lose it any more.

        Raises:
            InvalidArgument: ``replicas`` is out of range.

        >>> RedisStream("redis://localhost", "orders").sender().name
        'redis orders'
        """
        wanted = checks.count("replicas", replicas, least=0)
        return _Sender(self._url, self._stream, self._field, wanted, self._options)


def _client(url: str, options: dict[str, Any]) -> Redis:
    """Return a client that does not connect again by itself, and leaves replies as they are."""
    own: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": _REQUEST,
        "socket_timeout": _WAIT + _REQUEST,
    }
    redis: Redis = Redis.from_url(
        url, **{**own, **options, "decode_responses": False, "protocol": 2}
    )
    # redis-py parses some replies by the command's first word.
    redis.response_callbacks.clear()
    return redis


@contextmanager
def _translated(name: str) -> Generator[None, None, None]:
    """Make errors of the connection a `ConnectionLost`."""
    try:
        yield
    except AuthenticationError:
        raise
    except ResponseError as error:
        # The data were lost with the group, also while a read was blocked, or the server has
        # become a replica.
        lost = str(error).startswith(("NOGROUP", "UNBLOCKED"))
        if not lost and not isinstance(error, ReadOnlyError):
            raise
        raise ConnectionLost(name, str(error)) from error
    except (ConnectionError, TimeoutError, BusyLoadingError, OSError) as error:
        raise ConnectionLost(name, str(error) or repr(error)) from error


class _GroupDriver:
    """Reads new entries, and claims those of processes that are silent.

    The consumer has a name of its own: two processes never have the same. It is deleted when it is
    closed and nothing is pending for it; one that was killed stays in the list of the group.
    """

    positioned: bool = False
    positions: None = None

    def __init__(
        self,
        url: str,
        stream: str,
        group: str,
        field: bytes,
        lease: float,
        options: dict[str, Any],
    ) -> None:
        self._url = url
        self._stream = stream
        self._group = group
        self._field = field
        self._lease = lease
        self._options = options
        self._consumer = uuid4().hex
        self.keep_alive: float = lease / 3
        # It blocks in a fetch, so acknowledgements need a connection of their own: a pool has both.
        self._redis: Redis | None = None
        self._ownership: Ownership | None = None
        self._claim_at = 0.0
        self._repeats = Repeats(_log)
        self._cursor: Any = b"0-0"

    @property
    def name(self) -> str:
        return f"redis {self._stream}/{self._group}"

    async def open(self, ownership: Ownership, /) -> None:
        self._ownership = ownership
        self._claim_at = -math.inf
        with _translated(self.name):
            self._redis = _client(self._url, self._options)
            try:
                await self._call("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM")
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        loop = asyncio.get_running_loop()
        with _translated(self.name):
            if loop.time() >= self._claim_at and (claimed := await self._claim(room)):
                return claimed
            wait = min(_WAIT, max(0.001, self._claim_at - loop.time()))
            reply = await self._call(
                *("XREADGROUP", "GROUP", self._group, self._consumer),
                *("COUNT", room, "BLOCK", max(1, int(wait * 1000))),
                *("STREAMS", self._stream, ">"),
            )
        if not reply:
            return []
        return [self._message(entry, 1) for entry in reply[0][1]]

    async def _claim(self, room: int) -> list[Message[bytes]]:
        """Return entries of processes that are silent."""
        loop = asyncio.get_running_loop()
        idle = int(self._lease * 1000)
        reply = await self._call(
            *("XAUTOCLAIM", self._stream, self._group, self._consumer, idle, self._cursor),
            *("COUNT", min(room, _CLAIMED)),
        )
        self._cursor, entries = reply[0], reply[1]
        if self._cursor == b"0-0":
            self._claim_at = loop.time() + min(self._lease / 3, 5.0)
        # Deleted entries are nil in Redis 6.2.
        found = [entry for entry in entries if entry is not None and entry[1] is not None]
        if not found:
            return []
        # XAUTOCLAIM does not tell how often they were delivered.
        counts = await self._pending(found[0][0], found[-1][0], 10 * _CLAIMED)
        return [self._message(entry, counts.get(entry[0], 2)) for entry in found]

    async def _pending(self, first: bytes, last: bytes, count: int) -> dict[bytes, int]:
        """Return the entries that are pending for this consumer, and how often each was delivered.

        An entry that is not among them was acknowledged, or another process has claimed it.
        """
        reply = await self._call(
            *("XPENDING", self._stream, self._group, first, last, count, self._consumer)
        )
        return {number: deliveries for number, _, _, deliveries in reply}

    def _message(self, entry: Any, deliveries: int) -> Message[bytes]:
        number: bytes = entry[0]
        fields: list[bytes] = entry[1]
        position = _position(number)
        sent = position[0] / 1000
        if len(fields) == 2 and fields[0] == self._field:  # nearly all have no headers
            return Message(fields[1], self._stream, position, deliveries, {}, None, sent, number)
        pairs = dict(zip(fields[::2], fields[1::2], strict=True))
        payload = pairs.pop(self._field, b"")
        headers = {
            name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for name, value in pairs.items()
        }
        return Message(payload, self._stream, position, deliveries, headers, None, sent, number)

    async def ack(self, messages: Sequence[Message[bytes]], /) -> None:
        with _translated(self.name):
            await self._call("XACK", self._stream, self._group, *_numbers(messages))

    async def note(self, notes: Mapping[str, str], /) -> None:
        """Do nothing: the broker counts deliveries."""

    async def extend(self, messages: Sequence[Message[bytes]], /) -> None:
        with _translated(self.name):
            pending = await self._pending(b"-", b"+", 2 * len(messages) + 1000)
            numbers = [number for number in _numbers(messages) if number in pending]
            if numbers:
                await self._call(
                    *("XCLAIM", self._stream, self._group, self._consumer, 0),
                    *(*numbers, "JUSTID"),
                )

    async def nack(self, message: Message[bytes], delay: float, /) -> None:
        (number,) = _numbers([message])
        idle = max(0, int((self._lease - delay) * 1000))
        with _translated(self.name):
            if await self._pending(number, number, 1):
                # As if it had been silent for so long that the lease ends after the delay.
                await self._call(
                    *("XCLAIM", self._stream, self._group, self._consumer, 0),
                    *(number, "IDLE", idle, "JUSTID"),
                )
        self._claim_at = min(self._claim_at, asyncio.get_running_loop().time() + delay)

    async def watch(self) -> None:
        """Report how many entries the group has not got. There are no partitions."""
        assert self._ownership is not None
        try:
            await report_lag(self._ownership, self._lag)
        except ResponseError as error:  # this user may not ask
            self._repeats.info(
                "%s: the lag is not known: %s", self.name, error, extra=facts(source=self.name)
            )

    async def _lag(self) -> dict[str, int]:
        with _translated(self.name):
            groups = await self._call("XINFO", "GROUPS", self._stream)
        for each in groups:
            facts = dict(zip(each[::2], each[1::2], strict=True))
            lag = facts.get(b"lag")
            if facts[b"name"] == self._group.encode() and lag is not None:
                return {self._stream: lag}
        return {}

    async def close(self) -> None:
        redis = self._redis
        if redis is None:
            return
        try:
            with contextlib.suppress(RedisError, OSError):
                async with asyncio.timeout(_WAIT):
                    if not await self._pending(b"-", b"+", 1):
                        await self._call(
                            *("XGROUP", "DELCONSUMER", self._stream, self._group, self._consumer)
                        )
        finally:
            self._redis = None
            with contextlib.suppress(RedisError, OSError):
                await redis.aclose()

    async def _call(self, *command: Any) -> Any:
        """Carry out a command, whose reply is left as it is."""
        if self._redis is None:
            raise ConnectionLost(self.name, "the connection was closed")
        client: Any = self._redis  # its commands have no exact types
        return await client.execute_command(*command)


class _Sender:
    """Adds entries to a stream."""

    deduplicates: bool = False

    def __init__(
        self, url: str, stream: str, field: str, replicas: int, options: dict[str, Any]
    ) -> None:
        self._url = url
        self._stream = stream
        self._field = field
        self._replicas = replicas
        self._options = options

    @property
    def name(self) -> str:
        return f"redis {self._stream}"

    async def connect(self) -> SenderConnection:
        redis = _client(self._url, self._options)
        try:
            with _translated(self.name):
                client: Any = redis  # its commands have no exact types
                await client.execute_command("PING")
        except BaseException:
            await redis.aclose()
            raise
        return _SenderConnection(self.name, self._stream, self._field, self._replicas, redis)


class _SenderConnection:
    """Adds the entries of a batch in one transaction: all of them, or none.

    Each call takes a connection of its own out of the client's pool, and gives it back when the
    replies are read: no other call can get them.
    """

    def __init__(self, name: str, stream: str, field: str, replicas: int, redis: Redis) -> None:
        self._name = name
        self._stream = stream
        self._field = field
        self._replicas = replicas
        self._redis: Any = redis  # its commands have no exact types
        self._is_closed = False

    async def send(self, batch: OutgoingBatch, /) -> None:
        pool = self._redis.connection_pool
        with _translated(self._name):
            self._check_open()
            connection = await pool.get_connection()
            try:
                await self._add(connection, batch)
            except BaseException as error:
                await connection.disconnect(nowait=True)  # a reply may be on its way
                if isinstance(error, Exception):
                    self._check_open()  # else it may be any error
                raise
            finally:
                await pool.release(connection)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ConnectionLost(self._name, "the connection was closed")

    async def _add(self, connection: Any, batch: OutgoingBatch) -> None:
        added: list[int] = []
        commands: list[tuple[Any, ...]] = [("MULTI",)]
        for number, message in list(batch.unanswered()):
            if self._field in message.headers:
                batch.refuse(number, f"the field {self._field!r} has the payload")
                continue
            added.append(number)
            commands.append(self._command(message))
        if not added:
            return
        commands.append(("EXEC",))
        await connection.send_packed_command(connection.pack_commands(commands))
        errors: list[ResponseError] = []
        for _ in commands[:-1]:
            try:
                await connection.read_response()
            except ResponseError as error:
                errors.append(error)
        try:
            replies = await connection.read_response()
        except ResponseError as error:
            # Nothing was carried out: no memory is left, or the server has become a replica.
            raise ConnectionLost(self._name, str(errors[0] if errors else error)) from error
        await self._wait_for_replicas(connection)
        for number, reply in zip(added, replies, strict=True):
            if isinstance(reply, ResponseError):
                batch.refuse(number, str(reply))
            else:
                batch.confirm(number)

    def _command(self, message: Outgoing[bytes]) -> tuple[Any, ...]:
        fields = [text for pair in message.headers.items() for text in pair]
        stream = message.destination or self._stream
        return ("XADD", stream, "*", self._field, message.value, *fields)

    async def _wait_for_replicas(self, connection: Any) -> None:
        """Wait until enough replicas have what this connection has written.

        The publisher limits it. To give up earlier would be no use: the entries would be added
        again.
        """
        reached = 0
        while reached < self._replicas:
            await connection.send_command("WAIT", self._replicas, int(_WAIT * 1000))
            reached = await connection.read_response()

    async def close(self) -> None:
        self._is_closed = True
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()


def _numbers(messages: Sequence[Message[bytes]]) -> list[Any]:
    return [message.receipt for message in messages]


def _position(number: bytes) -> Position:
    milliseconds, _, sequence = number.partition(b"-")
    return int(milliseconds), int(sequence)
