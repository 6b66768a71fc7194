# nats-py leaves `**options` without a type.
# pyright: reportUnknownMemberType=false
"""Streams of NATS JetStream, read by pull consumers, and published to. Needs the extra ``nats``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.task_owner import notify
from returns_pipeline.connectors._driver import Driver, Ownership
from returns_pipeline.connectors._message import Message
from returns_pipeline.connectors._sender import Outgoing, OutgoingBatch, Sender, SenderConnection
from returns_pipeline.errors import ConnectionLost, InvalidArgument, MissingExtra

try:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.errors import (
        AuthorizationError,
        BadHeaderError,
        BadSubjectError,
        Error,
        MaxPayloadError,
        NoServersError,
    )
    from nats.js.api import AckPolicy, ConsumerConfig
    from nats.js.errors import APIError, NotFoundError, ServerError, ServiceUnavailableError
except ImportError as _error:
    raise MissingExtra("nats", "nats-py") from _error

__all__ = ["NatsStream"]

# Seconds that a fetch waits for the first message, and that the server keeps a request for more.
_WAIT: Final = 1.0
# The error of a message that is not stored, for any reason: one is that the stream is full.
_NOT_STORED: Final = 10077
_AGAIN: Final = 0.1  # seconds until a server that has refused a connection is asked once more
_REQUEST: Final = 10.0  # seconds for a request to the server
# Waits without an answer after which a request was forgotten, or the consumer deleted. Not a time:
# that passes while this process is suspended, too, and then the answer is there.
_FORGOTTEN: Final = 5


class NatsStream:
    """A stream of NATS JetStream, which exists.

    Reading it: ``Source(stream.driver("billing"))``. All drivers of a consumer, in any number of
    processes, share its messages; each is acknowledged by itself. The durable consumer is created
    if it is not there. One that is there is used as it is, with its own ``ack_wait``; its
    ``max_ack_pending`` should be above the ``max_in_flight`` of all sources together, or none of
    them gets more. One that is created here has no such limit.

    The order is that of the stream as long as one process reads it and nothing is redelivered.

    Publishing to it: ``Publisher(stream.sender("orders.new"))``. A message is confirmed when the
    server has stored it. One with the id of an earlier one is not stored again, as long as the
    stream remembers that: its ``duplicate_window``, 2 minutes by default.

    After a crash of the server, messages that were acknowledged shortly before may be delivered
    again: to the process that has acknowledged them they are not emitted again.

    Args:
        servers: The address, or several of one cluster: ``"nats://host:4222"``.
        stream: The name of the stream.
        subject: Read only messages of this subject, which may have wildcards.
        ack_wait: Seconds, above 0, after which a message of a process that is silent is delivered
            again. It should be longer than a restart of the server.
        options: What else ``nats.connect()`` takes, such as ``user_credentials`` or ``tls``.

    Raises:
        InvalidArgument: At the call, if ``ack_wait`` is out of range, or a name is empty.

    >>> NatsStream("nats://localhost", "orders").driver("billing").name
    'nats orders/billing'
    """

    def __init__(
        self,
        servers: str | list[str],
        stream: str,
        *,
        subject: str | None = None,
        ack_wait: Seconds = 30.0,
        **options: Any,
    ) -> None:
        if not stream:
            raise InvalidArgument("the stream must have a name")
        self._servers = servers
        self._stream = stream
        self._subject = subject
        self._ack_wait = checks.seconds("ack_wait", ack_wait, finite=True)
        self._options = options

    def driver(self, consumer: str) -> Driver:
        """Return a driver for one `Source`, which shares a durable consumer with others.

        Raises:
            InvalidArgument: The consumer has no name.
        """
        if not consumer:
            raise InvalidArgument("the consumer must have a name")
        config = ConsumerConfig(
            durable_name=consumer,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait,
            max_ack_pending=-1,
            filter_subject=self._subject,
        )
        return _PullDriver(self._servers, self._stream, consumer, config, self._options)

    def sender(self, subject: str) -> Sender:
        """Return a sender for a `Publisher`.

        Args:
            subject: Where its messages go, unless they name another. It must be one of the
                stream's: a message that another stream would take is refused.

        Raises:
            InvalidArgument: The subject is empty.

        >>> NatsStream("nats://localhost", "orders").sender("orders.new").name
        'nats orders'
        """
        if not subject:
            raise InvalidArgument("the subject must have a name")
        return _Sender(self._servers, self._stream, subject, self._options)


async def _connect(
    servers: str | list[str],
    options: dict[str, Any],
    on_lost: Callable[[], Coroutine[Any, Any, None]],
) -> Client:
    """Connect to one of the servers. What was lost is connected again by the caller.

    nats-py would try for two minutes, however little it is to reconnect, and not say why.
    """
    errors: list[Exception] = []

    async def on_error(error: Exception) -> None:
        """Leave it to the calls, which fail: nats-py would log it."""
        errors[:] = [error]

    few_attempts: dict[str, Any] = {"max_reconnect_attempts": 1, "reconnect_time_wait": _AGAIN}
    client = Client()
    try:
        await client.connect(
            servers,
            allow_reconnect=False,
            error_cb=on_error,
            disconnected_cb=on_lost,
            closed_cb=on_lost,
            **few_attempts | options,
        )
    except BaseException as error:
        # nats-py leaves a socket open on which the server has not finished its greeting.
        with contextlib.suppress(Error, OSError, asyncio.TimeoutError):
            await client.close()
        if isinstance(error, NoServersError) and errors:
            raise errors[0] from None
        raise
    return client


@contextmanager
def _translated(name: str) -> Generator[None, None, None]:
    """Make errors of the connection a `ConnectionLost`."""
    try:
        yield
    except (AuthorizationError, ConnectionLost):
        raise
    except APIError as error:
        if not isinstance(error, ServerError | ServiceUnavailableError):
            raise
        raise ConnectionLost(name, str(error)) from error
    except (TimeoutError, Error, OSError) as error:
        raise ConnectionLost(name, str(error) or repr(error)) from error


class _PullDriver:
    """Pulls messages. At most one request for messages is open at the server.

    nats-py has a ``fetch()``, which waits for a full batch, and loses what has arrived if it is
    cancelled. Here, messages arrive in a queue of their own, whether a call waits for them or not.
    """

    positioned: bool = False
    positions: None = None

    def __init__(
        self,
        servers: str | list[str],
        stream: str,
        consumer: str,
        config: ConsumerConfig,
        options: dict[str, Any],
    ) -> None:
        self._servers = servers
        self._stream = stream
        self._consumer = consumer
        self._config = config
        self._options = options
        self.keep_alive: float = (config.ack_wait or 30.0) / 3
        self._client: Client | None = None
        self._inbox = ""
        self._arrived: deque[Msg] = deque()
        self._requests = 0
        self._wanted = 0  # of the open request: how many messages are still to come
        self._silent = 0  # how often an answer to it was waited for in vain
        self._ownership: Ownership | None = None
        self._credit = -1  # how many messages the consumer's members may hold; -1: any number
        self._changed = asyncio.Event()

    @property
    def name(self) -> str:
        return f"nats {self._stream}/{self._consumer}"

    async def open(self, ownership: Ownership, /) -> None:
        self._ownership = ownership
        changed = self._changed = asyncio.Event()
        arrived = self._arrived = deque()
        self._wanted = 0

        async def on_lost() -> None:
            changed.set()

        # The queue is bound here: a connection that was given up cannot deliver to the next one.
        async def on_message(message: Msg) -> None:
            if message.headers and "Status" in message.headers:
                if message.subject.endswith(f".{self._requests}"):
                    self._wanted = 0  # the request has ended
            else:
                self._wanted -= 1
                arrived.append(message)
            self._silent = 0
            changed.set()

        with _translated(self.name):
            self._client = client = await _connect(self._servers, self._options, on_lost)
            self._inbox = client.new_inbox()
            context = client.jetstream(timeout=_REQUEST)
            try:
                info = await context.consumer_info(self._stream, self._consumer)
            except NotFoundError:
                info = await context.add_consumer(self._stream, self._config)
            if info.config.ack_policy != AckPolicy.EXPLICIT or info.config.deliver_subject:
                raise InvalidArgument(
                    f"{self.name} is not a pull consumer with explicit acknowledgement"
                )
            self.keep_alive = (info.config.ack_wait or 30.0) / 3
            self._credit = info.config.max_ack_pending or -1
            _ = await client.subscribe(
                f"{self._inbox}.*", cb=on_message, pending_msgs_limit=0, pending_bytes_limit=0
            )

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        loop = asyncio.get_running_loop()
        until = loop.time() + _WAIT
        with _translated(self.name):
            while not self._arrived:
                client = self._connected()
                self._changed.clear()
                if self._wanted <= 0:
                    await self._request(client, room)
                elif self._silent >= _FORGOTTEN:
                    await self._ask_again(client, room)
                left = until - loop.time()
                if left <= 0:
                    break
                try:
                    async with asyncio.timeout(left):
                        _ = await self._changed.wait()
                except TimeoutError:
                    self._silent += 1
            if not self._arrived and self._credit > 0:
                await self._look_for_credit()
        taken = [self._arrived.popleft() for _ in range(min(room, len(self._arrived)))]
        if taken and self._ownership is not None:
            left_over = taken[-1].metadata.num_pending + len(self._arrived)
            self._ownership.lag({self._stream: left_over})
        return [self._message(each) for each in taken]

    async def _ask_again(self, client: Client, room: int) -> None:
        """Send another request: a busy server was seen to forget one. Or the consumer is gone."""
        try:
            await client.jetstream(timeout=_REQUEST).consumer_info(self._stream, self._consumer)
        except NotFoundError as error:
            raise ConnectionLost(self.name, "the consumer was deleted") from error
        await self._request(client, room)

    async def _look_for_credit(self) -> None:
        """Report it if the consumer waits for acknowledgements: it gives no other sign of that."""
        context = self._connected().jetstream(timeout=_REQUEST)
        info = await context.consumer_info(self._stream, self._consumer)
        if (info.num_ack_pending or 0) >= self._credit:
            assert self._ownership is not None
            self._ownership.out_of_credit()

    async def _request(self, client: Client, room: int) -> None:
        self._requests += 1
        self._wanted = room
        self._silent = 0
        request = {"batch": room, "expires": int(_WAIT * 1e9)}
        await client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
            json.dumps(request).encode(),
            reply=f"{self._inbox}.{self._requests}",
        )

    def _message(self, message: Msg) -> Message[bytes]:
        facts = message.metadata
        headers = dict(message.headers or {})
        return Message(
            message.data,
            self._stream,
            (facts.sequence.stream,),
            facts.num_delivered,
            headers,
            None,
            facts.timestamp.timestamp(),
            message.reply,
        )

    async def ack(self, messages: Sequence[Message[bytes]], /) -> None:
        # The server answers the last one, and has then carried out those before it.
        *most, last = messages
        await self._say(most, b"+ACK")
        with _translated(self.name):
            _ = await self._connected().request(str(last.receipt), b"+ACK", timeout=_REQUEST)

    async def note(self, notes: Mapping[str, str], /) -> None:
        """Do nothing: the broker counts deliveries."""

    async def extend(self, messages: Sequence[Message[bytes]], /) -> None:
        await self._say(messages, b"+WPI")

    async def nack(self, message: Message[bytes], delay: float, /) -> None:
        await self._say([message], b'-NAK {"delay": %d}' % int(delay * 1e9) if delay else b"-NAK")

    async def _say(self, messages: Sequence[Message[bytes]], what: bytes) -> None:
        with _translated(self.name):
            client = self._connected()
            for message in messages:
                await client.publish(str(message.receipt), what)

    async def watch(self) -> None:
        """Do nothing: there are no partitions."""

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is None or client.is_closed:
            return
        with contextlib.suppress(Error, OSError, asyncio.TimeoutError):
            async with asyncio.timeout(_WAIT):
                if self._wanted > 0:
                    # What is on its way would have to wait for its deadline.
                    await self._end_request(client)
                while self._arrived:
                    await client.publish(self._arrived.popleft().reply, b"-NAK")
                await client.flush()
        with contextlib.suppress(Error, OSError, asyncio.TimeoutError):
            await client.close()

    async def _end_request(self, client: Client) -> None:
        """Wait until the open request has ended: it expires by itself."""
        while self._wanted > 0 and client.is_connected:
            self._changed.clear()
            _ = await self._changed.wait()

    def _connected(self) -> Client:
        client = self._client
        if client is None or not client.is_connected:
            raise ConnectionLost(self.name, "the connection was closed")
        return client


class _Sender:
    """Publishes to a subject, and awaits the acknowledgement of the stream."""

    deduplicates: bool = True

    def __init__(
        self, servers: str | list[str], stream: str, subject: str, options: dict[str, Any]
    ) -> None:
        self._servers = servers
        self._stream = stream
        self._subject = subject
        self._options = options

    @property
    def name(self) -> str:
        return f"nats {self._stream}"

    async def connect(self) -> SenderConnection:
        answers = _Answers()
        with _translated(self.name):
            client = await _connect(self._servers, self._options, answers.on_lost)
            try:
                _ = await client.jetstream(timeout=_REQUEST).stream_info(self._stream)
                inbox = client.new_inbox()
                _ = await client.subscribe(
                    f"{inbox}.*", cb=answers.on_message, pending_msgs_limit=0, pending_bytes_limit=0
                )
            except BaseException:
                await client.close()
                raise
        return _SenderConnection(self.name, self._stream, self._subject, client, inbox, answers)


class _Sent:
    """The messages of one call that are not answered yet.

    Attributes:
        left: How many.
        error: Why one is not stored for now.
        no_answer: Those for which no stream has answered.
        waiter: Done when all are answered, or one is not stored, or the connection is lost.
    """

    __slots__ = ("batch", "error", "left", "no_answer", "waiter")

    def __init__(self, batch: OutgoingBatch) -> None:
        self.batch = batch
        self.left = 0
        self.error: str | None = None
        self.no_answer: list[int] = []
        self.waiter: asyncio.Future[None] | None = None  # when all are sent

    def answer(self, number: int, message: Msg) -> None:
        """Take the answer for a message."""
        self.left -= 1
        answer = _read(message)
        if answer is None:
            self.no_answer.append(number)
        elif error := answer.get("error"):
            why = f"{error.get('description')} ({error.get('err_code')})"
            is_full = error.get("err_code") == _NOT_STORED and "exceeded" in why
            if error.get("code", 500) >= 500 and not is_full:
                self.error = why
            else:
                self.batch.refuse(number, why)
        else:
            self.batch.confirm(number)
        if not self.left or self.error:
            notify(self.waiter)


def _read(message: Msg) -> dict[str, Any] | None:
    """Return the answer of a stream; `None` if no stream has answered, but a server or service."""
    try:
        answer = json.loads(message.data)
    except ValueError:
        return None
    match answer:
        case {"stream": str()} | {"error": {"code": int()}}:
            return cast("dict[str, Any]", answer)
        case _:
            return None


def _takes(pattern: str, subject: str) -> bool:
    """Return whether a subject is one of those of a pattern: ``*`` is one part, ``>`` the rest."""
    wanted, parts = pattern.split("."), subject.split(".")
    if wanted[-1] == ">" and len(parts) >= len(wanted):
        del wanted[-1], parts[len(wanted) :]
    return len(wanted) == len(parts) and all(
        want in {"*", part} for want, part in zip(wanted, parts, strict=True)
    )


class _Answers:
    """The answers that a connection waits for.

    Attributes:
        waiting: Each message, by the last part of the subject of its answer.
        is_lost: Whether there will be none any more.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, tuple[_Sent, int]] = {}
        self.is_lost = False

    async def on_message(self, message: Msg) -> None:
        """Pass an answer on, unless its call was cancelled."""
        _, _, token = message.subject.rpartition(".")
        if token in self.waiting:
            sent, number = self.waiting.pop(token)
            sent.answer(number, message)

    async def on_lost(self) -> None:
        """Wake all calls."""
        self.is_lost = True
        for sent, _ in self.waiting.values():
            notify(sent.waiter)


class _SenderConnection:
    """Sends a batch, and waits for all answers: ``publish_async()`` would change cancellations."""

    def __init__(
        self, name: str, stream: str, subject: str, client: Client, inbox: str, answers: _Answers
    ) -> None:
        self._name = name
        self._stream = stream
        self._subject = subject
        self._client = client
        self._inbox = inbox
        self._answers = answers
        self._tokens = itertools.count()

    async def send(self, batch: OutgoingBatch, /) -> None:
        sent = _Sent(batch)
        waiting = self._answers.waiting
        tokens: list[str] = []
        try:
            with _translated(self._name):
                for number, message in list(batch.unanswered()):
                    headers = self._headers(message)
                    if headers is None:
                        batch.refuse(number, "NATS has no headers with such a text")
                        continue
                    token = str(next(self._tokens))
                    waiting[token] = sent, number
                    tokens.append(token)
                    sent.left += 1
                    try:
                        await self._client.publish(
                            self._subject_of(message),
                            message.value,
                            reply=f"{self._inbox}.{token}",
                            headers=headers,
                        )
                    except (BadHeaderError, BadSubjectError, MaxPayloadError) as error:
                        del waiting[token]
                        sent.left -= 1
                        batch.refuse(number, str(error) or repr(error))
            if sent.left and not sent.error and not self._is_lost():
                sent.waiter = asyncio.get_running_loop().create_future()
                await sent.waiter
            if sent.no_answer:
                await self._refuse(sent)
            if sent.error:
                raise ConnectionLost(self._name, sent.error)
            if sent.left:
                raise ConnectionLost(self._name, "the connection was closed")
        finally:
            for token in tokens:
                _ = waiting.pop(token, None)

    async def _refuse(self, sent: _Sent) -> None:
        """Refuse the messages whose subject the stream does not have.

        The others will be answered, when a server that has just begun knows the stream.
        """
        patterns: Sequence[str] = ()
        with _translated(self._name), contextlib.suppress(NotFoundError):
            context = self._client.jetstream(timeout=_REQUEST)
            patterns = (await context.stream_info(self._stream)).config.subjects or ()
        for number in sent.no_answer:
            subject = self._subject_of(sent.batch.messages[number])
            if any(_takes(pattern, subject) for pattern in patterns):
                sent.error = "no stream takes messages for now"
            else:
                sent.batch.refuse(number, f"the stream has no subject {subject!r}")

    def _subject_of(self, message: Outgoing[bytes]) -> str:
        return self._subject if message.destination is None else message.destination

    def _is_lost(self) -> bool:
        return self._answers.is_lost or not self._client.is_connected

    def _headers(self, message: Outgoing[bytes]) -> dict[str, str] | None:
        """Return the headers; ``None`` if the client would silently change one."""
        # Those of a message that was read from another stream say nothing of this one.
        headers = {
            name: value for name, value in message.headers.items() if not name.startswith("Nats-")
        }
        headers["Nats-Expected-Stream"] = self._stream
        if message.id is not None:
            headers["Nats-Msg-Id"] = message.id
        for name, value in headers.items():
            if not name or name != name.strip() or value != value.strip():
                return None
            if "\n" in value or "\r" in value:
                return None
        return headers

    async def close(self) -> None:
        with contextlib.suppress(Error, OSError, asyncio.TimeoutError):
            await self._client.close()
        await self._answers.on_lost()
