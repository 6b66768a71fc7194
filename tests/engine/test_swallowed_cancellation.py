"""Closing ends, although user code has swallowed the cancellation and continues."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, chunks_by_weight, chunks_or_timeout, combine
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.sources import restarting
from returns_pipeline.testing import run
from returns_pipeline.windows import (
    TumblingWindows,
    chunks_until,
    event_windows,
    keyed_chunks,
    sessions,
    sliding,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


async def stubborn(n: int = 0) -> AsyncIterator[int]:
    """Emit a number each second, and one more for each cancellation."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
        yield n
        n += 1


async def stubborn_results(n: int = 0) -> AsyncIterator[Result[int, int]]:
    """Emit a success, then failures."""
    async with contextlib.aclosing(stubborn(n)) as numbers:  # type: ignore[type-var]  # a generator
        async for number in numbers:
            yield Failure(number) if number > n else Success(number)


async def silent() -> AsyncIterator[int]:
    yield 0
    yield 1
    await asyncio.sleep(60)


async def nothing() -> AsyncIterator[int]:
    await asyncio.sleep(math.inf)
    yield 0


async def ending() -> AsyncIterator[int]:
    yield 0
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)


async def stubborn_step(n: int) -> int:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    return n


async def stubborn_worker(_: int, items: AsyncIterator[int]) -> AsyncIterator[int]:
    async for item in items:
        yield item
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def failing() -> AsyncIterator[int]:
    await asyncio.sleep(2.5)
    yield int("no number")


def results() -> ResultStream[int, int]:
    return ResultStream.from_results(stubborn_results())


FORMS: dict[str, Callable[[], Any]] = {
    "map_async": lambda: ResultStream.of(silent()).map_async(stubborn_step, concurrency=3),
    "map_async, unordered": lambda: ResultStream.of(silent()).map_async(
        stubborn_step, concurrency=3, ordered=False
    ),
    "concat": lambda: combine.concat(ending(), nothing()),
    "filter": lambda: ResultStream.of(stubborn()).filter(lambda n: n < 1).prefetch(2),
    "filter, joined": lambda: ResultStream.of(silent()).merge(
        ResultStream.of(stubborn()).filter(lambda n: n < 1)
    ),
    "flat_map": lambda: results().flat_map(lambda _: stubborn_results()),
    "flat_map, concurrently": lambda: results().flat_map(
        lambda _: stubborn_results(), concurrency=2
    ),
    "route": lambda: combine.route(silent(), lambda n: n, stubborn_worker),
    "event_windows": lambda: results().event_windows(TumblingWindows(9.0), timestamp=float),
    "chunks_or_timeout": lambda: results().chunks_or_timeout(9, 60.0),
    "keyed_chunks": lambda: results().keyed_chunks(9, 60.0, key=lambda n: n),
    "sessions": lambda: results().sessions(60.0),
    "sliding": lambda: results().sliding(9),
}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_closing_ends_if_user_code_swallows_the_cancellation_and_continues(
    make: Callable[[], Any],
) -> None:
    async def main() -> None:
        opened = make().stream()
        _ = await opened.__aenter__()

        async def read() -> None:
            async for _ in opened:
                pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(4.5)
        await opened.aclose()
        await reading
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


WINDOWS: dict[str, Callable[[Any], Any]] = {
    "chunks_or_timeout": lambda f: chunks_or_timeout(stubborn(), 3, 60.0, flush_on=f),
    "chunks_until": lambda f: chunks_until(stubborn(), lambda n: n % 3 == 2, flush_on=f),
    "chunks_by_weight": lambda f: chunks_by_weight(
        stubborn(), 3, 60.0, weight=lambda _: 1, flush_on=f
    ),
    "keyed_chunks": lambda f: keyed_chunks(stubborn(), 3, 60.0, key=lambda _: "", flush_on=f),
    "sessions": lambda f: sessions(stubborn(), 60.0, n=3, flush_on=f),
    "sliding": lambda f: sliding(stubborn(), 3, flush_on=f),
    "event_windows": lambda f: event_windows(
        stubborn(), TumblingWindows(3.0), timestamp=float, flush_on=f
    ),
}


@pytest.mark.parametrize("make", WINDOWS.values(), ids=WINDOWS)
def test_closing_wakes_a_source_that_was_stopped_before_and_waits_for_the_reader(
    make: Callable[[Any], Any],
) -> None:
    """The signal has failed, the source has swallowed that, and has filled another window."""

    async def main() -> None:
        async with make(failing()).stream() as windows:
            _ = await anext(windows)
            await asyncio.sleep(20)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_closing_does_not_open_a_source_again_that_reports_its_cancellation_as_a_failure() -> None:
    opened: list[int] = []

    async def lost() -> AsyncIterator[int]:
        opened.append(1)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            raise ConnectionError("lost") from error
        yield 0

    async def main() -> None:
        stream = restarting(lost, RetryPolicy(attempts=9, wait=5.0)).stream()
        _ = await stream.__aenter__()
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(1)
        await stream.aclose()
        with pytest.raises(ConnectionError, match="lost"):
            _ = await reading
        assert len(opened) == 1

    run(main())


@pytest.mark.parametrize("make", WINDOWS.values(), ids=WINDOWS)
def test_the_error_of_the_signal_is_raised_although_the_source_reads_on(
    make: Callable[[Any], Any],
) -> None:
    async def main() -> None:
        items: list[int] = []
        with pytest.raises(ValueError, match="no number"):
            async with asyncio.timeout(20), make(failing()).stream() as windows:
                async for window in windows:
                    taken: Any = getattr(window, "items", window)
                    items += taken[1] if isinstance(taken, tuple) else taken
        assert set(items) == set(range(3))  # the last one was read in the moment of the stop

    run(main())


async def stubborn_failures() -> AsyncIterator[Result[int, int]]:
    """Emit 40 failures, then one each second until it is cancelled, and then without waiting."""
    for number in range(40):
        yield Failure(number)
    number = 40
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(1)
            yield Failure(number)
            number += 1
    while True:
        yield Failure(number)
        number += 1


WINDOWS_OF_RESULTS: dict[str, Callable[[Any, Any], Any]] = {
    "chunks_or_timeout": lambda s, f: s.chunks_or_timeout(3, 60.0, flush_on=f),
    "chunks_until": lambda s, f: s.chunks_until(lambda _: True, flush_on=f),
    "chunks_by_weight": lambda s, f: s.chunks_by_weight(3, 60.0, weight=float, flush_on=f),
    "keyed_chunks": lambda s, f: s.keyed_chunks(3, 60.0, key=str, flush_on=f),
    "sessions": lambda s, f: s.sessions(60.0, flush_on=f),
    "sliding": lambda s, f: s.sliding(3, flush_on=f),
    "event_windows": lambda s, f: s.event_windows(
        TumblingWindows(3.0), timestamp=float, flush_on=f
    ),
}


@pytest.mark.parametrize("make", WINDOWS_OF_RESULTS.values(), ids=WINDOWS_OF_RESULTS)
def test_the_error_of_the_signal_is_raised_although_the_source_emits_nothing_but_failures(
    make: Callable[[Any, Any], Any],
) -> None:
    async def main() -> None:
        items: list[int] = []
        stream = make(ResultStream.from_results(stubborn_failures()), failing())
        with pytest.raises(ValueError, match="no number"):
            async with asyncio.timeout(20), stream.stream() as windows:
                async for window in windows:
                    items.append(window.failure())
        assert items == [*range(43)]  # the last one was read in the moment of the stop

    run(main())


class Held(float):
    """An item that shows whether it is still referred to."""


CLOSED: dict[str, Callable[[Any], Any]] = {
    "chunks_or_timeout": lambda s: chunks_or_timeout.raw(s, 9, 60.0),
    "chunks_by_weight": lambda s: chunks_by_weight.raw(s, 9, 60.0, weight=lambda _: 1),
    "keyed_chunks": lambda s: keyed_chunks.raw(s, 9, 60.0, key=lambda _: ""),
    "sessions": lambda s: sessions.raw(s, 60.0),
    "event_windows": lambda s: event_windows.raw(s, TumblingWindows(9.0), timestamp=float),
    "merge": lambda s: combine.merge.raw(s, nothing()),
    "prefetch": lambda s: combine.prefetch.raw(s, 9),
}


@pytest.mark.parametrize("read", CLOSED.values(), ids=CLOSED)
def test_a_closed_reader_does_not_hold_an_item_that_came_while_it_was_closed(
    read: Callable[[Any], Any],
) -> None:
    """Its source has swallowed the cancellation, and the reader is kept."""
    late: list[weakref.ref[Held]] = []

    async def source() -> AsyncIterator[Held]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(math.inf)
        item = Held(1)
        late.append(weakref.ref(item))
        yield item

    async def main() -> None:
        reader = read(source())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(reader)
        await reader.aclose()
        gc.collect()
        assert [item() for item in late] == [None]

    run(main())
