"""The tools of the cases of the connector contract: queues, members and checks."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Never, Protocol, TypeAlias, TypeVar

from returns.result import Result
from returns.unsafe import unsafe_perform_io

from returns_pipeline._engine.future_results import err, ok
from returns_pipeline.compensation.protocol import Positions
from returns_pipeline.connectors import Driver, Message, Ownership, Position, Source
from returns_pipeline.errors import ConnectionLost
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.sources import from_iterable
from returns_pipeline.testing._journal_harness import expect

__all__ = [
    "Check",
    "ConnectorCheck",
    "ConnectorHarness",
    "Mortal",
    "NoOwnership",
    "QueueUnderTest",
    "case",
    "check_cases",
    "expect",
    "numbers",
    "sorted_values",
    "values_of",
]

H = TypeVar("H", bound="ConnectorHarness")
T = TypeVar("T")

_SOON: Final = RetryPolicy(attempts=1000, wait=0.1)


class QueueUnderTest(Protocol):
    """A queue, topic, stream or log that is new and empty, with one group that reads it.

    >>> from returns_pipeline.testing import MemoryBroker
    >>> class InMemory:
    ...     def __init__(self) -> None:
    ...         self.broker = MemoryBroker(partitions=2)
    ...
    ...     def driver(self) -> Driver:
    ...         return self.broker.driver("group")
    ...
    ...     async def publish(self, values: Sequence[bytes], /) -> None:
    ...         self.broker.publish(*values)
    ...
    ...     async def remove(self) -> None: ...
    >>> queue: QueueUnderTest = InMemory()
    """

    def driver(self) -> Driver:
        """Return the driver of another member of the group."""
        ...

    async def publish(self, values: Sequence[bytes], /) -> None:
        """Add messages, to all partitions if there are several; return when they can be read."""

    async def remove(self) -> None:
        """Delete it from the broker."""


class NoOwnership:
    """Takes what a driver says of its partitions, where no source does.

    Attributes:
        fenced: The partitions that were fenced.
        notes: What is noted of partitions.
    """

    def __init__(self) -> None:
        self.fenced: list[str] = []
        self.notes: dict[str, str] = {}

    async def settled(self, partitions: Collection[str], /) -> bool:  # noqa: ARG002
        """Nothing is in flight."""
        return True

    async def positions(
        self,
        partitions: Mapping[str, str],  # noqa: ARG002
        /,
    ) -> Mapping[str, Position]:
        """Nothing is stored."""
        return {}

    def noted(
        self,
        partition: str,
        note: str,
        after: Position,  # noqa: ARG002
        end: Position,  # noqa: ARG002
        /,
    ) -> None:
        """Keep what is noted."""
        self.notes[partition] = note

    def out_of_credit(self) -> None:
        """Do nothing: there are no windows."""

    def lag(self, partitions: Mapping[str, int], /) -> None:
        """Do nothing: there are no statistics."""

    def paused(self) -> Collection[str]:
        """All partitions are read."""
        return ()

    def fence(self, partitions: Collection[str] | None = None, /) -> None:
        """Record what was fenced."""
        self.fenced += partitions or ()


class Mortal:
    """Does what a driver does, until its process seems to die.

    Attributes:
        is_dead: Whether nothing reaches the broker any more. Only `close` does: to the broker that
            is a connection that ends.
        notes: How often something was noted.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.is_dead = False
        self.notes = 0

    @property
    def name(self) -> str:
        """What is read."""
        return self._driver.name

    @property
    def positioned(self) -> bool:
        """As the driver says."""
        return self._driver.positioned

    @property
    def positions(self) -> Positions | None:
        """As the driver says."""
        return self._driver.positions

    @property
    def keep_alive(self) -> float:
        """As the driver says."""
        return self._driver.keep_alive

    async def _pass(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.is_dead:
            raise ConnectionLost(self.name, "its process has died")
        return await call()

    async def open(self, ownership: Ownership, /) -> None:
        """Connect."""
        await self._pass(partial(self._driver.open, ownership))

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        """Return messages."""
        return await self._pass(partial(self._driver.fetch, room))

    async def ack(self, messages: Sequence[Message[bytes]], /) -> None:
        """Acknowledge messages."""
        await self._pass(partial(self._driver.ack, messages))

    async def note(self, notes: Mapping[str, str], /) -> None:
        """Store notes."""
        self.notes += 1
        await self._pass(partial(self._driver.note, notes))

    async def extend(self, messages: Sequence[Message[bytes]], /) -> None:
        """Keep messages alive."""
        await self._pass(partial(self._driver.extend, messages))

    async def nack(self, message: Message[bytes], delay: float, /) -> None:
        """Return a message."""
        await self._pass(partial(self._driver.nack, message, delay))

    async def watch(self) -> None:
        """Run beside the others."""
        await self._pass(self._driver.watch)

    async def close(self) -> None:
        """Disconnect."""
        await self._driver.close()


class ConnectorHarness:
    """The queue of one case, and the sources that read it.

    Attributes:
        queue: The queue.
        patience: Seconds within which something must happen.
        quiet: Seconds without a message after which there is none.
        disconnect: Breaks all connections, if the suite was told how.
    """

    def __init__(
        self,
        queue: QueueUnderTest,
        *,
        patience: float,
        quiet: float,
        disconnect: Callable[[Any], Awaitable[object]] | None,
    ) -> None:
        self.queue = queue
        self.patience = patience
        self.quiet = quiet
        self._disconnect = disconnect

    def source(self, **options: Any) -> Source[bytes, Never]:
        """Return a source of another member."""
        return Source(self.queue.driver(), reconnect=_SOON, **options)

    async def publish(self, first: int, last: int) -> None:
        """Add messages whose values are these numbers."""
        await self.queue.publish(numbers(first, last))

    async def break_connections(self) -> None:
        """Break the connections of all members."""
        assert self._disconnect is not None
        _ = await self._disconnect(self.queue)

    async def read(self, source: Source[bytes, Never], count: int) -> list[Message[bytes]]:
        """Read messages that must come."""
        found: list[Message[bytes]] = []
        deadline = asyncio.timeout(self.patience)
        try:
            async with deadline:
                for _ in range(count):
                    found.append((await anext(source)).unwrap())
        except TimeoutError as error:
            if not deadline.expired():
                raise
            seen = f"{len(found)} of {count} messages came within {self.patience:g} s"
            raise AssertionError(seen) from error
        return found

    async def next(self, source: Source[bytes, Never]) -> Message[bytes] | None:
        """Read a message; return `None` if none comes for a while."""
        deadline = asyncio.timeout(self.quiet)
        try:
            async with deadline:
                return (await anext(source)).unwrap()
        except TimeoutError:
            if not deadline.expired():
                raise
            return None

    async def read_all(self, source: Source[bytes, Never]) -> list[Message[bytes]]:
        """Read messages until none comes for a while."""
        found: list[Message[bytes]] = []
        while (message := await self.next(source)) is not None:
            found.append(message)
        return found

    async def rest(self, *, wanted: Collection[bytes] = ()) -> list[bytes]:
        """Return the values that a new member gets, and acknowledge them.

        Args:
            wanted: Wait with patience until all of these have come.
        """
        found: list[bytes] = []
        source = self.source()
        loop = asyncio.get_running_loop()
        until = loop.time() + self.patience
        async with source:
            while True:
                found += [message.value for message in await self.read_all(source)]
                if not Counter(wanted) - Counter(found) or loop.time() > until:
                    break
            source.reached(source.mark())
        return sorted_values(found)

    async def end(self) -> None:
        """Remove the queue, as far as that is possible."""
        with contextlib.suppress(Exception):
            await self.queue.remove()


Check: TypeAlias = Callable[[H], Awaitable[None]]
ConnectorCheck: TypeAlias = Check[ConnectorHarness]


def case(cases: dict[str, Check[H]], claim: str) -> Callable[[Check[H]], Check[H]]:
    """Add the decorated check to the cases, under the claim that it checks."""

    def add(check: Check[H]) -> Check[H]:
        cases[claim] = check
        return check

    return add


async def check_cases(
    what: str,
    cases: Mapping[str, Check[H]],
    make: Callable[[], Awaitable[H]],
    *,
    timeout: float,
    concurrency: int,
) -> None:
    """Run each case with a harness of its own.

    Args:
        what: Whose contract they are.
        cases: The cases, under their claims.
        make: Makes a harness.
        timeout: Seconds that each case may take.
        concurrency: Cases that run at a time.

    Raises:
        ExceptionGroup: Claims are violated.
    """

    async def keeps(case: tuple[str, Check[H]]) -> Result[str, tuple[str, Exception]]:
        claim, check = case
        harness = await make()
        try:
            async with asyncio.timeout(timeout):
                await check(harness)
        except Exception as error:  # noqa: BLE001  # whatever a driver raises is a violation
            error.add_note(f"violated claim: {claim}")
            return err((claim, error))
        finally:
            await harness.end()
        return ok(claim)

    stream = ResultStream.of(from_iterable(cases.items()))
    checked = await stream.bind_async(keeps, concurrency=concurrency).partition()
    _, violations = unsafe_perform_io(checked)
    if violations:
        head = f"{len(violations)} of {len(cases)} claims of the {what} contract are violated:"
        lines = [
            f"  - {claim}: {error if isinstance(error, AssertionError) else repr(error)}"
            for claim, error in violations
        ]
        raise ExceptionGroup("\n".join([head, *lines]), [error for _, error in violations])


def numbers(first: int, last: int) -> list[bytes]:
    """Return numbers as values."""
    return [str(number).encode() for number in range(first, last + 1)]


def values_of(messages: Iterable[Message[bytes]]) -> list[bytes]:
    """Return the values in the order of their numbers."""
    return sorted_values(message.value for message in messages)


def sorted_values(values: Iterable[bytes]) -> list[bytes]:
    """Return values in the order of their numbers."""
    return sorted(values, key=int)
