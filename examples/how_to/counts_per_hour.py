"""Count visits by the hour in which they happened; they arrive late, and in any order."""

import asyncio
from datetime import UTC, datetime

from returns_pipeline import ResultStream
from returns_pipeline.sources import from_iterable
from returns_pipeline.windows import EventWindow, TumblingWindows

ARRIVED = [
    "9:05",
    "9:40",
    "9:55",
    "10:02",
    "9:58",
    "10:30",
    "11:10",
    "10:50",
    "9:30",
    "12:40",
    "9:59",
]
HOUR = 3600.0
table: dict[str, int] = {}
late: list[str] = []


def happened(visit: str) -> float:
    hour, minute = map(int, visit.split(":"))
    return datetime(2026, 1, 31, hour, minute, tzinfo=UTC).timestamp()


def store(window: EventWindow[None, str]) -> None:
    hour = datetime.fromtimestamp(window.start, UTC).strftime("%H:00")
    print(hour, len(window.items), *["again"] * (window.pane > 0))
    table[hour] = len(window.items)  # a later pane has all items: it replaces the count


async def main() -> None:
    visits = ResultStream.of(from_iterable(ARRIVED))
    hours = visits.event_windows(
        TumblingWindows(HOUR),
        timestamp=happened,
        max_out_of_orderness=HOUR / 6,  # wait ten minutes for stragglers
        allowed_lateness=HOUR / 2,  # and correct the count for another half hour
        late=late.append,  # after that, they are set aside
    )
    print(await hours.tap(store).run())
    print(table, "too late:", late)


if __name__ == "__main__":
    asyncio.run(main())
