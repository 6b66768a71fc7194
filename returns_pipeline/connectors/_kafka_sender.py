"""Publishing to topics of Kafka: see `kafka`, which imports this if aiokafka is installed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from returns_pipeline.connectors._sender import Outgoing, OutgoingBatch, SenderConnection
from returns_pipeline.errors import ConnectionLost, MissingExtra

try:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.conn import AIOKafkaConnection
    from aiokafka.errors import (
        ConsumerStoppedError,
        InvalidTopicError,
        KafkaConnectionError,
        KafkaError,
        KafkaTimeoutError,
        MessageSizeTooLargeError,
        NodeNotReadyError,
        RecordListTooLargeError,
        TopicAuthorizationFailedError,
    )
except ImportError as _error:
    raise MissingExtra("kafka", "aiokafka") from _error

__all__ = ["LEAVE", "NAMES", "TopicSender", "is_topic", "start", "stop", "translated"]

# Seconds to leave the group, or to end a producer.
LEAVE: Final = 5.0
# What names of topics are made of.
NAMES: Final = "1 to 249 letters, digits, dots, hyphens and underscores, and not '.' or '..'"
_NAME: Final = re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}")
# Seconds in which a topic that is not there may be: brokers make it, or have just made it.
_MADE: Final = 5.0
# Seconds between two looks for it.
_LOOK: Final = 0.1

# Answers that are about a message, and stay the same.
_REFUSED: Final = (
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)


@contextmanager
def translated(name: str) -> Generator[None, None, None]:
    """Make errors of the connection a `ConnectionLost`."""
    try:
        yield
    except (
        KafkaConnectionError,
        KafkaTimeoutError,
        NodeNotReadyError,
        ConsumerStoppedError,
        OSError,
    ) as error:
        raise ConnectionLost(name, str(error) or repr(error)) from error
    except KafkaError as error:
        if not getattr(error, "retriable", False):
            raise
        raise ConnectionLost(name, str(error) or repr(error)) from error


async def start(client: AIOKafkaAdminClient | AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Start a client.

    If that is cancelled while the first server owes its list of servers, aiokafka forgets the
    connection and leaves its socket open: it is known to the cancelled call alone.
    """
    try:
        await client.start()
    except BaseException as error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            forgotten = frame.f_locals.get("bootstrap_conn")
            if isinstance(forgotten, AIOKafkaConnection):
                _ = forgotten.close()
        raise


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and disconnect, within `LEAVE` seconds.

    aiokafka first waits until it has joined the group, which is when other members are ready. If
    that is cancelled, it closes nothing.
    """
    try:
        async with asyncio.timeout(LEAVE):
            await consumer.stop()
    except BaseException:
        coordinator = consumer._coordinator  # pyright: ignore[reportPrivateUsage]
        fetcher = consumer._fetcher  # pyright: ignore[reportPrivateUsage]
        if fetcher is not None:
            stop_heartbeats = coordinator._stop_heartbeat_task  # pyright: ignore[reportPrivateUsage]
            stop_refreshing = coordinator._stop_commit_offsets_refresh_task  # pyright: ignore[reportPrivateUsage]
            await stop_heartbeats()
            await stop_refreshing()
            await fetcher.close()
        await consumer._client.close()  # pyright: ignore[reportPrivateUsage]
        raise


def is_topic(name: str) -> bool:
    """Return whether a topic may have a name. Brokers do not always say that it may not."""
    return _NAME.fullmatch(name) is not None


class TopicSender:
    """Publishes to a topic."""

    deduplicates: bool = False

    def __init__(self, topic: str, options: dict[str, Any]) -> None:
        self._topic = topic
        self._options = options

    @property
    def name(self) -> str:
        return f"kafka {self._topic}"

    async def connect(self) -> SenderConnection:
        producer = AIOKafkaProducer(**self._options)
        try:
            with translated(self.name):
                await start(producer)
        except BaseException:
            await producer.stop()
            raise
        return _SenderConnection(self.name, self._topic, producer)


class _SenderConnection:
    """A producer, which makes batches of the messages of all calls, and sends them again itself."""

    def __init__(self, name: str, topic: str, producer: AIOKafkaProducer) -> None:
        self._name = name
        self._topic = topic
        self._producer = producer
        self._topics = {topic}  # and the other destinations that exist
        self._is_closed = False

    async def send(self, batch: OutgoingBatch, /) -> None:
        if self._is_closed:
            raise ConnectionLost(self._name, "the connection was closed")
        sent: dict[asyncio.Future[object], int] = {}
        try:
            with translated(self._name):
                await self._look_up(batch)
                for number, message in list(batch.unanswered()):
                    reason = self._refusal(message)
                    if reason is None:
                        try:
                            sent[await self._send_one(message)] = number
                        except MessageSizeTooLargeError as error:
                            reason = str(error) or repr(error)
                    if reason is not None:
                        batch.refuse(number, reason)
            if sent:
                _ = await asyncio.wait(sent)
        finally:
            # Also of a call that was cancelled, or failed: what is known by now.
            answers = [self._answer(batch, number, done) for done, number in sent.items()]
        for lost in answers:
            if lost is not None:
                raise ConnectionLost(self._name, str(lost) or repr(lost)) from lost

    def _topic_of(self, message: Outgoing[bytes]) -> str:
        return self._topic if message.destination is None else message.destination

    async def _look_up(self, batch: OutgoingBatch) -> None:
        """Ask the servers for the topics and partitions of a batch that are not known yet.

        aiokafka would wait for a topic that does not exist until the connection counts as lost,
        and would learn of a new partition after minutes.
        """
        wanted: dict[str, set[int]] = {}
        for _, message in batch.unanswered():
            numbers = wanted.setdefault(self._topic_of(message), set())
            if message.partition is not None and message.partition >= 0:
                numbers.add(message.partition)
        client = self._producer.client
        known = client.cluster.partitions_for_topic
        left = [
            topic
            for topic, numbers in wanted.items()
            if is_topic(topic) and not ((found := known(topic)) and numbers <= found)
        ]
        until = asyncio.get_running_loop().time() + _MADE
        while left:
            for topic in left:
                _ = client.add_topic(topic)
            if not await client.force_metadata_update():
                raise ConnectionLost(self._name, "no server says which topics there are")
            self._topics.update(topic for topic in left if known(topic))
            left = [topic for topic in left if not known(topic)]
            if asyncio.get_running_loop().time() >= until:
                break
            if left:
                await asyncio.sleep(_LOOK)
        if left:
            _ = client.set_topics(self._topics)  # it would go on asking for the others

    def _refusal(self, message: Outgoing[bytes]) -> str | None:
        """Return why no server takes a message, if that is known."""
        topic = self._topic_of(message)
        if not is_topic(topic):
            return f"{topic!r} cannot name a topic: {NAMES}"
        cluster = self._producer.client.cluster
        if topic in cluster.unauthorized_topics:
            return f"access to topic {topic!r} was denied"
        partitions = cluster.partitions_for_topic(topic)
        if not partitions:
            return f"there is no topic {topic!r}"
        if message.partition is not None and message.partition not in partitions:
            return f"there is no partition {message.partition} of {topic!r}"
        return None

    async def _send_one(self, message: Outgoing[bytes]) -> asyncio.Future[object]:
        headers = [(name, value.encode()) for name, value in message.headers.items()]
        return await self._producer.send(
            self._topic_of(message),
            message.value,
            key=message.key,
            partition=message.partition,
            headers=headers,
        )

    def _answer(
        self, batch: OutgoingBatch, number: int, done: asyncio.Future[object]
    ) -> BaseException | None:
        """Record an answer; return why there is none."""
        if not done.done():
            done.add_done_callback(_heard)
            return None
        if done.cancelled():
            return ConnectionLost(self._name, "the connection was closed")
        error = done.exception()
        if error is None:
            batch.confirm(number)
        elif isinstance(error, _REFUSED):
            batch.refuse(number, str(error) or repr(error))
            return None
        return error

    async def close(self) -> None:
        self._is_closed = True
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(LEAVE):
                await self._producer.stop()


def _heard(done: asyncio.Future[object]) -> None:
    """Read the error of a message whose caller was cancelled: asyncio would log it."""
    if not done.cancelled():
        _ = done.exception()
