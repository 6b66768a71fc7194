"""A branch or a stream is closed early, as an async generator is; the others continue."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Result, Success
from watched import Watched

from returns_pipeline import (
    ResultStream,
    chunks_by_weight,
    chunks_or_timeout,
    combine,
    keyed_chunks,
    pipe,
    sessions,
    sliding,
)
from returns_pipeline.testing import advance, run
from returns_pipeline.windows import TumblingWindows, event_windows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator

# Branches.

COUNT = 20


class Numbers:
    """So many numbers, and then a clean-up that takes a second."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def __aiter__(self) -> AsyncGenerator[int, None]:
        try:
            self.log.append("opened")
            for n in range(COUNT):
                await asyncio.sleep(0.001)
                yield n
        finally:
            await asyncio.sleep(1)
            self.log.append("closed")


def plain(source: Numbers) -> tuple[Any, ...]:
    return combine.broadcast(source, 3, buffer=2)


def of_results(source: Numbers) -> tuple[Any, ...]:
    return ResultStream.of(source).broadcast(3, buffer=2)


def halves(source: Numbers) -> tuple[Any, ...]:
    """Each branch is read by one side of a split."""
    return combine.split(source, lambda n: n % 2 == 1, buffer=2)


# What is made of a branch before it is read, or not.
MADE: dict[str, Callable[[Any], Any]] = {
    "itself": lambda s: s,
    "a step": lambda s: s.map(str),
    "a window": lambda s: s.chunks_or_timeout(2, 9.0),
    "a drained one": lambda s: s.drain_on(asyncio.Event()),
    "the second of a sum": lambda s: ResultStream.of(silence()).concat(s),
    "a merge": lambda s: s.merge(ResultStream.of(silence())),
    "its values alone": lambda s: s.prefetch(2).map(str),
    "a folded one": lambda s: s.or_failure(OSError),
    "its successes": lambda s: s.successes(),
    "the errors of a window": lambda s: s.sliding(2).failures(),
    "a signal": lambda s: ResultStream.of(silence()).chunks_or_timeout(2, 9.0, flush_on=s),
    "an end": lambda s: ResultStream.of(silence()).take_until(s),
    "a signal of a merge": lambda s: ResultStream.of(silence()).merge(
        ResultStream.of(silence()).sliding(2, flush_on=s).map(str)
    ),
    "a window of Results": lambda s: chunks_or_timeout(s, 2, 9.0),
    "a signal of such a one": lambda s: sliding(silence(), 2, flush_on=s),
    "the second of a plain sum": lambda s: combine.concat(silence(), s),
    "a broadcast": lambda s: s.broadcast(1)[0],
    "a concurrent step": lambda s: s.map_async(same, concurrency=2),
    "a debounced one": lambda s: s.debounce(1.0),
    "a slice of a window": lambda s: s.sliding(2)[1:],
    "a slice": lambda s: s[1:],
    "a sum": lambda s: s + s,
}


async def silence() -> AsyncGenerator[int, None]:
    await asyncio.sleep(math.inf)
    yield 0


async def close(branch: Any) -> None:
    await branch.aclose()


async def close_while_it_is_read(branch: Any) -> None:
    async with contextlib.aclosing(branch) as closing:
        reading = asyncio.ensure_future(anext(aiter(closing)))
        await advance(0.0005)
    await asyncio.wait({reading})


async def read_one_and_close(branch: Any) -> None:
    async with contextlib.aclosing(branch) as closing:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                async for _ in closing:
                    break


async def close_twice(branch: Any) -> None:
    await asyncio.gather(branch.aclose(), branch.aclose())


async def drop(branch: Any) -> None:
    """What was given is the caller's last reference."""


WAYS = [close, close_while_it_is_read, read_one_and_close, close_twice, drop]
each_way = pytest.mark.parametrize("leave", WAYS)


async def read_all(branch: Any) -> list[Any]:
    return [item async for item in branch]


@each_way
@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_a_branch_of_a_result_stream_leaves_and_the_others_go_on(
    made: Callable[[Any], Any], leave: Callable[[Any], Any]
) -> None:
    """A branch that stays, without a reader, would stop them when its buffer is full."""
    source = Numbers()

    async def main() -> None:
        first, second, third = of_results(source)
        first = made(first)
        reading = asyncio.ensure_future(read_all(second))
        await advance(0.003)
        await leave(first)
        del first
        await leave(third)
        del third
        async with asyncio.timeout(30):
            assert await reading == [Success(n) for n in range(COUNT)]
        assert source.log == ["opened", "closed"]

    run(main())


@each_way
@pytest.mark.parametrize("share", [plain, of_results, halves])
def test_the_last_branch_to_leave_ends_the_source(
    share: Callable[[Numbers], tuple[Any, ...]], leave: Callable[[Any], Any]
) -> None:
    source = Numbers()

    async def main() -> None:
        branches = [*share(source)]
        reader = aiter(branches.pop())
        await anext(reader)
        while branches:
            await leave(branches.pop())
        await advance(0.001)
        assert source.log == ["opened"]
        await reader.aclose()
        assert source.log == ["opened", "closed"]

    run(main())


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_a_branch_leaves_when_a_stream_of_it_is_closed_although_it_is_kept(
    made: Callable[[Any], Any],
) -> None:
    """It was not opened, so nothing but its subscription holds the others up."""

    async def main() -> None:
        kept, other = ResultStream.of(Numbers()).broadcast(2, buffer=2)
        await made(kept).aclose()
        assert await read_all(other) == [Success(n) for n in range(COUNT)]

    run(main())


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_a_branch_leaves_at_the_end_of_a_context_in_which_nothing_was_read(
    made: Callable[[Any], Any],
) -> None:
    async def main() -> None:
        kept, other = ResultStream.of(Numbers()).broadcast(2, buffer=2)
        async with made(kept).stream():
            pass
        assert await read_all(other) == [Success(n) for n in range(COUNT)]

    run(main())


async def bad() -> AsyncGenerator[int, None]:
    for n in range(0):
        yield n
    raise OSError("bad")


# What fails, or ends, before it opens the branch.
CUT_SHORT: dict[str, Callable[[Any], Any]] = {
    "merge": lambda s: combine.merge(bad(), s),
    "merge of a step": lambda s: combine.merge(bad(), s.map(str)),
    "merge of a drained one": lambda s: combine.merge(bad(), s.drain_on(asyncio.Event())),
    "merge of a window": lambda s: combine.merge(bad(), s.or_failure(OSError).sliding(2)),
    "merge of a signal": lambda s: combine.merge(
        bad(), ResultStream.of(silence()).sliding(2, flush_on=s)
    ),
    "merge of successes": lambda s: combine.merge(bad(), s.successes()),
    "merge of a part": lambda s: combine.merge(bad(), s.sliding(2)[1:]),
    "concat": lambda s: combine.concat(bad(), s),
    "zip_results": lambda s: combine.zip_results(ResultStream.of(bad()), s),
    "ResultStream.merge": lambda s: ResultStream.of(bad()).merge(s),
    "ResultStream.concat": lambda s: ResultStream.of(bad()).concat(s.map(str)),
    "ResultStream.zip": lambda s: ResultStream.of(bad()).zip(s),
    "a signal": lambda s: ResultStream.of(bad()).sliding(2, flush_on=s),
    "an end": lambda s: combine.take_until(s, bad()),
    "a window in a merge": lambda s: ResultStream.of(bad()).merge(s.drain_on(stopped()).sliding(2)),
}


def stopped() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@pytest.mark.parametrize("make", CUT_SHORT.values(), ids=CUT_SHORT)
def test_a_branch_leaves_when_a_stream_fails_before_it_has_opened_it(
    make: Callable[[Any], Any],
) -> None:
    async def main() -> None:
        kept, other = ResultStream.of(Numbers()).broadcast(2, buffer=2)
        failing = make(kept)
        with pytest.raises(OSError, match="bad"):
            await read_all(failing)
        assert await read_all(other) == [Success(n) for n in range(COUNT)]

    run(main())


def test_the_last_branch_leaves_an_unread_stream_with_the_clean_up_of_its_source() -> None:
    """A failing stream raises its error when that is done, also after a cancelled read."""
    source = Numbers()

    async def main() -> None:
        kept, other = combine.broadcast(source, 2)
        async for _ in other:
            break
        await advance(0.001)
        reader = aiter(combine.merge(bad(), kept))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await anext(reader)
        assert source.log == ["opened", "closed"]
        with pytest.raises(OSError, match="bad"):
            await anext(reader)

    run(main())


class Unclosable(Numbers):
    async def __aiter__(self) -> AsyncGenerator[int, None]:
        try:
            async for n in super().__aiter__():
                yield n
        finally:
            raise ZeroDivisionError


def test_an_error_of_that_clean_up_is_a_note_on_the_error_of_the_stream() -> None:
    async def main() -> None:
        for failing, error in ((bad, OSError), (nothing, ZeroDivisionError)):
            kept, other = combine.broadcast(Unclosable(), 2)
            reader = aiter(other)
            await anext(reader)
            await reader.aclose()
            joined: Any = combine.zip_results(results(failing()), results(kept))
            with pytest.raises(error) as raised:
                await read_all(joined)
            assert error is ZeroDivisionError or "ZeroDivisionError" in raised.value.__notes__[0]

    run(main())


async def nothing() -> AsyncGenerator[int, None]:
    for n in range(0):
        yield n


def test_a_branch_of_a_branch_leaves_both_when_the_last_one_is_closed_unread() -> None:
    async def main() -> None:
        kept, other = combine.broadcast(Numbers(), 2, buffer=2)
        one, two = combine.broadcast(kept, 2)
        await one.aclose()
        await two.aclose()
        assert await read_all(other) == [*range(COUNT)]

    run(main())


def test_a_branch_that_is_kept_for_its_counts_has_left_when_its_reading_is_dropped() -> None:
    async def main() -> None:
        left, right = combine.broadcast(Numbers(), 2, buffer=2)
        async for _ in left:
            break
        assert await read_all(right) == [*range(COUNT)]
        assert left.dropped == COUNT - 1

    run(main())


def test_closing_a_stream_leaves_alone_what_another_one_reads() -> None:
    """Two chains of one branch: only the one that has opened it closes it."""

    async def main() -> None:
        branch, other = ResultStream.of(Numbers()).broadcast(2, buffer=COUNT)
        reader = aiter(branch.map(str))
        assert await anext(reader) == Success("0")
        await branch.map(int).aclose()
        assert await anext(reader) == Success("1")
        await reader.aclose()
        await other.aclose()

    run(main())


# All streams.


async def same(n: Any) -> Any:
    return n


async def echo(_: object, items: AsyncIterator[int]) -> AsyncGenerator[int, None]:
    async for n in items:
        yield n


async def echo_results(
    _: object, items: AsyncIterator[int]
) -> AsyncGenerator[Result[int, str], None]:
    async for n in items:
        yield Success(n)


async def once(n: int) -> AsyncGenerator[Result[int, str], None]:
    yield Success(n)


def results(source: AsyncIterable[int]) -> ResultStream[int, Any]:
    return ResultStream.of(source)


def succeed(n: int) -> Result[int, str]:
    return Success(n)


async def succeed_async(n: int) -> Result[int, str]:
    return Success(n)


STREAMS: dict[str, Callable[[Any], Any]] = {
    "chunks_or_timeout": lambda s: chunks_or_timeout(s, 2, math.inf),
    "chunks_by_weight": lambda s: chunks_by_weight(s, 2, math.inf, weight=lambda _: 1),
    "keyed_chunks": lambda s: keyed_chunks(s, 2, math.inf, key=lambda n: n % 2),
    "sliding": lambda s: sliding(s, 2),
    "sessions": lambda s: sessions(s, 9.0, n=2),
    "event_windows": lambda s: event_windows(s, TumblingWindows(2.0), timestamp=float),
    "merge": lambda s: combine.merge(s, silence()),
    "merge_prioritized": lambda s: combine.merge_prioritized((1, s), (2, silence())),
    "select": lambda s: combine.select({"a": s, "b": silence()}),
    "concat": lambda s: combine.concat(s, silence()),
    "zip_results": lambda s: combine.zip_results(results(s), results(Watched())),
    "take_until": lambda s: combine.take_until(s, silence()),
    "broadcast": lambda s: combine.broadcast(s, 1)[0],
    "split": lambda s: combine.split(s, lambda _: True)[0],
    "prefetch": lambda s: combine.prefetch(s, 2),
    "scan": lambda s: combine.scan(s, 0, lambda _, n: n),
    "distinct_until_changed": lambda s: combine.distinct_until_changed(s),
    "throttle": lambda s: combine.throttle(s, 0.001),
    "debounce": lambda s: combine.debounce(s, 0.0001),
    "route": lambda s: combine.route(s, lambda n: n % 2, echo),
    "a pipe": lambda s: combine.merge(s) | pipe.prefetch(2) | pipe.chunks_or_timeout(2, 9.0),
    "of": results,
    "map": lambda s: results(s).map(str),
    "bind": lambda s: results(s).bind(succeed),
    "bind_async": lambda s: results(s).bind_async(succeed_async),
    "bind_async, concurrent": lambda s: results(s).bind_async(succeed_async, concurrency=2),
    "map_async, concurrent": lambda s: results(s).map_async(same, concurrency=2, ordered=False),
    "flat_map": lambda s: results(s).flat_map(once),
    "flat_map, concurrent": lambda s: results(s).flat_map(once, concurrency=2),
    "ResultStream.broadcast": lambda s: results(s).broadcast(1)[0],
    "ResultStream.route": lambda s: results(s).route(lambda n: n % 2, echo_results),
    "ResultStream.zip": lambda s: results(s).zip(results(Watched())),
    "ResultStream.merge": lambda s: results(s).merge(results(silence())),
    "ResultStream.chunks_or_timeout": lambda s: results(s).chunks_or_timeout(2, 9.0),
    "ResultStream.debounce": lambda s: results(s).debounce(0.0001),
    "ResultStream.take_until": lambda s: results(s).take_until(silence()),
    "drain_on": lambda s: results(s).drain_on(asyncio.Event()),
    "drain_on and a window": lambda s: results(s).drain_on(asyncio.Event()).sliding(2),
    "successes": lambda s: results(s).successes(),
    "successes of a window": lambda s: results(s).sliding(2).successes(),
    "or_failure": lambda s: results(s).or_failure(OSError),
    "a slice": lambda s: results(s)[1:],
    "a slice of a window": lambda s: results(s).sliding(2)[1:],
    "a sum": lambda s: results(s) + results(silence()),
    "a stage of one's own": lambda s: results(s).through(lambda stream: stream.map(str)),
}
each_stream = pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)


@each_stream
def test_every_stream_can_be_closed_by_aclosing(make: Callable[[Any], Any]) -> None:
    """Without a warning (they are errors in these tests), as every async generator can."""
    watched = Watched()

    async def main() -> None:
        async with contextlib.aclosing(make(watched)) as items:
            async for _ in items:
                break
        watched.assert_clean()

    run(main())


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Keep the garbage collector from running: what is freed is freed by its last reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@each_stream
def test_to_break_off_any_stream_begins_the_clean_up_at_once(make: Callable[[Any], Any]) -> None:
    """No reference cycle keeps it for the collector."""
    watched = Watched()

    async def main() -> None:
        async for _ in make(watched):
            break
        await advance(0.001)
        assert watched.log == ["opened", "clean-up begun"]
        await advance(2)
        watched.assert_clean()

    run(main())


@each_stream
def test_a_reading_that_is_kept_continues_after_a_break(make: Callable[[Any], Any]) -> None:
    watched = Watched()

    async def main() -> None:
        reader = aiter(make(watched))
        for _ in range(2):
            async for _item in reader:
                break
        assert watched.log == ["opened"]
        await reader.aclose()
        watched.assert_clean()

    run(main())
