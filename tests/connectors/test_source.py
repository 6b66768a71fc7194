"""`Source`: what is emitted, held, acknowledged and given back; all on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest
from returns.future import FutureResult
from returns.primitives.exceptions import UnwrapFailedError
from returns.result import Failure, Success
from scripted_driver import ScriptedDriver, message

from returns_pipeline import err, ok
from returns_pipeline.connectors import DeadLetter, Message, Source
from returns_pipeline.connectors._consumer import Signal
from returns_pipeline.errors import (
    ConnectionLost,
    DecodeError,
    InvalidArgument,
    PartitionsLost,
    TooManyDeliveries,
)
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import FaultInjector, MemoryBroker, inject_everywhere, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from returns.result import Result


def numbers(first: int, last: int) -> list[Message[bytes]]:
    return [message(number) for number in range(first, last + 1)]


async def take(source: Source[Any, Any], count: int) -> list[int]:
    """Read messages; return their numbers."""
    return [(await anext(source)).unwrap().position[0] for _ in range(count)]


async def waits(read: Coroutine[Any, Any, Any]) -> bool:
    """Whether a read waits: it is cancelled after some time."""
    try:
        async with asyncio.timeout(10):
            _ = await read
    except TimeoutError:
        return True
    return False


def test_a_message_is_acknowledged_when_it_is_reached_and_not_before() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 5))
        async with Source(driver) as source:
            assert await take(source, 2) == [1, 2]
            mark = source.mark()
            assert await take(source, 2) == [3, 4]
            await asyncio.sleep(5)
            assert driver.acked == []
            source.reached(mark)
            await asyncio.sleep(5)
            assert driver.acked == [1, 2]
            source.reached(source.mark())
            await source.settled()
            assert driver.acked == [1, 2, 3, 4]

    run(main())


def test_an_earlier_mark_changes_nothing_and_one_of_the_future_is_refused() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 3))
        async with Source(driver) as source:
            _ = await take(source, 3)
            source.reached(3)
            source.reached(1)
            await source.settled()
            assert driver.acked == [1, 2, 3]
            with pytest.raises(InvalidArgument, match="mark 4"):
                source.reached(4)

    run(main())


def test_acknowledgements_gather_while_one_is_under_way_and_never_go_backwards() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 9), positioned=True)
        driver.latency["ack"] = 1.0
        async with Source(driver) as source:
            for _ in range(9):
                _ = await take(source, 1)
                source.reached(source.mark())
                await asyncio.sleep(0.25)
            await source.settled()
        acks = [which for name, which in driver.calls if name == "ack"]
        assert acks == [[1], [2, 3, 4], [5, 6, 7, 8], [9]]
        assert driver.most_running["ack"] == 1

    run(main())


def test_an_acknowledgement_covers_a_prefix_of_each_partition() -> None:
    async def main() -> None:
        driver = ScriptedDriver(
            message(1, "a"), message(7, "b"), message(2, "a"), message(8, "b"), positioned=True
        )
        async with Source(driver) as source:
            _ = await take(source, 3)
            source.reached(source.mark())
            await source.settled()
            assert driver.acked == [1, 7, 2]

    run(main())


def test_what_is_in_flight_is_bounded_by_messages() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 20))
        async with Source(driver, max_in_flight=3) as source:
            assert await take(source, 3) == [1, 2, 3]
            assert source.statistics().out_of_credit
            assert await waits(anext(source))
            assert len(driver.queue) == 17
            source.reached(1)
            assert await take(source, 1) == [4]

    run(main())


def test_what_is_in_flight_is_bounded_by_bytes_to_one_fetch() -> None:
    async def main() -> None:
        large = [Message(bytes(100_000), "p", (number,)) for number in range(1000)]
        driver = ScriptedDriver(*large)
        async with Source(driver, max_bytes=1_000_000) as source:
            await asyncio.sleep(5)
            assert source.statistics().bytes_held <= 2_000_000
            for _ in range(990):
                _ = await take(source, 1)
                source.reached(source.mark())
                assert source.statistics().bytes_held <= 1_000_000 + 1_500_000

    run(main())


def test_one_message_larger_than_the_limit_is_emitted() -> None:
    async def main() -> None:
        driver = ScriptedDriver(Message(bytes(1000), "p", (1,)), Message(bytes(1000), "p", (2,)))
        async with Source(driver, max_bytes=10) as source:
            assert await take(source, 1) == [1]
            source.reached(1)
            assert await take(source, 1) == [2]

    run(main())


def test_a_fetch_waits_until_a_quarter_of_the_credit_is_free() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 100))
        async with Source(driver, max_in_flight=8) as source:
            _ = await take(source, 1)
            source.reached(1)
            await source.settled()
            assert driver.times("fetch") == 1
            _ = await take(source, 1)
            source.reached(2)
            await asyncio.sleep(1)
            assert driver.times("fetch") == 2

    run(main())


def test_what_is_held_is_kept_alive_until_it_is_acknowledged() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 3), keep_alive=10.0)
        async with Source(driver) as source:
            _ = await take(source, 2)
            await asyncio.sleep(11)
            source.reached(1)
            await asyncio.sleep(10)
        extended = [which for name, which in driver.calls if name == "extend"]
        assert [sorted(which) for which in extended] == [[1, 2, 3], [2, 3]]

    run(main())


def test_a_message_is_kept_alive_for_a_limited_time() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1), keep_alive=10.0)
        async with Source(driver, max_hold=35) as source:
            _ = await take(source, 1)
            await asyncio.sleep(1000)
        assert driver.times("extend") == 3

    run(main())


def test_a_redelivery_of_what_is_in_flight_is_not_emitted_but_its_receipt_is_used() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1, receipt="first"), message(2))
        receipts: list[object] = []

        class Noting(ScriptedDriver):
            async def ack(self, messages: Any, /) -> None:
                receipts.extend(each.receipt for each in messages)
                await super().ack(messages)

        driver = Noting(message(1, receipt="first"), message(2))
        async with Source(driver) as source:
            assert await take(source, 1) == [1]
            driver.deliver(message(1, receipt="second", deliveries=2), message(3))
            assert await take(source, 2) == [2, 3]
            source.reached(source.mark())
            await source.settled()
            assert receipts == ["second", None, None]
            assert source.statistics().redelivered == 1
        assert driver.acked == [1, 2, 3]

    run(main())


def test_what_was_acknowledged_lately_is_acknowledged_again_and_not_emitted() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1))
        async with Source(driver) as source:
            assert await take(source, 1) == [1]
            source.reached(1)
            await source.settled()
            driver.deliver(message(1, deliveries=2), message(2))
            assert await take(source, 1) == [2]
            await asyncio.sleep(1)
            assert driver.acked == [1, 1]

    run(main())


def test_a_position_that_is_not_newer_is_a_redelivery_until_the_partition_is_fenced() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 3), positioned=True)
        async with Source(driver) as source:
            assert await take(source, 3) == [1, 2, 3]
            driver.deliver(*numbers(1, 4))
            assert await take(source, 1) == [4]
            assert source.statistics().redelivered == 3
            source.reached(4)
            await source.settled()
            # An operator has reset the position of the group: it is wanted again.
            assert driver.ownership is not None
            driver.ownership.fence(["p"])
            driver.deliver(*numbers(2, 3))
            assert await take(source, 2) == [2, 3]

    run(main())


def test_the_memory_of_acknowledged_messages_is_dropped_with_their_partition() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1, "a"), message(1, "b"))
        async with Source(driver) as source:
            assert await take(source, 2) == [1, 1]
            source.reached(2)
            await source.settled()
            assert driver.ownership is not None
            driver.ownership.fence(["a"])
            driver.deliver(message(1, "b"), message(1, "a"))
            assert (await anext(source)).unwrap().partition == "a"

    run(main())


def test_a_refused_acknowledgement_is_not_counted_nor_remembered() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1, "a"), message(1, "b"))
        driver.failures["ack"] = [PartitionsLost("scripted", ("a",))]
        async with Source(driver) as source:
            _ = await take(source, 2)
            source.reached(2)
            await source.settled()
            found = source.statistics()
            assert (found.acknowledged, found.refused) == (1, 1)
            acks = [which for name, which in driver.calls if name == "ack"]
            assert acks == [[1, 1], [1]]  # that of "b" once more
            driver.deliver(message(1, "a"))
            assert await take(source, 1) == [1]

    run(main())


def test_before_a_revocation_what_is_in_flight_is_handled_and_what_is_buffered_is_dropped() -> None:
    async def main() -> None:
        driver = ScriptedDriver(
            message(1, "a"), message(1, "b"), message(2, "a"), message(2, "b"), positioned=True
        )
        async with Source(driver) as source:
            _ = await take(source, 2)
            ownership = driver.ownership
            assert ownership is not None
            settling = asyncio.ensure_future(ownership.settled(["a"]))
            await asyncio.sleep(1)
            assert not settling.done()
            driver.deliver(message(3, "a"))
            received = (await anext(source)).unwrap()
            assert (received.partition, received.position) == ("b", (2,))
            assert await waits(anext(source))  # the new one of "a" is for its next owner
            source.reached(2)
            assert await settling
            ownership.fence(["a"])
            assert source.statistics().fenced == 0
            assert driver.acked == [1, 1]
            assert await waits(anext(source))

    run(main())


def test_a_revocation_has_a_limit_and_says_how_many_are_done_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 3), positioned=True)
        async with Source(driver, settle_timeout=7) as source:
            _ = await take(source, 3)
            source.reached(1)
            ownership = driver.ownership
            assert ownership is not None
            assert not await ownership.settled(["p"])
            assert asyncio.get_running_loop().time() == 7
            ownership.fence(["p"])
            assert source.statistics().fenced == 2
            source.reached(3)  # too late
            await asyncio.sleep(1)
            assert driver.acked == [1]

    run(main())
    assert "2 messages were in flight" in caplog.text


def test_a_revocation_does_not_wait_for_acknowledgements_that_no_connection_can_send() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1), positioned=True)
        async with Source(driver) as source:
            _ = await take(source, 1)
            assert driver.ownership is not None
            settling = asyncio.ensure_future(driver.ownership.settled(["p"]))
            await asyncio.sleep(1.5)
            driver.break_connection()
            assert not await settling
            assert asyncio.get_running_loop().time() < 3

    run(main())


def test_lost_partitions_make_room_for_others() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1, "a"), message(2, "a"), message(3, "b"))
        async with Source(driver, max_in_flight=2) as source:
            assert await take(source, 2) == [1, 2]
            assert driver.ownership is not None
            driver.ownership.fence(["a"])
            assert await take(source, 1) == [3]

    run(main())


def test_windows_are_to_be_emitted_when_credit_is_spent_or_a_partition_is_revoked() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 5), positioned=True)
        async with Source(driver, max_in_flight=3) as source:
            assert await take(source, 3) == [1, 2, 3]
            assert await source._wait() is Signal.FLUSH
            assert await waits(source._wait())  # it is said once
            source.reached(3)
            await source.settled()
            assert await take(source, 1) == [4]
            assert driver.ownership is not None
            settling = asyncio.ensure_future(driver.ownership.settled(["p"]))
            await asyncio.sleep(0)
            assert await source._wait() is Signal.FLUSH
            source.reached(4)
            assert await settling
            assert not await waits(driver.ownership.settled(["p"]))
            assert await waits(source._wait())  # nothing is in flight: nothing is to be emitted
            source.drain()
            assert await source._wait() is Signal.END

    run(main())


def test_windows_are_emitted_before_what_is_buffered_when_a_partition_is_revoked() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1, "a"), message(2, "b"), message(3, "b"))
        async with Source(driver) as source:
            assert await take(source, 1) == [1]
            assert driver.ownership is not None
            settling = asyncio.ensure_future(driver.ownership.settled(["a"]))
            await asyncio.sleep(0)
            assert not source._take(9)
            assert await source._wait() is Signal.FLUSH
            assert [each.position for each in source._take(9)] == [(2,), (3,)]
            source.reached(1)
            assert await settling

    run(main())


def test_a_window_that_is_larger_than_the_credit_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        broker = MemoryBroker()
        broker.publish(*[b"x"] * 9)
        async with Source(broker.driver("g"), max_in_flight=3) as source:
            asyncio.get_running_loop().call_later(50, source.drain)
            sizes: list[int] = []
            windows = source.messages().chunks_or_timeout(100, 10.0)
            await windows.tap(lambda window: sizes.append(len(window))).run()
        assert sizes == [3, 3, 3]

    run(main())
    [told] = [each.getMessage() for each in caplog.records]
    assert told.startswith("memory g: all credit is spent, 3 messages, and the pipeline waits")


def test_no_warning_is_given_of_a_pipeline_that_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        broker = MemoryBroker()
        broker.publish(*[b"x"] * 9)

        async def slow(window: object) -> None:
            await asyncio.sleep(1)

        async with Source(broker.driver("g"), max_in_flight=4) as source:
            asyncio.get_running_loop().call_later(50, source.drain)
            await source.messages().chunks_or_timeout(2, 10.0).tap_async(slow).run()
        assert source.statistics().acknowledged == 9

    run(main())
    assert not caplog.records


def test_lag_is_what_was_not_fetched_and_is_forgotten_with_the_partition() -> None:
    async def main() -> None:
        broker = MemoryBroker(2)
        broker.publish(*[b"x"] * 9)
        driver: Any = broker.driver("g")
        async with Source(driver, max_in_flight=4) as source:
            assert source.statistics().lag == {}
            _ = await anext(source)
            lag = source.statistics().lag
            assert (len(lag), sum(lag.values())) == (2, 5)
            gone, kept = lag
            driver._ownership.fence([gone])
            assert source.statistics().lag == {kept: lag[kept]}

    run(main())


def test_a_message_that_cannot_be_decoded_is_a_dead_letter_in_its_place() -> None:
    async def main() -> list[Result[Any, Any]]:
        driver = ScriptedDriver(
            Message(b"1", "p", (1,)), Message(b"one", "p", (2,)), Message(b"3", "p", (3,))
        )
        async with Source(driver, decode=int) as source:
            received: list[Any] = [await anext(source) for _ in range(3)]
            source.reached(3)
            await source.settled()
            assert driver.acked == [1, 2, 3]
            return received

    first, second, third = run(main())
    assert [first.unwrap().value, third.unwrap().value] == [1, 3]
    letter = second.failure()
    assert isinstance(letter.error, DecodeError)
    assert letter.error.wanted == "int"
    assert letter.message.value == b"one"


def test_a_function_may_decode_and_its_error_is_in_the_letter() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1), message(2))
        decode = {b"1": ok("one"), b"2": err("no such number")}.__getitem__
        async with Source(driver, decode=decode) as source:
            assert await anext(source) == Success(message(1).with_value("one"))
            assert await anext(source) == Failure(DeadLetter("no such number", message(2)))

    run(main())


def test_a_message_whose_decoding_raises_is_not_passed_over() -> None:
    async def main() -> None:
        broken = True

        def decode(value: bytes) -> Result[int, str]:
            if broken:
                raise KeyError(value)
            return ok(int(value))

        driver = ScriptedDriver(message(1))
        async with Source(driver, decode=decode) as source:
            with pytest.raises(KeyError):
                _ = await anext(source)
            assert source.mark() == 0
            broken = False
            assert await take(source, 1) == [1]

    run(main())


def test_a_message_delivered_too_often_is_a_dead_letter() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1, deliveries=3), message(2, deliveries=4))
        async with Source(driver, max_deliveries=3) as source:
            assert await take(source, 1) == [1]
            letter = (await anext(source)).failure()
            assert letter.error == TooManyDeliveries(4, 3)
            assert letter.message.position == (2,)

    run(main())


def test_a_message_can_be_given_back_and_no_mark_covers_it() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 3))
        async with Source(driver) as source:
            received = [(await anext(source)).unwrap() for _ in range(3)]
            source.nack(received[1], delay=4)
            source.reached(3)
            await source.settled()
            assert driver.acked == [1, 3]
            assert ("nack", [2]) in driver.calls
            with pytest.raises(InvalidArgument, match="not in flight"):
                source.nack(received[1])
            driver.deliver(message(2, deliveries=2))
            assert await take(source, 1) == [2]

    run(main())


def test_a_message_of_a_partition_with_positions_cannot_be_given_back() -> None:
    async def main() -> None:
        async with Source(ScriptedDriver(message(1), positioned=True)) as source:
            received = (await anext(source)).unwrap()
            with pytest.raises(InvalidArgument, match="cannot take a single message back"):
                source.nack(received)

    run(main())


def test_draining_ends_the_reader_and_gives_back_what_it_has_not_got() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 5))
        async with Source(driver) as source:
            assert await take(source, 2) == [1, 2]
            source.drain()
            assert [each async for each in source] == []
            source.reached(2)
        assert driver.acked == [1, 2]
        assert [which for name, which in driver.calls if name == "nack"] == [[3], [4], [5]]
        assert driver.names()[-1] == "close"

    run(main())


def test_a_fetch_under_way_at_the_end_is_awaited_and_its_messages_are_given_back() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1))
        async with Source(driver) as source:
            _ = await take(source, 1)
            driver.latency["fetch"] = 0.5
            await asyncio.sleep(1.2)
            driver.deliver(message(2))
        assert ("nack", [2]) in driver.calls

    run(main())


def test_a_driver_that_does_not_wait_for_messages_is_not_asked_all_the_time() -> None:
    class Hasty(ScriptedDriver):
        async def fetch(self, room: int, /) -> Any:
            self.calls.append(("fetch", []))
            found, self.queue = self.queue[:room], self.queue[room:]
            return found

    async def main() -> None:
        driver = Hasty(message(1))
        async with Source(driver) as source:
            assert await take(source, 1) == [1]
            await asyncio.sleep(10)
        assert driver.times("fetch") < 300

    run(main())


def test_draining_wakes_a_reader_that_waits() -> None:
    async def main() -> None:
        async with Source(ScriptedDriver()) as source:
            asyncio.get_running_loop().call_later(3, source.drain)
            assert [each async for each in source] == []
            assert asyncio.get_running_loop().time() == 3

    run(main())


def test_the_last_acknowledgement_is_not_cut_off_by_the_end() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 4))
        driver.latency["ack"] = 2.0
        async with Source(driver) as source:
            _ = await take(source, 2)
            source.reached(2)
            await asyncio.sleep(1)  # its acknowledgement is under way
            _ = await take(source, 2)
            source.reached(4)
        assert driver.acked == [1, 2, 3, 4]
        acks = [which for name, which in driver.calls if name == "ack"]
        assert acks == [[1, 2], [3, 4]]

    run(main())


def test_what_was_reached_is_acknowledged_although_the_block_raises() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 3))
        with pytest.raises(KeyError):
            async with Source(driver) as source:
                _ = await take(source, 2)
                source.reached(1)
                raise KeyError
        assert driver.acked == [1]
        assert sorted(which for name, which in driver.calls if name == "nack") == [[2], [3]]

    run(main())


def test_the_end_has_a_limit_even_if_the_broker_cannot_be_reached(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        driver = ScriptedDriver(message(1))
        async with Source(driver, drain_timeout=9) as source:
            _ = await take(source, 1)
            driver.refused = 1000
            driver.break_connection()
            await asyncio.sleep(5)
            source.reached(1)
            began = loop.time()
        assert loop.time() == began + 9
        assert driver.acked == []
        assert not any(driver.running.values())

    run(main())
    assert "could not be acknowledged within 9 s" in caplog.text


def test_the_end_has_a_limit_even_if_the_broker_does_not_answer() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        driver = ScriptedDriver(message(1))
        driver.hanging.add("ack")
        async with Source(driver, drain_timeout=9) as source:
            _ = await take(source, 1)
            source.reached(1)
        assert loop.time() == 9

    run(main())


def test_the_end_does_not_wait_until_the_next_attempt_is_due() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1))
        policy = RetryPolicy(attempts=9, wait=3600.0)
        async with Source(driver, reconnect=policy) as source:
            _ = await take(source, 1)
            driver.break_connection()
            await asyncio.sleep(5)
            source.reached(1)
        assert asyncio.get_running_loop().time() < 10
        assert driver.acked == [1]

    run(main())


@pytest.mark.parametrize("stuck", ["open", "refused"])
def test_the_end_does_not_wait_for_a_connection_that_it_does_not_need(stuck: str) -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1))
        if stuck == "open":
            driver.hanging.add("open")
        else:
            driver.refused = 1000
        async with Source(driver):
            await asyncio.sleep(20)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() == began
        assert driver.names()[-1] == "close"

    run(main())


def test_what_a_lazy_commit_covers_is_durable_before_it_is_acknowledged() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 3))
        committed: list[int] = []
        durable: list[int] = []

        async def flush() -> None:
            covered = list(committed)
            await asyncio.sleep(1)
            durable[:] = covered

        class Checking(ScriptedDriver):
            async def ack(self, messages: Any, /) -> None:
                assert {each.position[0] for each in messages} <= {*durable}
                await super().ack(messages)

        driver = Checking(*numbers(1, 3))
        async with Source(driver, before_ack=flush) as source:
            for number in (1, 2, 3):
                _ = await take(source, 1)
                committed.append(number)
                source.reached(number)
                await asyncio.sleep(0.4)
        assert driver.acked == [1, 2, 3]

    run(main())


async def _raises() -> None:
    raise OSError("disk full")


async def _fails() -> Result[None, OSError]:
    return Failure(OSError("disk full"))


async def _fails_unawaited() -> FutureResult[None, OSError]:
    return FutureResult(_fails())


@pytest.mark.parametrize("flush", [_raises, _fails, _fails_unawaited])
def test_nothing_is_acknowledged_if_it_cannot_be_made_durable(
    flush: Callable[[], Awaitable[object]],
) -> None:
    async def main() -> None:
        error = OSError if flush is _raises else UnwrapFailedError
        driver = ScriptedDriver(*numbers(1, 3))
        async with Source(driver, before_ack=flush) as source:
            _ = await take(source, 1)
            source.reached(1)
            await asyncio.sleep(1)
            with pytest.raises(error) as raised:
                async with asyncio.timeout(60):
                    _ = await anext(source)
            assert "disk full" in repr((raised.value, raised.value.__cause__))
            with pytest.raises(error):
                await source.settled()
        assert driver.acked == []
        assert driver.names()[-1] == "close"

    run(main())


def test_an_exception_of_the_driver_ends_the_source() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1))
        driver.failures["open"] = [PermissionError("no such user")]
        with pytest.raises(PermissionError):
            async with Source(driver):
                await asyncio.sleep(1)
        assert driver.names() == ["open", "close"]
        driver = ScriptedDriver(message(1))
        driver.failures["watch"] = [ValueError("bug")]
        with pytest.raises(ValueError, match="bug"):
            async with Source(driver) as source:
                await asyncio.sleep(1)
                _ = await anext(source)

    run(main())


def test_a_source_is_read_inside_of_its_block_and_by_one_task() -> None:
    async def main() -> None:
        source = Source(ScriptedDriver())
        with pytest.raises(RuntimeError, match="async with"):
            _ = await anext(source)
        async with source:
            reading = asyncio.ensure_future(anext(source))
            await asyncio.sleep(1)
            with pytest.raises(RuntimeError, match="another task"):
                _ = await anext(source)
            _ = reading.cancel()
            await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="once"):
            await source.__aenter__()

    run(main())


def test_a_cancelled_read_loses_nothing() -> None:
    async def main() -> None:
        driver = ScriptedDriver()
        async with Source(driver) as source:
            received: list[int] = []
            for number in range(1, 200):
                if number % 3 == 0:
                    driver.deliver(message(number))
                reading = asyncio.ensure_future(take(source, 1))
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                if not reading.done():
                    _ = reading.cancel()
                _ = await asyncio.wait({reading})
                received += [] if reading.cancelled() else reading.result()
            received += await take(source, 66 - len(received))
            assert received == [number for number in range(1, 200) if number % 3 == 0]

    run(main())


def test_statistics_say_what_it_holds_and_for_how_long() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 4))
        async with Source(driver) as source:
            _ = await take(source, 3)
            source.reached(1)
            await asyncio.sleep(5)
            found = source.statistics()
            assert (found.emitted, found.acknowledged, found.buffered) == (3, 1, 1)
            assert (found.in_flight, found.bytes_held, found.connections) == (2, 3, 1)
            assert found.oldest_unacknowledged == 5
            assert found.stalled_for == 5
        assert source.statistics().oldest_unacknowledged == 0

    run(main())


def test_a_cancellation_at_any_await_acknowledges_what_was_reached_and_nothing_else() -> None:
    async def scenario(injector: FaultInjector) -> None:
        driver = ScriptedDriver(*numbers(1, 6), keep_alive=1.0)
        driver.latency["ack"] = 0.1
        reached = 0

        async def program() -> None:
            nonlocal reached
            async with Source(driver, max_in_flight=4) as source:
                for _ in range(3):
                    _ = await take(source, 2)
                    await asyncio.sleep(0.5)
                    reached += 2
                    source.reached(reached)

        with contextlib.suppress(asyncio.CancelledError):
            await injector.run(program())
        assert driver.acked == list(range(1, reached + 1))
        assert not any(driver.running.values())
        assert driver.calls == [] or driver.names()[-1] == "close"

    assert inject_everywhere(scenario) > 10


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_in_flight": 0}, "max_in_flight must be at least 1"),
        ({"max_bytes": 0}, "max_bytes must be at least 1"),
        ({"max_deliveries": 0}, "max_deliveries must be at least 1"),
        ({"max_hold": 0}, "max_hold must be above 0"),
        ({"drain_timeout": -1}, "drain_timeout must be at least 0"),
        ({"settle_timeout": -1}, "settle_timeout must be at least 0"),
        ({"request_timeout": 0}, "request_timeout must be above 0"),
        ({"reconnect": 3}, "reconnect must be a RetryPolicy"),
    ],
)
def test_arguments_out_of_range_are_refused_at_the_call(arguments: Any, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        Source(ScriptedDriver(), **arguments)


def test_other_things_than_drivers_and_decoders_are_refused_at_the_call() -> None:
    async def decode(value: bytes) -> Result[int, str]:
        return ok(1)

    wrong: Any = decode
    with pytest.raises(TypeError, match="does not await"):
        Source(ScriptedDriver(), decode=wrong)
    nothing: Any = object()
    with pytest.raises(TypeError, match="expected a driver"):
        Source(nothing)


def test_a_source_says_what_it_reads() -> None:
    assert repr(Source(ScriptedDriver())) == "<Source scripted, new>"


def test_connection_attempts_may_be_limited(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        driver = ScriptedDriver()
        driver.refused = 5
        policy = RetryPolicy(attempts=3, wait=2.0)
        async with Source(driver, reconnect=policy) as source:
            with pytest.raises(ConnectionLost, match="refused"):
                _ = await anext(source)
            assert driver.opened_at == [0.0, 2.0, 4.0]

    with caplog.at_level(logging.WARNING):
        run(main())
    assert "the next attempt is in 2.0 s" in caplog.text


# Limits, and what others await.


async def limited_end(reached: int, *limits: float) -> float:
    """Return how long the end of a block takes whose acknowledgement hangs."""
    driver = ScriptedDriver(*numbers(1, 3))
    driver.hanging.add("ack")
    loop = asyncio.get_running_loop()
    source = Source(driver, drain_timeout=30.0)
    async with source:
        await take(source, 3)
        source.reached(reached)
        await asyncio.sleep(1)
        source.drain()
        for limit in limits:
            source.drain(within=limit)
        ended = loop.time()
    return loop.time() - ended


def test_a_drain_within_limits_the_end_of_the_block() -> None:
    async def main() -> None:
        assert await limited_end(3) == 30.0
        assert await limited_end(3, 5.0) == 5.0
        assert await limited_end(3, 5.0, 8.0) == 5.0  # the nearest limit counts
        assert await limited_end(3, 8.0, 5.0) == 5.0
        assert await limited_end(3, 50.0) == 30.0

    run(main())


def test_a_shorter_limit_can_be_set_while_the_block_ends() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        driver = ScriptedDriver(*numbers(1, 3))
        driver.hanging.add("ack")
        source = Source(driver, drain_timeout=30.0)
        async with source:
            await take(source, 3)
            source.reached(3)
            loop.call_later(4.0, lambda: source.drain(within=2.0))
        assert loop.time() == 6.0
        assert source.statistics().in_flight == 3
        source.drain(within=1.0)  # it has ended: no timer is left

    run(main())


def test_a_limit_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="within"):
        Source(ScriptedDriver()).drain(within=-1)


def test_a_function_to_await_before_acknowledgements_can_be_added_once() -> None:
    async def main() -> None:
        flushed: list[str] = []

        async def first() -> None:
            flushed.append("first")

        async def second() -> None:
            flushed.append("second")

        driver = ScriptedDriver(*numbers(1, 2))
        source = Source(driver)
        source.flush_before_ack(first)
        source.flush_before_ack(first)
        with pytest.raises(InvalidArgument, match=r"another function .*: second$"):
            Source(driver, before_ack=second).flush_before_ack(first)
        async with source:
            with pytest.raises(RuntimeError, match="entered before"):
                source.flush_before_ack(first)
            await take(source, 2)
            source.reached(2)
        assert flushed == ["first"]
        assert driver.acked == [1, 2]

    run(main())


def test_statistics_tell_whether_there_is_a_connection() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 2))
        source = Source(driver, reconnect=RetryPolicy(attempts=9, wait=5.0))
        assert not source.statistics().connected
        async with source:
            await take(source, 2)
            assert source.statistics().connected
            driver.break_connection()
            await asyncio.sleep(2)
            assert not source.statistics().connected
            await asyncio.sleep(9)
            assert source.statistics().connected
        assert not source.statistics().connected

    run(main())


@pytest.mark.parametrize(("limit", "ends_at"), [(4.0, 4.0), (0.0, 1.0), (200.0, 31.0)])
def test_a_driver_that_does_not_disconnect_does_not_hold_up_the_end(
    limit: float, ends_at: float
) -> None:
    async def main() -> None:
        driver = ScriptedDriver(*numbers(1, 3))
        driver.hanging.add("close")
        async with Source(driver, drain_timeout=limit, request_timeout=30.0) as source:
            await take(source, 3)
            source.reached(3)
            began = asyncio.get_running_loop().time()
        # The fetch that is under way may take a second, and a call of the driver 30.
        assert asyncio.get_running_loop().time() - began == ends_at

    run(main())


def test_more_is_fetched_when_nothing_is_buffered_though_there_is_little_room() -> None:
    async def main() -> None:
        driver = ScriptedDriver(*[message(n) for n in range(8)])
        async with Source(driver, max_in_flight=10) as source:
            first = await anext(source)
            driver.deliver(message(8), message(9))
            await asyncio.sleep(5)
            assert driver.times("fetch") == 1  # for two messages it is not worth a call
            found = [first, *[await anext(source) for _ in range(9)]]
            assert [each.unwrap().position[0] for each in found] == list(range(10))

    run(main())
