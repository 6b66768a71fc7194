"""`Source`: messages of a broker, acknowledged when everything made of them has been handled."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from types import TracebackType
from typing import Any, Final, Generic, Never, Self, TypeVar, overload

from returns.result import Result

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.names import shown
from returns_pipeline._engine.steps import packed
from returns_pipeline.connectors._consumer import Consumer, Signal
from returns_pipeline.connectors._decode import received_all, receiver
from returns_pipeline.connectors._driver import Driver
from returns_pipeline.connectors._ledger import Ledger
from returns_pipeline.connectors._message import DeadLetter, Message
from returns_pipeline.connectors._messages import Reading, messages_call, stream_of
from returns_pipeline.connectors._partitions import Partition, Partitions
from returns_pipeline.connectors._statistics import SourceStatistics, statistics_of
from returns_pipeline.errors import (
    DecodeError,
    InvalidArgument,
    PartitionsLost,
    TooManyDeliveries,
)
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.telemetry import Observer

__all__ = ["Source"]

T = TypeVar("T")
F = TypeVar("F")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)

# Keys that are remembered after their acknowledgement, at least.
_REMEMBERED: Final = 10_000
_ALWAYS: Final = RetryPolicy(attempts=2**31)


class Source(Generic[T_co, E_co]):
    """The messages of a broker, to be read once and acknowledged.

    For a pipeline, `messages` is a `ResultStream` that acknowledges by itself:

    .. code-block:: python

        async with Source(driver, decode=Order) as source:
            await source.messages().chunks_or_timeout(500, 2.0).bind_async(persist).run()

    It is itself an async iterable of Results, inside ``async with``. A message is acknowledged when
    its reader says that everything up to a *mark* has been handled:

    .. code-block:: python

        async with Source(driver, decode=Order) as source:
            async for received in source:
                match cases(received):
                    case Success(message):
                        await persist(message.value)
                    case Failure(letter):
                        await bury(letter)
                source.reached(source.mark())

    A mark covers all messages that were emitted before it. So a reader may collect some, and call
    `reached` once: what it has filtered out, or expanded, needs no attention.

    1. **At least once.** Nothing is acknowledged before it is reached. What was not acknowledged
       when a process ends is delivered again. Acknowledgements are sent in the order of emission,
       in batches, beside the reader; one is under way at a time.
    2. **Failures.** A message that cannot be decoded is a `Failure` with a `DeadLetter` in its
       place. So is one that was delivered more than ``max_deliveries`` times: it may be what kills
       its readers.
    3. **In flight.** At most ``max_in_flight`` messages, and about ``max_bytes`` bytes, are held
       that are not acknowledged. The reader must not wait for more than that before it calls
       `reached`, or both wait forever. The byte limit may be exceeded by one fetch.
    4. **Slow readers.** What is held is kept alive at the broker, for at most ``max_hold`` seconds
       each. A message that is delivered again while it is in flight, or shortly after its
       acknowledgement, is not emitted again.
    5. **Lost connections.** It connects again, after a wait, and what is in flight stays valid if
       the broker allows that. While it is not connected, the reader waits.
    6. **Lost partitions.** If the broker moves partitions to another process, their messages are
       not emitted any more. The driver waits up to ``settle_timeout`` seconds until those in flight
       are acknowledged, and then forgets them.
    7. **The end.** It ends after `drain`, or raises the exception of its driver. At the end of the
       block, everything that was reached is acknowledged, the rest is given back, and the driver
       disconnects: within ``drain_timeout`` seconds, even if the broker cannot be reached.

    Backpressure: it fetches when a quarter of ``max_in_flight`` is free, or nothing is buffered.

    Order: messages of a partition are emitted in their order, as far as the broker keeps it.

    Cancel safety: a cancelled read loses nothing; the next read continues where it was.

    Known elsewhere as: ``CommittableSource`` (Alpakka), ``CommittableConsumerRecord`` (fs2-kafka),
    ``Producer`` with an acknowledger (Broadway), ``Input`` (Redpanda Connect).

    Args:
        driver: What to read, and how. It must be used by one source only.
        decode: The type of the JSON in the messages, which msgspec reads, or a function that makes
            a `Result` of their bytes. By default the bytes are left as they are.
        max_in_flight: How many messages may be held, at least 1.
        max_bytes: How many bytes they may have, at least 1.
        max_deliveries: How often a message may be delivered before it becomes a dead letter, at
            least 1; by default any number of times. Where the broker does not count (Kafka, a log
            in PostgreSQL), a delivery counts if its process has died. Those that were in flight
            then come in small groups, and only one that was alone becomes a dead letter.
        before_ack: A function that is awaited before each acknowledgement, such as the ``flush`` of
            a journal. If it raises, nothing is acknowledged, and the source fails; if it returns a
            `Failure`, with ``UnwrapFailedError``.
        reconnect: How long to wait after a lost connection, and how often; by default, forever.
        max_hold: Seconds for which a message is kept alive at the broker, above 0.
        settle_timeout: Seconds before a partition is given up, at least 0, fewer than the broker's.
        drain_timeout: Seconds for the end of the block, at least 0.
        request_timeout: Seconds for a call of the driver, above 0; else the connection is lost.
        observer: Gets its events, besides the observers of `telemetry.use`.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.
        ConnectionLost: While reading, if ``reconnect`` allows no other attempt.
        PartitionReplaced: While reading, if positions are stored for another partition of the name.
        Exception: While reading, any other exception of the driver, or of ``before_ack``.

    >>> from returns_pipeline.testing import MemoryBroker, run
    >>> broker = MemoryBroker()
    >>> async def main() -> None:
    ...     broker.publish(b"[1, 2]", b"[3]", b"oops")
    ...     async with Source(broker.driver("sums"), decode=list[int]) as source:
    ...         async for received in source:
    ...             print(received.map(lambda message: sum(message.value)).value_or("dead"))
    ...             source.reached(source.mark())
    ...             if source.mark() == 3:
    ...                 source.drain()
    >>> run(main())
    3
    3
    dead
    >>> broker.backlog("sums")
    0
    """

    @overload
    def __init__(
        self: Source[bytes, Never],
        driver: Driver,
        *,
        decode: None = None,
        max_in_flight: int = 5000,
        max_bytes: int = 64 << 20,
        max_deliveries: int | None = None,
        before_ack: Callable[[], Awaitable[object]] | None = None,
        reconnect: RetryPolicy = _ALWAYS,
        max_hold: Seconds = 3600.0,
        settle_timeout: Seconds = 20.0,
        drain_timeout: Seconds = 30.0,
        request_timeout: Seconds = 30.0,
        observer: Observer | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Source[T, DecodeError],
        driver: Driver,
        *,
        decode: type[T],
        max_in_flight: int = 5000,
        max_bytes: int = 64 << 20,
        max_deliveries: int | None = None,
        before_ack: Callable[[], Awaitable[object]] | None = None,
        reconnect: RetryPolicy = _ALWAYS,
        max_hold: Seconds = 3600.0,
        settle_timeout: Seconds = 20.0,
        drain_timeout: Seconds = 30.0,
        request_timeout: Seconds = 30.0,
        observer: Observer | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Source[T, F],
        driver: Driver,
        *,
        decode: Callable[[bytes], Result[T, F]],
        max_in_flight: int = 5000,
        max_bytes: int = 64 << 20,
        max_deliveries: int | None = None,
        before_ack: Callable[[], Awaitable[object]] | None = None,
        reconnect: RetryPolicy = _ALWAYS,
        max_hold: Seconds = 3600.0,
        settle_timeout: Seconds = 20.0,
        drain_timeout: Seconds = 30.0,
        request_timeout: Seconds = 30.0,
        observer: Observer | None = None,
    ) -> None: ...
    def __init__(
        self,
        driver: Driver,
        *,
        decode: type[Any] | Callable[[bytes], Result[Any, Any]] | None = None,
        max_in_flight: int = 5000,
        max_bytes: int = 64 << 20,
        max_deliveries: int | None = None,
        before_ack: Callable[[], Awaitable[object]] | None = None,
        reconnect: RetryPolicy = _ALWAYS,
        max_hold: Seconds = 3600.0,
        settle_timeout: Seconds = 20.0,
        drain_timeout: Seconds = 30.0,
        request_timeout: Seconds = 30.0,
        observer: Observer | None = None,
    ) -> None:
        if not hasattr(driver, "fetch"):
            raise TypeError(f"expected a driver, not {type(driver).__name__!r}")
        if not isinstance(reconnect, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"reconnect must be a RetryPolicy, not {reconnect!r}")
        if driver.positions is not None:
            if not driver.positioned:
                raise InvalidArgument(f"{driver.name} shares its partitions: it has no positions")
            if not hasattr(driver.positions, "attach"):
                raise TypeError(f"positions= takes a journal or a sink, not {driver.positions!r}")
        limit = checks.count("max_in_flight", max_in_flight)
        self._driver = driver
        most = (
            math.inf if max_deliveries is None else checks.count("max_deliveries", max_deliveries)
        )
        self._received = receiver(decode, most)
        self._call = messages_call(driver.name, decode, limit)
        self._drain_timeout = checks.seconds("drain_timeout", drain_timeout, zero=True)
        self._ledger = Ledger(
            max_in_flight=limit,
            max_bytes=checks.count("max_bytes", max_bytes),
            positioned=driver.positioned,
            remembered=max(_REMEMBERED, 2 * limit),
            name=driver.name,
            stores=driver.positions is not None,
            max_deliveries=max_deliveries,
        )
        self._consumer = Consumer(
            driver,
            self._ledger,
            before_ack=before_ack,
            reconnect=reconnect,
            request_timeout=checks.seconds("request_timeout", request_timeout),
            settle_timeout=checks.seconds("settle_timeout", settle_timeout, zero=True),
            max_hold=checks.seconds("max_hold", max_hold),
            observer=observer,
        )
        self._state = "new"
        self._was_raised = False  # the failure, by a read
        self._reading: object = None  # the latest of `messages`, if that was the last to read

    async def __aenter__(self) -> Self:
        """Begin to connect and to fetch. This does not wait for the broker.

        Raises:
            RuntimeError: It was entered before.
            InvalidArgument: Another source uses what stores its positions.
        """
        if self._state != "new":
            raise RuntimeError("a source can be entered once: make another one")
        if self._driver.positions is not None and self._ledger.coverage is not None:
            self._driver.positions.attach(self._ledger.coverage)
        self._state = "open"
        self._consumer.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Acknowledge what was reached, also after an exception, and disconnect.

        Raises:
            Exception: The source has failed, and no read has raised that yet.
        """
        self._state = "closed"
        consumer = self._consumer
        consumer.check_outside()
        try:
            await consumer.close(self._drain_timeout)
        finally:
            if self._driver.positions is not None:
                self._driver.positions.detach()
                consumer.warn_of_unstored(1)
        if error is None and consumer.failure is not None and not self._was_raised:
            raise consumer.failure

    def __aiter__(self) -> Self:
        return self

    async def __anext__(
        self,
    ) -> Result[Message[T_co], DeadLetter[E_co | TooManyDeliveries]]:
        """Return the next message, decoded, or its dead letter.

        Raises:
            StopAsyncIteration: The source was drained.
            RuntimeError: It was not entered, or another task is reading it.
            Exception: The source has failed.
        """
        self._reading = None
        while not (taken := self._take(1)):
            signal = await self._wait()
            if signal is Signal.END:
                raise StopAsyncIteration
            if signal is Signal.FLUSH:
                self._consumer.give_up_later()
        return packed(taken[0])

    def _take(self, limit: int) -> list[Any]:
        """Emit messages that are there, at most ``limit``: see `receiver`."""
        if self._state != "open":
            raise RuntimeError("read a source inside of `async with source:`")
        self._check_whole()
        taken = received_all(self._consumer.next(limit), self._received)
        if taken:
            self._consumer.emit(len(taken))
        return taken

    async def _wait(self) -> Signal | None:
        """Wait until there is a message, or something comes in its place."""
        consumer = self._consumer
        try:
            return await consumer.wait()
        except BaseException as error:
            self._was_raised = self._was_raised or error is consumer.failure
            raise

    def messages(self) -> ResultStream[Message[T_co], DeadLetter[E_co | TooManyDeliveries]]:
        """Return the messages as a stream whose terminal acknowledges what it has handled.

        A message is acknowledged when everything made of it has been handled: whatever steps it
        passed, however often it was expanded, filtered, retried or put into windows, in any order.
        No step needs to know of it.

        1. `run`, `run_all`, `for_each` and `for_each_all` acknowledge while they read. `collect`,
           `collect_all`, `partition`, `fold` and `last` hold values until they return, and
           acknowledge then: they must not wait for more than ``max_in_flight`` messages. `first`
           does not acknowledge the message that it returns.
        2. After a failure or an exception that ends the terminal, nothing more is acknowledged: it
           is delivered again. A failure that a step has recovered from, or that `run_all` has
           counted, is handled.
        3. When all credit is spent, when a partition is about to move, and at the end, open windows
           are emitted, as by ``flush_on``: a window larger than ``max_in_flight`` is never full.
        4. Messages are acknowledged in their order. So one that waits in a window, or in a slow
           step, holds back those after it. Of a window of `event_windows` that is emitted again for
           a late item, the first time counts.
        5. It can be read again, if the first reading has left nothing unhandled: see below.
        6. Where no step before the first window, or before the terminal, waits, messages are read
           up to 256 at a time, if they are there. What was read is in flight, and is handled
           even if one of these steps calls `drain`.
        7. A loop of your own, ``async for``, acknowledges nothing, as it does not tell when it has
           handled an item; nor do `successes`, `failures`, and operators of other libraries.
           Slices, and the operators of `windows` and `combine` that are not methods, are refused.

        Cancel safety: what a cancelled stream has read and not handled stays in flight. It is given
        back at the end of the ``async with`` block.

        >>> import asyncio
        >>> from returns_pipeline.testing import MemoryBroker, run
        >>> broker = MemoryBroker()
        >>> broker.publish(b"1", b"2", b"oops", b"4")
        >>> async def main() -> None:
        ...     async with Source(broker.driver("sums"), decode=int) as source:
        ...         values = source.messages().map(lambda message: message.value)
        ...         chunks = values.chunks_or_timeout(100, 5.0).tap(print)
        ...         asyncio.get_running_loop().call_later(9.0, source.drain)
        ...         print(await chunks.run_all())
        >>> run(main())
        [1, 2]
        [4]
        <IO: Counts(successes=2, failures=1)>
        >>> broker.backlog("sums")
        0
        """
        return stream_of(self._begin, self._call, stores=self._driver.positions)

    def partitions(self) -> AsyncIterator[Partition[T_co, E_co]]:
        """Iterate over partitions, to read each apart from the others.

        .. code-block:: python

            async with source, asyncio.TaskGroup() as tasks:
                async for partition in source.partitions():
                    tasks.create_task(to_result(partition.messages().bind_async(persist).run()))

        1. A partition comes when its first message has arrived, and again, as another object, if it
           was lost and has come back. It ends when the source is drained.
        2. One whose reader is slow or stuck does not hold up the others: each may hold the same
           share of ``max_in_flight`` and of ``max_bytes``. When their number grows, a partition
           may hold more than its new share for a while.
        3. If a partition moves, only its stream ends. See `Partition.messages`.

        It is for a driver that is ``positioned``: in a queue that is shared by its readers, any
        message may be read by any of them, and steps run side by side by ``concurrency``. The
        source cannot be read in another way besides.

        Raises:
            InvalidArgument: The messages are shared by all readers.
            RuntimeError: Something was fetched, or this was called before.

        >>> from returns_pipeline.testing import MemoryBroker, run
        >>> broker = MemoryBroker(partitions=2)
        >>> broker.publish(b"1", b"2", b"3")
        >>> async def main() -> None:
        ...     async with Source(broker.driver("sums"), decode=int) as source:
        ...         partitions = source.partitions()
        ...         first, second = await anext(partitions), await anext(partitions)
        ...         source.drain()
        ...         print(first.name, second.name)
        >>> run(main())
        memory-0 memory-1
        """
        if not self._driver.positioned:
            raise InvalidArgument(
                f"{self._driver.name} is shared by all its readers: it has no partitions that could"
                " be read apart; run steps side by side by concurrency"
            )
        self._consumer.readers = partitions = Partitions[T_co, E_co](
            self._driver.name,
            self._consumer,
            self._ledger,
            received=self._received,
            stores=self._driver.positions,
            call=self._call,
            on_raise=self._on_raise,
        )
        return partitions

    def _on_raise(self) -> None:
        self._was_raised = True

    def _check_whole(self) -> None:
        """Raise an error if partitions are read apart."""
        if self._ledger.is_split:
            raise RuntimeError("this source is read by its partitions: read those")

    def _begin(self) -> Reading:
        """Begin a reading of `messages`; it ends an earlier one.

        Raises:
            RuntimeError: A message was emitted that no mark has reached: those of this reading
                would stand for it, too.
        """
        if unreached := self._ledger.unreached():
            raise RuntimeError(
                f"{unreached} messages of an earlier reading were not handled, and this one would"
                " acknowledge them: leave the block, and enter another source"
            )
        this = self._reading = object()

        def take(limit: int) -> list[Any]:
            if self._reading is not this:
                raise RuntimeError("another reading of this source has begun")
            return self._take(limit)

        return Reading(take, self._wait, self.mark, self.reached)

    def mark(self) -> int:
        """Return a mark after everything emitted so far: how many messages that were.

        >>> from returns_pipeline.testing import MemoryBroker
        >>> Source(MemoryBroker().driver("sums")).mark()
        0
        """
        return self._ledger.emitted

    def reached(self, mark: int, /) -> None:
        """Record that everything before a mark has been handled: it is acknowledged soon.

        It may be called at any time, also in another order than that of the marks: the latest
        counts. `settled` waits until it is acknowledged.

        Args:
            mark: What `mark` has returned.

        Raises:
            InvalidArgument: Nothing was emitted yet that such a mark would cover.
        """
        self._check_whole()
        if mark > self._ledger.emitted:
            raise InvalidArgument(
                f"mark {mark} is after the last message emitted, {self._ledger.emitted}"
            )
        self._consumer.reach(mark)

    def nack(self, message: Message[object], /, *, delay: Seconds = 0.0) -> None:
        """Return one message to the broker: it is delivered again, and no mark covers it.

        For brokers that share a queue among consumers. Where partitions have owners and positions,
        a message cannot be acknowledged before an earlier one, so it cannot be given back.

        Args:
            message: It was emitted, and is not acknowledged.
            delay: Seconds, at least 0, until it is delivered again, where the broker can do that.

        Raises:
            InvalidArgument: The message is not in flight, the broker has positions, or ``delay`` is
                out of range.
        """
        seconds = checks.seconds("delay", delay, zero=True, finite=True)
        if self._driver.positioned:
            raise InvalidArgument(f"{self._driver.name} cannot take a single message back")
        if not self._consumer.nack(message, seconds):
            where = f"{message.partition} {message.position}"
            raise InvalidArgument(f"the message at {where} is not in flight")

    def drain(self, *, within: Seconds = math.inf) -> None:
        """Fetch and emit nothing more: reading ends. Acknowledgements continue.

        What was fetched and not emitted is given back. It may be called from a signal handler of
        the event loop, and again, for a shorter limit.

        Args:
            within: Seconds from now, at least 0, after which the end of the block waits no longer,
                even if ``drain_timeout`` would allow it. It does not limit the reader.

        Raises:
            InvalidArgument: ``within`` is out of range.
            RuntimeError: There is a limit, and no event loop is running.
        """
        limit = checks.seconds("within", within, zero=True)
        if limit < math.inf:
            self._consumer.limit(limit)
        self._consumer.drain()

    def reopen(self, lost: PartitionsLost, /) -> None:
        """Forget all that is held, give up the connection, and connect again.

        For a reader that was refused by what it writes to, as others own its partitions, before the
        broker has told the source: see `postgres.TransactionalSink`. `run_worker` calls it by
        itself. The reader must have ended all work on what it has read. Then `messages` may be read
        again, and what is still owned is delivered again. Partitions that are read apart are lost.

        >>> def read_on(source: Source[bytes, Never], lost: PartitionsLost) -> None:
        ...     source.reopen(lost)  # what the sink has raised
        """
        self._consumer.reopen(lost)

    def flush_before_ack(self, flush: Callable[[], Awaitable[object]], /) -> None:
        """Await a function before each acknowledgement, as ``before_ack`` does.

        For code that is given a source, and has a journal of its own, such as a worker. To call it
        twice with one function does no harm.

        >>> from returns_pipeline.journal import SqliteJournal
        >>> from returns_pipeline.testing import MemoryBroker
        >>> def prepare(journal: SqliteJournal) -> None:
        ...     Source(MemoryBroker().driver("sums")).flush_before_ack(journal.flush)

        Raises:
            InvalidArgument: The source has another such function: which of the two covers what is
                acknowledged cannot be known.
            RuntimeError: The source was entered before.
        """
        if self._state != "new":
            raise RuntimeError("it is too late: the source was entered before")
        given = self._consumer.before_ack
        if given is not None and given != flush:
            raise InvalidArgument(
                f"the source has another function to await before it acknowledges: {shown(given)}"
            )
        self._consumer.before_ack = flush

    async def settled(self, partitions: Collection[str] | None = None, /) -> None:
        """Wait until everything that was emitted is acknowledged, or lost with its partition.

        Args:
            partitions: Wait for these only; by default for all.

        Raises:
            Exception: The source has failed.
        """
        await self._consumer.wait_acknowledged(partitions)

    def statistics(self) -> SourceStatistics:
        """Return what it has done, and what it holds now.

        >>> from returns_pipeline.testing import MemoryBroker
        >>> Source(MemoryBroker().driver("sums")).statistics().emitted
        0
        """
        return statistics_of(
            self._ledger, self._consumer.connections, connected=self._consumer.is_connected
        )

    @property
    def name(self) -> str:
        """What it reads, as its driver calls it."""
        return self._driver.name

    def __repr__(self) -> str:
        return f"<Source {self._driver.name}, {self._state}>"
