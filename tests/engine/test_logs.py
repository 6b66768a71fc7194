"""`Repeats`: what comes again and again is logged at first, and then once a minute."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from returns_pipeline import RetryPolicy
from returns_pipeline._engine.logs import Repeats, facts
from returns_pipeline.connectors import Source
from returns_pipeline.testing import MemoryBroker, run

if TYPE_CHECKING:
    import pytest

log = logging.getLogger("returns_pipeline.test")


def test_a_message_that_comes_again_is_counted_and_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        repeats = Repeats(log)
        for attempt in range(1, 14):
            repeats.warning("%s is lost", "nats", extra=facts(source="nats", attempt=attempt))
            await asyncio.sleep(10.0)

    run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "nats is lost",
        "nats is lost (repeated 5 times)",
        "nats is lost (repeated 5 times)",
    ]
    known = [vars(record) for record in caplog.records]
    assert [each["rp_attempt"] for each in known] == [1, 7, 13]
    assert [each["rp_repeated"] for each in known] == [0, 5, 5]
    assert {each["filename"] for each in known} == {"test_logs.py"}


def test_each_message_has_its_own_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    repeats = Repeats(log)
    for _ in range(3):
        repeats.warning("one", extra={})
        repeats.info("two", extra={})
        try:
            raise OSError("gone")
        except OSError:
            repeats.exception("three", extra={})
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "one"), ("INFO", "two"), ("ERROR", "three")
    ]  # fmt: skip
    assert "OSError: gone" in caplog.text


def test_a_broker_that_is_down_for_long_is_logged_once_a_minute_and_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        broker = MemoryBroker()
        every_five = RetryPolicy(1000, wait=5.0)
        async with Source(broker.driver("sums"), decode=int, reconnect=every_five) as source:
            reading = asyncio.ensure_future(source.messages().run().awaitable())
            await asyncio.sleep(1.0)
            broker.stop()
            await asyncio.sleep(150.0)
            broker.start()
            await asyncio.sleep(10.0)
            source.drain()
            _ = await reading

    run(main())
    levels = [record.levelname for record in caplog.records if record.name.endswith("connectors")]
    assert levels == ["WARNING", "WARNING", "WARNING", "INFO"]
    assert "(repeated 11 times)" in caplog.text
    assert caplog.records[-1].getMessage() == "memory sums is connected again"
    assert vars(caplog.records[0])["rp_source"] == "memory sums"
