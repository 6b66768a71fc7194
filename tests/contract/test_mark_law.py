"""The law of marks, for every operator and every terminal.

When a mark is reached, everything made of what went in before it has been handled; marks of one
source do not overtake one another; at the end of the source the last one is reached.

Each value knows the messages that it was made of. Random chains of random operators are run on
virtual time over sources that suspend at random, ask for windows to be emitted, fail, or never end.
"""

# pyright: reportPrivateUsage=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnusedVariable=false, reportUnnecessaryComparison=false

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream, StepContext, combine, pipe, windows
from returns_pipeline._engine.chain import Chain, Source
from returns_pipeline._engine.concurrent_map import _MarkedMap
from returns_pipeline._engine.fan_in import MarkedFanIn
from returns_pipeline._engine.marks import CarriesMarks, Mark, MarkedSlice, Sliced
from returns_pipeline._engine.operator import Operator
from returns_pipeline.combine._marked_broadcast import MarkedBranchPump
from returns_pipeline.combine._marked_route import MarkedRoutePump
from returns_pipeline.combine._rate import MarkedDebouncePump, MarkedThrottlePump
from returns_pipeline.combine._transform import MarkedPrefetchPump
from returns_pipeline.combine._zip import MarkedZipPump
from returns_pipeline.errors import ChannelClosed, InvalidArgument, NotHandled
from returns_pipeline.sources import Channel
from returns_pipeline.testing import Recorder, run
from returns_pipeline.windows import (
    Assigner,
    EventWindow,
    SessionWindows,
    SlidingWindows,
    TumblingWindows,
)
from returns_pipeline.windows._chunks import MarkedChunksPump
from returns_pipeline.windows._event_time import MarkedEventPump
from returns_pipeline.windows._keyed import MarkedKeyedPump
from returns_pipeline.windows._sessions import MarkedSessionPump
from returns_pipeline.windows._single import MarkedSingle
from returns_pipeline.windows._sliding import MarkedSlidingPump
from returns_pipeline.windows._until import MarkedUntilPump
from returns_pipeline.windows._weight import MarkedWeightPump

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

Stream: TypeAlias = "ResultStream[Any, Any]"
MadeOf: TypeAlias = "frozenset[tuple[str, int]]"  # names of sources, and numbers of messages


class Broken(Exception):
    """What a source raises."""


@dataclass(frozen=True)
class Item:
    """A value, or an error, and the messages that it was made of."""

    n: int
    made_of: MadeOf


def joined(value: Any) -> Item:
    """Make one item of a window, a pair, or whatever an operator has made of several."""
    found = list(items_in(value))
    return Item(
        sum(item.n for item in found),
        frozenset[tuple[str, int]]().union(*[i.made_of for i in found]),
    )


def items_in(value: Any) -> Iterator[Item]:
    if isinstance(value, Item):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from items_in(each)


@dataclass
class Log:
    """What happened, in order: what was handled, and which marks were reached."""

    handled: list[MadeOf] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)
    was_reached: asyncio.Event = field(default_factory=asyncio.Event)
    broken: list[str] = field(default_factory=list)

    def handle(self, item: Item) -> None:
        self.handled.append(item.made_of)
        for source, number in item.made_of:
            if number < self.reached.get(source, 0):
                self.broken.append(f"{source}{number} was handled after {self.reached}")

    def reach(self, source: str, number: int) -> None:
        if number < self.reached.get(source, 0):
            self.broken.append(f"mark {number} of {source} after {self.reached}")
        self.reached[source] = number
        self.was_reached.set()

    def made_of_reached(self, made: list[MadeOf]) -> set[frozenset[tuple[str, int]]]:
        """Return the things that were made of anything before a mark that was reached."""
        return {each for each in made if any(n < self.reached.get(source, 0) for source, n in each)}


@dataclass(frozen=True)
class Script:
    """A source: seconds before each message, which ones fail, which marks flush, how it ends."""

    pauses: tuple[int, ...]
    failing: frozenset[int] = frozenset()
    flushing: frozenset[int] = frozenset()
    broken: bool = False
    unmarked: frozenset[int] = frozenset()  # if they come one by one
    sliced: int = 0  # how many messages a slice may have; 0: they come one by one
    waits: bool = False  # after a mark that flushes, until it is reached, as without credit

    def result_of(self, item: Item) -> Result[Item, Item]:
        return Failure(item) if item.n in self.failing else Success(item)

    def stream(self, log: Log, name: str = "a") -> Stream:
        messages = (SlicedMessages if self.sliced else Messages)(self, log, name)
        return ResultStream(Chain(None, Source(messages, packed=True, marked=True)))


class Messages:
    def __init__(self, script: Script, log: Log, name: str) -> None:
        self.script, self.log, self.name = script, log, name

    async def __aiter__(self) -> AsyncIterator[Any]:
        script, name = self.script, self.name
        reached = partial(self.log.reach, name)
        last = len(script.pauses) - 1
        for n, pause in enumerate(script.pauses):
            if pause:
                await asyncio.sleep(pause)
            item = Item(n, frozenset([(name, n)]))
            yield script.result_of(item)
            if n not in script.unmarked or n == last:
                yield Mark(reached, n + 1, flushes=n in script.flushing)
                if script.waits and n in script.flushing:
                    await self.until_reached(n + 1)
        if script.broken:
            raise Broken

    async def until_reached(self, number: int) -> None:
        while self.log.reached.get(self.name, 0) < number:
            self.log.was_reached.clear()
            await self.log.was_reached.wait()


class SlicedMessages(Messages, Sliced):
    """The same messages in slices of what is there, as a broker has delivered it."""

    async def slices(self, room: Callable[[], int]) -> AsyncIterator[Any]:
        script, name = self.script, self.name
        reached = partial(self.log.reach, name)
        first = 0
        while first < len(script.pauses):
            await asyncio.sleep(script.pauses[first])
            assert room() > 0
            end = first + 1
            for n in range(end, min(first + min(room(), script.sliced), len(script.pauses))):
                if script.pauses[n] or n - 1 in script.flushing:
                    break
                end = n + 1
            items = [Item(n, frozenset([(name, n)])) for n in range(first, end)]
            results = [
                Failure(item) if item.n in script.failing else Success(item) for item in items
            ]
            yield MarkedSlice(results, reached, first)
            first = end
            if end - 1 in script.flushing:
                yield Mark(reached, end, flushes=True)  # the mark after the slice comes again
                if script.waits:
                    await self.until_reached(end)
        if script.broken:
            raise Broken


# The operators. Each takes a stream, a small number, and the log, for another marked source.

Carried: TypeAlias = "Callable[[Stream, int, Log], Stream]"


async def after(n: int, made: Any) -> Any:
    if n:
        await asyncio.sleep(n)
    return made


def odd(item: Item) -> bool:
    return item.n % 2 == 1


def maybe(n: int) -> Callable[[Item], Result[Item, Item]]:
    return lambda item: Failure(item) if item.n % 3 == n % 3 else Success(item)


def later(n: int, func: Callable[[Item], Any]) -> Callable[[Item], Awaitable[Any]]:
    """Do something after a time that depends on the item, so that items overtake one another."""
    return lambda item: after((item.n * 7 + n) % 5, func(item))


def modes(n: int) -> dict[str, Any]:
    return {"concurrency": 1 + n % 4, "ordered": n % 2 == 0}


def several(n: int) -> Callable[[Item], Stream]:
    async def expand(item: Item) -> AsyncIterator[Result[Item, Item]]:
        for each in range((item.n + n) % 3):
            if (item.n + n) % 2:
                await asyncio.sleep(1 + item.n % 3)
            yield Failure(item) if each == n else Success(item)

    return lambda item: ResultStream.from_results(expand(item))


def another(n: int, log: Log) -> Stream:
    name = f"b{len(log.reached)}{n}"
    log.reached[name] = 0
    return Script(tuple([k % (n + 2) for k in range(n + 3)]), frozenset([n])).stream(log, name)


def plain(n: int) -> Stream:
    async def items() -> AsyncIterator[Result[Item, Item]]:
        for k in range(n):
            await asyncio.sleep(1)
            yield Success(Item(k, frozenset()))

    return ResultStream.from_results(items())


async def keep(item: Item, _: StepContext) -> Result[Item, Item]:
    await asyncio.sleep(item.n % 3)
    return Failure(item) if item.n % 4 == 3 else Success(item)


ASSIGNERS: tuple[Assigner, ...] = (
    TumblingWindows(4.0),
    SlidingWindows(4.0, 2.0),
    SessionWindows(3.0),
)


def new_in_panes(*, sliding: bool) -> Callable[[EventWindow[Any, Item]], Item]:
    """Return a function that joins the items of a window that were in no earlier pane of it.

    A later pane has the items of the earlier ones as well, whose marks may have been reached.
    """
    shown: set[tuple[Item, float]] = set()

    def join(window: EventWindow[Any, Item]) -> Item:
        # An item of a session, or of a tumbling window, is in no other.
        start = window.start if sliding else 0.0
        items = window.items
        new = [item for item in items if not window.pane or (item, start) not in shown]
        shown.update((item, start) for item in items)
        return joined(new)

    return join


def never(n: int, seconds: float) -> float:
    """Return a time limit; none for some numbers."""
    return math.inf if n % 3 == 2 else seconds


def totalled(total: Item, item: Item) -> Item:
    return Item(total.n, item.made_of)


CARRIED: dict[str, Carried] = {
    "map": lambda s, n, _: s.map(lambda item: Item(item.n + n, item.made_of)),
    "bind": lambda s, n, _: s.bind(maybe(n)),
    "alt": lambda s, n, _: s.alt(lambda item: Item(item.n + n, item.made_of)),
    "bimap": lambda s, n, _: s.bimap(lambda item: item, lambda item: item),
    "lash": lambda s, n, _: s.lash(maybe(n)),
    "filter": lambda s, n, _: s.filter(odd),
    "ensure": lambda s, n, _: s.ensure(odd, lambda item: item),
    "tap": lambda s, n, _: s.tap(lambda item: None),
    "tap_failure": lambda s, n, _: s.tap_failure(lambda item: None),
    "tap_result": lambda s, n, _: s.tap_result(maybe(n)),
    "attempt": lambda s, n, _: s.attempt(lambda item: item, ValueError),
    "scan": lambda s, n, _: s.scan(Item(0, frozenset()), totalled),
    "distinct_until_changed": lambda s, n, _: s.distinct_until_changed(lambda item: item.n // 2),
    "bind_async": lambda s, n, _: s.bind_async(later(n, maybe(n)), **modes(n)),
    "bind_future_result": lambda s, n, _: s.bind_future_result(
        later(n, maybe(n)),  # type: ignore[arg-type]  # any awaitable does
        **modes(n),
    ),
    "map_async": lambda s, n, _: s.map_async(later(n, lambda item: item), **modes(n)),
    "attempt_async": lambda s, n, _: s.attempt_async(
        later(n, lambda item: item), ValueError, **modes(n)
    ),
    "lash_async": lambda s, n, _: s.lash_async(later(n, maybe(n)), **modes(n)),
    "tap_async": lambda s, n, _: s.tap_async(later(n, lambda item: None), **modes(n)),
    "tap_failure_async": lambda s, n, _: s.tap_failure_async(
        later(n, lambda item: None), **modes(n)
    ),
    "tap_result_async": lambda s, n, _: s.tap_result_async(later(n, maybe(n)), **modes(n)),
    "bind_step": lambda s, n, _: s.bind_step(keep, StepContext("law"), **modes(n)),
    "flat_map": lambda s, n, _: s.flat_map(several(n), concurrency=1 + n % 3),
    "chunks_or_timeout": lambda s, n, _: s.chunks_or_timeout(n + 1, never(n, 3.0)).map(joined),
    "chunks_by_weight": lambda s, n, _: s.chunks_by_weight(
        n + 1, never(n, 3.0), weight=lambda item: item.n % 3
    ).map(joined),
    "chunks_until": lambda s, n, _: s.chunks_until(odd, n=n + 1, timeout=never(n, 4.0)).map(joined),
    "keyed_chunks": lambda s, n, _: s.keyed_chunks(
        n + 1, never(n, 4.0), key=lambda item: item.n % 3, max_keys=2
    ).map(joined),
    "sliding": lambda s, n, _: s.sliding(n + 1, step=1 + n // 2).map(joined),
    "sessions": lambda s, n, _: s.sessions(
        never(n, 2.0), max_duration=never(n, 5.0), key=lambda item: item.n % (n + 1)
    ).map(joined),
    "event_windows": lambda s, n, _: s.event_windows(
        ASSIGNERS[n % 3],
        timestamp=lambda item: item.n * 5 % 7 + item.n,
        key=lambda item: item.n % (1 + n // 2),
        allowed_lateness=3.0 * (n // 2),
        max_out_of_orderness=float(n),
        idle_after=2.0 if n > 3 else None,
    ).map(new_in_panes(sliding=n % 3 == 1)),
    "merge": lambda s, n, log: s.merge(another(n, log) if n % 2 else plain(n)),
    "concat": lambda s, n, log: s.concat(another(n, log) if n % 2 else plain(n)),
    "zip": lambda s, n, log: s.zip(another(n, log) if n % 2 else plain(n)).map(joined),
    "broadcast": lambda s, n, _: joined_again(s.broadcast(2 + n % 2, buffer=n + 1), n),
    "route": lambda s, n, _: s.route(
        lambda item: item.n // 4 % 3,
        WORKERS[n % 3],
        max_keys=1 + n % 2,
        buffer=1 + n,
        idle_after=never(n, 2.0),
        failing="isolate",
    ).alt(lambda error: error if isinstance(error, Item) else joined(error.items)),
    "observed": lambda s, n, _: s.observed(Recorder()),
    "prefetch": lambda s, n, _: s.prefetch(n + 1),
    "progress": lambda s, n, _: s.progress(n, file=io.StringIO()),
    "throttle": lambda s, n, _: s.throttle(1.0, burst=n + 1),
    "debounce": lambda s, n, _: s.debounce(never(n, 2.0), max_wait=never(n, float(n + 2))),
    "take_until": lambda s, n, _: s.take_until(asyncio.sleep(5 * n)),
    "drain_on": lambda s, n, _: s.drain_on(set_after(4 * n)),
}
# These end before their source does: the last marks are not reached, and their messages come again.
ENDING = {"take_until", "zip"}
REFUSED: dict[str, Carried] = {
    "__getitem__": lambda s, n, _: s[:n],
}
# These end the chain, or show a stream as it is.
NOT_OPERATORS = {
    "successes", "failures", "subscribe", "through", "or_failure", "stream", "aclose", "diagram",
    "statistics",
}  # fmt: skip


def joined_again(branches: Sequence[Stream], n: int) -> Stream:
    """Join the branches of a broadcast, of which one is slow, and one has windows."""
    slow, windowed, *more = branches
    slow = slow.tap_async(lambda _: asyncio.sleep(n))
    return slow.merge(windowed.chunks_or_timeout(n + 1, 2.0).map(joined), *more)


async def numbered(key: int, items: AsyncIterator[Item]) -> AsyncIterator[Result[Item, Item]]:
    async for item in items:
        await asyncio.sleep((item.n + key) % 3)
        if item.n % 5 == 4:
            raise LookupError
        yield Success(item)


async def gathered(_: int, items: AsyncIterator[Item]) -> Result[Item, Item]:
    """Hold all items to the end."""
    return Success(joined([item async for item in items]))


async def impatient(_: int, items: AsyncIterator[Item]) -> AsyncIterator[Result[Item, Item]]:
    """Take two items, and leave the others to a worker that follows."""
    for _ in range(2):
        if (item := await anext(items, None)) is not None:
            yield Success(item)
            await asyncio.sleep(1)


WORKERS: tuple[Any, ...] = (numbered, gathered, impatient)


def set_after(seconds: float) -> asyncio.Event:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, event.set)
    return event


TERMINALS = (
    "collect",
    "collect_all",
    "partition",
    "for_each",
    "for_each_all",
    "fold",
    "first",
    "last",
    "run",
    "run_all",
)


@dataclass(frozen=True)
class Program:
    script: Script
    steps: tuple[tuple[str, int], ...]
    slowness: int = 0
    cut_at: float | None = None


scripts = st.builds(
    Script,
    st.lists(st.sampled_from([0, 0, 0, 1, 2, 5]), max_size=12).map(tuple),
    st.frozensets(st.integers(0, 11), max_size=3),
    st.frozensets(st.integers(0, 11), max_size=3),
    st.booleans(),
    st.frozensets(st.integers(0, 11), max_size=5),
    st.sampled_from([0, 0, 1, 2, 3, 8]),
)
programs = st.builds(
    Program,
    scripts,
    st.lists(
        st.tuples(st.sampled_from(sorted(CARRIED)), st.integers(0, 4)), min_size=1, max_size=4
    ).map(tuple),
    st.integers(0, 3),
    st.none() | st.floats(0.5, 30.0),
)


async def play(program: Program, *, cut: bool = True) -> tuple[Log, str]:
    """Run a program to its end, or until it is cut; return what happened, and how it ended."""
    log = Log()
    stream = program.script.stream(log)
    for name, n in program.steps:
        stream = CARRIED[name](stream, n, log)

    async def handle(item: Item) -> None:
        await after(program.slowness and item.n % (program.slowness + 1), None)
        log.handle(item)

    async def handle_failure(item: Item) -> None:
        log.handle(item)

    async def everything() -> None:
        await stream.tap_failure_async(handle_failure).for_each_all(handle)

    try:
        cut_at = program.cut_at if cut else None
        async with asyncio.timeout(cut_at):
            await everything()
    except Broken:
        return log, "broken"
    except TimeoutError:
        return log, "cut"
    return log, "ended"


def check(program: Program) -> None:
    """Hold the law for one program."""
    log, how = run(play(program))
    assert not log.broken, log.broken
    if how == "cut":
        whole, _ = run(play(program, cut=False))
        assert log.made_of_reached(whole.handled) <= set(log.handled)
    elif how == "ended" and not {name for name, _ in program.steps} & {*ENDING, "drain_on"}:
        # (What drains may do so before another source has begun.)
        assert all(n > 0 for name, n in log.reached.items() if name.startswith("b"))
        assert log.reached.get("a", 0) == len(program.script.pauses)


@given(programs)
def test_the_law_holds_for_random_chains(program: Program) -> None:
    check(program)


@pytest.mark.parametrize("name", sorted(CARRIED))
@settings(max_examples=30)
@given(script=scripts, n=st.integers(0, 4), slowness=st.integers(0, 3))
def test_the_law_holds_for_each_operator(name: str, script: Script, n: int, slowness: int) -> None:
    check(Program(script, ((name, n),), slowness))


@pytest.mark.parametrize("name", sorted(CARRIED.keys() - ENDING))
@settings(max_examples=20)
@given(
    pauses=st.lists(st.sampled_from([0, 0, 1, 3]), min_size=1, max_size=8).map(tuple),
    failing=st.frozensets(st.integers(0, 7), max_size=2),
    flushing=st.frozensets(st.integers(0, 7), min_size=1),
    sliced=st.integers(0, 3),
    n=st.integers(0, 4),
    slowness=st.integers(0, 3),
)
def test_a_mark_that_flushes_is_reached_though_its_source_waits(
    name: str,
    pauses: tuple[int, ...],
    failing: frozenset[int],
    flushing: frozenset[int],
    sliced: int,
    n: int,
    slowness: int,
) -> None:
    script = Script(pauses, failing, flushing, sliced=sliced, waits=True)
    check(Program(script, ((name, n),), slowness))  # `run` fails when all tasks wait


# Messages one by one, and in slices.

# Operators that emit a mark at a place that does not depend on when other tasks run.
PLAIN = ("map", "bind", "alt", "lash", "filter", "ensure", "tap_result", "scan")
EXACT = (*PLAIN, "tap_async")


# Not `sliding`: its lists share items, and the marks within a slice are those between two waits.
WINDOWS: dict[str, Callable[[Stream, int], Stream]] = {
    "chunks_or_timeout": lambda s, n: s.chunks_or_timeout(n + 1, never(n, 3.25)).map(joined),
    "chunks_by_weight": lambda s, n: s.chunks_by_weight(
        n + 1, never(n, 3.25), weight=lambda item: item.n % 3, n=n + 1
    ).map(joined),
    "chunks_until": lambda s, n: s.chunks_until(odd, n=n + 1, timeout=never(n, 3.25)).map(joined),
    "keyed_chunks": lambda s, n: s.keyed_chunks(
        n + 1, never(n, 3.25), key=lambda item: item.n % 3, max_keys=2
    ).map(joined),
    "sessions": lambda s, n: s.sessions(
        never(n, 2.25), n=n + 1, key=lambda item: item.n % (n + 1)
    ).map(joined),
}


async def history(
    script: Script, steps: tuple[tuple[str, int], ...], terminal: str, slowness: float
) -> Any:
    """Return what a chain has handled, and which marks were reached at the end of each second."""
    log = Log()
    stream = script.stream(log)
    for name, n in steps:
        window = WINDOWS.get(name)
        stream = CARRIED[name](stream, n, log) if window is None else window(stream, n)
    stream = stream.tap(log.handle).tap_failure(log.handle)
    if slowness:
        stream = stream.tap_async(lambda _: asyncio.sleep(slowness))
        stream = stream.tap_failure_async(lambda _: asyncio.sleep(slowness))
    reached: list[dict[str, int]] = []

    loop = asyncio.get_running_loop()
    for seconds in range(1, 13):
        _ = loop.call_later(seconds - 0.1, lambda: reached.append(dict(log.reached)))
    how: object = None
    try:
        async with asyncio.timeout(12.5):
            how = await end(stream, terminal)
    except (Broken, TimeoutError) as error:
        how = type(error)
    assert not log.broken, log.broken
    return log.handled, [*reached, log.reached], how


def some_steps(names: tuple[str, ...], most: int) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(st.sampled_from(names), st.integers(0, 4)), max_size=most).map(tuple)


@settings(max_examples=300)
@given(
    script=st.builds(
        Script,
        st.lists(st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 5]), max_size=12).map(tuple),
        st.frozensets(st.integers(0, 7), max_size=3),
        st.frozensets(st.integers(0, 11), max_size=3),
        st.booleans(),
        waits=st.just(value=True),
    ),
    steps=some_steps(EXACT, 4)
    | st.builds(
        lambda before, window, n, others: (*before, (window, n), *others),
        some_steps(PLAIN, 2),
        st.sampled_from(sorted(WINDOWS)),
        st.integers(0, 8),
        some_steps((*EXACT, *sorted(WINDOWS)), 2),
    ),
    sliced=st.integers(1, 12),
    terminal=st.deferred(lambda: st.sampled_from(TERMINALS)),
    # At no time does the reader come for a window when a message comes, or when a window is due.
    slowness=st.sampled_from([0.0, 0.37, 1.87]),
)
# A failure between a window that is handled slowly and one that is not full for long: what came
# before it is acknowledged while it is handled, and so is it before the later one is emitted.
@example(Script((0, 0, 0, 0, 9), frozenset([1])), (("chunks_or_timeout", 8),), 4, "run_all", 1.87)
# The same for an item that is dropped.
@example(Script((0, 0, 9)), (("filter", 0), ("chunks_or_timeout", 8)), 2, "run_all", 0.0)
# And for what comes last.
@example(Script((0, 0)), (("chunks_or_timeout", 0),), 2, "run", 0.0)
def test_slices_reach_the_marks_that_single_messages_reach(
    script: Script,
    steps: tuple[tuple[str, int], ...],
    sliced: int,
    terminal: str,
    slowness: float,
) -> None:
    """The same values come in the same order, and the same marks are reached at the same times."""
    one_by_one = run(history(script, steps, terminal, slowness))
    in_slices = replace(script, sliced=sliced)
    assert run(history(in_slices, steps, terminal, slowness)) == one_by_one


async def deliver_all(program: Program) -> tuple[Log, list[int], str]:
    """Deliver the messages of a program by a channel; return those that were said to be handled.

    Each is delivered by a task of its own, as by a web handler. Those that do not end are a
    deadlock, which `run` reports.
    """
    log = Log()
    channel: Channel[Item] = Channel(3, acknowledged=True)
    handled: list[int] = []
    early: list[int] = []

    stream: Stream = ResultStream.of(channel)
    for name, n in program.steps:
        stream = CARRIED[name](stream, n, log)

    async def handle(item: Item) -> None:
        await after(program.slowness and item.n % (program.slowness + 1), None)
        early.extend(n for source, n in item.made_of if source == "a" and n in handled)
        log.handle(item)

    async def handle_failure(item: Item) -> None:
        log.handle(item)

    async def deliver(n: int) -> None:
        try:
            await channel.deliver(Item(n, frozenset([("a", n)])))
        except (ChannelClosed, NotHandled):
            return
        handled.append(n)

    async def produce() -> None:
        delivering: list[asyncio.Task[None]] = []
        for n, pause in enumerate(program.script.pauses):
            await asyncio.sleep(pause)
            delivering.append(asyncio.create_task(deliver(n)))
        await asyncio.sleep(900)  # for slow steps, and for windows that time closes
        channel.close()
        await asyncio.gather(*delivering)

    how = "ended"
    producing = asyncio.create_task(produce())
    try:
        async with asyncio.timeout(program.cut_at):
            await stream.tap_failure_async(handle_failure).for_each_all(handle)
    except TimeoutError:
        how = "cut"
    del stream
    gc.collect()  # branches of a broadcast are told by the collector
    await producing
    assert not early, f"{early} were handled after their callers were told"
    return log, handled, how


def check_delivered(program: Program) -> None:
    """Hold the law for what is delivered to one program."""
    _, handled, how = run(deliver_all(program))
    names = {name for name, _ in program.steps}
    if how == "ended" and not names & {*ENDING, "drain_on", "concat"}:
        assert sorted(handled) == list(range(len(program.script.pauses)))


@settings(max_examples=60)
@given(programs)
def test_the_law_holds_for_what_is_delivered_by_a_channel(program: Program) -> None:
    check_delivered(program)


@pytest.mark.parametrize("name", sorted(CARRIED))
@settings(max_examples=10)
@given(script=scripts, n=st.integers(0, 4), slowness=st.integers(0, 3))
def test_the_law_holds_for_what_is_delivered_to_each_operator(
    name: str, script: Script, n: int, slowness: int
) -> None:
    check_delivered(Program(script, ((name, n),), slowness))


# The law can fail: each part that holds marks back is broken on purpose.


def is_broken(name: str) -> bool:
    """Return whether an operator breaks the law for any of some programs."""
    return any(
        run(play(Program(Script(pauses, failing), ((name, n),), slowness)))[0].broken
        for n in range(5)
        for pauses in ((0, 0, 1, 0, 2, 0, 0), (1,) * 9)
        for failing in (frozenset[int](), frozenset([2, 3]))
        for slowness in (0, 2)
    )


# `throttle` is not among them: it reads on when its one item is taken, and so holds no mark back.
PARTS: dict[str, type[Any]] = {
    "bind_async": _MarkedMap,
    "lash_async": _MarkedMap,
    "flat_map": _MarkedMap,
    "chunks_or_timeout": MarkedChunksPump,
    "chunks_by_weight": MarkedWeightPump,
    "chunks_until": MarkedUntilPump,
    "keyed_chunks": MarkedKeyedPump,
    "sliding": MarkedSlidingPump,
    "sessions": MarkedSessionPump,
    "event_windows": MarkedEventPump,
    "zip": MarkedZipPump,
    "prefetch": MarkedPrefetchPump,
    "debounce": MarkedDebouncePump,
    "broadcast": MarkedBranchPump,
    "route": MarkedRoutePump,
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_lets_marks_pass_early_is_caught(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pass_at_once(self: Any, *args: Any) -> None:
        self.marks.ready[args[-1].source] = args[-1]
        self.notify_reader()

    assert not is_broken(name)
    part = PARTS[name]
    keeps = "_keep_for" if issubclass(part, MarkedFanIn) else "keep"
    if part is MarkedRoutePump:
        keeps = "_on_mark"
    monkeypatch.setattr(part, keeps, pass_at_once)
    assert is_broken(name)


def test_every_part_that_holds_marks_is_broken_above() -> None:
    for part in subclasses(CarriesMarks):
        is_other = part in {MarkedFanIn, MarkedSingle, MarkedThrottlePump}
        assert is_other != (part in PARTS.values())


def subclasses(of: type[Any]) -> Iterator[type[Any]]:
    each: type[Any]
    for each in of.__subclasses__():  # no other code makes any
        yield each
        yield from subclasses(each)


# No operator is forgotten.


def test_each_operator_carries_marks_or_refuses_them() -> None:
    methods = {
        name
        for name, method in inspect.getmembers(ResultStream, inspect.isfunction)
        if not name.startswith("_") and name not in TERMINALS
    }
    statics = {"of", "from_results", "from_batches"}
    assert methods - statics - NOT_OPERATORS == (CARRIED.keys() | REFUSED.keys()) - {"__getitem__"}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_carry_marks_refuses_them_by_name(name: str) -> None:
    stream = Script((0,)).stream(Log())
    shown = "a slice" if name == "__getitem__" else rf"{name}\(\)"
    with pytest.raises(InvalidArgument, match=f"^{shown} cannot follow a source that is ack"):
        _ = REFUSED[name](stream, 1, Log())


OPERATORS = [
    each
    for each in [*vars(windows).values(), *vars(combine).values()]
    if isinstance(each, Operator)
]


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_an_operator_that_is_not_a_method_refuses_marks_by_name(operator: Operator) -> None:
    stream = Script((0,)).stream(Log())
    with pytest.raises(InvalidArgument, match=rf"^{operator.__name__}\(\) cannot follow a source"):
        _ = operator._stream(stream)
    with pytest.raises(InvalidArgument):
        _ = stream | operator._stream


def test_functions_of_streams_refuse_marks_by_name() -> None:
    stream = Script((0,)).stream(Log())
    calls: list[Callable[[], object]] = [
        lambda: combine.broadcast(stream, 2),
        lambda: combine.split(stream, lambda item: item is None),
        lambda: combine.select({"a": stream}),
        lambda: combine.merge_prioritized((1, stream)),
        lambda: windows.chunks_or_timeout(stream, 2, 1.0),
        lambda: stream | pipe.chunks_or_timeout(2, 1.0),
        lambda: combine.merge(plain(1), stream),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument, match=r"^\w+\(\) cannot follow a source"):
            _ = call()


@pytest.mark.parametrize("operator", ["bind_step", "route"])
def test_undo_actions_of_messages_are_not_held_past_their_acknowledgement(operator: str) -> None:
    stream = Script((0,)).stream(Log())

    async def worker(_: int, items: AsyncIterator[Item], __: StepContext) -> Result[int, str]:
        return Success(len([item async for item in items]))

    with pytest.raises(InvalidArgument, match=rf"^{operator}\(hold=True\) .* may be undone after"):
        if operator == "bind_step":
            _ = stream.bind_step(keep, StepContext("law"), hold=True)
        else:
            _ = stream.route(lambda item: item.n, worker, ctx=StepContext("law"), hold=True)


def test_a_step_that_says_nothing_of_marks_refuses_them() -> None:
    stream = Script((0,)).stream(Log())
    with pytest.raises(InvalidArgument):
        _ = stream._segment(lambda part: part)
    with pytest.raises(InvalidArgument):
        _ = stream._fan_in((), lambda parts: parts[0])


@pytest.mark.parametrize("concurrency", [1, 2])
def test_flat_map_refuses_to_expand_to_a_marked_stream(concurrency: int) -> None:
    log = Log()
    stream = Script((0,)).stream(log)
    expanded = stream.flat_map(lambda item: Script((0,)).stream(log), concurrency=concurrency)
    with pytest.raises(InvalidArgument, match="flat_map"):
        run(expanded.run())
    assert not log.reached


# The terminals.


def end(stream: Stream, terminal: str) -> Any:
    match terminal:
        case "for_each" | "for_each_all":
            return getattr(stream, terminal)(lambda item: None)
        case "fold":
            return stream.fold(0, lambda total, item: total + 1)
        case _:
            return getattr(stream, terminal)()


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("windowed", [False, True])
def test_a_terminal_reaches_the_last_mark(terminal: str, windowed: bool) -> None:
    log = Log()
    stream = Script((0, 1, 0)).stream(log)
    stream = stream.chunks_or_timeout(2, 9.0) if windowed else stream
    run(end(stream, terminal))
    assert log.reached == ({} if terminal == "first" else {"a": 3})


@pytest.mark.parametrize("terminal", TERMINALS)
def test_after_the_failure_that_ends_a_terminal_no_mark_is_reached(terminal: str) -> None:
    log = Log()
    run(end(Script((0, 0, 0), failing=frozenset([1])).stream(log), terminal))
    reached = {
        "collect": {},  # its values are lost with the failure
        "fold": {},
        "last": {},
        "first": {},
        "for_each": {"a": 1},
        "run": {"a": 1},
    }
    assert log.reached == reached.get(terminal, {"a": 3})


@pytest.mark.parametrize("terminal", ["collect", "collect_all", "partition", "fold", "last"])
def test_what_is_returned_at_the_end_is_reached_no_earlier(terminal: str) -> None:
    log = Log()
    with pytest.raises(Broken):
        run(end(Script((0, 1, 0), broken=True).stream(log), terminal))
    assert not log.reached


def test_first_reaches_the_marks_of_what_was_dropped_before_it() -> None:
    log = Log()
    stream = Script((0, 0, 0, 0)).stream(log).filter(lambda item: item.n == 2)
    run(stream.first())
    assert log.reached == {"a": 2}


@pytest.mark.parametrize("windowed", [False, True])
def test_a_loop_of_the_users_sees_no_mark_and_reaches_none(windowed: bool) -> None:
    log = Log()
    stream = Script((0, 1, 0), failing=frozenset([1])).stream(log)
    stream = stream.prefetch(2) if windowed else stream

    async def main() -> list[Any]:
        return [item async for item in stream]

    assert [type(item) for item in run(main())] == [Success, Failure, Success]
    assert not log.reached


@pytest.mark.parametrize("windowed", [False, True])
def test_halves_of_a_stream_see_no_marks(windowed: bool) -> None:
    log = Log()
    stream = Script((0, 1, 0), failing=frozenset([1])).stream(log)
    stream = stream.prefetch(2) if windowed else stream

    async def main() -> tuple[list[Any], list[Any]]:
        values = [item async for item in stream.successes()]
        return values, [item async for item in stream.failures()]

    values, errors = run(main())
    assert [item.n for item in values] == [0, 2]
    assert [item.n for item in errors] == [1]
    assert not log.reached


def test_the_sum_of_two_streams_carries_the_marks_of_both() -> None:
    log = Log()
    run((Script((0, 0)).stream(log) + Script((0, 1, 1)).stream(log, "c")).run())
    assert log.reached == {"a": 2, "c": 3}


def test_a_very_long_chain_carries_marks() -> None:
    log = Log()
    stream = Script((0, 0)).stream(log)
    for _ in range(450):
        stream = stream.map(lambda item: item)
    run(stream.run())
    assert log.reached == {"a": 2}


def test_a_failed_source_passes_its_marks() -> None:
    log = Log()
    stream = Script((0, 0), broken=True).stream(log).or_failure(Broken)
    run(stream.run_all())
    assert log.reached == {"a": 2}


def test_a_source_of_nothing_but_marks_lets_other_tasks_run() -> None:
    log = Log()
    stream = Script((0,) * 20_000).stream(log).filter(lambda item: False).chunks_or_timeout(9, 9.0)

    async def main() -> int:
        turns = 0
        task = asyncio.ensure_future(stream.run().awaitable())
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert run(main()) > 10
    assert log.reached == {"a": 20_000}


# A broadcast.


def branches(log: Log, count: int = 2, **how: Any) -> tuple[Stream, ...]:
    made: tuple[Stream, ...] = Script((0,) * 6).stream(log).broadcast(count, **how)
    return made


def test_a_mark_is_reached_when_all_branches_have_reached_it() -> None:
    log = Log()
    seen: list[dict[str, int]] = []

    async def main() -> None:
        fast, slow = branches(log)
        slow = slow.tap_async(lambda _: asyncio.sleep(1)).tap(
            lambda _: seen.append(dict(log.reached))
        )
        _ = await asyncio.gather(fast.run(), slow.run())

    run(main())
    assert seen == [{}, *[{"a": n} for n in range(1, 6)]]
    assert log.reached == {"a": 6}


def test_a_branch_that_is_closed_unread_is_not_waited_for() -> None:
    log = Log()

    async def main() -> None:
        kept, unread = branches(log)
        await unread.aclose()
        await kept.run()

    run(main())
    assert log.reached == {"a": 6}


def test_a_branch_that_leaves_early_holds_the_later_marks_back() -> None:
    log = Log()

    async def main() -> None:
        kept, failing = branches(log, buffer=1)
        failing = failing.bind(lambda item: Failure(item) if item.n == 2 else Success(item))
        _ = await asyncio.gather(kept.run(), failing.run())

    run(main())
    assert log.reached == {"a": 2}


def test_a_branch_that_joins_late_answers_for_what_comes_then() -> None:
    log = Log()

    async def main() -> None:
        (first,) = Script((0, 0, 5, 0)).stream(log).broadcast(1, replay=1)
        late = first.subscribe
        reading = asyncio.ensure_future(first.run().awaitable())
        await asyncio.sleep(1)
        assert log.reached == {"a": 2}
        second = late()
        await asyncio.sleep(9)
        assert log.reached == {"a": 2}
        _ = await asyncio.gather(reading, second.run())

    run(main())
    assert log.reached == {"a": 4}


@pytest.mark.parametrize("overflow", ["drop_oldest", "fail"])
def test_what_a_slow_branch_drops_is_handled_and_what_it_fails_is_not(overflow: str) -> None:
    log = Log()

    async def main() -> None:
        fast, slow = branches(log, buffer=1, overflow=overflow, on_drop=lambda *_: None)
        slow = slow.tap_async(lambda _: asyncio.sleep(1))
        _ = await asyncio.gather(fast.run(), slow.run(), return_exceptions=True)

    run(main())
    assert (log.reached.get("a", 0) == 6) == (overflow == "drop_oldest")
