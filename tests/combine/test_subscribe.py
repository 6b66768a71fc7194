"""Branches that join a broadcast late, and `debounce(max_wait=)`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Success

from returns_pipeline import ResultStream, pipe, to_result
from returns_pipeline.combine import Branch, broadcast, debounce, split
from returns_pipeline.errors import BufferOverflow, InvalidArgument
from returns_pipeline.testing import FaultInjector, Wait, run, script, timed, timeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@given(
    join=st.integers(0, 9),
    replay=st.integers(0, 5),
    buffer=st.integers(1, 4),
    pauses=st.tuples(st.sampled_from([0.0, 0.4, 2.3]), st.sampled_from([0.0, 0.4, 2.3])),
)
def test_a_branch_that_joins_gets_the_last_items_and_then_each_item_once(
    join: int, replay: int, buffer: int, pauses: tuple[float, float]
) -> None:
    async def main() -> None:
        steps = [step for number in range(8) for step in (Wait(1.0), number)]
        (early,) = broadcast(timed(*steps), 1, buffer=buffer, replay=replay)
        late: Branch[int] | None = None
        seen: list[int] = []
        given: list[int] = []
        came = 0

        async def read_late(branch: Branch[int]) -> None:
            given.extend([item for _, item in await timeline(branch, pause=pauses[1])])

        tasks = []
        async with early.stream() as items:
            async for item in items:
                seen.append(item)
                if len(seen) == join:
                    late = early.subscribe()
                    tasks.append(asyncio.ensure_future(read_late(late)))
                    came = early._pump.hub.count
                await asyncio.sleep(pauses[0])
        if late is None:
            late = early.subscribe()
            came = early._pump.hub.count
            await read_late(late)
        await asyncio.gather(*tasks)
        assert seen == [*range(8)]
        assert given == [*range(max(0, came - replay), 8)]
        assert late.dropped == early.dropped == 0

    run(main())


def test_a_branch_that_left_can_still_be_asked_and_the_new_one_keeps_the_source() -> None:
    async def main() -> None:
        source = timed(1, Wait(1), 2, Wait(1), 3)
        (early,) = broadcast(source, 1, replay=1)
        async with early.stream() as items:
            assert await anext(items) == 1
            late = early.subscribe()
        assert [item for _, item in await timeline(late)] == [1, 2, 3]
        assert source.opened == source.closed == 1

    run(main())


def test_nobody_can_join_a_source_that_was_stopped_before_its_end() -> None:
    async def main() -> None:
        (early,) = broadcast(timed(1, Wait(1), 2), 1, replay=1)
        async with early.stream() as items:
            assert await anext(items) == 1
        with pytest.raises(RuntimeError, match="stopped before its end"):
            _ = early.subscribe()
        (slow,) = broadcast(timed(1, 2, 3, 4), 1, buffer=1, overflow="fail", replay=1)
        async with slow.stream() as items:
            assert await anext(items) == 1
            await asyncio.sleep(1)
            with pytest.raises(BufferOverflow):
                while True:
                    await anext(items)
        with pytest.raises(RuntimeError, match="stopped before its end"):
            _ = slow.subscribe()
        left, _ = split(timed(1, 2), bool)
        with pytest.raises(RuntimeError, match="a side of a split"):
            _ = left.subscribe()

    run(main())


def test_a_branch_that_joins_after_the_end_can_leave_unread_and_be_dropped() -> None:
    async def main() -> None:
        errors: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, error: errors.append(error))
        (early,) = broadcast(timed(1, 2, 3), 1, replay=2)
        await timeline(early)
        await early.subscribe().aclose()
        _ = early.subscribe()  # and dropped
        await asyncio.sleep(1)
        assert errors == []

    run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_a_branch_that_joins_after_the_end_gets_the_last_items_and_the_same_end(
    fails: bool,
) -> None:
    async def main() -> None:
        steps: list[Any] = [1, 2, 3]
        (early,) = broadcast(timed(*steps, *([OSError("gone")] if fails else [])), 1, replay=2)
        with contextlib.suppress(OSError):
            await timeline(early)
        for _ in range(2):
            late = early.subscribe()
            seen: list[int] = []
            end: BaseException | None = None
            try:
                async with late.stream() as items:
                    async for item in items:
                        seen.append(item)
            except OSError as error:
                end = error
            assert seen == [2, 3]
            assert (end is not None) is fails

    run(main())


def test_a_full_replay_drops_nothing_and_makes_nobody_fail() -> None:
    async def main(overflow: Any) -> None:
        (early,) = broadcast(script("abcdefgh|"), 1, buffer=2, replay=5, overflow=overflow)
        reading = asyncio.create_task(timeline(early))
        await asyncio.sleep(5.5)
        late = early.subscribe()
        assert "".join([item for _, item in await timeline(late)]) == "bcdefgh"
        await reading
        assert late.dropped == 0

    for overflow in ("backpressure", "drop_oldest", "fail"):
        run(main(overflow))


def test_a_stream_of_results_is_joined_right_after_broadcast() -> None:
    async def main() -> None:
        source = timed(1, Wait(1), 2, Wait(1), 3)
        (early,) = ResultStream.of(source).broadcast(1, replay=1)
        reading = asyncio.ensure_future(timeline(early))
        await asyncio.sleep(1.5)
        late = early.subscribe().map(lambda n: n * 10)
        assert await to_result(late.collect()) == Success([20, 30])
        await reading
        with pytest.raises(InvalidArgument, match="right after broadcast"):
            _ = early.map(str).subscribe()
        with pytest.raises(InvalidArgument, match="right after broadcast"):
            _ = ResultStream.of(source).subscribe()
        (piped,) = ResultStream.of(source) | pipe.broadcast(1, replay=1)
        async with piped.stream() as items:
            assert await anext(items) == Success(1)
            assert await anext(piped.subscribe().stream()._aiterator) == Success(1)

    run(main())


@pytest.mark.parametrize("times", [1, 2])
def test_wherever_one_that_joined_is_cancelled_the_others_continue(times: int) -> None:
    async def main() -> None:
        for injector in FaultInjector.every(times=times):
            source = timed(*[step for n in range(5) for step in (Wait(1), n)])
            (early,) = broadcast(source, 1, buffer=1, replay=2)
            reading = asyncio.create_task(timeline(early))
            await asyncio.sleep(2.5)

            async def join(early: Branch[int] = early) -> None:
                await timeline(early.subscribe())

            with contextlib.suppress(asyncio.CancelledError):
                await injector.run(join())
            assert [item for _, item in await reading] == [*range(5)]
            assert source.opened == source.closed == 1
            if not injector.fired:
                break

    run(main())


@pytest.mark.parametrize("bad", [-1, 1.5, True, "2"])
def test_a_replay_that_is_not_a_count_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="replay"):
        broadcast(timed(1), 1, replay=bad)
    with pytest.raises(InvalidArgument, match="replay"):
        pipe.broadcast(1, replay=bad)


# debounce


@given(
    gaps=st.lists(st.integers(0, 4), max_size=20),
    quiet=st.integers(1, 4).map(lambda seconds: seconds + 0.1317),
    max_wait=st.integers(1, 9).map(lambda seconds: seconds + 0.2771) | st.just(float("inf")),
)
def test_debounce_with_a_longest_wait(gaps: list[int], quiet: float, max_wait: float) -> None:
    expected: list[tuple[float, int]] = []
    clock, due, latest, last = 0.0, float("inf"), float("inf"), -1
    steps: list[Any] = []
    for number, gap in enumerate(gaps):
        clock += gap
        steps += [Wait(gap), number]
        if due < clock:
            expected.append((due, last))
            last = -1
        if last < 0:
            latest = clock + max_wait
        last, due = number, min(clock + quiet, latest)
    if last >= 0:
        expected.append((clock, last))
    for seen in (
        run(timeline(debounce(timed(*steps), quiet, max_wait=max_wait))),
        run(
            timeline(ResultStream.of(timed(*steps)).debounce(quiet, max_wait=max_wait).successes())
        ),
    ):
        assert [item for _, item in seen] == [item for _, item in expected]
        assert [at for at, _ in seen] == pytest.approx([at for at, _ in expected])


def test_the_longest_wait_begins_again_with_the_first_item_after_an_emission() -> None:
    async def bursts() -> AsyncIterator[int]:
        for number in range(30):
            yield number
            await asyncio.sleep(0.5 if number != 14 else 5.0)

    seen = run(timeline(debounce(bursts(), 1.0, max_wait=2.2)))
    assert [at for at, _ in seen][:5] == pytest.approx([2.2, 4.7, 7.2, 14.2, 16.7])


def test_a_longest_wait_that_is_none_is_refused() -> None:
    for bad in (0, -1, float("nan")):
        with pytest.raises(InvalidArgument, match="max_wait"):
            _ = debounce(timed(1), 1.0, max_wait=bad)


def test_a_branch_that_joined_after_the_end_can_leave_before_its_own() -> None:
    async def main() -> None:
        (early,) = broadcast(script("abc|"), 1, replay=2)
        assert [item for _, item in await timeline(early)] == ["a", "b", "c"]
        async with early.subscribe().stream() as items:
            assert await anext(items) == "b"
        unread = early.subscribe()
        await unread.aclose()
        assert unread.dropped == 2
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context)
        )
        dropped = early.subscribe()
        del dropped
        gc.collect()
        await asyncio.sleep(1)
        assert reported == []

    run(main())


def test_the_traceback_of_an_error_does_not_grow_with_the_branches_that_join_after_it() -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise OSError("broken")

    async def frames(branch: Branch[int]) -> list[str]:
        with pytest.raises(OSError, match="broken") as caught:
            _ = await timeline(branch)
        return [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    async def main() -> None:
        (early,) = broadcast(failing(), 1)
        first = await frames(early)
        late = [await frames(early.subscribe()) for _ in range(20)]
        assert "failing" in first
        assert all(each == first for each in late)

    run(main())
