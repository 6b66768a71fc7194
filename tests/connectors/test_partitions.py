"""`Source.partitions`: each partition is read apart from the others, and acknowledged apart."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from returns.io import IOSuccess
from returns.result import Result, Success
from scripted_driver import ScriptedDriver, message

from returns_pipeline.connectors import Message, Partition, Source
from returns_pipeline.errors import ConnectionLost, InvalidArgument, PartitionsLost
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import MemoryBroker, run

if TYPE_CHECKING:
    from returns_pipeline import ResultStream

GROUP = "apart"


def broker_of(count: int, *, partitions: int = 2) -> MemoryBroker:
    broker = MemoryBroker(partitions=partitions)
    broker.publish(*[str(number).encode() for number in range(count)])
    return broker


def numbers(stream: ResultStream[Message[int], Any], seen: list[int]) -> ResultStream[Any, Any]:
    return stream.tap(lambda each: seen.append(each.value))


async def next_of(source: Source[Any, Any], count: int) -> list[Partition[Any, Any]]:
    partitions = source.partitions()
    return [await anext(partitions) for _ in range(count)]


def test_each_is_acknowledged_as_far_as_its_own_reader_has_come() -> None:
    async def main() -> None:
        broker = broker_of(10)
        async with Source(broker.driver(GROUP), decode=int) as source:
            first, second = await next_of(source, 2)
            assert [each.name for each in (first, second)] == ["memory-0", "memory-1"]
            seen: list[int] = []
            reading = asyncio.ensure_future(numbers(second.messages(), seen).run())
            await asyncio.sleep(5)
            assert seen == [1, 3, 5, 7, 9]
            assert broker.backlog(GROUP) == 5
            assert source.statistics().acknowledged == 5
            assert list(source.statistics().stalled_partitions) == ["memory-0"]
            await source.settled(["memory-1"])
            source.drain()
            await reading
            assert repr(first) == "<Partition memory-0, ended>"
        assert broker.backlog(GROUP) == 5

    run(main())


def test_one_that_moves_ends_and_windows_of_it_are_emitted() -> None:
    async def main() -> None:
        broker = broker_of(4)
        async with Source(broker.driver(GROUP), decode=int) as source:
            first, second = await next_of(source, 2)
            windows: list[list[int]] = []
            reading = [
                asyncio.ensure_future(
                    each.messages()
                    .map(lambda message: message.value)
                    .chunks_or_timeout(100, 50.0)
                    .tap(windows.append)
                    .run()
                )
                for each in (first, second)
            ]
            await asyncio.sleep(1)
            async with Source(broker.driver(GROUP)):
                await asyncio.sleep(2)
                assert windows == [[1, 3]]
                assert (first.is_open, second.is_open) == (True, False)
                assert not second.lost.done()
                assert repr(second) == "<Partition memory-1, ended>"
            source.drain()
            await asyncio.wait(reading)
            assert windows == [[1, 3], [0, 2]]
        assert broker.backlog(GROUP) == 0

    run(main())


def test_what_is_collected_of_one_that_moves_is_there_and_acknowledged() -> None:
    async def main() -> None:
        broker = broker_of(4)
        async with Source(broker.driver(GROUP), decode=int) as source:
            _, second = await next_of(source, 2)
            collecting = asyncio.ensure_future(
                second.messages().map(lambda message: message.value).collect()
            )
            await asyncio.sleep(1)
            async with Source(broker.driver(GROUP)):
                assert await collecting == IOSuccess([1, 3])
                await asyncio.sleep(1)
                assert broker.backlog(GROUP) == 2
            assert source.statistics().fenced == 0

    run(main())


def test_one_that_is_lost_in_flight_says_so_and_what_it_reaches_later_counts_for_nothing() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1, "a"), message(2, "a"), message(1, "b"), positioned=True)
        async with Source(driver) as source:
            a, b = await next_of(source, 2)
            go_on = asyncio.Event()

            async def wait(each: Message[bytes]) -> Message[bytes]:
                await go_on.wait()
                return each

            reading = asyncio.ensure_future(a.messages().map_async(wait).run())
            await asyncio.sleep(1)
            assert driver.ownership is not None
            driver.ownership.fence(["a"])
            assert a.lost.done()
            assert not b.lost.done()
            assert repr(a) == "<Partition a, lost>"
            # Another incarnation, whose messages are not those that the old one has read.
            driver.deliver(message(1, "a"), message(2, "a"))
            await asyncio.sleep(2)
            go_on.set()
            with pytest.raises(PartitionsLost, match="a"):
                await reading
            await asyncio.sleep(2)
            assert driver.acked == []

    run(main())


def test_one_that_comes_back_is_another() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1, "a"), positioned=True)
        async with Source(driver) as source:
            partitions = source.partitions()
            a = await anext(partitions)
            assert driver.ownership is not None
            driver.ownership.fence(["a"])
            assert not a.lost.done()  # nothing was in flight
            assert await a.messages().run() == IOSuccess(0)
            driver.deliver(message(1, "a"))
            again = await anext(partitions)
            assert (again.name, again.is_open) == ("a", True)
            assert again is not a
            # One that is lost before its turn came is not emitted.
            driver.deliver(message(1, "c"))
            await asyncio.sleep(1)
            driver.ownership.fence(["c"])
            driver.deliver(message(1, "d"))
            assert (await anext(partitions)).name == "d"

    run(main())


def test_a_second_reading_cannot_acknowledge_what_the_first_has_lost() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1, "a"), message(2, "a"), positioned=True)
        async with Source(driver) as source:
            (a,) = await next_of(source, 1)
            assert isinstance(await a.messages().first(), IOSuccess)
            with pytest.raises(
                RuntimeError, match=r"^1 messages of an earlier reading of a were not"
            ):
                await a.messages().run()

    run(main())


def test_two_readings_at_once_are_refused() -> None:
    async def main() -> None:
        async with Source(ScriptedDriver(message(1, "a"), positioned=True)) as source:
            partitions = source.partitions()
            a = await anext(partitions)
            first = asyncio.ensure_future(a.messages().run())
            await asyncio.sleep(2)
            second = asyncio.ensure_future(a.messages().run())
            with pytest.raises(RuntimeError, match="another task is reading a"):
                await second
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            waiting = asyncio.ensure_future(anext(partitions))
            await asyncio.sleep(1)
            with pytest.raises(RuntimeError, match="another task is waiting for partitions"):
                await anext(partitions)
            source.drain()
            with pytest.raises(StopAsyncIteration):
                await waiting

    run(main())


def test_a_source_is_read_in_one_way() -> None:
    async def main() -> None:
        source = Source(broker_of(2).driver(GROUP), decode=int)
        partitions = source.partitions()
        with pytest.raises(RuntimeError, match="inside of `async with source:`"):
            await anext(partitions)
        with pytest.raises(RuntimeError, match="from the start, and by one reader"):
            source.partitions()
        async with source:
            for reads in (anext(source), source.messages().run()):
                with pytest.raises(RuntimeError, match="is read by its partitions: read those"):
                    await reads
            with pytest.raises(RuntimeError, match="read by its partitions"):
                source.reached(0)
        async with Source(broker_of(2).driver(GROUP), decode=int) as source:
            await anext(source)
            with pytest.raises(RuntimeError, match="from the start, and by one reader"):
                source.partitions()
        with pytest.raises(InvalidArgument, match="shared by all its readers"):
            Source(MemoryBroker(shared=True).driver(GROUP)).partitions()

    run(main())


def test_a_failure_of_the_source_reaches_every_reader_and_is_raised_once() -> None:
    async def main() -> None:
        broker = broker_of(4)
        with pytest.raises(ConnectionLost, match="stopped") as raised:
            async with Source(broker.driver(GROUP), reconnect=RetryPolicy(2, wait=0.1)) as source:
                partitions = source.partitions()
                first = await anext(partitions)
                broker.stop()
                with pytest.raises(ConnectionLost):
                    await first.messages().run()
                with pytest.raises(ConnectionLost):
                    await anext(partitions)
                raise LookupError
        del raised

    with pytest.raises(LookupError):
        run(main())


def test_a_message_whose_decoding_raises_is_not_passed_over() -> None:
    async def main() -> None:
        fails = True

        def decode(value: bytes) -> Result[int, str]:
            if fails and value == b"2":
                raise ZeroDivisionError
            return Success(int(value))

        driver = ScriptedDriver(message(1, "a"), message(2, "a"), positioned=True)
        async with Source(driver, decode=decode) as source:
            (a,) = await next_of(source, 1)
            with pytest.raises(ZeroDivisionError):
                await a.messages().run()
            fails = False
            seen: list[int] = []
            asyncio.get_running_loop().call_later(3, source.drain)
            await numbers(a.messages(), seen).run()
            assert seen == [2]

    run(main())


def test_a_driver_that_asks_for_windows_gets_those_of_all() -> None:
    async def main() -> None:
        driver = ScriptedDriver(message(1, "a"), message(1, "b"), positioned=True)
        async with Source(driver) as source:
            windows: list[int] = []
            reading = [
                asyncio.ensure_future(
                    each.messages()
                    .chunks_or_timeout(9, 99.0)
                    .tap(lambda w: windows.append(len(w)))
                    .run()
                )
                for each in await next_of(source, 2)
            ]
            await asyncio.sleep(2)
            assert driver.ownership is not None
            driver.ownership.out_of_credit()
            await asyncio.sleep(2)
            assert windows == [1, 1]
            source.drain()
            await asyncio.wait(reading)

    run(main())


# Credit.


def held(source: Source[Any, Any]) -> int:
    return source.statistics().in_flight + source.statistics().buffered


def test_a_driver_that_does_not_leave_out_what_is_paused_is_bounded_in_all() -> None:
    async def main() -> None:
        driver = ScriptedDriver(
            message(1, "b"), *[message(number, "a") for number in range(100)], positioned=True
        )
        async with Source(driver, max_in_flight=20) as source:
            await next_of(source, 2)
            await asyncio.sleep(30)
            assert held(source) == 20

    run(main())


def test_bytes_are_shared_too_and_a_large_message_is_emitted() -> None:
    async def main() -> None:
        broker = MemoryBroker(partitions=2)
        broker.publish(*[b"x" * 1000] * 100)
        async with Source(broker.driver(GROUP), max_bytes=20_000) as source:
            await next_of(source, 2)
            await asyncio.sleep(5)
            assert held(source) <= 20
        broker = MemoryBroker(partitions=2)
        broker.publish(*[b"x" * 50_000] * 6)
        async with Source(broker.driver(GROUP), max_bytes=20_000) as source:
            first, second = await next_of(source, 2)
            assert held(source) <= 3
            asyncio.get_running_loop().call_later(20, source.drain)
            await asyncio.wait(
                [asyncio.ensure_future(each.messages().run()) for each in (first, second)]
            )
        assert broker.backlog(GROUP) == 0

    run(main())


def test_more_partitions_than_credit_are_all_read() -> None:
    async def main() -> None:
        broker = broker_of(40, partitions=8)
        async with Source(broker.driver(GROUP), max_in_flight=3) as source:
            asyncio.get_running_loop().call_later(60, source.drain)
            reading = [
                asyncio.ensure_future(each.messages().run()) async for each in source.partitions()
            ]
            assert len(reading) == 8
            await asyncio.wait(reading)
        assert broker.backlog(GROUP) == 0

    run(main())
