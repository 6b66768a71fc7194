"""The values of metrics that the six questions do not ask for."""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("opentelemetry.sdk.metrics")
pytest.importorskip("prometheus_client")

from measured import BACK_ENDS, Measured

from returns_pipeline import CompensationScope
from returns_pipeline.connectors import Outgoing, Publisher
from returns_pipeline.testing import MemoryBroker, run


@pytest.fixture(params=BACK_ENDS)
def measured(request: pytest.FixtureRequest) -> Measured:
    return request.param()  # type: ignore[no-any-return]


async def refund(order: int) -> None:
    await asyncio.sleep(1.0)


def test_an_undo_that_hangs_is_seen(measured: Measured) -> None:
    running = "returns_pipeline.undo.running"
    seen: list[float] = []

    async def main() -> None:
        scope = CompensationScope("shop", observer=measured.observer)
        await scope.register(refund, 1)
        undoing = asyncio.ensure_future(scope.compensate())
        await asyncio.sleep(0.5)
        seen.append(measured.total(running, pipeline="shop", undo="refund"))
        await undoing
        seen.append(measured.total(running, pipeline="shop", undo="refund"))

    run(main())
    assert seen == [1, 0]


def test_what_a_publisher_has_sent_and_what_was_refused(measured: Measured) -> None:
    sent = "messaging.client.sent.messages"
    where = {"pipeline": "", "messaging_system": "memory"}

    async def main() -> None:
        sender = MemoryBroker().sender()
        async with Publisher(sender, observer=measured.observer) as publisher:
            await publisher.publish_all([1, 2, 3])
            await publisher.publish_all([1, Outgoing(2, partition=9)])
            assert measured.total("returns_pipeline.publisher.in_flight", **where) == 0

    run(main())
    assert measured.total(sent, **where) == 5
    assert measured.total(sent, error_type="refused", **where) == 1
    assert measured.total(sent, messaging_operation_name="send", **where) == 5
    duration = "messaging.client.operation.duration"
    assert measured.count(duration, messaging_operation_type="send", **where) == 2


def test_messages_that_no_broker_has_answered_are_in_flight(measured: Measured) -> None:
    """And then unconfirmed, as their call was cancelled."""
    in_flight = "returns_pipeline.publisher.in_flight"
    seen: list[float] = []

    class Silent:
        """A broker that never answers."""

        name = "memory invoices"
        deduplicates = False

        async def connect(self) -> Silent:
            return self

        async def send(self, batch: object) -> None:
            await asyncio.sleep(3600.0)

        async def close(self) -> None: ...

    async def main() -> None:
        async with Publisher(Silent(), observer=measured.observer) as publisher:
            sending = asyncio.ensure_future(publisher.publish_all([1, 2, 3]))
            await asyncio.sleep(1.0)
            seen.append(measured.total(in_flight, messaging_destination_name="invoices"))
            sending.cancel()
            await asyncio.wait({sending})
            seen.append(measured.total(in_flight, messaging_destination_name="invoices"))

    run(main())
    assert seen == [3, 0]
    sent = "messaging.client.sent.messages"
    assert measured.total(sent, error_type="unconfirmed") == measured.total(sent) == 3
