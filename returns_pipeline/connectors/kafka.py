"""Topics of Kafka, read by consumer groups, and published to. Needs the extra ``kafka``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.logs import facts
from returns_pipeline.compensation.protocol import Positions
from returns_pipeline.connectors._driver import Driver, Ownership
from returns_pipeline.connectors._kafka_commits import Commits, Offsets, cluster_id
from returns_pipeline.connectors._kafka_sender import (
    NAMES,
    TopicSender,
    is_topic,
    start,
    stop,
    translated,
)
from returns_pipeline.connectors._message import Message
from returns_pipeline.connectors._sender import Sender
from returns_pipeline.errors import (
    ConnectionLost,
    InvalidArgument,
    MissingExtra,
    PartitionReplaced,
    PartitionsLost,
)

try:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
    from aiokafka.abc import ConsumerRebalanceListener
    from aiokafka.errors import (
        CommitFailedError,
        IllegalStateError,
        KafkaError,
    )
except ImportError as _error:
    raise MissingExtra("kafka", "aiokafka") from _error

__all__ = ["KafkaTopic"]

_log = logging.getLogger("returns_pipeline.connectors")

# Seconds that a fetch waits for the first message.
_WAIT: Final = 1.0
# The same, if partitions are left out that may be wanted before.
_WAIT_WITHOUT: Final = 0.05
# Seconds that it may take longer: else the group is being rebalanced.
_SLACK: Final = 0.25
# Seconds between two polls while there is no room: without them the group would expel the member.
_POLL: Final = 1.0
# Seconds for which a partition must seem to end too early. A new leader may know less of its end
# than the former one, until a replica that does not answer is given up: 30 s by default.
_SHORT: Final = 60.0
# The end of a partition, if it is not known.
_ENDLESS: Final = 2**63

_partition_of: Final = attrgetter("partition")


class KafkaTopic:
    """A topic of Kafka, or of a broker with the same protocol, which exists.

    Reading it: ``Source(topic.driver("billing"), settle_timeout=20)``. The members of a group share
    the partitions, and offsets are committed when everything before them has been handled. A
    new group begins with the first message.

    When members join or leave, Kafka takes all partitions from all members for a moment. Each
    member then settles its messages in flight, for up to the source's ``settle_timeout``. This must
    be shorter than ``rebalance_timeout``, or Kafka expels the member while it does that.

    A reader that is slow does not lose its partitions: the group is polled although nothing is
    fetched, and heartbeats are sent in the background. Besides what the source holds, aiokafka
    reads one fetch of each partition ahead: ``max_partition_fetch_bytes``, a megabyte by default.

    Publishing to it: ``Publisher(topic.sender())``. A message is confirmed when all replicas that
    are in sync have it. The producer is idempotent: what aiokafka sends again is kept once. What
    the `Publisher` sends again, after aiokafka has given up, may be there twice.

    A message to a topic or a partition that does not exist is refused, and the connection stays. A
    topic may still be made: it is waited for, for five seconds.

    aiokafka connects again by itself. So a lost connection does not count in `SourceStatistics`,
    unless it lasts for long.

    A topic that is deleted and made again while it is read ends the source with
    `PartitionReplaced`, if it is shorter than what was read of it: at its first message, or after a
    minute. (aiokafka does not tell one topic from another of the same name. If the new one has
    grown longer before it is looked at, its beginning is not read.)

    Args:
        servers: The addresses, ``"host:9092,host:9093"``.
        topic: The name of the topic.
        rebalance_timeout: Seconds that a member has, above 0, to give up its partitions.
        options: What else ``aiokafka.AIOKafkaConsumer`` takes, such as ``security_protocol`` or
            ``auto_offset_reset``; for a sender, see there.

    Raises:
        InvalidArgument: At the call, if no topic can have the name, or ``rebalance_timeout`` is
            out of range.

    >>> KafkaTopic("localhost:9092", "orders").driver("billing").name
    'kafka orders/billing'
    """

    def __init__(
        self, servers: str, topic: str, *, rebalance_timeout: Seconds = 60.0, **options: Any
    ) -> None:
        if not is_topic(topic):
            raise InvalidArgument(f"{topic!r} cannot name a topic: {NAMES}")
        limit = checks.seconds("rebalance_timeout", rebalance_timeout, finite=True)
        self._topic = topic
        self._servers = servers
        self._options = {
            "auto_offset_reset": "earliest",
            "rebalance_timeout_ms": int(limit * 1000),
            **options,
            "bootstrap_servers": servers,
            "enable_auto_commit": False,
        }

    def driver(self, group: str, *, positions: Positions | None = None) -> Driver:
        """Return the driver of a new member of a group, for one `Source`.

        Args:
            group: The name of the group.
            positions: A journal, or a `postgres.TransactionalSink`, that stores the offsets
                together with their effects. Reading continues after what is stored there, whatever
                the group has committed. Each cluster has positions of its own, by its id; two
                brokers whose operators gave them the same id need groups of different names. Kafka
                does not say whether a topic was made again: what is stored of the former one may be
                taken for the new one. (That is noticed if the partition is too short for a minute,
                or the time of the last message that was handled differs.)

        Raises:
            InvalidArgument: The group has no name.
        """
        if not group:
            raise InvalidArgument("the group must have a name")
        return _GroupDriver(self._topic, group, self._options, positions)

    def sender(self, **options: Any) -> Sender:
        """Return a sender for a `Publisher`.

        Args:
            options: What else ``aiokafka.AIOKafkaProducer`` takes, such as ``security_protocol``,
                ``compression_type`` or ``linger_ms``. A broker that knows no idempotent producers
                needs ``enable_idempotence=False``.

        >>> KafkaTopic("localhost:9092", "orders").sender().name
        'kafka orders'
        """
        return TopicSender(
            self._topic,
            {
                "enable_idempotence": True,
                **options,
                "bootstrap_servers": self._servers,
                "acks": "all",
            },
        )


class _Listener(ConsumerRebalanceListener):
    """What aiokafka calls when partitions come and go. It awaits that, and sends heartbeats on."""

    def __init__(self, driver: _GroupDriver) -> None:
        self._driver = driver

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._driver.on_revoked({each.partition for each in revoked})

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._driver.on_assigned({each.partition for each in assigned})


class _Bounds:
    """Where the messages of a partition must be, if it is still the same.

    Attributes:
        begin: The offset of the next one is at least this.
        end: The partition ends here or later: everything before it was there.
        short_since: When the partition was first seen to end earlier, in milliseconds; ``None`` if
            it did not, when last seen.
    """

    __slots__ = ("begin", "end", "short_since")

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end = begin, end
        self.short_since: int | None = None


class _GroupDriver:
    """A member of a group.

    A commit is refused when the group has given the partitions to others. What is in flight of
    them is fenced then; and since aiokafka would read on after it, the connection is given up, so
    that the next one begins at what is committed.
    """

    positioned: bool = True
    keep_alive: float = math.inf

    def __init__(
        self, topic: str, group: str, options: dict[str, Any], positions: Positions | None
    ) -> None:
        self.positions = positions
        self._topic = topic
        self._group = group
        self._options = options
        self._consumer: AIOKafkaConsumer | None = None
        self._ownership: Ownership | None = None
        self._assigned: set[int] = set()
        self._placed: set[int] = set()  # those of them that are read from the right offset
        self._bounds: dict[int, _Bounds] = {}  # of those of which a message is known
        self._commits = Commits(self.name, topic)
        self._cluster = ""  # its id, if positions are stored
        self._revocations = 0
        self._polled_at = 0.0
        self._polled: list[ConsumerRecord] = []  # by `watch`: to be returned by the next fetch
        self._was_refused = False

    @property
    def name(self) -> str:
        return f"kafka {self._topic}/{self._group}"

    async def open(self, ownership: Ownership, /) -> None:
        # A new member: what an earlier one had in flight may be another's.
        ownership.fence()
        self._assigned, self._placed, self._bounds = set(), set(), {}
        self._commits.clear()
        self._polled, self._was_refused = [], False
        self._ownership = ownership
        self._polled_at = asyncio.get_running_loop().time()
        with translated(self.name):
            if self.positions is not None:
                self._cluster = await cluster_id(self._options)
            consumer = AIOKafkaConsumer(**self._options, group_id=self._group)
            self._consumer = consumer
            await start(consumer)
            wait_on = consumer._client._wait_on_metadata  # pyright: ignore[reportPrivateUsage]
            _ = await wait_on(self._topic)
        # Only now: with a subscription, `start` waits until all members have joined the group,
        # which takes as long as the slowest needs to settle what it has in flight.
        consumer.subscribe([self._topic], listener=_Listener(self))

    async def on_revoked(self, partitions: Collection[int]) -> None:
        """Settle partitions, and fence them."""
        ownership = self._ownership
        partitions = self._assigned & {*partitions}
        if ownership is None or not partitions:
            return
        self._assigned -= partitions
        self._placed -= partitions
        for number in partitions:
            _ = self._bounds.pop(number, None)
        self._revocations += 1
        self._polled = [each for each in self._polled if each.partition not in partitions]
        names = [self._name(number) for number in partitions]
        try:
            _ = await ownership.settled(names)
        finally:
            ownership.fence(names)

    def on_assigned(self, partitions: Collection[int]) -> None:
        """Emit messages of partitions."""
        self._assigned |= {*partitions}

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        consumer = self._connected()
        while new := self._assigned - self._placed:
            await self._place(consumer, new)
        records, self._polled = self._polled[:room], self._polled[room:]
        if not records:
            assert self._ownership is not None
            paused, wait, wanted = self._ownership.paused(), _WAIT, set[TopicPartition]()
            if paused:
                wait = _WAIT_WITHOUT
                assigned = consumer.assignment()
                wanted = {each for each in assigned if self._name(each.partition) not in paused}
                if not wanted:
                    await asyncio.sleep(wait)
                    return []
            records = await self._get(consumer, wanted, wait, room)
        self._polled_at = asyncio.get_running_loop().time()
        # A rebalance may have ended meanwhile: what it has assigned is placed by the next call.
        if new := self._assigned - self._placed:
            self._polled += [each for each in records if each.partition in new]
        names = {number: self._name(number) for number in self._placed}
        records = [each for each in records if each.partition in names]
        self._check(records)
        self._check_ends(consumer)
        for number, latest in self._commits.begin(records):
            end = consumer.highwater(TopicPartition(self._topic, number)) or _ENDLESS
            assert self._ownership is not None
            after = (latest.offset - 1,)
            self._ownership.noted(names[number], latest.metadata, after, (end - 1,))
        return [_message(each, names[each.partition]) for each in records]

    async def _get(
        self, consumer: AIOKafkaConsumer, wanted: set[TopicPartition], wait: float, room: int
    ) -> list[ConsumerRecord]:
        """Return messages; none, if there are none after a while.

        aiokafka waits for the end of a rebalance, for as long as other members need for it. That is
        no lost connection: giving it up would begin another rebalance.
        """
        deadline = asyncio.timeout(wait + _SLACK)
        try:
            async with deadline:
                with translated(self.name):
                    timeout = int(wait * 1000)
                    batches = await consumer.getmany(*wanted, timeout_ms=timeout, max_records=room)
        except TimeoutError:
            if not deadline.expired():
                raise
            return []
        return [record for batch in batches.values() for record in batch]

    def _check(self, records: Sequence[ConsumerRecord]) -> None:
        """Raise an error if a partition begins again: aiokafka begins with what is there then."""
        # Those of a partition come in runs, in the order of their offsets.
        for number, run in itertools.groupby(records, _partition_of):
            first, *rest = run
            bounds = self._bounds.get(number)
            if bounds is None:
                bounds = self._bounds[number] = _Bounds(first.offset, 0)
            elif first.offset < bounds.begin:
                reason = f"{self._name(number)} begins again with offset {first.offset}"
                raise PartitionReplaced(
                    self.name, f"{reason}, and {bounds.end - 1} was read or handled"
                )
            bounds.begin = bounds.end = (rest[-1] if rest else first).offset + 1

    def _check_ends(self, consumer: AIOKafkaConsumer) -> None:
        """Raise an error if a partition ends before what was there, and continues to do so.

        By the answers to fetches: Tansu has no right answer to a question for the end. What they
        say of messages that were not fetched is reported.
        """
        assert self._ownership is not None
        assigned = consumer.assignment()
        for number, bounds in self._bounds.items():
            partition = TopicPartition(self._topic, number)
            end = consumer.highwater(partition) if partition in assigned else None
            if end is None or end >= bounds.end:
                bounds.short_since = None
                if end is not None:
                    self._ownership.lag({self._name(number): end - bounds.end})
                continue
            name = self._name(number)
            reason = f"{name} ends before offset {end}, and {bounds.end - 1} was read or handled"
            seen = consumer.last_poll_timestamp(partition) or 0
            if bounds.short_since is None:
                bounds.short_since = seen
                _log.warning(
                    "%s: %s: it is an error if it stays so",
                    self.name,
                    reason,
                    extra=facts(source=self.name, reason=reason),
                )
            elif seen >= bounds.short_since + _SHORT * 1000:
                raise PartitionReplaced(self.name, reason)

    async def _place(self, consumer: AIOKafkaConsumer, new: set[int]) -> None:
        """Begin to read partitions after what is stored of them."""
        assert self._ownership is not None
        revocations = self._revocations
        with translated(self.name):
            await self._commits.read(consumer, new)
        names = {self._name(number): self._cluster for number in new}
        found = await self._ownership.positions(names)
        stored = {
            TopicPartition(self._topic, number): found[self._name(number)][0]
            for number in new
            if self._name(number) in found
        }
        first: dict[TopicPartition, int] = {}
        if stored:
            with translated(self.name):
                first = await consumer.beginning_offsets(list(stored))
        if self._revocations != revocations:
            return  # some may have been lost, and assigned again
        for partition, offset in stored.items():
            name = self._name(partition.partition)
            if offset + 1 < first[partition]:
                lost = first[partition] - offset - 1
                _log.warning(
                    "%s: up to %d messages of %s have expired",
                    self.name,
                    lost,
                    name,
                    extra=facts(source=self.name, partition=name, messages=lost),
                )
            # Not after it: if it is still there, it must be the message that was handled.
            begin = max(offset, first[partition])
            try:
                consumer.seek(partition, begin)
            except IllegalStateError as error:  # it is being revoked
                raise ConnectionLost(self.name, str(error)) from error
            self._bounds[partition.partition] = _Bounds(begin, offset + 1)
            self._polled = [each for each in self._polled if each.partition != partition.partition]
        self._placed |= new

    async def ack(self, messages: Sequence[Message[bytes]], /) -> None:
        await self._commit(self._commits.acknowledging(messages))

    async def note(self, notes: Mapping[str, str], /) -> None:
        numbers = {int(name.rpartition("-")[2]): note for name, note in notes.items()}
        offsets = self._commits.noting(numbers)
        await self._commit(offsets)
        with translated(self.name):
            await self._commits.check(self._connected(), offsets)

    async def _commit(self, offsets: Offsets) -> None:
        consumer = self._connected()
        try:
            with translated(self.name):
                await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            self._was_refused = True
            lost = tuple(sorted(self._name(each.partition) for each in offsets))
            raise PartitionsLost(self.name, lost) from error
        self._commits.done(offsets)

    async def extend(self, messages: Sequence[Message[bytes]], /) -> None:
        """Do nothing: the group keeps its partitions by heartbeats."""

    async def nack(self, message: Message[bytes], delay: float, /) -> None:
        """Do nothing: what is not committed is read again."""

    async def watch(self) -> None:
        """Poll the group while there is no room to fetch."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_POLL)
            consumer = self._connected()
            if loop.time() < self._polled_at + _POLL:
                continue
            paused = consumer.assignment()
            with translated(self.name):
                consumer.pause(*paused)
                try:
                    # Of a partition that was assigned this very moment, which is not paused.
                    for batch in (await consumer.getmany(timeout_ms=0, max_records=1)).values():
                        self._polled += batch
                finally:
                    consumer.resume(*(paused & consumer.assignment()))
            self._polled_at = loop.time()

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._ownership = None  # its session has ended: nothing can be settled
        if consumer is not None:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                await stop(consumer)

    def _name(self, partition: int) -> str:
        return f"{self._topic}-{partition}"

    def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise ConnectionLost(self.name, "the connection was closed")
        if self._was_refused:
            raise ConnectionLost(self.name, "a commit was refused: it joins the group again")
        return self._consumer


def _message(record: ConsumerRecord, partition: str) -> Message[bytes]:
    headers = record.headers
    return Message(
        record.value or b"",
        partition,
        (record.offset,),
        1,
        {name: value.decode("utf-8", "replace") for name, value in headers} if headers else {},
        record.key,
        record.timestamp / 1000,
        record.partition,
    )
