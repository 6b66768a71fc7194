"""What windows report: each once, with its size, its age, and why it was emitted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, telemetry, windows
from returns_pipeline.connectors import Source
from returns_pipeline.telemetry import (
    Backpressure,
    LateItems,
    WatermarkAdvanced,
    WindowEmitted,
)
from returns_pipeline.testing import MemoryBroker, Recorder, Wait, run, timed
from returns_pipeline.windows import SessionWindows, TumblingWindows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def shown(recorder: Recorder) -> list[tuple[float, int, str, float | None]]:
    """Show when each window was emitted, its size, why, and its age."""
    return [(e.at, e.size, e.reason, e.age) for e in recorder.of(WindowEmitted)]


def emitted(
    make: Callable[[ResultStream[Any, Any]], ResultStream[Any, Any]],
    *items: Any,
    busy: float = 0.0,
) -> list[tuple[float, int, str, float | None]]:
    """Run windows of items that come at times; a string is a failure."""
    recorder = Recorder()

    def checked(item: Any) -> Result[Any, str]:
        return Failure(item) if isinstance(item, str) else Success(item)

    async def handled(_: object) -> None:
        await asyncio.sleep(busy)

    async def main() -> None:
        s = make(ResultStream.of(timed(*items)).bind(checked))
        await s.observed(recorder, name="shop").tap_async(handled).run_all()

    run(main())
    assert {e.pipeline for e in recorder.events} == {"shop"}
    return shown(recorder)


EVERY_WINDOW: dict[str, Callable[[ResultStream[Any, Any]], ResultStream[Any, Any]]] = {
    "chunks_or_timeout": lambda s: s.chunks_or_timeout(3, 5.0),
    "chunks_by_weight": lambda s: s.chunks_by_weight(9.0, 5.0, weight=float, n=3),
    "chunks_until": lambda s: s.chunks_until(lambda n: n == 9, n=3, timeout=5.0),
    "keyed_chunks": lambda s: s.keyed_chunks(3, 5.0, key=bool),
    "sessions": lambda s: s.sessions(5.0, n=3),
}


@pytest.mark.parametrize("operator", EVERY_WINDOW)
def test_a_window_says_why_it_was_emitted_and_how_old_it_was(operator: str) -> None:
    make = EVERY_WINDOW[operator]
    time = "gap" if operator == "sessions" else "time"
    # Full, after two seconds.
    assert emitted(make, 1, Wait(2.0), 1, 1) == [(2.0, 3, "size", 2.0)]
    # By its time.
    assert emitted(make, 1, Wait(9.0)) == [(5.0, 1, time, 5.0)]
    # By the end of the source.
    assert emitted(make, 1, Wait(2.0)) == [(2.0, 1, "end", 2.0)]
    # By a failure.
    assert emitted(make, 1, Wait(2.0), "no", Wait(9.0)) == [(2.0, 1, "failure", 2.0)]


@pytest.mark.parametrize("operator", EVERY_WINDOW)
def test_a_window_before_an_exception_of_the_source_is_one_before_a_failure(operator: str) -> None:
    recorder = Recorder()

    async def broken() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(1.0)
        raise OSError("gone")

    async def main() -> None:
        with pytest.raises(OSError, match="gone"):
            await EVERY_WINDOW[operator](ResultStream.of(broken())).observed(recorder).run()

    run(main())
    assert shown(recorder) == [(1.0, 1, "failure", 1.0)]


FLUSHED: dict[str, Callable[[Any, Any], Any]] = {
    "chunks_or_timeout": lambda s, f: windows.chunks_or_timeout(s, 3, 5.0, flush_on=f),
    "chunks_by_weight": lambda s, f: windows.chunks_by_weight(s, 9, 5.0, weight=int, flush_on=f),
    "chunks_until": lambda s, f: windows.chunks_until(s, bool, timeout=5.0, flush_on=f),
    "keyed_chunks": lambda s, f: windows.keyed_chunks(s, 3, 5.0, key=bool, flush_on=f),
    "sessions": lambda s, f: windows.sessions(s, 5.0, flush_on=f),
    "sliding": lambda s, f: windows.sliding(s, 3, flush_on=f),
    "event_windows": lambda s, f: windows.event_windows(
        s, TumblingWindows(9.0), timestamp=float, flush_on=f
    ),
}


@pytest.mark.parametrize("operator", FLUSHED)
def test_a_window_that_was_flushed_says_so_and_operators_are_observed_by_themselves(
    operator: str,
) -> None:
    """Without a `ResultStream`, by the observers of ``use``."""
    recorder = Recorder()

    async def main() -> None:
        stream = FLUSHED[operator](timed(0, Wait(4.0)), timed(Wait(2.0), "now", Wait(9.0)))
        with telemetry.use(recorder, pipeline="shop"):
            async with stream.stream() as items:
                async for _ in items:
                    pass

    run(main())
    (event,) = recorder.of(WindowEmitted)
    assert (event.at, event.size, event.reason) == (2.0, 1, "flush")
    assert (event.pipeline, event.stage, event.operator) == ("shop", operator, operator)
    assert event.age == (None if operator in {"sliding", "event_windows"} else 2.0)


def test_windows_by_weight_say_what_they_weigh() -> None:
    recorder = Recorder()

    async def main() -> None:
        s = ResultStream.of(timed(4, 4, Wait(1.0), 4, 20, 1)).observed(recorder)
        await s.chunks_by_weight(10.0, 5.0, weight=float).run()

    run(main())
    found = [(e.size, e.weight, e.reason, e.age) for e in recorder.of(WindowEmitted)]
    assert found == [
        (2, 8.0, "weight", 1.0),
        (1, 4.0, "weight", 0.0),
        (1, 20.0, "weight", 0.0),
        (1, 1.0, "end", 0.0),
    ]


def test_a_marker_closes_a_window() -> None:
    made = emitted(lambda s: s.chunks_until(lambda n: n == 9), 1, Wait(2.0), 9, 1)
    assert made == [(2.0, 2, "marker", 2.0), (2.0, 1, "end", 0.0)]


def test_a_session_that_lasts_too_long_is_emitted_by_its_time() -> None:
    items = [1, Wait(2.0), 1, Wait(2.0), 1, Wait(2.0)]
    made = emitted(lambda s: s.sessions(3.0, max_duration=5.0), *items)
    assert made == [(5.0, 3, "time", 5.0)]


@pytest.mark.parametrize("operator", ["keyed_chunks", "sessions"])
def test_a_window_that_makes_room_for_another_key_was_evicted(operator: str) -> None:
    def make(s: ResultStream[Any, Any]) -> ResultStream[Any, Any]:
        if operator == "sessions":
            return s.sessions(9.0, key=str, max_keys=1)
        return s.keyed_chunks(3, 9.0, key=str, max_keys=1)

    made = emitted(make, 1, Wait(1.0), 2, Wait(1.0))
    assert made == [(1.0, 1, "evicted", 1.0), (2.0, 1, "end", 1.0)]


def test_lists_of_silence_are_empty_and_emitted_by_time() -> None:
    made = emitted(lambda s: s.chunks_or_timeout(3, 2.0, emit_empty=True), Wait(3.0), 1)
    assert made == [(2.0, 0, "time", 0.0), (3.0, 1, "end", 0.0)]
    made = emitted(
        lambda s: s.chunks_until(bool, timeout=2.0, emit_empty=True), Wait(3.0), 1, Wait(1.0)
    )
    assert made == [(2.0, 0, "time", 0.0), (3.0, 1, "marker", 0.0)]


def test_sliding_windows_have_no_age() -> None:
    made = emitted(lambda s: s.sliding(2), 1, 2, Wait(1.0), 3, "no", 4)
    assert made == [
        (0.0, 2, "size", None),
        (1.0, 2, "size", None),
        (1.0, 1, "end", None),
    ]
    made = emitted(lambda s: s.sliding(3), 1, "no", Wait(1.0))
    assert made == [(0.0, 1, "failure", None)]


def test_event_windows_report_watermarks_late_items_and_why() -> None:
    recorder = Recorder()

    async def main() -> None:
        s = ResultStream.of(timed(1, 2, Wait(1.0), 13, 3, 4, 14, 25))
        await s.event_windows(TumblingWindows(10.0), timestamp=float).observed(recorder).run()

    run(main())
    assert shown(recorder) == [
        (1.0, 2, "watermark", None),
        (1.0, 1, "late", None),
        (1.0, 1, "late", None),
        (1.0, 2, "watermark", None),
        (1.0, 1, "end", None),
    ]
    found = [(e.at, e.watermark) for e in recorder.of(WatermarkAdvanced)]
    assert found == [(1.0, 13.0), (1.0, 25.0), (1.0, float("inf"))]
    assert [(e.stage, e.count) for e in recorder.of(LateItems)] == [("event_windows", 2)]


def test_late_items_that_no_window_takes_are_counted_too() -> None:
    recorder = Recorder()

    async def main() -> None:
        s = ResultStream.of(timed(1, 30, 2))
        late = s.event_windows(SessionWindows(5.0), timestamp=float, late=lambda _: None)
        await late.observed(recorder).run()

    run(main())
    assert [e.count for e in recorder.of(LateItems)] == [1]
    assert [e.reason for e in recorder.of(WindowEmitted)] == ["watermark", "end"]


@pytest.mark.parametrize("operator", [*EVERY_WINDOW, "sliding"])
def test_a_slow_reader_is_reported_as_backpressure(operator: str) -> None:
    recorder = Recorder()
    make = EVERY_WINDOW.get(operator) or (lambda s: s.sliding(3, step=3))

    async def handled(_: object) -> None:
        await asyncio.sleep(4.0)

    async def main() -> None:
        s = make(ResultStream.of(timed(*[1] * 12)))
        await s.observed(recorder).tap_async(handled).run()

    run(main())
    waits = recorder.of(Backpressure)
    assert {e.stage for e in waits} == {operator}
    assert {e.waits for e in waits} == {1}
    assert sum(e.waited for e in waits) == waits[-1].at - 0.0
    assert {e.in_flight for e in waits} <= {3, 4}


def test_a_source_without_credit_flushes_windows() -> None:
    recorder = Recorder()
    broker = MemoryBroker()

    async def main() -> None:
        for n in range(4):
            broker.publish(b"%d" % n)
        async with Source(broker.driver("group"), decode=int, max_in_flight=2) as source:
            s = source.messages().chunks_or_timeout(9, 60.0).observed(recorder)
            stop = asyncio.Event()
            asyncio.get_running_loop().call_later(5.0, stop.set)
            await s.drain_on(stop).run()

    run(main())
    assert [(e.size, e.reason) for e in recorder.of(WindowEmitted)] == [(2, "credit")] * 2


def test_stages_of_one_name_are_numbered() -> None:
    recorder = Recorder()

    async def main() -> None:
        s = ResultStream.of(timed(1, 2)).chunks_or_timeout(1, 9.0).chunks_or_timeout(2, 9.0)
        await s.observed(recorder, name="shop").run()

    run(main())
    found = [(e.stage, e.operator, e.size) for e in recorder.of(WindowEmitted)]
    assert set(found) == {
        ("chunks_or_timeout", "chunks_or_timeout", 1),
        ("chunks_or_timeout_2", "chunks_or_timeout", 2),
    }
