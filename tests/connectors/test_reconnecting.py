"""`Source` and lost connections: one connection at a time, no spin, nothing lost or done twice."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from scripted_driver import ScriptedDriver, message

from returns_pipeline.connectors import Source
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from returns_pipeline.connectors import Message, Ownership

EVERY_SECOND = RetryPolicy(attempts=1000, wait=1.0)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)


def numbers(first: int, last: int) -> list[Message[bytes]]:
    return [message(number) for number in range(first, last + 1)]


async def take(source: Source[Any, Any], count: int) -> list[int]:
    return [(await anext(source)).unwrap().position[0] for _ in range(count)]


class Connected(ScriptedDriver):
    """Refuses to be opened while any call of the connection before is under way."""

    async def open(self, ownership: Ownership, /) -> None:
        assert not any(self.running.values()), self.running
        await super().open(ownership)

    async def close(self) -> None:
        assert not any(self.running.values()), self.running
        await super().close()


@pytest.mark.parametrize("waiting", ["fetch", "ack", "extend", "nack", "watch"])
def test_a_call_that_waits_on_a_lost_connection_ends_before_the_next_is_made(waiting: str) -> None:
    """Each task would otherwise reconnect, and close what another has opened."""

    async def main() -> None:
        driver = Connected(*numbers(1, 4), keep_alive=1.0)
        async with Source(driver, reconnect=EVERY_SECOND) as source:
            received = [(await anext(source)).unwrap() for _ in range(3)]
            if waiting == "watch":
                driver.break_connection()
                await asyncio.sleep(2)
            driver.hanging.add(waiting)
            source.nack(received[2])
            source.reached(1)
            driver.deliver(message(5))
            await asyncio.sleep(3)
            driver.hanging.clear()
            driver.break_connection()
            await asyncio.sleep(0.5 if waiting == "watch" else 5)
            driver.deliver(message(6))
            await asyncio.sleep(3)
            assert not driver.lost
            assert source.statistics().connections <= 4
            source.reached(source.mark())
            await source.settled()
        assert set(driver.acked) == {1, 2}

    run(main())


def test_a_call_without_an_answer_counts_as_a_lost_connection() -> None:
    async def main() -> None:
        driver = Connected(*numbers(1, 2))
        driver.hanging.add("ack")
        async with Source(driver, request_timeout=7, reconnect=EVERY_SECOND) as source:
            _ = await take(source, 2)
            source.reached(2)
            await asyncio.sleep(7.5)
            driver.hanging.clear()
            await source.settled()
            assert driver.acked == [1, 2]
            assert [round(at) for at in driver.opened_at] == [0, 8]

    run(main())


@pytest.mark.parametrize("stage", ["refused", "lost at once"])
def test_attempts_back_off_also_if_a_connection_is_lost_as_soon_as_it_is_made(stage: str) -> None:
    class Dropping(Connected):
        async def open(self, ownership: Ownership, /) -> None:
            await super().open(ownership)
            if stage == "lost at once":
                self.lost = True

    async def main() -> None:
        driver = Dropping(message(1))
        if stage == "refused":
            driver.refused = 10_000
        async with Source(driver):
            await asyncio.sleep(3600)
        assert len(driver.opened_at) < 3600 / 20
        pauses = [
            after - before
            for before, after in zip(driver.opened_at, driver.opened_at[1:], strict=False)
        ]
        assert min(pauses) > 0
        assert min(pauses[20:]) > 20

    run(main())


def test_the_waits_begin_again_after_a_connection_that_was_of_use() -> None:
    async def main() -> None:
        driver = Connected()
        policy = RetryPolicy(attempts=3, wait=1.0)
        async with Source(driver, reconnect=policy) as source:
            for number in range(1, 10):
                driver.deliver(message(number))
                assert await take(source, 1) == [number]
                driver.break_connection()
                await asyncio.sleep(5)

    run(main())


def test_what_is_in_flight_survives_and_is_acknowledged_on_the_next_connection() -> None:
    async def main() -> None:
        driver = Connected(*numbers(1, 3))
        async with Source(driver, reconnect=EVERY_SECOND) as source:
            assert await take(source, 2) == [1, 2]
            driver.break_connection()
            await asyncio.sleep(0.5)
            source.reached(2)  # while there is no connection
            await source.settled()
            assert driver.acked == [1, 2]
            driver.deliver(message(2, deliveries=2), message(4))
            assert await take(source, 2) == [3, 4]

    run(main())


def test_an_acknowledgement_without_an_answer_is_sent_again_first() -> None:
    async def main() -> None:
        driver = Connected(*numbers(1, 4))
        driver.hanging.add("ack")
        async with Source(driver, reconnect=EVERY_SECOND) as source:
            _ = await take(source, 4)
            source.reached(2)
            await asyncio.sleep(1)
            source.reached(3)
            driver.hanging.clear()
            driver.break_connection()
            await source.settled(["another"])
            await asyncio.sleep(5)
            assert driver.acked == [1, 2, 3]
            assert [which for name, which in driver.calls if name == "ack"] == [[1, 2], [1, 2, 3]]

    run(main())


def test_what_is_held_is_kept_alive_at_once_on_the_next_connection() -> None:
    async def main() -> None:
        driver = Connected(message(1), keep_alive=30.0)
        async with Source(driver, reconnect=EVERY_SECOND) as source:
            _ = await take(source, 1)
            await asyncio.sleep(1)
            assert driver.times("extend") == 0
            driver.break_connection()
            await asyncio.sleep(3)
            assert driver.calls.count(("extend", [1])) == 1

    run(main())


def test_receipts_of_an_old_connection_never_reach_a_new_one_if_the_driver_fences_them() -> None:
    class Tagged(Connected):
        async def open(self, ownership: Ownership, /) -> None:
            ownership.fence()
            await super().open(ownership)

        async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
            found = await super().fetch(room)
            return [message(each.position[0], receipt=self.epoch) for each in found]

        async def ack(self, messages: Sequence[Message[bytes]], /) -> None:
            assert all(each.receipt == self.epoch for each in messages)
            await super().ack(messages)

    async def main() -> None:
        driver = Tagged(*numbers(1, 3))
        async with Source(driver, reconnect=EVERY_SECOND) as source:
            assert await take(source, 2) == [1, 2]
            driver.break_connection()
            driver.deliver(*numbers(1, 3))
            source.reached(2)  # of the old connection
            await asyncio.sleep(2)
            assert await take(source, 3) == [1, 2, 3]
            assert source.statistics().fenced == 2
            assert driver.acked == []
            source.reached(5)
            await source.settled()
            assert driver.acked == [1, 2, 3]

    run(main())


def test_a_revocation_ends_with_the_connection() -> None:
    class Revoking(Connected):
        was_settled: bool | None = None

        async def watch(self) -> None:
            await asyncio.sleep(1)
            assert self.ownership is not None
            try:
                self.was_settled = await self.ownership.settled(["p"])
            finally:
                self.ownership.fence(["p"])

    async def main() -> None:
        driver = Revoking(message(1), positioned=True)
        async with Source(driver, reconnect=EVERY_SECOND) as source:
            _ = await take(source, 1)
            await asyncio.sleep(2)
            driver.break_connection()
            driver.deliver(message(1))
            await asyncio.sleep(1.1)
            assert await take(source, 1) == [1]

    run(main())


def test_the_reader_waits_while_there_is_no_connection() -> None:
    async def main() -> None:
        driver = Connected()
        driver.refused = 5
        async with Source(driver, reconnect=EVERY_SECOND) as source:
            asyncio.get_running_loop().call_later(2, driver.deliver, message(1))
            assert await take(source, 1) == [1]
            assert asyncio.get_running_loop().time() == 5

    run(main())
