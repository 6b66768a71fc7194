"""`flush_on`, `emit_empty` and `chunks_until`: what their models do not say."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, chunks_by_weight, chunks_or_timeout, pipe, to_result
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.sources import Channel, ticks
from returns_pipeline.testing import (
    FaultInjector,
    VirtualTimeLoop,
    Wait,
    run,
    script,
    timed,
    timeline,
)
from returns_pipeline.windows import chunks_until, sessions, sliding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiostream import Stream


def at(when: float, function: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_at(when, function)


def test_an_event_that_stays_set_flushes_once_and_one_set_before_the_start_does_not() -> None:
    async def main() -> None:
        event = asyncio.Event()
        event.set()
        source = script("ab-c--d-e--|")
        at(2.5, event.clear)
        at(4.5, event.set)
        at(8.5, event.clear)
        at(8.75, event.set)
        assert await timeline(chunks_or_timeout(source, 10, 100.0, flush_on=event)) == [
            (4.5, ["a", "b", "c"]),
            (8.75, ["d", "e"]),
        ]

    run(main())


class OtherEvent(asyncio.Event):
    """An event that does not show who waits for it."""

    def __init__(self) -> None:
        self._inner = asyncio.Event()
        self.is_set = self._inner.is_set  # type: ignore[method-assign]
        self.set = self._inner.set  # type: ignore[method-assign]
        self.clear = self._inner.clear  # type: ignore[method-assign]
        self.wait = self._inner.wait  # type: ignore[method-assign]


def test_an_event_of_another_class_flushes_as_well() -> None:
    async def main() -> None:
        event = OtherEvent()
        event.set()
        source = script("ab-c--d-e--|")
        at(2.5, event.clear)
        at(4.5, event.set)
        at(8.5, event.clear)
        at(8.75, event.set)
        assert await timeline(chunks_or_timeout(source, 10, 100.0, flush_on=event)) == [
            (4.5, ["a", "b", "c"]),
            (8.75, ["d", "e"]),
        ]

    run(main())


def test_an_event_is_left_as_it_is() -> None:
    async def main() -> None:
        event = asyncio.Event()
        at(1.0, event.set)
        stream = ResultStream.of(script("a--b--c|")).drain_on(event)
        flushed = stream.chunks_or_timeout(9, 99.0, flush_on=event)
        assert await to_result(flushed.collect()) == Success([["a"]])
        assert event.is_set()
        assert asyncio.get_running_loop().time() == 1.0

    run(main())


def test_several_windows_may_share_an_event() -> None:
    async def main() -> None:
        event = asyncio.Event()
        at(1.5, event.set)
        chunks, silences = await asyncio.gather(
            timeline(chunks_or_timeout(script("ab---|"), 9, 99.0, flush_on=event)),
            timeline(sessions(script("cd---|"), 99.0, flush_on=event)),
        )
        assert chunks == [(1.5, ["a", "b"])]
        assert silences == [(1.5, ["c", "d"])]

    run(main())


def test_a_signal_that_comes_while_nothing_is_open_does_nothing() -> None:
    assert run(timeline(chunks_or_timeout(script("------a|"), 9, 99.0, flush_on=ticks(2.0)))) == [
        (6.0, ["a"])
    ]


def test_the_end_of_the_signal_ends_nothing_and_its_error_is_raised_after_the_open_list() -> None:
    async def main() -> None:
        ending = chunks_or_timeout(script("a-b-c|"), 9, 99.0, flush_on=script("-x|"))
        assert await timeline(ending) == [(1.0, ["a"]), (5.0, ["b", "c"])]
        source = timed("a", Wait(1), "b", Wait(100))
        seen: list[list[str]] = []
        with pytest.raises(ZeroDivisionError):
            failing: Any = timed(Wait(5), ZeroDivisionError())
            async with chunks_or_timeout(source, 9, 99.0, flush_on=failing).stream() as chunks:
                async for chunk in chunks:
                    seen.append(chunk)
        assert seen == [["a", "b"]]
        assert asyncio.get_running_loop().time() == 10
        assert source.opened == source.closed == 1

    run(main())


@pytest.mark.parametrize("how", ["end", "close", "drop", "fail"])
def test_the_signal_is_closed_with_the_source(how: str) -> None:
    async def main() -> None:
        closed: list[float] = []

        async def signal() -> AsyncIterator[None]:
            try:
                await asyncio.get_running_loop().create_future()
                yield None
            finally:
                await asyncio.sleep(1)
                closed.append(asyncio.get_running_loop().time())

        steps: list[Any] = ["a", "b", Wait(1)]
        steps += [OSError()] if how == "fail" else [] if how == "end" else [Wait(100)]
        reading = chunks_or_timeout.raw(timed(*steps), 2, 99.0, flush_on=signal())
        assert await anext(reading) == ["a", "b"]
        if how == "close":
            await reading.aclose()  # type: ignore[attr-defined]
        elif how == "drop":
            del reading
            gc.collect()
            await asyncio.sleep(2)
        else:
            with pytest.raises(OSError if how == "fail" else StopAsyncIteration):
                await anext(reading)
        assert closed == [2.0 if how in {"end", "fail"} else 1.0]
        assert len(asyncio.all_tasks()) == 1

    run(main())


@pytest.mark.parametrize("times", [1, 2])
def test_wherever_the_reader_is_cancelled_source_and_signal_are_closed(times: int) -> None:
    async def main() -> None:
        for injector in FaultInjector.every(times=times):
            source = timed("a", Wait(1), "b", Wait(1), "c")
            signal = timed(*[Wait(0.7), "x"] * 4)
            stream = chunks_or_timeout(source, 2, 5.0, flush_on=signal, emit_empty=True)
            with contextlib.suppress(asyncio.CancelledError):
                await injector.run(timeline(stream))
            assert source.opened == source.closed
            assert signal.opened == signal.closed
            if not injector.fired:
                break

    run(main())


def test_a_signal_that_never_suspends_lets_others_run() -> None:
    async def main() -> None:
        source = timed("a", Wait(1), "b")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)

        async def endless() -> AsyncIterator[None]:
            while True:
                loop.jump(0.001)  # what its work takes
                yield None

        seen: list[list[str]] = []
        async with chunks_or_timeout(source, 9, 99.0, flush_on=endless()).stream() as chunks:
            async for chunk in chunks:
                seen.append(chunk)
                if len(seen) == 2:
                    break
        assert seen == [["a"], ["b"]]
        assert source.closed == 1

    run(main())


def test_a_channel_is_a_signal() -> None:
    async def main() -> None:
        flush: Channel[str] = Channel(1)
        at(1.5, lambda: flush.send_soon("now"))
        stream = ResultStream.of(script("ab-c|")).keyed_chunks(9, 99.0, key=len, flush_on=flush)
        assert await timeline(stream.successes()) == [(1.5, (1, ["a", "b"])), (4.0, (1, ["c"]))]
        assert flush.closed

    run(main())


def test_silence_is_seen_and_a_slow_reader_gets_one_empty_list() -> None:
    async def main() -> None:
        shown = chunks_or_timeout(script("a-------b|"), 9, 3.0, emit_empty=True)
        assert await timeline(shown) == [(3.0, ["a"]), (6.0, []), (9.0, ["b"])]
        slow = chunks_or_timeout(script("a-------------------b|"), 9, 3.0, emit_empty=True)
        assert await timeline(slow, pause=7.0) == [
            (3.0, ["a"]),
            (10.0, []),
            (17.0, []),
            (24.0, ["b"]),
        ]

    run(main())


@pytest.mark.parametrize("kind", ["chunks", "until", "weight"])
def test_an_item_that_comes_before_the_reader_joins_the_empty_list(kind: str) -> None:
    make: dict[str, Callable[[Any], Stream[list[str]]]] = {
        "chunks": lambda source: chunks_or_timeout(source, 9, 2.0, emit_empty=True),
        "until": lambda source: chunks_until(source, never, timeout=2.0, emit_empty=True),
        "weight": lambda source: chunks_by_weight(source, 9, 2.0, weight=len, emit_empty=True),
    }

    def never(_: str) -> bool:
        return False

    async def main() -> None:
        async with make[kind](script("---a------|")).stream() as chunks:
            assert await anext(chunks) == []
            await asyncio.sleep(1.5)
            assert await anext(chunks) == ["a"]
            await asyncio.sleep(2.5)
            assert await anext(chunks) == []

    run(main())


def test_an_item_that_joins_an_empty_list_and_closes_it_is_not_lost() -> None:
    async def main() -> None:
        source = timed(Wait(5.0), "a", "b")
        stream = chunks_until(source, lambda _: True, timeout=2.0, emit_empty=True)
        async with stream.stream() as chunks:
            assert await anext(chunks) == []
            await asyncio.sleep(4)  # the second empty list is due at 4, and "a" joins it at 5
            assert [chunk async for chunk in chunks] == [["a"], ["b"]]
            assert asyncio.get_running_loop().time() == 6

    run(main())


def test_no_empty_list_follows_the_last_item() -> None:
    ended = chunks_or_timeout(timed("a", Wait(1)), 1, 5.0, emit_empty=True)
    assert run(timeline(ended, pause=20.0)) == [(0.0, ["a"])]
    assert run(timeline(chunks_or_timeout(timed(), 1, 5.0, emit_empty=True))) == []


def test_failures_keep_their_place_among_empty_lists_and_flushes() -> None:
    async def main() -> None:
        def odd(n: int) -> Result[int, str]:
            return Failure(f"{n}") if n % 2 else Success(n)

        source = timed(0, 1, Wait(5), 3, Wait(1), 4)
        stream = ResultStream.of(source).bind(odd)
        shown = stream.chunks_or_timeout(9, 2.0, emit_empty=True)
        assert await timeline(shown) == [
            (0.0, Success([0])),
            (0.0, Failure("1")),
            (2.0, Success([])),
            (4.0, Success([])),
            (5.0, Failure("3")),
            (6.0, Success([])),
            (6.0, Success([4])),
        ]
        until = stream.chunks_until(lambda n: n > 3, timeout=2.0, emit_empty=True)
        assert await timeline(until) == await timeline(shown)

    run(main())


def test_chunks_until_refuses_what_is_not_a_predicate() -> None:
    async def wrong(_: object) -> bool:
        return True

    coroutine: Any = wrong
    with pytest.raises(TypeError, match=r"chunks_until\(\) does not await"):
        _ = chunks_until(timed(1), coroutine)
    no_function: Any = 5
    with pytest.raises(TypeError, match=r"chunks_until\(\) takes a function"):
        _ = chunks_until(timed(1), no_function)

    async def main() -> None:
        def no_bool(item: int) -> Any:
            return None if item == 2 else False

        seen: list[list[int]] = []
        with pytest.raises(TypeError, match="no_bool"):
            async with chunks_until(timed(1, 2, 3), no_bool).stream() as chunks:
                async for chunk in chunks:
                    seen.append(chunk)
        assert seen == [[1, 2]]

    run(main())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: chunks_until(timed(1), bool, n=0),
        lambda: chunks_until(timed(1), bool, timeout=0),
        lambda: chunks_until(timed(1), bool, emit_empty=True),
        lambda: chunks_or_timeout(timed(1), 1, float("inf"), emit_empty=True),
        lambda: chunks_by_weight(timed(1), 1, float("inf"), weight=float, emit_empty=True),
        lambda: ResultStream.of(timed(1)).chunks_until(bool, n=-1),
        lambda: pipe.chunks_until(bool, n=1.5),  # type: ignore[arg-type]
    ],
    ids=["n", "timeout", "empty", "endless", "endless by weight", "method", "pipe"],
)
def test_bad_arguments_are_refused_at_the_call(wrong: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument):
        wrong()


def test_a_signal_that_is_none_is_refused_at_the_call() -> None:
    bad: Any = [1]
    for make in (
        lambda: chunks_or_timeout(timed(1), 1, 1.0, flush_on=bad),
        lambda: sliding(timed(1), 1, flush_on=bad),
        lambda: ResultStream.of(timed(1)).sessions(1.0, flush_on=bad),
    ):
        with pytest.raises(TypeError, match="expected an async iterable"):
            make()


def test_an_infinite_timeout_with_a_signal_shows_empty_lists_at_the_signal() -> None:
    stream = chunks_until(script("a-----|"), bool, flush_on=ticks(2.0), emit_empty=True)
    assert run(timeline(stream)) == [(0.0, ["a"]), (2.0, []), (4.0, [])]
