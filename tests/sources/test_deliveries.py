"""`Channel.deliver`: it returns when everything made of the item was handled, or says why not."""

from __future__ import annotations

import asyncio
import gc
import math
import pickle
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, StepContext, chunks_or_timeout
from returns_pipeline.errors import ChannelClosed, InvalidArgument, NotHandled
from returns_pipeline.sources import Channel
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable


def acknowledged(capacity: int = 10) -> Channel[int]:
    return Channel(capacity, acknowledged=True)


def now() -> float:
    return asyncio.get_running_loop().time()


async def after(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def outcome(channel: Channel[int], item: int) -> tuple[float, str]:
    """Return when a delivery ended, and how."""
    try:
        await channel.deliver(item)
    except Exception as error:
        return now(), type(error).__name__
    return now(), "handled"


async def outcomes(
    channel: Channel[int],
    terminal: Any,
    *items: int,
    then: Callable[[], object] | None = None,
) -> list[tuple[float, str]]:
    """Deliver items at the same time, while a terminal runs."""
    delivering = [asyncio.create_task(outcome(channel, item)) for item in items]
    running = asyncio.ensure_future(terminal)
    if then is not None:
        asyncio.get_running_loop().call_later(50, then)
    done = await asyncio.gather(*delivering)
    if not channel.closed:
        channel.close()
    await asyncio.gather(running, return_exceptions=True)
    return done


def test_a_delivery_returns_when_the_item_was_handled_and_not_before() -> None:
    async def main() -> None:
        channel = acknowledged()
        slow = ResultStream.of(channel).tap_async(lambda _: after(2))
        assert await outcomes(channel, slow.run(), 1, 2, 3) == [
            (2.0, "handled"),
            (4.0, "handled"),
            (6.0, "handled"),
        ]

    run(main())


def test_a_window_is_waited_for_and_items_that_are_filtered_are_handled() -> None:
    async def main() -> None:
        channel = acknowledged()
        kept = ResultStream.of(channel).filter(lambda n: n != 2)
        windows = kept.chunks_or_timeout(10, 5.0).tap_async(lambda _: after(1))
        assert await outcomes(channel, windows.run(), 1, 2, 3) == [(6.0, "handled")] * 3
        channel = acknowledged()
        nothing = ResultStream.of(channel).filter(lambda n: False)
        assert await outcomes(channel, nothing.run(), 1) == [(6.0, "handled")]

    run(main())


def test_items_that_are_only_sent_are_not_waited_for() -> None:
    async def main() -> None:
        channel = acknowledged()
        slow = ResultStream.of(channel).tap_async(lambda _: after(1))
        running = asyncio.ensure_future(slow.run())
        await channel.send(1)
        _ = channel.send_soon(2)
        await channel.deliver(3)
        assert now() == 3.0
        await channel.send(4)
        channel.close()
        assert (await running).unwrap()._inner_value == 4

    run(main())


def test_terminals_that_return_values_acknowledge_at_their_end() -> None:
    async def main() -> None:
        channel = acknowledged()
        terminal = ResultStream.of(channel).collect()
        assert await outcomes(channel, terminal, 1, 2, then=channel.close) == [(50, "handled")] * 2

    run(main())


def failing(item: int) -> Result[int, str]:
    return Failure("no") if item == 2 else Success(item)


def test_a_failure_fails_what_was_not_handled_and_closes_the_channel() -> None:
    async def main() -> None:
        channel = acknowledged()
        terminal = ResultStream.of(channel).bind(failing).run()
        assert [how for _, how in await outcomes(channel, terminal, 1, 2, 3)] == [
            "handled",
            "NotHandled",
            "NotHandled",
        ]
        with pytest.raises(ChannelClosed):
            await channel.deliver(4)

    run(main())


def test_a_failure_that_was_counted_is_handled() -> None:
    async def main() -> None:
        channel = acknowledged()
        terminal = ResultStream.of(channel).bind(failing).run_all()
        assert [how for _, how in await outcomes(channel, terminal, 1, 2)] == ["handled"] * 2

    run(main())


def test_an_exception_and_a_cancellation_fail_the_callers_at_once() -> None:
    async def main() -> None:
        async def step(item: list[int]) -> None:
            await after(3)
            raise LookupError

        for how in ("raise", "cancel"):
            channel = acknowledged()
            stream = ResultStream.of(channel).chunks_or_timeout(2, 9.0).tap_async(step)
            running = asyncio.ensure_future(stream.run())
            began = now()
            delivering = [asyncio.create_task(outcome(channel, item)) for item in range(3)]
            if how == "cancel":
                await after(3)
                running.cancel()
            # The task keeps the exception, whose traceback holds the stream, all the time.
            found = await asyncio.gather(*delivering)
            assert [each for _, each in found] == ["NotHandled"] * 3
            assert {when - began for when, _ in found} == {3.0}
            await asyncio.gather(running, return_exceptions=True)

    run(main())


def test_a_window_at_the_end_that_fails_fails_its_callers() -> None:
    async def main() -> None:
        channel = acknowledged()

        async def persist(window: list[int]) -> Result[int, str]:
            await after(5)
            return Failure("no")

        stream = ResultStream.of(channel).chunks_or_timeout(9, math.inf).bind_async(persist)
        assert (
            await outcomes(channel, stream.run(), 1, 2, then=channel.close)
            == [(55.0, "NotHandled")] * 2
        )

    run(main())


def test_draining_hands_out_what_was_accepted_and_refuses_the_line() -> None:
    async def main() -> None:
        channel = acknowledged(2)
        stop = asyncio.Event()
        stream = ResultStream.of(channel).drain_on(stop).tap_async(lambda _: after(4))
        delivering = [asyncio.create_task(outcome(channel, item)) for item in range(5)]
        running = asyncio.ensure_future(stream.run())
        await after(1)
        stop.set()
        assert await asyncio.gather(*delivering) == [
            (4.0, "handled"),
            (8.0, "handled"),
            (12.0, "handled"),
            (4.0, "ChannelClosed"),  # when the step has let the source be read on
            (4.0, "ChannelClosed"),
        ]
        await running

    run(main())


def test_a_caller_that_is_cancelled_in_line_takes_its_item_back_and_later_does_not() -> None:
    async def main() -> None:
        channel = acknowledged(1)
        handled: list[int] = []
        first = asyncio.create_task(channel.deliver(1))
        second = asyncio.create_task(channel.deliver(2))
        third = asyncio.create_task(channel.deliver(3))
        await after(1)
        first.cancel()
        second.cancel()
        await asyncio.wait({first, second})
        assert channel.unread == [1]
        running = asyncio.ensure_future(ResultStream.of(channel).tap(handled.append).run())
        await third
        assert handled == [1, 3]
        channel.close()
        await running

    run(main())


def test_a_caller_that_is_cancelled_at_the_moment_disturbs_nobody() -> None:
    async def main() -> None:
        channel = acknowledged()
        callers: list[asyncio.Task[None]] = []
        stream = ResultStream.of(channel).tap(lambda n: callers[n].cancel() if n == 0 else None)
        callers += [asyncio.create_task(channel.deliver(n)) for n in range(2)]
        running = asyncio.ensure_future(stream.run())
        await callers[1]
        assert callers[0].cancelled()
        channel.close()
        await running
        pump: Any = channel._pump
        assert not pump.receipts

    run(main())


def test_each_caller_in_line_waits_for_its_own_item() -> None:
    async def main() -> None:
        channel = acknowledged(2)
        await channel.send(1)
        await channel.send(2)
        third = asyncio.create_task(outcome(channel, 3))
        await after(1)
        _ = channel.send_soon(4)
        slow = ResultStream.of(channel).prefetch(10).tap_async(lambda _: after(1))
        running = asyncio.ensure_future(slow.run())
        assert await third == (4.0, "handled")
        channel.close()
        await running

    run(main())


def test_what_was_read_before_the_source_was_closed_is_still_handled() -> None:
    async def main() -> None:
        channel = acknowledged()
        some = ResultStream.of(channel).take_until(asyncio.sleep(1)).tap_async(lambda _: after(3))
        running = asyncio.ensure_future(some.run())
        assert await outcome(channel, 1) == (3.0, "handled")
        await running

    run(main())


def test_a_delivery_waits_for_a_reader_but_not_for_the_next_one() -> None:
    async def main() -> None:
        channel = acknowledged()
        delivering = asyncio.create_task(outcome(channel, 1))
        left = asyncio.create_task(outcome(channel, 2))
        await after(7)
        assert (await ResultStream.of(channel).first()).unwrap()._inner_value == 1
        assert await delivering == (7.0, "NotHandled")  # `first` does not acknowledge
        assert await left == (7.0, "NotHandled")
        assert channel.unread == [2]

    run(main())


@pytest.mark.parametrize("is_exhausted", [False, True])
def test_a_second_terminal_does_not_fail_what_the_first_still_handles(is_exhausted: bool) -> None:
    async def main() -> None:
        channel = acknowledged()
        slow = ResultStream.of(channel).tap_async(lambda _: after(3), concurrency=3)
        running = asyncio.ensure_future(slow.run())
        delivering = [asyncio.create_task(outcome(channel, item)) for item in (1, 2)]
        await after(1)
        if is_exhausted:
            channel.close()
            await after(1)
            assert (await slow.run()).unwrap()._inner_value == 0
        else:
            with pytest.raises(RuntimeError, match="the channel has a reader"):
                await slow.run()
        assert await asyncio.gather(*delivering) == [(3.0, "handled")] * 2
        channel.close()
        await running

    run(main())


def test_a_stream_that_ends_before_it_reads_a_channel_fails_what_waits_for_it() -> None:
    async def main() -> None:
        first, second = acknowledged(), acknowledged()
        failing = ResultStream.of(first).bind(Failure).concat(ResultStream.of(second))
        delivering = [asyncio.create_task(outcome(second, item)) for item in (1, 2)]
        running = asyncio.ensure_future(failing.run())
        await after(5)
        assert await outcome(first, 1) == (5.0, "NotHandled")
        assert await asyncio.gather(*delivering) == [(5.0, "NotHandled")] * 2
        assert second.unread == [1, 2]
        await running
        later = asyncio.ensure_future(ResultStream.of(second).run())
        assert await outcome(second, 3) == (5.0, "handled")  # it is open, and may be read
        second.close()
        assert (await later).unwrap()._inner_value == 3

    run(main())


def test_a_loop_of_the_users_gets_no_marks_and_acknowledges_nothing() -> None:
    async def main() -> None:
        for read in (lambda c: ResultStream.of(c), lambda c: ResultStream.of(c).successes()):
            channel = acknowledged()
            delivering = asyncio.create_task(outcome(channel, 5))
            async with aclosing(aiter(read(channel))) as items:
                assert await anext(items) in (5, Success(5))
                await after(1)
                assert not delivering.done()
            del items
            gc.collect()
            assert (await delivering)[1] == "NotHandled"

    run(main())


def test_items_are_not_read_without_marks() -> None:
    async def main() -> None:
        channel = acknowledged()
        with pytest.raises(RuntimeError, match="read the channel by"):
            async for _ in channel:
                pass
        with pytest.raises(RuntimeError, match="read the channel by"):
            async for _ in chunks_or_timeout(channel, 1, 9.0):
                pass

    run(main())


def test_branches_of_a_broadcast_acknowledge_together() -> None:
    async def main() -> None:
        channel = acknowledged()
        fast, slow = ResultStream.of(channel).broadcast(2, buffer=9)
        both = asyncio.gather(fast.run(), slow.tap_async(lambda _: after(3)).run())
        assert await outcomes(channel, both, 1, 2) == [(3.0, "handled"), (6.0, "handled")]

        channel = acknowledged()
        well, broken = ResultStream.of(channel).broadcast(2, buffer=9)
        running = asyncio.gather(well.run(), broken.bind(failing).run())
        delivering = [asyncio.create_task(outcome(channel, item)) for item in (1, 2)]
        await after(1)
        assert delivering[0].result()[1] == "handled"
        channel.close()
        await running
        del well, broken, running
        gc.collect()
        assert (await delivering[1])[1] == "NotHandled"

    run(main())


def test_merged_channels_acknowledge_each_its_own() -> None:
    async def main() -> None:
        one, two = acknowledged(), acknowledged()
        merged = ResultStream.of(one).merge(ResultStream.of(two).tap_async(lambda _: after(9)))
        running = asyncio.ensure_future(merged.run())
        assert [*await asyncio.gather(outcome(one, 1), outcome(two, 2))] == [
            (0.0, "handled"),
            (9.0, "handled"),
        ]
        last = asyncio.create_task(outcome(two, 3))
        await after(1)
        running.cancel()
        assert (await last)[1] == "NotHandled"
        await asyncio.wait({running})

    run(main())


def test_the_stream_refuses_what_does_not_tell() -> None:
    async def main() -> None:
        stream = ResultStream.of(acknowledged())
        with pytest.raises(InvalidArgument, match="acknowledged"):
            _ = stream[:3]
        with pytest.raises(InvalidArgument, match="acknowledged"):
            _ = stream.bind_step(step, StepContext("s"), hold=True)
        _ = ResultStream.of(Channel[int](1))[:3]

    async def step(item: int, _: StepContext) -> Result[int, str]:
        return Success(item)

    run(main())


def test_a_channel_that_is_not_acknowledged_refuses_to_deliver() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="acknowledged=True"):
            await Channel[int](1).deliver(1)

    run(main())


def test_the_error_says_which_item_it_was() -> None:
    async def main() -> None:
        channel = acknowledged()
        delivering = asyncio.create_task(channel.deliver(2))
        await ResultStream.of(channel).bind(failing).run()
        with pytest.raises(NotHandled, match="ended before") as caught:
            await delivering
        assert caught.value.item == 2
        assert pickle.loads(pickle.dumps(caught.value)) == caught.value

    run(main())
