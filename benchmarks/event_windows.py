"""What windows of event time cost: items in order, out of order, and with keys."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, NamedTuple

from reactivex import operators
from reactivex.subject import Subject

from harness import Way, compare, show, start
from returns_pipeline.windows import SessionWindows, SlidingWindows, TumblingWindows, event_windows

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

    from returns_pipeline.windows import Assigner

SIZE = 60.0
PER_SECOND = 10


class Tap(NamedTuple):
    """Something that happened at a time, of which there are ten a second."""

    at: float
    key: int


def taps(items: int, *, apart: float, keys: int) -> list[Tap]:
    """Return taps in order, except that each is moved by up to ``apart`` seconds."""
    moved = random.Random(1)
    return [
        Tap(number / PER_SECOND + moved.uniform(0, apart), number % keys) for number in range(items)
    ]


async def fast(items: list[Tap]) -> AsyncIterator[Tap]:
    """Never suspend: a source whose items are all there."""
    for item in items:
        yield item


def happened(tap: Tap) -> float:
    """Return the time in an item."""
    return tap.at


def key_of(tap: Tap) -> int:
    """Return the key in an item."""
    return tap.key


async def by_hand(source: AsyncIterable[Tap], slack: float) -> int:
    """A dict of lists by number of the window; those below the watermark are emitted."""
    held: dict[int, list[Tap]] = {}
    read = 0
    newest = 0.0
    end = SIZE
    async for tap in source:
        number = int(tap.at // SIZE)
        window = held.get(number)
        if window is None:
            window = held[number] = []
        window.append(tap)
        if tap.at > newest:
            newest = tap.at
            while newest - slack >= end:
                read += len(held.pop(int(end // SIZE) - 1, ()))
                end += SIZE
    return read + sum(map(len, held.values()))


async def by_hand_with_keys(source: AsyncIterable[Tap], slack: float) -> int:
    """The same, with a dict of lists by key in each window."""
    held: dict[int, dict[int, list[Tap]]] = {}
    read = 0
    newest = 0.0
    end = SIZE
    async for tap in source:
        number = int(tap.at // SIZE)
        window = held.get(number)
        if window is None:
            window = held[number] = {}
        mine = window.get(tap.key)
        if mine is None:
            mine = window[tap.key] = []
        mine.append(tap)
        if tap.at > newest:
            newest = tap.at
            while newest - slack >= end:
                read += sum(map(len, held.pop(int(end // SIZE) - 1, {}).values()))
                end += SIZE
    return read + sum(len(mine) for window in held.values() for mine in window.values())


def ours(
    assigner: Assigner, *, keys: bool = False, shares: int = 1
) -> Callable[[AsyncIterable[Tap], float], Awaitable[int]]:
    """Read as a user does, from the stream; count each item once."""

    async def read(source: AsyncIterable[Tap], slack: float) -> int:
        count = 0
        windows = event_windows(
            source,
            assigner,
            timestamp=happened,
            key=key_of if keys else None,
            max_out_of_orderness=slack,
        )
        async with windows.stream() as fired:
            async for window in fired:
                count += len(window.items)
        return count // shares

    return read


async def with_reactivex(source: AsyncIterable[Tap], _: float) -> int:
    """Close a buffer when the number of the window changes: right only for items in order."""
    read = 0

    def count(window: list[Tap]) -> None:
        nonlocal read
        read += len(window)

    subject: Subject[Tap] = Subject()
    ends = subject.pipe(
        operators.map(lambda tap: tap.at // SIZE), operators.distinct_until_changed()
    )
    with subject.pipe(operators.buffer(ends)).subscribe(count):
        async for tap in source:
            subject.on_next(tap)
        subject.on_completed()
    return read


async def with_reactivex_and_keys(source: AsyncIterable[Tap], _: float) -> int:
    """The same, in the groups of a ``group_by``."""
    read = 0

    def count(window: list[Tap]) -> None:
        nonlocal read
        read += len(window)

    subject: Subject[Tap] = Subject()
    ends = subject.pipe(
        operators.map(lambda tap: tap.at // SIZE), operators.distinct_until_changed()
    )
    grouped = subject.pipe(
        operators.group_by(key_of), operators.flat_map(lambda g: g.pipe(operators.buffer(ends)))
    )
    with grouped.subscribe(count):
        async for tap in source:
            subject.on_next(tap)
        subject.on_completed()
    return read


def with_bytewax(*, keys: bool) -> Callable[[list[Tap], float], int] | None:
    """Run its dataflow in this process; none where it is not installed."""
    try:
        import bytewax.operators as op  # noqa: PLC0415
        from bytewax.dataflow import Dataflow  # noqa: PLC0415
        from bytewax.operators import windowing as win  # noqa: PLC0415
        from bytewax.testing import TestingSink, TestingSource, run_main  # noqa: PLC0415
    except ImportError:
        return None
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415

    origin = datetime(2020, 1, 1, tzinfo=UTC)

    def run(items: list[Tap], slack: float) -> int:
        out: list[tuple[str, tuple[int, list[Tap]]]] = []
        flow = Dataflow("bench")
        source = op.input("in", flow, TestingSource(items, 1000))
        keyed = op.key_on("key", source, lambda tap: str(tap.key) if keys else "")
        clock = win.EventClock(
            lambda tap: origin + timedelta(seconds=tap.at), timedelta(seconds=slack)
        )
        windower = win.TumblingWindower(timedelta(seconds=SIZE), origin)
        op.output("out", win.collect_window("w", keyed, clock, windower).down, TestingSink(out))
        run_main(flow)
        return sum(len(window) for _, (_, window) in out)

    return run


def over(
    group: Callable[[AsyncIterable[Tap], float], Awaitable[int]],
    *,
    apart: float = 0.0,
    keys: int = 1,
) -> Callable[[int], Awaitable[float]]:
    """Return what groups a number of items, and checks that each is emitted."""

    async def work(items: int) -> float:
        made = taps(items, apart=apart, keys=keys)
        begun = time.process_time()
        assert await group(fast(made), apart) == items
        return time.process_time() - begun

    return work


def compare_all(title: str, items: int, *, apart: float, keys: int) -> None:
    """Compare all libraries that can do the work with the dict of lists."""
    by_keys = keys > 1
    hand = by_hand_with_keys if by_keys else by_hand
    ways = [
        Way(
            "event_windows, tumbling",
            over(ours(TumblingWindows(SIZE), keys=by_keys), apart=apart, keys=keys),
        ),
        Way(
            "event_windows, sliding, each item in three",
            over(
                ours(SlidingWindows(SIZE, SIZE / 3), keys=by_keys, shares=3), apart=apart, keys=keys
            ),
        ),
        Way(
            "event_windows, sessions",
            over(ours(SessionWindows(1.0), keys=by_keys), apart=apart, keys=keys),
        ),
    ]
    if not apart:
        rx = with_reactivex_and_keys if by_keys else with_reactivex
        work = over(rx, keys=keys)
        ways.append(Way("RxPY buffer at each change", work, share=0.1, rival_of=ways[0].name))
    waxed = with_bytewax(keys=by_keys)
    if waxed is not None:

        async def wax(items: int) -> float:
            made = taps(items, apart=apart, keys=keys)
            begun = time.process_time()
            assert waxed(made, apart) == items
            return time.process_time() - begun

        ways.append(Way("bytewax collect_window", wax, share=0.05, rival_of=ways[0].name))
    figures = compare(
        title, items, Way("by hand: a dict of lists", over(hand, apart=apart, keys=keys)), *ways
    )
    mine = figures["event_windows, tumbling"].seconds
    for name, figure in figures.items():
        if name.startswith(("RxPY", "bytewax")):
            show(f"of the time of {name}", mine / figure.seconds, "", 0.2)


def main() -> None:
    """Measure everything."""
    start(f"Windows of event time: {__doc__}")
    compare_all("in order", 100_000, apart=0.0, keys=1)
    compare_all("out of order by up to 30 s", 100_000, apart=30.0, keys=1)
    compare_all("out of order by up to 30 s, 100 keys", 100_000, apart=30.0, keys=100)
    compare_all("in order, 100 keys", 100_000, apart=0.0, keys=100)


if __name__ == "__main__":
    main()
