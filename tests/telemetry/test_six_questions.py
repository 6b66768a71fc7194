"""What an operator asks at 3 in the morning, answered by metrics alone.

Each program runs on virtual time, and is measured by OpenTelemetry and by Prometheus.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("prometheus_client")

from measured import BACK_ENDS
from returns.result import Failure, Result, Success

from returns_pipeline import (
    CompensationRegistry,
    ResultStream,
    RetryPolicy,
    StepContext,
    telemetry,
    to_result,
)
from returns_pipeline.connectors import Source
from returns_pipeline.policies import circuit_breaker
from returns_pipeline.testing import MemoryBroker, Wait, run, timed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measured import Measured

registry = CompensationRegistry()


class CardDeclined(Exception):
    pass


class BankDown(Exception):
    pass


@registry.compensation("refund", retry=RetryPolicy(1))
async def refund(order: int) -> None:
    await asyncio.sleep(1.0)


@registry.compensation("unship", retry=RetryPolicy(2, wait=1.0))
async def unship(order: int) -> None:
    raise BankDown


@pytest.fixture(params=BACK_ENDS, ids=lambda each: each.__name__)
def measured(request: pytest.FixtureRequest) -> Iterator[Measured]:
    found: Measured = request.param()
    with telemetry.use(found.observer, pipeline="shop"):
        yield found


def test_does_it_lag_and_where_does_it_wait(measured: Measured) -> None:
    """The broker has more than was read, and the windows wait for the step that writes them."""
    broker = MemoryBroker()
    broker.publish(*[b"%d" % n for n in range(100)])
    running = []

    async def write(window: list[int], step: StepContext) -> Result[int, str]:
        await asyncio.sleep(10.0)
        running.append(measured.total("returns_pipeline.step.running", stage="write"))
        return Success(sum(window))

    async def main() -> None:
        source = Source(broker.driver("billing"), decode=int, max_in_flight=20)
        ctx = StepContext("shop")
        async with source:
            asyncio.get_running_loop().call_later(45.0, source.drain)
            numbers = source.messages().map(lambda message: message.value)
            await numbers.chunks_or_timeout(5, 2.0).bind_step(write, ctx).run()

    run(main())
    assert set(running) == {1}
    assert measured.total("returns_pipeline.step.running", stage="write") == 0
    # Nearly all the time, windows have waited for the step.
    assert measured.total("returns_pipeline.stage.wait", stage="chunks_or_timeout") >= 30.0
    assert measured.sum("returns_pipeline.step.duration", stage="write") >= 50.0
    where = {"messaging_system": "memory", "messaging_destination_name": "billing"}
    consumed = measured.total("messaging.client.consumed.messages", **where)
    assert 20 <= consumed < 100
    assert measured.total("returns_pipeline.source.lag", **where) == 100 - consumed
    assert measured.total("returns_pipeline.source.oldest_age", **where) >= 10.0
    assert measured.total("returns_pipeline.source.in_flight", **where) == 20
    assert measured.total("returns_pipeline.source.wait", **where) < 10.0


def test_why_are_windows_small(measured: Measured) -> None:
    """They are emitted by their time, because few items come; not by failures or flushes."""

    async def main() -> None:
        items = [1, 2, 3, *[Wait(3.0), 4] * 5]
        await ResultStream.of(timed(*items)).chunks_or_timeout(3, 2.0).run()

    run(main())
    closed, size = "returns_pipeline.window.closed", "returns_pipeline.window.size"
    by_reason = {
        reason: (measured.total(closed, reason=reason), measured.total(size, reason=reason))
        for reason in ("size", "time", "failure", "flush", "end")
    }
    assert by_reason == {
        "size": (1, 3),
        "time": (4, 4),
        "failure": (0, 0),
        "flush": (0, 0),
        "end": (1, 1),
    }
    assert measured.total("returns_pipeline.window.age", reason="time") == 8.0


def test_what_was_rolled_back_and_why(measured: Measured) -> None:
    """Two refunds, because the card was declined in two steps; one payment stays."""

    async def pay(order: int, step: StepContext) -> Result[int, CardDeclined]:
        await step.register(refund, order)
        return Failure(CardDeclined()) if order < 2 else Success(order)

    async def main() -> None:
        ctx = StepContext("shop")
        await ResultStream.of(timed(0, 1, 2)).bind_step(pay, ctx).run_all()

    run(main())
    assert measured.total("returns_pipeline.undo.registered", undo="refund") == 3
    assert measured.total("returns_pipeline.undo", undo="refund", outcome="done") == 2
    assert measured.sum("returns_pipeline.undo.duration", undo="refund") == 2.0
    assert measured.total("returns_pipeline.scope.commits") == 1
    assert measured.total("returns_pipeline.scope.rollbacks", outcome="complete") == 2
    steps = "returns_pipeline.step.duration"
    why = {"stage": "pay", "outcome": "failed", "error_type": "CardDeclined"}
    assert measured.count(steps, **why) == 2
    assert measured.count(steps, stage="pay", outcome="succeeded") == 1


def test_what_is_stuck(measured: Measured) -> None:
    """An undo action that nothing will try again, and why; and a step that never ends."""

    async def ship(order: int, step: StepContext) -> Result[int, str]:
        await step.register(unship, order)
        return Failure("no")

    async def hang() -> Result[int, str]:
        await asyncio.Event().wait()
        return Success(1)

    async def main() -> None:
        ctx = StepContext("shop")
        await ResultStream.of(timed(1)).bind_step(ship, ctx).run_all()
        hanging = asyncio.ensure_future(to_result(StepContext("reply").run(hang())))
        await asyncio.sleep(60.0)
        assert measured.total("returns_pipeline.step.running", stage="reply") == 1
        hanging.cancel()
        await asyncio.wait([hanging])

    run(main())
    stuck = {"undo": "unship", "outcome": "stuck", "error_type": "BankDown"}
    assert measured.total("returns_pipeline.undo", **stuck) == 1
    assert measured.total("returns_pipeline.undo", outcome="done") == 0
    assert measured.total("returns_pipeline.scope.rollbacks", outcome="incomplete") == 1
    assert measured.total("returns_pipeline.step.running") == 0
    assert measured.count("returns_pipeline.step.duration", outcome="cancelled") == 1


def test_did_the_breaker_open(measured: Measured) -> None:
    answers = [Failure(BankDown()), Failure(BankDown()), Success(1), Success(2)]

    async def pay(order: int, step: StepContext) -> Result[int, BankDown]:
        return answers.pop(0)

    def states() -> list[float]:
        name = "returns_pipeline.breaker.state"
        return [
            measured.total(name, breaker="bank", state=state)
            for state in ("closed", "open", "half open")
        ]

    async def main() -> None:
        ctx = StepContext("shop")
        protected = circuit_breaker(2, 10.0, name="bank")(pay)
        await ResultStream.of(timed(1, 2, 3)).bind_step(protected, ctx).run_all()
        assert states() == [0, 1, 0]
        await asyncio.sleep(20.0)
        await ResultStream.of(timed(4)).bind_step(protected, ctx).run_all()

    run(main())
    assert states() == [1, 0, 0]
    assert measured.total("returns_pipeline.breaker.changes", breaker="bank", state="open") == 1


def test_is_the_broker_redelivering(measured: Measured) -> None:
    """A connection was lost, so that the broker delivers again what was not acknowledged."""
    broker = MemoryBroker()
    broker.publish(b"1", b"2", b"3")

    async def slowly(value: int) -> int:
        await asyncio.sleep(5.0)
        return value

    async def main() -> None:
        async with Source(broker.driver("billing"), decode=int) as source:
            loop = asyncio.get_running_loop()
            loop.call_later(1.0, broker.disconnect)
            loop.call_later(60.0, source.drain)
            values = source.messages().map(lambda message: message.value)
            await values.map_async(slowly).run()

    run(main())
    assert measured.total("returns_pipeline.source.disconnected") == 1
    assert measured.total("returns_pipeline.source.reconnected") == 1
    assert measured.total("returns_pipeline.source.redelivered") >= 2
    assert (
        measured.count("messaging.client.operation.duration", messaging_operation_name="ack") >= 1
    )
