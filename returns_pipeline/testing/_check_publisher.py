"""`check_publisher`: a conformance suite for senders, independent of any test framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from returns_pipeline._engine import checks
from returns_pipeline.testing._connector_harness import check_cases
from returns_pipeline.testing._publisher_contract import (
    CASES,
    CONNECTION_CASES,
    PublisherHarness,
    PublisherQueue,
)

__all__ = ["PublisherQueue", "check_publisher"]

Q = TypeVar("Q", bound=PublisherQueue)


async def check_publisher(
    factory: Callable[[], Awaitable[Q]],
    *,
    disconnect: Callable[[Q], Awaitable[object]] | None = None,
    patience: checks.Seconds = 20.0,
    quiet: checks.Seconds = 1.5,
    timeout: checks.Seconds = 120.0,
    concurrency: int = 1,
) -> None:
    """Check that a sender keeps its contract, and that `Publisher` on top of it does.

    The contract:

    1. What is confirmed is there, with its bytes and headers, and what is refused is not.
    2. Messages with one key keep their order.
    3. Calls may be made at the same time, and cancelled: others are not disturbed.
    4. After a lost connection, what was not confirmed is sent again; once it is there if the
       sender deduplicates, else at least once.

    It works on real time, and on virtual time with brokers that run on it. It cannot kill a broker.

    Args:
        factory: Makes a new and empty queue at each call.
        disconnect: Breaks all connections of a queue's senders, and returns when they can connect
            again. Without it, the cases of lost connections are left out.
        patience: Seconds, above 0, within which a message that was published must be read.
        quiet: Seconds without a message, above 0, after which there is none.
        timeout: Seconds, above 0, that each case may take.
        concurrency: Cases that run at a time, at least 1. Most of them wait.

    Raises:
        InvalidArgument: At the call, if a time or ``concurrency`` is out of range.
        ExceptionGroup: The contract is violated. The message names each violated claim with what
            was seen; the exceptions in the group show where.

    >>> from collections.abc import Sequence
    >>> from returns_pipeline.connectors import Driver, Sender
    >>> from returns_pipeline.testing import MemoryBroker, run
    >>> class InMemory:
    ...     def __init__(self) -> None:
    ...         self.broker = MemoryBroker()
    ...
    ...     def driver(self) -> Driver:
    ...         return self.broker.driver("group")
    ...
    ...     def sender(self) -> Sender:
    ...         return self.broker.sender()
    ...
    ...     async def publish(self, values: Sequence[bytes], /) -> None:
    ...         self.broker.publish(*values)
    ...
    ...     async def remove(self) -> None: ...
    >>> async def make() -> InMemory:
    ...     return InMemory()
    >>> run(check_publisher(make))
    """
    limit = checks.seconds("timeout", timeout)
    patient = checks.seconds("patience", patience)
    silent = checks.seconds("quiet", quiet)
    at_once = checks.count("concurrency", concurrency)

    async def harness() -> PublisherHarness:
        queue = await factory()
        return PublisherHarness(queue, patience=patient, quiet=silent, disconnect=disconnect)

    cases = CASES if disconnect is None else CASES | CONNECTION_CASES
    await check_cases("publisher", cases, harness, timeout=limit, concurrency=at_once)
