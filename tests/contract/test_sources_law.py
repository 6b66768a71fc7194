"""What every source has to stand, and random programs of senders and readers of a channel."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Success

from returns_pipeline import ResultStream, RetryPolicy, chunks_or_timeout, sources, to_result
from returns_pipeline.errors import ChannelClosed
from returns_pipeline.sources import (
    Channel,
    from_iterable,
    from_queue,
    from_thread,
    restarting,
    ticks,
)
from returns_pipeline.testing import FaultInjector, Wait, run, timed

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

COUNT = 9


@dataclass
class Kind:
    """A source of the numbers from 0 on, as many as `COUNT`, and where those are that it kept.

    Attributes:
        make: Makes it, in a running loop.
        left: Returns what it had not emitted when it was closed, if it keeps that.
    """

    make: Callable[[], AsyncIterable[int]]
    left: Callable[[Any], list[int]] | None = None


class Queued:
    """A queue that is filled bit by bit."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for number in range(COUNT):
            _ = loop.call_later(0.3 * number, self.queue.put_nowait, number)
        _ = loop.call_later(0.3 * COUNT, self.queue.put_nowait, -1)
        self.stream = from_queue(self.queue, sentinel=-1)

    def __aiter__(self) -> Any:
        return aiter(self.stream)

    def left(self) -> list[int]:
        numbers = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        return [number for number in numbers if number >= 0]


def channel() -> Channel[int]:
    made: Channel[int] = Channel(2)
    loop = asyncio.get_running_loop()

    def send(number: int) -> None:
        with contextlib.suppress(ChannelClosed):
            made.send_soon(number).add_done_callback(lambda sent: sent.exception())

    for number in range(COUNT):
        _ = loop.call_later(0.3 * number, send, number)
    _ = loop.call_later(0.3 * COUNT, made.close)
    return made


def restarted() -> AsyncIterable[int]:
    opened = [
        timed(0, Wait(0.2), 1, 2, OSError()),
        timed(OSError()),
        timed(3, 4, OSError()),
        timed(*range(5, COUNT)),
    ]
    return restarting(lambda: opened.pop(0), RetryPolicy(attempts=3, wait=0.5))


class Ticking:
    """The first ticks, from 0."""

    def __init__(self) -> None:
        self.ticks: Any = ticks(0.4)
        self.last = -1

    def __aiter__(self) -> Ticking:
        self.ticks = aiter(self.ticks)
        return self

    async def __anext__(self) -> int:
        if self.last == COUNT - 1:
            raise StopAsyncIteration
        self.last = await anext(self.ticks) - 1
        return self.last

    async def aclose(self) -> None:
        await self.ticks.aclose()


KINDS = {
    "from_iterable": Kind(lambda: from_iterable(range(COUNT))),
    "from_queue": Kind(Queued, lambda made: made.left()),
    "Channel": Kind(channel, lambda made: made.unread),
    "from_thread": Kind(lambda: from_thread(range(COUNT), buffer=2)),
    "restarting": Kind(restarted),
    "ticks": Kind(Ticking),
}

each_kind = pytest.mark.parametrize("name", KINDS)


def test_none_is_missing() -> None:
    makers = set(sources.__all__) - {"AsyncQueue", "ChannelStatistics", "SyncIterator"}
    assert makers == KINDS.keys() | {"iterate"}


def timers() -> list[asyncio.TimerHandle]:
    """Return those that are armed by a source, not by this test."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    ours = ("put_nowait", "send", "close")
    return [
        each for each in scheduled if not each.cancelled() and not any(o in str(each) for o in ours)
    ]


@each_kind
def test_a_read_cancelled_at_any_time_loses_nothing(name: str) -> None:
    async def main() -> None:
        reading = aiter(KINDS[name].make())
        got: list[int] = []
        cuts = 0
        while True:
            try:
                async with asyncio.timeout(0.01 + cuts % 5 * 0.04):
                    got.append(await anext(reading))
            except TimeoutError:
                cuts += 1
            except StopAsyncIteration:
                break
        assert got == [*range(COUNT)]

    run(main())


@each_kind
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_wherever_the_reader_is_cancelled_nothing_is_left_running_and_nothing_lost(
    name: str, windowed: bool, times: int
) -> None:
    async def main() -> None:
        for injector in FaultInjector.every(times=times):
            kind = KINDS[name]
            made = kind.make()
            got: list[int] = []

            async def consume(made: AsyncIterable[int] = made, got: list[int] = got) -> None:
                if windowed:
                    async with chunks_or_timeout(made, 2, 0.5).stream() as chunks:
                        async for chunk in chunks:
                            got.extend(chunk)
                else:
                    async with ResultStream.of(made).successes().stream() as items:
                        async for item in items:
                            got.append(item)
                            await asyncio.sleep(0.1)

            with contextlib.suppress(asyncio.CancelledError):
                await injector.run(consume())
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert timers() == []
            await asyncio.sleep(10)  # what was to be put in is in, or was refused
            if not windowed and kind.left is not None and injector.fired:
                left = kind.left(made)
                assert got + left == [*range(len(got) + len(left))]
            assert got == [*range(len(got))]
            if not injector.fired:
                assert len(got) == COUNT
                break

    run(main())


@each_kind
@pytest.mark.parametrize("reads", [1, 4])
def test_a_dropped_source_leaves_nothing_behind(name: str, reads: int) -> None:
    async def main() -> None:
        reading: Any = aiter(KINDS[name].make())
        for _ in range(reads):
            await anext(reading)
        del reading
        gc.collect()
        await asyncio.sleep(0)
        for _ in range(20):  # a thread ends in real time
            if len(asyncio.all_tasks()) == 1:
                break
            await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert timers() == []

    run(main())


@each_kind
def test_closing_again_and_reading_after_that_does_no_harm(name: str) -> None:
    async def main() -> None:
        reading: Any = aiter(KINDS[name].make())
        assert await anext(reading) == 0
        for _ in range(2):
            await reading.aclose()
        with pytest.raises((StopAsyncIteration, RuntimeError)):
            await anext(reading)

    run(main())


@each_kind
def test_draining_loses_nothing_that_is_there(name: str) -> None:
    async def main() -> None:
        for place in range(12):
            kind = KINDS[name]
            made = kind.make()
            stop = asyncio.Event()
            asyncio.get_running_loop().call_later(0.25 * place, stop.set)
            drained = ResultStream.of(made).drain_on(stop).chunks_or_timeout(4, 1.7)
            given = (await to_result(drained.collect())).unwrap()
            got = [item for chunk in given for item in chunk]
            assert got == [*range(len(got))]
            if kind.left is not None:
                assert kind.left(made) == []
            await asyncio.sleep(10)

    run(main())


@each_kind
def test_what_is_there_is_emitted_when_it_is_to_drain_from_the_start(name: str) -> None:
    async def main() -> None:
        stop = asyncio.Event()
        stop.set()
        kind = KINDS[name]
        made = kind.make()
        await asyncio.sleep(1.0)  # some items are in the queue, or the channel, by now
        drained = await to_result(ResultStream.of(made).drain_on(stop).collect())
        there = {"from_queue": [0, 1, 2, 3], "Channel": [0, 1]}.get(name, [])
        assert drained == Success(there)
        await asyncio.sleep(10)

    run(main())


@given(seed=st.integers(0, 10**9), capacity=st.integers(1, 3), senders=st.integers(1, 5))
def test_a_channel_emits_what_was_accepted_once_and_in_its_order(
    seed: int, capacity: int, senders: int
) -> None:
    """Senders of both kinds, cancelled at random; a reader that is cut off, leaves, or is late."""
    chance = random.Random(seed)

    async def main() -> None:
        channel: Channel[tuple[int, int]] = Channel(capacity)
        accepted: set[tuple[int, int]] = set()
        refused: set[tuple[int, int]] = set()

        def note(item: tuple[int, int], sent: asyncio.Future[None]) -> None:
            failed = sent.cancelled() or sent.exception() is not None
            (refused if failed else accepted).add(item)

        async def send(sender: int) -> None:
            for number in range(6):
                item = (sender, number)
                await asyncio.sleep(chance.choice([0, 0, 0.1, 0.3]))
                try:
                    if chance.random() < 0.3:
                        sent = channel.send_soon(item)
                        sent.add_done_callback(partial(note, item))
                        if chance.random() < 0.3:
                            sent.cancel()
                        continue
                    async with asyncio.timeout(chance.choice([0.05, 0.2, 5])):
                        await channel.send(item)
                except (ChannelClosed, TimeoutError):
                    refused.add(item)
                else:
                    accepted.add(item)

        got: list[tuple[int, int]] = []

        async def read() -> None:
            reading = aiter(channel)
            leaves_after = chance.choice([3, 100])
            while len(got) < leaves_after:
                try:
                    async with asyncio.timeout(chance.choice([0.05, 0.4])):
                        got.append(await anext(reading))
                except TimeoutError:
                    await asyncio.sleep(chance.choice([0, 0.2]))
                except StopAsyncIteration:
                    return
            await reading.aclose()

        reader = asyncio.create_task(read())
        sending = [asyncio.create_task(send(sender)) for sender in range(senders)]
        if chance.random() < 0.3:
            asyncio.get_running_loop().call_later(chance.random(), channel.close)
        await asyncio.gather(*sending)
        await asyncio.sleep(1)
        channel.close()
        await reader
        await asyncio.sleep(1)
        emitted = got + channel.unread
        assert len(emitted) == len(set(emitted))
        assert set(emitted) == accepted
        assert not accepted & refused
        assert accepted | refused == {(s, n) for s in range(senders) for n in range(6)}
        assert len(channel.unread) <= capacity

    run(main())


def test_a_stream_of_each_kind_can_be_a_source_of_results() -> None:
    async def main() -> None:
        for kind in KINDS.values():
            counted = ResultStream.of(kind.make()).map(lambda n: n + 1).run()
            assert await to_result(counted) == Success(COUNT)

    run(main())
