"""`check_connector`: a conformance suite for drivers, independent of any test framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from returns_pipeline._engine import checks
from returns_pipeline.testing._connector_contract import CASES, CONNECTION_CASES
from returns_pipeline.testing._connector_harness import (
    ConnectorHarness,
    QueueUnderTest,
    check_cases,
)

__all__ = ["QueueUnderTest", "check_connector"]

Q = TypeVar("Q", bound=QueueUnderTest)


async def check_connector(
    factory: Callable[[], Awaitable[Q]],
    *,
    disconnect: Callable[[Q], Awaitable[object]] | None = None,
    patience: checks.Seconds = 20.0,
    quiet: checks.Seconds = 1.5,
    timeout: checks.Seconds = 120.0,
    concurrency: int = 1,
) -> None:
    """Check that a driver keeps its contract, and that `Source` on top of it does.

    The contract:

    1. Every message is delivered, with its bytes, a position of its own, and in its order if the
       driver has positions.
    2. What was reached is acknowledged and does not come again; everything else comes again.
    3. What is in flight is bounded, kept alive, and not delivered to another member.
    4. Members may join and leave at any time: no message is lost or done twice.
    5. Lost connections lose no message, and what is acknowledged stays acknowledged.
    6. Calls may be cancelled and repeated, and a driver may be opened and closed again.

    It works on real time, and on virtual time with brokers that run on it. It cannot test kill -9:
    that takes processes. The drivers of a broker that delivers again should do so after about a
    second, so that keeping alive is tested in a short time.

    Args:
        factory: Makes a new and empty queue at each call.
        disconnect: Breaks all connections of a queue's drivers, and returns when they can connect
            again. Without it, the cases of lost connections are left out.
        patience: Seconds, above 0, within which something must happen.
        quiet: Seconds without a message, above 0, after which there is none. It must be longer than
            a rebalance, or a redelivery, takes.
        timeout: Seconds, above 0, that each case may take.
        concurrency: Cases that run at a time, at least 1. Most of them wait.

    Raises:
        InvalidArgument: At the call, if a time or ``concurrency`` is out of range.
        ExceptionGroup: The contract is violated. The message names each violated claim with what
            was seen; the exceptions in the group show where.

    >>> from collections.abc import Sequence
    >>> from returns_pipeline.connectors import Driver
    >>> from returns_pipeline.testing import MemoryBroker, run
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
    >>> async def make() -> InMemory:
    ...     return InMemory()
    >>> run(check_connector(make))
    """
    limit = checks.seconds("timeout", timeout)
    patient = checks.seconds("patience", patience)
    silent = checks.seconds("quiet", quiet)
    at_once = checks.count("concurrency", concurrency)

    async def harness() -> ConnectorHarness:
        queue = await factory()
        return ConnectorHarness(queue, patience=patient, quiet=silent, disconnect=disconnect)

    cases = CASES if disconnect is None else CASES | CONNECTION_CASES
    await check_cases("connector", cases, harness, timeout=limit, concurrency=at_once)
