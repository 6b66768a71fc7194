"""`Channel`: from callbacks, tasks and threads to one stream."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Success

from returns_pipeline import ResultStream, pipe, to_result
from returns_pipeline.errors import ChannelClosed, InvalidArgument
from returns_pipeline.sources import Channel
from returns_pipeline.testing import FaultInjector, run, timeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def everything(channel: Channel[Any]) -> list[Any]:
    return [item async for item in channel]


def test_senders_wait_while_it_is_full_and_are_served_in_their_order() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(2)
        sent: list[str] = []

        async def send(item: str) -> None:
            await channel.send(item)
            sent.append(item)

        senders = [asyncio.create_task(send(item)) for item in "abcde"]
        await asyncio.sleep(1)
        assert sent == ["a", "b"]
        assert channel.unread == ["a", "b"]
        late = channel.send_soon("f")
        assert not late.done()
        items = aiter(channel)
        assert await anext(items) == "a"
        await asyncio.sleep(1)
        assert sent == ["a", "b", "c"]
        asyncio.get_running_loop().call_later(1, channel.close)
        assert [item async for item in items] == [*"bcdef"]
        assert late.done()
        await asyncio.gather(*senders)

    run(main())


def test_a_closed_channel_ends_when_everything_accepted_is_emitted() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(5)
        async with channel:
            for number in range(3):
                _ = channel.send_soon(number)
        assert channel.closed
        with pytest.raises(ChannelClosed) as refused:
            await channel.send(9)
        assert refused.value.item == 9
        with pytest.raises(ChannelClosed):
            _ = channel.send_soon(9)
        assert await everything(channel) == [0, 1, 2]
        assert channel.unread == []

    run(main())


def test_closing_while_senders_wait_tells_them_that_their_items_were_not_accepted() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(1)
        _ = channel.send_soon(0)
        soon = channel.send_soon(1)
        sending = asyncio.create_task(channel.send(2))
        thread = asyncio.create_task(asyncio.to_thread(channel.send_from_thread, 3))
        await asyncio.sleep(0.05)
        channel.close()
        channel.close(ValueError("the first call counts"))
        for waiting, item in ((soon, 1), (sending, 2), (thread, 3)):
            with pytest.raises(ChannelClosed) as refused:
                await waiting
            assert refused.value == ChannelClosed(item)
        assert await everything(channel) == [0]

    asyncio.run(main())


def test_an_error_ends_it_after_the_items_for_each_reader() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(3)
        with contextlib.suppress(ZeroDivisionError):
            async with channel:
                await channel.send(1)
                raise ZeroDivisionError
        items = aiter(channel)
        assert await anext(items) == 1
        with pytest.raises(ZeroDivisionError):
            await anext(items)
        with pytest.raises(ZeroDivisionError):
            await everything(channel)

    run(main())


def test_a_sender_that_is_cancelled_is_not_a_clean_end() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(1)

        async def produce() -> None:
            async with channel:
                for number in range(9):
                    await channel.send(number)

        producing = asyncio.create_task(produce())
        reading = aiter(channel)
        assert await anext(reading) == 0
        producing.cancel()
        with pytest.raises(RuntimeError, match="stopped before the end of its items"):
            await anext(reading)
        await asyncio.wait({producing})

    run(main())


def test_the_reader_that_leaves_closes_it_and_what_it_did_not_take_is_there() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(2)
        senders = [asyncio.create_task(channel.send(number)) for number in range(4)]
        async with (ResultStream.of(channel) | pipe.successes()).stream() as items:
            assert await anext(items) == 0
        assert channel.closed
        outcomes = await asyncio.gather(*senders, return_exceptions=True)
        refused = [each.item for each in outcomes if isinstance(each, ChannelClosed)]
        assert [0, *channel.unread, *refused] == [0, 1, 2, 3]
        assert channel.unread == [1]
        assert await everything(channel) == [1]
        assert not channel.unread

    run(main())


@pytest.mark.parametrize("collect", [False, True])
def test_a_reader_that_is_dropped_closes_it(collect: bool) -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(1)
        items: AsyncIterator[int] | None = aiter(channel)
        _ = channel.send_soon(0)
        assert items is not None
        assert await anext(items) == 0
        _ = channel.send_soon(1)
        waiting = asyncio.create_task(channel.send(2))
        await asyncio.sleep(1)
        if collect:
            cycle: list[Any] = [items]
            cycle.append(cycle)
            del cycle
        items = None
        gc.collect()
        with pytest.raises(ChannelClosed):
            await waiting
        assert channel.unread == [1]

    run(main())


def test_a_channel_has_one_reader_at_a_time() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(3)
        for number in range(3):
            _ = channel.send_soon(number)
        never_read = aiter(channel)
        first = aiter(channel)
        assert await anext(first) == 0
        with pytest.raises(RuntimeError, match="has a reader"):
            aiter(channel)
        await first.aclose()
        assert await everything(channel) == [1, 2]
        await never_read.aclose()

    run(main())


@pytest.mark.parametrize("times", [1, 2])
def test_a_sender_cancelled_anywhere_has_sent_all_or_nothing(times: int) -> None:
    """A call that returned was accepted; one that raised was not."""

    async def main() -> None:
        for injector in FaultInjector.every(times=times):
            channel: Channel[int] = Channel(1)
            sent: list[int] = []

            async def produce(channel: Channel[int] = channel, sent: list[int] = sent) -> None:
                for number in range(5):
                    await channel.send(number)
                    sent.append(number)

            got: list[int] = []

            async def consume(channel: Channel[int] = channel, got: list[int] = got) -> None:
                async for item in channel:
                    got.append(item)
                    await asyncio.sleep(0.5)

            reader = asyncio.create_task(consume())
            with contextlib.suppress(asyncio.CancelledError):
                await injector.run(produce())
            channel.close()
            await reader
            assert got == sent
            if not injector.fired:
                break

    run(main())


def test_a_sender_cancelled_when_its_turn_has_come_passes_it_on() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(1)
        _ = channel.send_soon("a")
        first = asyncio.create_task(channel.send("b"))
        second = asyncio.create_task(channel.send("c"))
        await asyncio.sleep(0)
        soon = channel.send_soon("d")
        items = aiter(channel)
        assert await anext(items) == "a"  # the first one's turn has come, and it has not run
        first.cancel()
        assert await anext(items) == "c"
        with pytest.raises(asyncio.CancelledError):
            await first
        await second
        assert await anext(items) == "d"
        assert soon.done()

    run(main())


def test_closing_between_a_turn_and_its_sender_refuses_the_item() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(1)
        _ = channel.send_soon("a")
        sending = asyncio.create_task(channel.send("b"))
        items = aiter(channel)
        await asyncio.sleep(0)
        assert await anext(items) == "a"
        channel.close()
        with pytest.raises(ChannelClosed):
            await sending
        assert [item async for item in items] == []

    run(main())


def test_an_item_in_line_can_be_taken_back_and_is_forgotten() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(1)
        _ = channel.send_soon("a")
        back = channel.send_soon("b")
        last = channel.send_soon("c")
        back.cancel()
        await asyncio.sleep(0)
        assert len(channel._pump.line) == 1
        channel_items = aiter(channel)
        assert [await anext(channel_items), await anext(channel_items)] == ["a", "c"]
        assert last.done()

    run(main())


def test_an_unwatched_item_that_is_refused_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(1)
        _ = channel.send_soon("a")
        _ = channel.send_soon("b")
        channel.close()
        await asyncio.sleep(0)
        gc.collect()

    with caplog.at_level(logging.ERROR, "asyncio"):
        run(main())
    assert "ChannelClosed" in caplog.text


def test_a_cancelled_read_loses_nothing_and_leaves_it_open() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(1)

        async def produce() -> None:
            async with channel:
                for number in range(10):
                    await asyncio.sleep(0.3)
                    await channel.send(number)

        producing = asyncio.create_task(produce())
        items, got, cuts = aiter(channel), [], 0
        while True:
            try:
                async with asyncio.timeout(0.07):
                    got.append(await anext(items))
            except TimeoutError:
                cuts += 1
            except StopAsyncIteration:
                break
        assert got == [*range(10)]
        assert cuts > 20
        await producing

    run(main())


def test_draining_closes_it_and_emits_what_was_accepted() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(2)
        stop = asyncio.Event()
        drained = ResultStream.of(channel).drain_on(stop).chunks_or_timeout(10, 100.0)

        def burst() -> None:
            for number in range(4):
                channel.send_soon(number).add_done_callback(lambda each: each.exception())
            stop.set()

        asyncio.get_running_loop().call_later(1.0, burst)
        (given,) = (await to_result(drained.collect())).unwrap()
        assert given == [0, 1] or given == [0, 1, 2]
        assert channel.closed
        assert asyncio.get_running_loop().time() == 1.0

    run(main())


def test_a_channel_pauses_a_transport() -> None:
    """The example of `send_soon`: what calls back is paused until there is room."""

    async def main() -> None:
        channel: Channel[int] = Channel(1)
        paused = []

        class Transport:
            def pause(self) -> None:
                paused.append(True)

            def resume(self) -> None:
                paused.append(False)

        transport = Transport()

        def received(number: int) -> None:
            sent = channel.send_soon(number)
            if not sent.done():
                transport.pause()
                sent.add_done_callback(lambda _: transport.resume())

        loop = asyncio.get_running_loop()
        loop.call_soon(received, 1)
        loop.call_soon(received, 2)
        await asyncio.sleep(1)
        assert paused == [True]
        items = aiter(channel)
        assert [await anext(items), await anext(items)] == [1, 2]
        await asyncio.sleep(0)
        assert paused == [True, False]

    run(main())


# From threads, in real time.


def test_threads_send_with_backpressure_and_lose_nothing() -> None:
    async def main() -> None:
        channel: Channel[tuple[int, int]] = Channel(3)
        most = 0

        def produce(place: int) -> None:
            for number in range(300):
                channel.send_from_thread((place, number))

        threads = [threading.Thread(target=produce, args=(place,)) for place in range(4)]
        for thread in threads:
            thread.start()
        got: list[tuple[int, int]] = []
        async for item in channel:
            most = max(most, len(channel.unread))
            got.append(item)
            if len(got) == 1200:
                channel.close()
        for thread in threads:
            thread.join()
        assert most <= 3
        for place in range(4):
            assert [number for sender, number in got if sender == place] == [*range(300)]

    asyncio.run(main())


def test_a_thread_whose_time_has_passed_has_sent_nothing_and_leaves_nothing_in_line() -> None:
    async def main() -> None:
        channel: Channel[str] = Channel(1)
        _ = channel.send_soon("a")

        def send() -> None:
            for _ in range(3):
                with pytest.raises(TimeoutError, match="full for too long"):
                    channel.send_from_thread("b", timeout=0.01)

        await asyncio.to_thread(send)
        await asyncio.sleep(0)
        assert not channel._pump.line
        channel.close()
        assert await everything(channel) == ["a"]

    asyncio.run(main())


def test_items_and_time_limits_of_threads_race_and_none_is_both_sent_and_refused() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(1)
        sent, refused = [], []

        def produce(first: int) -> None:
            for number in range(first, 400, 4):
                try:
                    channel.send_from_thread(number, timeout=0.0005)
                except TimeoutError:
                    refused.append(number)
                else:
                    sent.append(number)

        producing = asyncio.gather(*[asyncio.to_thread(produce, first) for first in range(4)])
        producing.add_done_callback(lambda _: channel.close())
        got = []
        async for item in channel:
            got.append(item)
            await asyncio.sleep(0.0004)
        await producing
        assert sorted(got) == sorted(sent)
        assert sorted(sent + refused) == [*range(400)]

    asyncio.run(main())


def test_a_thread_is_not_left_waiting_when_the_loop_ends() -> None:
    outcome: list[BaseException] = []

    async def main(channel_of: list[Channel[int]]) -> None:
        channel: Channel[int] = Channel(1)
        channel_of.append(channel)
        _ = channel.send_soon(0)

    def send(channel: Channel[int]) -> None:
        try:
            channel.send_from_thread(1)
        except BaseException as error:
            outcome.append(error)

    made: list[Channel[int]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main(made))
    thread = threading.Thread(target=send, args=(made[0],))
    thread.start()
    time.sleep(0.02)
    loop.close()
    thread.join(5)
    assert outcome == [ChannelClosed(1)]
    send(made[0])
    assert outcome == [ChannelClosed(1)] * 2
    made[0].close()
    assert made[0].closed


def test_a_thread_may_close_it() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(1)

        def produce() -> None:
            for number in range(5):
                channel.send_from_thread(number)
            channel.close()
            with pytest.raises(ChannelClosed):
                channel.send_from_thread(9)

        producing = asyncio.create_task(asyncio.to_thread(produce))
        assert await everything(channel) == [*range(5)]
        await producing

    asyncio.run(main())


def test_misuse_is_refused() -> None:
    unused: Channel[int] = Channel(1)
    with pytest.raises(RuntimeError, match="no event loop has used the channel yet"):
        unused.send_from_thread(1)
    for bad in (0, -1, 1.5, True, "3"):
        with pytest.raises(InvalidArgument, match="capacity"):
            Channel(bad)  # type: ignore[arg-type]

    async def main() -> None:
        with pytest.raises(RuntimeError, match="use send\\(\\) or send_soon"):
            unused.send_from_thread(1)
        with pytest.raises(InvalidArgument, match="timeout"):
            unused.send_from_thread(1, timeout=0)
        await unused.send(1)

    run(main())

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await unused.send(1)
        with pytest.raises(RuntimeError, match="another event loop"):
            await anext(aiter(unused))

    run(elsewhere())
    assert repr(unused) == "<Channel open, 1 of 1 items>"


def test_a_channel_takes_operators_after_a_bar() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(9)
        async with channel:
            for number in range(5):
                await channel.send(number)
        assert await timeline(channel | pipe.chunks_or_timeout(3, 1.0)) == [
            (0.0, [0, 1, 2]),
            (0.0, [3, 4]),
        ]
        assert await to_result(ResultStream.of(channel).collect()) == Success([])

    run(main())


def test_a_thread_with_a_loop_of_its_own_can_close_it() -> None:
    """The reader's loop sleeps, and is woken."""

    async def close(channel: Channel[int], error: Exception) -> None:
        await asyncio.sleep(0.05)
        channel.close(error)

    async def main() -> None:
        channel: Channel[int] = Channel(1)
        loop = asyncio.get_running_loop()
        # In debug mode asyncio itself refuses a call from another thread that does not wake it.
        loop.set_debug(True)
        closing = asyncio.to_thread(asyncio.run, close(channel, OSError("closed")))
        closer = asyncio.create_task(closing)
        with pytest.raises(OSError, match="closed"):
            _ = await everything(channel)
        await closer

    asyncio.run(main())
