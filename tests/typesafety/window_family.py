# mypy: disable-error-code="unused-awaitable"
"""Never run. What mypy and pyright infer for the windows, without the package's plugin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import assert_type

from aiostream import Stream

from returns_pipeline import ResultStream, pipe
from returns_pipeline.windows import (
    Assigner,
    EventWindow,
    Late,
    SessionWindows,
    SlidingWindows,
    TumblingWindows,
    chunks_by_weight,
    event_windows,
    keyed_chunks,
    sessions,
    sliding,
)


@dataclass
class Flight:
    """An item with facts of several types."""

    carrier: str
    number: int
    at: float


def carrier(flight: Flight) -> str:
    return flight.carrier


def length(text: str) -> int:
    return len(text)


def size(flight: Flight) -> float:
    return flight.at


def by_weight(flights: AsyncIterator[Flight], texts: Stream[str]) -> None:
    """The weight's argument is the item, a lambda's too."""
    assert_type(
        chunks_by_weight(flights, 10, 1.0, weight=lambda flight: flight.at), Stream[list[Flight]]
    )
    weighed = chunks_by_weight(texts, 10, 1.0, weight=len)  # pyright would infer it backwards
    assert_type(weighed, Stream[list[str]])
    assert_type(texts | chunks_by_weight.pipe(10, 1.0, weight=length), Stream[list[str]])
    assert_type(
        chunks_by_weight.raw(flights, 10, 1.0, weight=size, n=3), AsyncIterator[list[Flight]]
    )
    assert_type(pipe.chunks_by_weight(9.5, 1.0, weight=size)(flights), Stream[list[Flight]])
    chunks_by_weight(flights, 10, 1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    chunks_by_weight(flights, 10, 1.0, weight=carrier)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    chunks_by_weight(flights, 10, 1.0, weight=lambda f: f.carier)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def by_key(flights: AsyncIterator[Flight], stream: Stream[Flight]) -> None:
    """The pair's first half is what the key function returns."""
    assert_type(
        keyed_chunks(flights, 10, 1.0, key=lambda flight: flight.carrier),
        Stream[tuple[str, list[Flight]]],
    )
    assert_type(
        keyed_chunks(flights, 10, 1.0, key=lambda f: (f.carrier, f.number), max_keys=9),
        Stream[tuple[tuple[str, int], list[Flight]]],
    )
    assert_type(
        keyed_chunks.raw(flights, 10, 1.0, key=carrier),
        AsyncIterator[tuple[str, list[Flight]]],
    )
    assert_type(stream | keyed_chunks.pipe(10, 1.0, key=carrier), Stream[tuple[str, list[Flight]]])
    assert_type(pipe.keyed_chunks(10, 1.0, key=carrier)(stream), Stream[tuple[str, list[Flight]]])
    keyed_chunks(flights, 10, 1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    keyed_chunks(flights, 10, 1.0, key=len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    keyed_chunks(flights, 10, 1.0, carrier)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def by_place_and_silence(flights: AsyncIterator[Flight], stream: Stream[Flight]) -> None:
    """Lists of the items."""
    assert_type(sliding(flights, 3), Stream[list[Flight]])
    assert_type(stream | sliding.pipe(3, step=2), Stream[list[Flight]])
    assert_type(stream | pipe.sliding(3), Stream[list[Flight]])
    assert_type(sliding.raw(flights, 3), AsyncIterator[list[Flight]])
    assert_type(sessions(flights, 2.0), Stream[list[Flight]])
    assert_type(
        sessions(flights, 2.0, max_duration=60, n=100, key=lambda f: f.carrier, max_keys=9),
        Stream[list[Flight]],
    )
    assert_type(sessions.raw(flights, 2.0), AsyncIterator[list[Flight]])
    assert_type(stream | sessions.pipe(2.0, key=carrier), Stream[list[Flight]])
    assert_type(stream | pipe.sessions(2.0), Stream[list[Flight]])
    assert_type(stream | pipe.sessions(2.0, key=carrier, max_keys=9), Stream[list[Flight]])
    sliding(flights, 3, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sliding(flights, "3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sessions(flights, 2.0, key=len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sessions(flights)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def methods(flights: ResultStream[Flight, ValueError]) -> None:
    """The values are grouped, the error stays; lambdas know their argument."""
    assert_type(
        flights.keyed_chunks(10, 1.0, key=lambda f: f.number),
        ResultStream[tuple[int, list[Flight]], ValueError],
    )
    assert_type(
        flights.chunks_by_weight(10, 1.0, weight=lambda f: f.at),
        ResultStream[list[Flight], ValueError],
    )
    assert_type(flights.sliding(3, step=2), ResultStream[list[Flight], ValueError])
    assert_type(
        flights.sessions(2.0, key=lambda f: f.carrier, max_keys=9),
        ResultStream[list[Flight], ValueError],
    )
    flights.keyed_chunks(10, 1.0, key=lambda f: f.carier)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    flights.sessions(2.0, key=len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def piped_wrongly() -> None:
    """Arguments are checked without a source, too."""
    pipe.chunks_by_weight(9.5, 1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pipe.keyed_chunks(10, key=carrier)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pipe.sessions("2")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    pipe.sliding(3, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def by_event_time(flights: AsyncIterator[Flight], stream: Stream[Flight]) -> None:
    """Without a key function the key is None; the items keep their type."""
    assert_type(
        event_windows(flights, TumblingWindows(60), timestamp=lambda flight: flight.at),
        Stream[EventWindow[None, Flight]],
    )
    assert_type(
        event_windows(
            flights,
            SlidingWindows(60, 20),
            timestamp=lambda f: f.at,
            key=lambda f: f.number,
            late=print,
        ),
        Stream[EventWindow[int, Flight]],
    )
    assert_type(
        event_windows.raw(flights, SessionWindows(60), timestamp=size),
        AsyncIterator[EventWindow[None, Flight]],
    )
    assert_type(
        stream | event_windows.pipe(SessionWindows(60), timestamp=size, key=carrier),
        Stream[EventWindow[str, Flight]],
    )
    assert_type(
        stream | pipe.event_windows(TumblingWindows(60, offset=5), timestamp=size),
        Stream[EventWindow[None, Flight]],
    )
    any_of_them: Assigner = TumblingWindows(60)
    event_windows(flights, any_of_them, timestamp=size, late=carrier, idle_after=3)
    to_function: Late[Flight] = carrier
    to_number: Late[Flight] = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del to_function, to_number
    event_windows(flights, TumblingWindows(60))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    event_windows(flights, 60.0, timestamp=size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    event_windows(flights, TumblingWindows(60), timestamp=carrier)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    event_windows(flights, TumblingWindows(60), timestamp=size, late=length)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pipe.event_windows(TumblingWindows(60))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TumblingWindows()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SlidingWindows(60)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SessionWindows("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    _: Assigner = 60.0  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def what_an_event_window_holds(window: EventWindow[str, Flight]) -> None:
    """Facts with their types, and they stay as they are."""
    assert_type(window.key, str)
    assert_type(window.items, list[Flight])
    assert_type((window.start, window.end), tuple[float, float])
    assert_type((window.pane, window.is_late), tuple[int, bool])
    _wider: EventWindow[object, object] = window
    window.pane = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    EventWindow(window.key, 0.0, 1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def by_event_time_as_a_method(flights: ResultStream[Flight, ValueError]) -> None:
    """As the operator, on values."""
    assert_type(
        flights.event_windows(TumblingWindows(60), timestamp=lambda f: f.at),
        ResultStream[EventWindow[None, Flight], ValueError],
    )
    assert_type(
        flights.event_windows(
            SessionWindows(60), timestamp=lambda f: f.at, key=lambda f: f.carrier
        ),
        ResultStream[EventWindow[str, Flight], ValueError],
    )
    flights.event_windows(TumblingWindows(60), timestamp=carrier)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
