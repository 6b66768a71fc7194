"""What `broadcast` and `split` promise."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest
from aiostream import Stream, stream
from hypothesis import given
from hypothesis import strategies as st

from returns_pipeline import InvalidArgument, ResultStream
from returns_pipeline.combine import Branch, broadcast, split
from returns_pipeline.errors import BufferOverflow
from returns_pipeline.testing import inject_everywhere, run, script, timed, timeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

    from returns_pipeline.testing import FaultInjector

Share = Any

SHARES: dict[str, Callable[..., tuple[Branch[Any], ...]]] = {
    "broadcast": lambda source, **options: broadcast(source, 2, **options),
    "split": lambda source, **options: split(source, str.islower, **options),
}
each_share = pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)


def now() -> float:
    return asyncio.get_running_loop().time()


async def endless() -> AsyncIterator[int]:
    """Never suspend, never end."""
    n = 0
    while True:
        yield n
        n += 1


async def read(branch: AsyncIterable[Any]) -> list[Any]:
    return [item for _, item in await timeline(branch)]


async def read_to_the_error(branch: Branch[Any]) -> tuple[list[Any], BaseException | None]:
    items: list[Any] = []
    try:
        async with branch.stream() as opened:
            async for item in opened:
                items.append(item)
    except Exception as error:
        return items, error
    return items, None


# Both.


@each_share
def test_nothing_is_read_before_a_branch_is(share: Share) -> None:
    async def main() -> None:
        source = script("aB|")
        branches = share(source)
        await asyncio.sleep(1)
        assert source.opened == 0
        for branch in branches:
            await branch.aclose()
        assert source.opened == 0

    run(main())


@each_share
def test_a_source_that_is_none_is_refused_at_the_call(share: Share) -> None:
    with pytest.raises(TypeError):
        share([1])


@each_share
@pytest.mark.parametrize(
    "options", [{"buffer": 0}, {"overflow": "never"}], ids=["buffer", "overflow"]
)
def test_arguments_out_of_range_are_refused_at_the_call(
    share: Share, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument):
        share(script("a|"), **options)


def test_a_broadcast_to_no_branch_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        broadcast(script("a|"), 0)


@each_share
def test_a_branch_can_be_read_once(share: Share) -> None:
    async def main() -> None:
        left, right = share(script("aB|"))
        assert isinstance(left, Stream)
        assert isinstance(left, Branch)
        assert (left.place, right.place) == (0, 1)
        assert (await read(left))[0] == "a"
        with pytest.raises(RuntimeError, match="once"):
            _ = aiter(left)
        await left.aclose()
        assert (await read(right))[-1] == "B"

    run(main())


@each_share
def test_branches_may_be_read_one_after_the_other(share: Share) -> None:
    async def main() -> None:
        left, right = share(script("aBcD|"))
        assert (await read(right))[-1] == "D"
        assert (await read(left))[0] == "a"

    run(main())


@each_share
def test_a_failed_source_is_a_clean_end_for_no_branch(share: Share) -> None:
    async def main() -> None:
        left, right = share(script("aB-#", error=ZeroDivisionError()))
        items, error = await read_to_the_error(left)
        assert items[0] == "a"
        assert isinstance(error, ZeroDivisionError)
        items, error = await read_to_the_error(right)
        assert items[-1] == "B"
        assert isinstance(error, ZeroDivisionError)

    run(main())


@each_share
@pytest.mark.parametrize("how", ["closed", "closed unread", "dropped", "dropped unread"])
def test_a_branch_that_leaves_does_not_stop_the_other(share: Share, how: str) -> None:
    async def main() -> None:
        source = script("a-b-B-c-C-D|")
        left, right = share(source, buffer=1)
        reader = asyncio.create_task(timeline(right))
        await asyncio.sleep(0.5)
        if "unread" in how:
            if how == "closed unread":
                await left.aclose()
        else:
            async with left.stream() as items:
                assert await anext(items) == "a"
            del items
        del left
        gc.collect()
        seen = await reader
        assert [item for _, item in seen][-3:] == ["c", "C", "D"] or seen[-1] == (10.0, "D")
        assert source.opened == source.closed == 1

    run(main())


@each_share
@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_the_last_branch_that_leaves_stops_the_source(share: Share, how: str) -> None:
    cleaned = []

    async def source() -> AsyncIterator[str]:
        try:
            for letter in "aBcD":
                yield letter
                await asyncio.sleep(1)
        finally:
            await asyncio.sleep(2)
            cleaned.append(now())

    async def main() -> None:
        left, right = share(source())
        async with left.stream() as items:
            assert await anext(items) == "a"
        assert cleaned == []
        if how == "closed":
            await right.aclose()
            assert cleaned == [2.0]
            await right.aclose()
        else:
            del right
            gc.collect()
            await asyncio.sleep(3)
            assert cleaned == [2.0]

    run(main())


@each_share
def test_branches_dropped_without_any_loop_do_no_harm(share: Share) -> None:
    branches = share(script("a|"))
    del branches
    gc.collect()


@each_share
def test_an_error_of_the_clean_up_is_raised_by_the_last_branch_to_leave(share: Share) -> None:
    async def source() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "B"
            await asyncio.sleep(10)
        finally:
            raise OSError("clean-up")

    async def main() -> None:
        left, right = share(source())
        async with left.stream() as items:
            await anext(items)
        async with right.stream() as items:
            await anext(items)
            with pytest.raises(OSError, match="clean-up"):
                await items.aclose()

    run(main())


@each_share
def test_a_cancelled_read_loses_nothing(share: Share) -> None:
    async def patient(branch: Branch[str]) -> list[str]:
        seen = []
        async with branch.stream() as items:
            while True:
                try:
                    async with asyncio.timeout(0.4):
                        seen.append(await anext(items))
                except TimeoutError:
                    pass
                except StopAsyncIteration:
                    break
        return seen

    async def main() -> None:
        expected = [await read(branch) for branch in share(script("a-B--c-D-(eF)|"))]
        seen = await asyncio.gather(*map(patient, share(script("a-B--c-D-(eF)|"))))
        assert list(seen) == expected

    run(main())


@each_share
def test_what_a_reader_raises_concerns_no_other_branch(share: Share) -> None:
    thrown = []

    async def source() -> AsyncIterator[str]:
        for letter in "aBcD":
            try:
                yield letter
            except GeneratorExit:
                raise
            except BaseException as error:
                thrown.append(error)

    async def main() -> None:
        left, right = share(source())
        with pytest.raises(ZeroDivisionError):
            async with left.stream() as items:
                async for _ in items:
                    raise ZeroDivisionError
        assert (await read(right))[-1] == "D"
        assert not thrown

    run(main())


@each_share
def test_cancelled_at_every_await_point_nothing_is_left_running(share: Share) -> None:
    async def scenario(injector: FaultInjector) -> None:
        source = script("a-B-c-D|")

        async def main() -> None:
            left, right = share(source, buffer=2)
            async with asyncio.TaskGroup() as group:
                group.create_task(read(left))
                group.create_task(read(right))

        try:
            await injector.run(main())
        except asyncio.CancelledError:
            assert injector.fired
        assert source.opened == source.closed

    assert inject_everywhere(scenario) > 5


@each_share
def test_a_source_that_swallows_its_cancellation_is_waited_for(share: Share) -> None:
    async def stubborn() -> AsyncIterator[str]:
        yield "a"
        yield "B"
        try:
            await asyncio.sleep(50)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        yield "c"
        yield "D"

    async def main() -> None:
        left, right = share(stubborn())
        async with left.stream() as items:
            await anext(items)
        await right.aclose()
        assert now() == 1.0

    run(main())


@each_share
def test_a_keyboard_interrupt_in_the_source_is_not_kept_for_later(share: Share) -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        raise KeyboardInterrupt

    async def main() -> None:
        left, _ = share(source())
        await read(left)

    with pytest.raises(KeyboardInterrupt):
        run(main())


@each_share
def test_a_source_may_use_timeouts_around_its_yields(share: Share) -> None:
    async def source() -> AsyncIterator[str]:
        try:
            async with asyncio.timeout(2.5):
                yield "a"
                await asyncio.sleep(10)
        except TimeoutError:
            yield "late"

    async def main() -> None:
        left, right = share(source())
        seen = [await read(left), await read(right)]
        assert seen == [["a", "late"], ["a", "late"] if share is SHARES["broadcast"] else []]
        assert now() == 2.5

    run(main())


# broadcast


@given(
    items=st.lists(st.integers(), max_size=12),
    n=st.integers(1, 4),
    buffer=st.integers(1, 4),
    pauses=st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.5]), min_size=4, max_size=4),
)
def test_every_branch_gets_every_item_in_order_whatever_their_speeds(
    items: list[int], n: int, buffer: int, pauses: list[float]
) -> None:
    async def main() -> None:
        branches = broadcast(timed(*items), n, buffer=buffer)
        readers = [timeline(b, pause=p) for b, p in zip(branches, pauses, strict=False)]
        for seen in await asyncio.gather(*readers):
            assert [item for _, item in seen] == items

    run(main())


@pytest.mark.parametrize("buffer", [1, 3])
def test_a_slow_branch_slows_the_source_to_its_buffer(buffer: int) -> None:
    async def main() -> None:
        source = timed(*range(10))
        fast, overflow = broadcast(source, 2, buffer=buffer)
        reader = asyncio.create_task(read(fast))
        async with overflow.stream() as items:
            for n in range(5):
                assert await anext(items) == n
                await asyncio.sleep(1)
                assert source.given <= n + 1 + buffer
        assert await reader == list(range(10))

    run(main())


def test_a_branch_without_a_reader_stops_the_others_until_it_leaves() -> None:
    async def main() -> None:
        left, right = broadcast(timed(*range(10)), 2, buffer=3)
        reader = asyncio.create_task(timeline(left))
        await asyncio.sleep(5)
        assert not reader.done()
        await right.aclose()
        assert len(await reader) == 10

    run(main())


def test_the_oldest_are_dropped_counted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        fast, overflow = broadcast(timed(*range(10)), 2, buffer=3, overflow="drop_oldest")
        assert await read(fast) == list(range(10))
        assert (fast.dropped, overflow.dropped) == (0, 7)
        assert not caplog.records
        assert await read(overflow) == [7, 8, 9]
        [record] = caplog.records
        assert "branch 1" in record.message
        assert "7 items" in record.message

    with caplog.at_level(logging.WARNING, "returns_pipeline"):
        run(main())


def test_each_gap_is_reported_where_it_is() -> None:
    log: list[object] = []

    async def main() -> None:
        source = script("(abc)-----(def)--|")
        fast, overflow = broadcast(
            source,
            2,
            buffer=1,
            overflow="drop_oldest",
            on_drop=lambda place, count: log.append((place, count)),
        )
        reader = asyncio.create_task(read(fast))
        async with overflow.stream() as items:
            async for item in items:
                log.append(item)
                await asyncio.sleep(4)
        assert len(await reader) == 6
        assert overflow.dropped == sum(t[1] for t in log if isinstance(t, tuple))
        assert log == ["a", (1, 1), "c", (1, 2), "f"]

    run(main())


def test_a_reader_that_is_ready_to_go_on_is_not_too_slow_for_a_source_that_never_suspends() -> None:
    async def take(branch: Branch[int], taken: list[int]) -> None:
        async with branch.stream() as items:
            while len(taken) < 200:
                taken.append(await anext(items))

    async def main() -> None:
        dropping = broadcast(endless(), 2, buffer=2, overflow="drop_oldest")
        failing = broadcast(endless(), 2, buffer=2, overflow="fail")
        for branches in dropping, failing:
            seen: list[list[int]] = [[], []]
            readers = [
                asyncio.create_task(take(branch, taken))
                for branch, taken in zip(branches, seen, strict=True)
            ]
            for reader in readers:
                await reader
            assert seen == [list(range(200))] * 2

    run(main())


def test_a_branch_that_fails_for_being_slow_first_emits_what_it_holds() -> None:
    async def main() -> None:
        fast, overflow = broadcast(timed(*range(10)), 2, buffer=3, overflow="fail")
        assert await read(fast) == list(range(10))
        items, error = await read_to_the_error(overflow)
        assert items == [0, 1, 2]
        assert error == BufferOverflow(1, 3)
        assert str(error) == "branch 1 was not read while 3 items waited for it"

    run(main())


def test_when_all_branches_have_failed_the_source_is_closed() -> None:
    async def main() -> None:
        source = script("(abcdef)------|")
        left, right = broadcast(source, 2, buffer=2, overflow="fail")
        async with left.stream() as items:
            assert await anext(items) == "a"
            await asyncio.sleep(1)
            assert source.closed == 1
            assert await anext(items) == "b"
        assert isinstance((await read_to_the_error(right))[1], BufferOverflow)

    run(main())


# split


@given(
    items=st.lists(st.integers(), max_size=20),
    first=st.integers(0, 1),
    buffer=st.integers(1, 30),
)
def test_sides_are_filter_and_its_contrary_in_any_order_of_reading(
    items: list[int], first: int, buffer: int
) -> None:
    def even(n: int) -> bool:
        return n % 2 == 0

    expected = [list(filter(even, items)), [n for n in items if not even(n)]]

    async def together() -> None:
        sides = split(timed(*items), even, buffer=buffer)
        assert await asyncio.gather(*map(read, sides)) == expected

    async def one_after_the_other() -> None:
        sides = split(timed(*items), even, buffer=len(items) + 1)
        assert await read(sides[first]) == expected[first]
        assert await read(sides[1 - first]) == expected[1 - first]

    run(together())
    run(one_after_the_other())


def test_a_side_that_is_full_is_waited_for() -> None:
    async def main() -> None:
        source = timed(*"abcABC")
        lower, upper = split(source, str.islower, buffer=2)
        reader = asyncio.create_task(read(upper))
        await asyncio.sleep(1)
        assert source.given == 2
        assert await read(lower) == ["a", "b", "c"]
        assert await reader == ["A", "B", "C"]

    run(main())


def test_a_side_that_is_full_is_an_error_for_both_if_so_chosen() -> None:
    async def main() -> None:
        lower, upper = split(timed(*"AabcdB"), str.islower, buffer=3, overflow="fail")
        assert await read_to_the_error(upper) == (["A"], BufferOverflow(0, 3))
        assert await read_to_the_error(lower) == (["a", "b", "c"], BufferOverflow(0, 3))

    run(main())


def test_sides_that_are_read_together_are_never_too_slow() -> None:
    async def main() -> None:
        even, odd = split(endless(), lambda n: n % 3 > 0, buffer=1, overflow="fail")
        async with even.stream() as a, odd.stream() as b:
            for n in range(0, 300, 3):
                assert [await anext(b), await anext(a), await anext(a)] == [n, n + 1, n + 2]

    run(main())


def test_items_for_a_side_that_has_left_are_counted() -> None:
    async def main() -> None:
        lower, upper = split(timed(*"aAbBcC"), str.islower, buffer=1)
        await lower.aclose()
        assert await read(upper) == ["A", "B", "C"]
        assert (lower.dropped, upper.dropped) == (3, 0)

    run(main())


def test_what_the_predicate_raises_is_raised_by_both_sides() -> None:
    async def main() -> None:
        for side, before in zip(
            split(timed(2, 1, 0, 5), lambda n: 1 / n < 1), ([2], [1]), strict=True
        ):
            items, error = await read_to_the_error(side)
            assert items == before
            assert isinstance(error, ZeroDivisionError)

    run(main())


def test_a_branch_pipes_like_any_stream() -> None:
    async def main() -> None:
        even, odd = split(stream.range(6), lambda n: n % 2 == 0)
        doubled = stream.map(even, lambda n: 2 * n)
        assert await stream.list(doubled) == [0, 4, 8]
        assert await stream.list(odd[1:]) == [3, 5]

    run(main())


def test_a_branch_that_failed_gets_nothing_more_though_it_is_read_then() -> None:
    async def main() -> None:
        fast, overflow = broadcast(script("(abc)---def|"), 2, buffer=2, overflow="fail")
        reader = asyncio.create_task(read(fast))
        await asyncio.sleep(1)
        items, error = await read_to_the_error(overflow)
        assert (items, error) == (["a", "b"], BufferOverflow(1, 2))
        assert await reader == list("abcdef")

    run(main())


def test_a_dropped_branch_of_a_result_stream_does_not_stall_the_others() -> None:
    """Nor does a `ResultStream` made of a branch: neither refers to itself."""

    async def numbers() -> AsyncIterator[int]:
        for n in range(1000):
            yield n

    async def main() -> None:
        gc.disable()  # the collector would find what only a cycle keeps
        try:
            makers: list[Callable[[], tuple[ResultStream[int, Any], ...]]] = [
                lambda: ResultStream.of(numbers()).broadcast(2),
                lambda: tuple(ResultStream.of(branch) for branch in broadcast(numbers(), 2)),
            ]
            for make in makers:
                left, right = make()
                del right
                async with left.stream() as items:
                    assert len([item async for item in items]) == 1000
        finally:
            gc.enable()

    run(main())


def test_the_error_of_a_source_does_not_grow_with_the_number_of_branches() -> None:
    async def failing() -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    async def frames(branch: Branch[int]) -> int:
        _, error = await read_to_the_error(branch)
        assert isinstance(error, ValueError)
        count, at = 0, error.__traceback__
        while at is not None:
            count, at = count + 1, at.tb_next
        return count

    async def main() -> None:
        counts = [await frames(branch) for branch in broadcast(failing(), 50)]
        assert len(set(counts)) == 1

    run(main())


@pytest.mark.parametrize("overflow", ["backpressure", "drop_oldest", "fail"])
def test_each_item_is_emitted_or_held_or_counted_as_dropped(overflow: Any) -> None:
    async def main() -> None:
        fast, slow, leaver = broadcast(timed(*range(10)), 3, buffer=4, overflow=overflow)
        async with leaver.stream() as opened:
            await anext(opened)
            assert leaver.dropped == 0
        if overflow == "backpressure":
            await slow.aclose()
        with contextlib.suppress(BufferOverflow):
            assert await read(fast) == list(range(10))
        assert leaver.dropped == 9
        assert slow.dropped == {"backpressure": 10, "drop_oldest": 6, "fail": 6}[overflow]
        with contextlib.suppress(BufferOverflow):
            got = await read_to_the_error(slow) if overflow != "backpressure" else ([], None)
            assert len(got[0]) + slow.dropped == 10

    run(main())


def test_a_side_of_a_split_that_has_left_counts_its_own_items_alone() -> None:
    async def main() -> None:
        lower, upper = split(timed(*"aBcDE"), str.islower)
        await upper.aclose()
        assert await read(lower) == ["a", "c"]
        assert (lower.dropped, upper.dropped) == (0, 3)

    run(main())


def test_the_other_side_of_a_split_that_has_left_does_not_keep_the_loop_busy() -> None:
    async def main() -> None:
        rest, none = split(endless(), lambda n: n >= 0)
        await rest.aclose()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await read(none)

    asyncio.run(asyncio.wait_for(main(), 10))
