"""Which records are written together: consecutive ones, or those that have something in common.

`windowed` makes windows of consecutive records, of records with the same key, or of hours.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Never, TypeAlias

import msgspec
from returns.result import Failure, Result, Success

from flight_records import Flight, Parsed, Rejected, Source
from flight_stores import Departures
from flight_tally import Tally, Window
from returns_pipeline import ResultStream, pipe
from returns_pipeline.windows import EventWindow, TumblingWindows

By: TypeAlias = Literal["carrier", "origin", "dest"]
Counted: TypeAlias = Result[EventWindow[str, Flight], Rejected]


@dataclass(frozen=True, slots=True)
class Windows:
    """How windows are made.

    Attributes:
        size: Records in a full window.
        seconds: The longest time of a window, from its first record on.
        by: What the flights of a window have in common, if anything.
        event_time: Seconds of scheduled time in the windows in which departures are counted, if
            they are.
        out_of_order: Seconds of scheduled time by which a flight may arrive after a later one.
    """

    size: int = 500
    seconds: float = 2.0
    by: By | None = None
    event_time: int | None = None
    # The flights of 2013 are in the order of their departures, those of a day together. A flight
    # that was scheduled for 23:59 and left after midnight is the first of the day on which it was
    # scheduled: the next one, scheduled for 5:00, is 18 hours and 59 minutes earlier.
    out_of_order: int = 19 * 3600


def windowed(
    records: ResultStream[Flight, Rejected], source: Source, tally: Tally, how: Windows
) -> ResultStream[Window, Never]:
    """Group records, those that were rejected included; a rejected one closes no window."""
    if how.event_time is not None:
        return _hourly(records, source, tally, how, how.event_time)
    if how.by is not None:
        return _keyed(records, source, tally, how, how.by)
    chunks = records | pipe.chunks_or_timeout(how.size, how.seconds)
    return ResultStream.of(chunks).map(
        lambda items: tally.open(items, how.size, ended=source.ended)
    )


def _keyed(
    records: ResultStream[Flight, Rejected], source: Source, tally: Tally, how: Windows, by: By
) -> ResultStream[Window, Never]:
    """Keep a window for each carrier or airport, and one for the rejected lines."""
    field: Callable[[Flight], str] = operator.attrgetter(by)

    def key(item: Parsed) -> str | None:
        return field(item.unwrap()) if isinstance(item, Success) else None

    chunks = records | pipe.keyed_chunks(how.size, how.seconds, key=key)
    return ResultStream.of(chunks).map(
        lambda pair: tally.open(pair[1], how.size, ended=source.ended)
    )


def _hourly(
    records: ResultStream[Flight, Rejected],
    source: Source,
    tally: Tally,
    how: Windows,
    seconds: int,
) -> ResultStream[Window, Never]:
    """Count the departures of each airport by their scheduled time.

    A count is final: it is emitted when the watermark has passed the end of its hour (or at the end
    of the input). A flight that arrives later still is rejected as "late". Then as many hours as
    hold ``how.size`` flights are written together, none of them in two parts.
    """
    weighed = given = 0

    def weight(item: Counted) -> int:
        nonlocal weighed
        weight = len(item.unwrap().items) if isinstance(item, Success) else 1
        weighed += weight
        return weight

    def begin(items: list[Counted]) -> Window:
        nonlocal given
        flights: list[Flight] = []
        rejected: list[Rejected] = []
        departures: list[Departures] = []
        for item in items:
            if isinstance(item, Success):
                hour = item.unwrap()
                flights += hour.items
                start = datetime.fromtimestamp(hour.start, UTC)
                departures.append(Departures(hour.key, start, seconds, len(hour.items)))
            else:
                rejected.append(item.failure())
        held = len(flights) + len(rejected)
        given += held
        # It is full if the next did not fit: that one is weighed already, and not emitted.
        full = weighed > given or held >= how.size
        return tally.begin(flights, rejected, departures, full=full, ended=source.ended)

    counted = records.event_windows(
        TumblingWindows(seconds),
        timestamp=lambda flight: flight.scheduled,
        key=lambda flight: flight.origin,
        max_out_of_orderness=how.out_of_order,
    ).bind(_in_time)
    chunks = counted | pipe.chunks_by_weight(how.size, how.seconds, weight=weight)
    return ResultStream.of(chunks).map(begin)


def _in_time(hour: EventWindow[str, Flight]) -> Counted:
    """Reject a flight whose hour has been emitted: it arrives alone, in a late window."""
    if not hour.is_late:
        return Success(hour)
    [flight] = hour.items
    end = datetime.fromtimestamp(hour.end, UTC)
    detail = f"its hour ended at {end:%Y-%m-%d %H:%M:%S}"
    return Failure(Rejected(flight.line, "late", detail, msgspec.json.encode(flight).decode()))
