"""`Source.messages()`: a pipeline acknowledges what its terminal has handled, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from returns.io import IO, IOFailure
from returns.result import Failure, Result, Success

from returns_pipeline import Counts, ResultStream
from returns_pipeline.connectors import DeadLetter, Message, Source
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing import FaultInjector, MemoryBroker, inject_everywhere, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Messages = ResultStream[Message[int], DeadLetter[Any]]
GROUP = "law"


def broker_of(count: int, *, partitions: int = 1, shared: bool = False) -> MemoryBroker:
    broker = MemoryBroker(partitions=partitions, shared=shared, redeliver_after=9.0)
    broker.publish(*[str(number).encode() for number in range(count)])
    return broker


def source_of(broker: MemoryBroker, **how: Any) -> Source[int, Any]:
    return Source(broker.driver(GROUP), decode=int, **how)


async def persist(batch: list[Message[int]], stored: list[int]) -> Result[int, str]:
    await asyncio.sleep(1)
    stored.extend(message.value for message in batch)
    return Success(len(batch))


def windows(messages: Messages, stored: list[int]) -> ResultStream[Any, Any]:
    return messages.chunks_or_timeout(4, 2.0).bind_async(lambda batch: persist(batch, stored))


def concurrent_windows(messages: Messages, stored: list[int]) -> ResultStream[Any, Any]:
    return messages.keyed_chunks(3, 3.0, key=lambda message: message.value % 3).bind_async(
        lambda keyed: persist(keyed[1], stored), concurrency=3, ordered=False
    )


def expanded(messages: Messages, stored: list[int]) -> ResultStream[Any, Any]:
    async def both(message: Message[int]) -> AsyncIterator[Result[Message[int], str]]:
        await asyncio.sleep(message.value % 3)
        yield Success(message)
        yield Failure("no more")

    return (
        messages.flat_map(both, concurrency=3)
        .prefetch(2)
        .sessions(2.0, n=3)
        .bind_async(lambda batch: persist(batch, stored))
    )


def routed(messages: Messages, stored: list[int]) -> ResultStream[Any, Any]:
    async def write(_: int, items: AsyncIterator[Message[int]]) -> Result[int, str]:
        return await persist([message async for message in items], stored)

    return messages.route(lambda message: message.value % 4, write, idle_after=1.0, max_keys=3)


PIPELINES = [windows, concurrent_windows, expanded, routed]


async def work(
    broker: MemoryBroker, pipeline: Any, stored: list[int], *, idle: float = 30.0, **how: Any
) -> None:
    """Read until nothing has come for a while."""
    async with source_of(broker, **how) as source:
        asyncio.get_running_loop().call_later(idle, source.drain)
        _ = await pipeline(source.messages(), stored).run_all()
        await source.settled()


def acknowledged(broker: MemoryBroker, count: int) -> int:
    """Return how many of the first messages of one partition are acknowledged."""
    return count - broker.backlog(GROUP)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("shared", [False, True])
def test_all_messages_are_handled_and_acknowledged(pipeline: Any, shared: bool) -> None:
    async def main() -> None:
        broker, stored = broker_of(20, shared=shared), list[int]()
        await work(broker, pipeline, stored)
        assert sorted(stored) == list(range(20))
        assert broker.backlog(GROUP) == 0

    run(main())


@pytest.mark.parametrize("pipeline", PIPELINES)
@settings(max_examples=30)
@given(
    cuts=st.lists(st.floats(0.1, 12.0), max_size=4), shared=st.booleans(), is_killed=st.booleans()
)
def test_a_worker_that_dies_at_any_time_loses_nothing(
    pipeline: Any, cuts: list[float], shared: bool, is_killed: bool
) -> None:
    async def main() -> None:
        broker, stored = broker_of(15, shared=shared), list[int]()
        for seconds in cuts:
            working = asyncio.create_task(work(broker, pipeline, stored, drain_timeout=0))
            await asyncio.sleep(seconds)
            if is_killed:
                broker.stop()  # so that nothing more is acknowledged, or given back
            working.cancel()
            _ = await asyncio.wait([working])
            broker.start()
            if not shared:  # acknowledged in order
                assert set(range(acknowledged(broker, 15))) <= set(stored)
        await asyncio.sleep(9)
        await work(broker, pipeline, stored)
        assert set(stored) == set(range(15))
        assert broker.backlog(GROUP) == 0

    run(main())


@pytest.mark.parametrize("error", [None, OSError("down")])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_cancellation_or_an_error_at_any_await_loses_nothing(
    pipeline: Any, error: Exception | None
) -> None:
    async def scenario(injector: FaultInjector) -> None:
        broker, stored = broker_of(8), list[int]()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await injector.run(work(broker, pipeline, stored, idle=12.0))
        assert set(range(acknowledged(broker, 8))) <= set(stored)
        await work(broker, pipeline, stored)
        assert set(stored) == set(range(8))
        assert broker.backlog(GROUP) == 0

    assert inject_everywhere(scenario, error) > 10


def test_a_window_larger_than_the_credit_is_emitted() -> None:
    async def main() -> None:
        broker, sizes = broker_of(25), list[int]()
        async with source_of(broker, max_in_flight=10) as source:
            windows = (
                source.messages()
                .chunks_or_timeout(99, math.inf)
                .tap(lambda batch: sizes.append(len(batch)))
            )
            asyncio.get_running_loop().call_later(60, source.drain)
            _ = await windows.run()
        assert sum(sizes) == 25
        assert max(sizes) == 10
        assert broker.backlog(GROUP) == 0

    run(main())


def test_a_stream_that_is_drained_acknowledges_the_last_message_that_it_handled() -> None:
    async def main() -> None:
        broker, stop, seen = broker_of(9), asyncio.Event(), list[int]()

        def stop_at_four(message: Message[int]) -> None:
            seen.append(message.value)
            if message.value == 3:
                stop.set()

        async with source_of(broker) as source:
            _ = await source.messages().tap(stop_at_four).drain_on(stop).run()
        assert seen == [0, 1, 2, 3]
        assert broker.backlog(GROUP) == 5

    run(main())


def test_what_is_dropped_or_failed_leaves_no_gap() -> None:
    async def main() -> None:
        broker = broker_of(5)
        broker.publish(b"oops", b"7")
        async with source_of(broker) as source:
            kept = source.messages().filter(lambda message: message.value == 2)
            asyncio.get_running_loop().call_later(60, source.drain)
            assert await kept.run_all() == IO(Counts(successes=1, failures=1))
        assert broker.backlog(GROUP) == 0

    run(main())


def test_after_the_failure_that_ends_a_run_nothing_is_acknowledged() -> None:
    async def main() -> None:
        broker = broker_of(6)
        async with source_of(broker) as source:
            failing = source.messages().bind(
                lambda message: Failure("down") if message.value == 3 else Success(message)
            )
            assert await failing.run() == IOFailure("down")
        assert broker.backlog(GROUP) == 3

    run(main())


def test_the_journal_is_flushed_between_the_effect_and_the_acknowledgement() -> None:
    async def main() -> None:
        broker, stored, flushed = broker_of(8), list[int](), list[tuple[int, int]]()

        async def flush() -> None:
            flushed.append((len(stored), acknowledged(broker, 8)))
            await asyncio.sleep(0.5)

        await work(broker, windows, stored, before_ack=flush)
        assert flushed == [(4, 0), (8, 4)]

    run(main())


def test_members_that_join_and_leave_handle_each_message_once() -> None:
    async def main() -> None:
        broker, stored = broker_of(60, partitions=4), list[int]()
        first = asyncio.create_task(work(broker, windows, stored, idle=90.0, max_in_flight=8))
        await asyncio.sleep(3.5)
        await work(broker, windows, stored, idle=5.2, max_in_flight=8)
        await first
        assert sorted(stored) == list(range(60))
        assert broker.backlog(GROUP) == 0

    run(main())


def test_a_loop_of_the_users_acknowledges_nothing() -> None:
    async def main() -> None:
        broker = broker_of(3)
        async with source_of(broker) as source:
            asyncio.get_running_loop().call_later(5, source.drain)
            values = [received.unwrap().value async for received in source.messages()]
        assert values == [0, 1, 2]
        assert broker.backlog(GROUP) == 3

    run(main())


def test_operators_that_cannot_tell_are_refused_at_the_call() -> None:
    with pytest.raises(InvalidArgument, match=r"^a slice cannot follow a source that is"):
        _ = source_of(broker_of(0)).messages()[:3]


@pytest.mark.parametrize("n", [1, 3, 4])
def test_a_window_within_what_was_fetched_is_acknowledged_without_the_rest(n: int) -> None:
    async def main() -> None:
        broker = broker_of(11)

        async def refuse_7(batch: list[int]) -> Result[int, str]:
            return Failure("down") if 7 in batch else Success(len(batch))

        async with source_of(broker) as source:
            values = source.messages().map(lambda message: message.value)
            assert await values.chunks_or_timeout(n, math.inf).bind_async(refuse_7).run() == (
                IOFailure("down")
            )
        assert broker.backlog(GROUP) == 11 - 7 // n * n

    run(main())


def test_what_decode_raises_comes_after_the_messages_before_it() -> None:
    class Unreadable(Exception):
        pass

    def decode(value: bytes) -> Result[int, str]:
        if value == b"4":
            raise Unreadable
        return Success(int(value))

    async def main() -> None:
        broker, seen = broker_of(9), list[list[int]]()
        async with Source(broker.driver(GROUP), decode=decode) as source:
            values = source.messages().map(lambda message: message.value)
            with pytest.raises(Unreadable):
                _ = await values.chunks_or_timeout(9, math.inf).tap(seen.append).run()
        assert seen == [[0, 1, 2, 3]]
        assert broker.backlog(GROUP) == 5

    run(main())


def refused_later(message: Message[int]) -> Result[Message[int], str]:
    return Failure("down") if message.value == 3 else Success(message)


@pytest.mark.parametrize("shared", [False, True])
def test_a_second_reading_cannot_acknowledge_what_the_first_has_lost(shared: bool) -> None:
    async def main() -> None:
        broker = broker_of(6, shared=shared)
        async with source_of(broker) as source:
            messages = source.messages()
            assert await messages.bind(refused_later).run() == IOFailure("down")
            # A mark of the second reading would stand for message 3, too, and for those that were
            # read with it.
            asyncio.get_running_loop().call_later(60, source.drain)
            for again in (messages, source.messages()):
                with pytest.raises(RuntimeError, match=r"^3 messages of an earlier"):
                    _ = await again.run()
        assert broker.backlog(GROUP) == 3

    run(main())


def test_a_window_that_was_cancelled_is_not_acknowledged_by_a_second_reading() -> None:
    async def main() -> None:
        broker = broker_of(4)
        async with source_of(broker) as source:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    _ = await source.messages().chunks_or_timeout(9, math.inf).run()
            broker.publish(b"4")
            asyncio.get_running_loop().call_later(60, source.drain)
            with pytest.raises(RuntimeError, match=r"^4 messages"):
                _ = await source.messages().run()
        assert broker.backlog(GROUP) == 5

    run(main())


def test_a_second_reading_continues_where_all_was_handled() -> None:
    async def main() -> None:
        broker, stored = broker_of(3), list[int]()
        async with source_of(broker) as source:
            messages = source.messages().tap(lambda message: stored.append(message.value))
            for seconds in (2.0, 4.0):
                stop = asyncio.Event()
                asyncio.get_running_loop().call_later(seconds, stop.set)
                _ = await messages.drain_on(stop).run()
                broker.publish(b"3", b"4")
            async with asyncio.timeout(60):
                await source.settled()
        assert stored == [0, 1, 2, 3, 4]
        assert broker.backlog(GROUP) == 2

    run(main())


def test_two_readings_at_once_are_refused() -> None:
    async def main() -> None:
        broker = broker_of(4)
        async with source_of(broker) as source:
            messages = source.messages()
            with pytest.raises(RuntimeError, match=r"^another "):
                async with asyncio.timeout(60):
                    _ = await messages.merge(messages).run()

    run(main())


def test_windows_of_a_partition_that_moves_are_emitted_behind_a_slow_step() -> None:
    async def main() -> None:
        broker, stored = broker_of(4, partitions=2), list[int]()

        async def step(message: Message[int]) -> Result[Message[int], str]:
            await asyncio.sleep(5 if message.value == 0 else 0.1)
            return Success(message)

        async with source_of(broker, settle_timeout=60.0) as source:
            windows = (
                source.messages()
                .bind_async(step, concurrency=3, ordered=False)
                .chunks_or_timeout(99, math.inf)
                .tap(lambda batch: stored.extend(message.value for message in batch))
            )
            reading = asyncio.ensure_future(windows.run())
            await asyncio.sleep(2)
            async with source_of(broker):  # takes one partition
                await asyncio.sleep(1)
                # What comes after the request to emit windows passes the slow message.
                broker.publish(*[str(number).encode() for number in range(4, 20)])
                await asyncio.sleep(10)
                assert {0, 1, 2, 3} <= set(stored)
                assert source.statistics().fenced == 0
                source.drain()
                _ = await reading

    run(main())


def test_a_client_that_swallows_a_cancellation_does_not_delay_the_end() -> None:
    async def main() -> None:
        driver = broker_of(1, shared=True).driver(GROUP)

        async def extend(_: object) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(20)

        vars(driver)["extend"] = extend
        source = Source(driver, drain_timeout=math.inf)
        async with source:
            _ = await anext(source)
            await asyncio.sleep(4)  # it is being kept alive
        assert asyncio.get_running_loop().time() < 6

    run(main())
