"""The tests that every operator with a task of its own must pass, over one list of them.

A new operator is a new `Case`; the last test fails while one is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import math
import weakref
from dataclasses import dataclass
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any, Never, TypeVar, TypeVarTuple, cast

import pytest
from aiostream import Stream, stream, streamcontext
from returns.result import Result, Success

from returns_pipeline import ResultStream, combine, windows
from returns_pipeline._engine.future_results import to_result
from returns_pipeline._engine.operator import Operator
from returns_pipeline.policies import rate_limit
from returns_pipeline.testing import FaultInjector, VirtualTimeLoop, Wait, run, timed, timeline
from returns_pipeline.windows import (
    SessionWindows,
    TumblingWindows,
    chunks_by_weight,
    chunks_or_timeout,
    chunks_until,
    event_windows,
    keyed_chunks,
    sessions,
    sliding,
)

if TYPE_CHECKING:
    import contextvars
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable


T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Item:
    """An item of the sources: it can be weakly referenced."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return str(self.number)


def third(item: Item) -> int:
    return item.number % 3


def third_one(item: Item) -> bool:
    return item.number % 3 == 2


def never(_: Item) -> bool:
    return False


def number(item: Item) -> float:
    return item.number


def one(_: object) -> int:
    return 1


def flat(given: Iterable[Iterable[Item]]) -> list[Item]:
    return list(chain.from_iterable(given))


@dataclass
class Case:
    """An operator, and how to find the source's items in what it emits.

    Attributes:
        operator: The public operator.
        args: Its arguments: windows of 3 items and 2 seconds, where it knows such.
        kwargs: The same.
        prompt: Arguments for windows that are closed after 0.05 seconds, or at once.
        items: The source's items in the output, each once.
        key: Items with equal keys are emitted in order.
        lead: How many items may be read that were not emitted, when nothing is open.
        handed: How many more, in a list that a waiting read is about to return.
        lossy: Whether items that others follow too soon are dropped; the last one is not.
    """

    operator: Operator
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    prompt: tuple[tuple[Any, ...], dict[str, Any]]
    items: Callable[[list[Any]], list[Item]] = flat
    key: Callable[[Item], object] = one
    lead: int = 3
    handed: int = 0
    lossy: bool = False

    def raw(self, source: AsyncIterable[Item]) -> AsyncIterator[Any]:
        iterator: AsyncIterator[Any] = self.operator.raw(source, *self.args, **self.kwargs)
        return iterator


def same(given: list[Any]) -> list[Item]:
    return given


def later(_: object, item: Item) -> Item:
    return item


class Silence:
    """Never yield anything."""

    async def __aiter__(self) -> AsyncIterator[Item]:
        await asyncio.get_running_loop().create_future()
        yield Item(0)


async def echo(_: int, items: AsyncIterator[Item]) -> AsyncIterator[Item]:
    async for item in items:
        yield item


class Made(Operator):
    """An operator of a function that takes its sources otherwise."""

    def __init__(self, func: Callable[[AsyncIterable[Item]], AsyncIterator[Any]]) -> None:
        super().__init__(f"{__name__}.{func.__name__}")
        self.func = func

    def __call__(self, source: AsyncIterable[Item]) -> Stream[Any]:
        return self._stream(source)

    def raw(self, source: AsyncIterable[Item]) -> AsyncIterator[Any]:
        return self.func(source)


def merge_prioritized(source: AsyncIterable[Item]) -> AsyncIterator[Item]:
    return combine.merge_prioritized.raw((1, source), (2, Empty()))


def select(source: AsyncIterable[Item]) -> AsyncIterator[tuple[str, Item]]:
    return combine.select.raw({"a": source, "b": Empty()})


def zip_results(source: AsyncIterable[Item]) -> AsyncIterator[Any]:
    if not hasattr(source, "__aiter__"):
        raise TypeError
    return combine.zip_results.raw(stream.map(source, Success))


def broadcast(source: AsyncIterable[Item]) -> AsyncIterator[Item]:
    (branch,) = combine.broadcast(source, 1, buffer=3)
    return branch.stream()._aiterator


def split(source: AsyncIterable[Item]) -> AsyncIterator[Item]:
    left, _ = combine.split(source, bool, buffer=3)
    return left.stream()._aiterator


async def alone(item: Item) -> AsyncIterator[Result[Item, Never]]:
    yield Success(item)


def flat_map(source: AsyncIterable[Item]) -> AsyncIterator[Result[Item, Never]]:
    return ResultStream.of(source).flat_map(alone).stream()._aiterator


def values(given: list[Any]) -> list[Item]:
    return [result.unwrap() for result in given]


def chunks_of_batches(source: AsyncIterable[Item]) -> AsyncIterator[Any]:
    """Windows take slices of batches, here of one item each."""
    if not hasattr(source, "__aiter__"):
        raise TypeError

    async def batches() -> AsyncIterator[tuple[Item, ...]]:
        async with streamcontext(source) as items:
            async for item in items:
                yield (item,)

    return ResultStream.from_batches(batches()).chunks_or_timeout(3, 2.0).stream()._aiterator


def steps_over_batches(source: AsyncIterable[Item]) -> AsyncIterator[Any]:
    """The steps before a task run in a loop over each batch."""
    if not hasattr(source, "__aiter__"):
        raise TypeError

    async def batches() -> AsyncIterator[list[Item]]:
        async with streamcontext(source) as items:
            async for item in items:
                yield [item]

    made = ResultStream.from_batches(batches()).bind(Success).filter(bool)
    return made.flat_map(alone).stream()._aiterator


class Empty:
    async def __aiter__(self) -> AsyncIterator[Item]:
        return
        yield


def chunks_until_an_event(source: AsyncIterable[Item]) -> AsyncIterator[list[Item]]:
    # An event belongs to one loop, so it is made with the stream.
    return chunks_until.raw(source, third_one, n=3, timeout=2.0, flush_on=asyncio.Event())


by_event = Made(chunks_until_an_event)
by_event.__name__ = "chunks_until"


CASES = [
    Case(chunks_or_timeout, (3, 2.0), {}, ((10**9, 0.05), {}), handed=3),
    Case(chunks_by_weight, (3, 2.0), {"weight": one}, ((10**9, 0.05), {"weight": one}), lead=4),
    Case(
        chunks_until, (third_one,), {"n": 3, "timeout": 2.0},
        ((never,), {"timeout": 0.05}),
    ),
    Case(
        chunks_or_timeout, (3, 2.0), {"flush_on": Silence()},
        ((10**9, 0.05), {"flush_on": Silence()}), handed=3,
    ),
    Case(by_event, (), {}, ((), {})),
    Case(
        keyed_chunks,
        (3, 2.0),
        {"key": third},
        ((10**9, 0.05), {"key": third}),
        items=lambda given: flat(items for _, items in given),
        key=third,
        lead=7,  # two in each of three lists, and the one that fills a list
    ),
    Case(sliding, (3,), {"step": 2}, ((3,), {}), items=lambda given: [*dict.fromkeys(flat(given))]),
    Case(sessions, (2.0,), {"n": 3}, ((9.0,), {"max_duration": 0.05}), lead=4),
    Case(
        sessions, (2.0,), {"n": 3, "key": third}, ((9.0,), {"max_duration": 0.05, "key": third}),
        key=third, lead=8,
    ),
    Case(
        sessions, (2.0,), {"key": third, "max_keys": 2},
        ((9.0,), {"max_duration": 0.05, "key": third, "max_keys": 2}), key=third, lead=4,
    ),
    Case(
        event_windows,
        (TumblingWindows(3),), {"timestamp": number},
        ((TumblingWindows(3),), {"timestamp": number}),
        items=lambda given: flat(window.items for window in given), lead=4,
    ),
    Case(
        event_windows, (SessionWindows(1.5),),
        {"timestamp": number, "key": third, "idle_after": 1.0, "max_out_of_orderness": 1.0},
        ((TumblingWindows(3),), {"timestamp": number, "idle_after": 1.0}),
        items=lambda given: flat(window.items for window in given), key=third, lead=5,
    ),
    Case(combine.scan, (None, later), {}, ((None, later), {}), items=same, lead=1),
    Case(combine.distinct_until_changed, (), {}, ((), {}), items=same, lead=1),
    Case(combine.prefetch, (3,), {}, ((3,), {}), items=same),
    Case(combine.take_until, (Silence(),), {}, ((Silence(),), {}), items=same, lead=1),
    Case(combine.throttle, (0.13,), {}, ((1e-9,), {}), items=same, lead=1),
    Case(combine.debounce, (0.04,), {}, ((0.04,), {}), items=same, lossy=True),
    Case(combine.merge, (Empty(),), {}, ((Empty(),), {}), items=same, lead=1),
    Case(combine.merge, (), {}, ((), {}), items=same, lead=1),
    Case(combine.concat, (Empty(),), {}, ((Empty(),), {}), items=same, lead=1),
    Case(
        combine.route, (third, echo), {"buffer": 1}, ((third, echo), {"buffer": 1}),
        items=same, key=third, lead=7,
    ),
    Case(Made(merge_prioritized), (), {}, ((), {}), items=same, lead=1),
    Case(
        Made(select), (), {}, ((), {}),
        items=lambda given: [item for _, item in given], lead=1,
    ),
    Case(
        Made(zip_results), (), {}, ((), {}),
        items=lambda given: [result.unwrap()[0] for result in given], lead=2,
    ),
    Case(Made(broadcast), (), {}, ((), {}), items=same),
    Case(Made(split), (), {}, ((), {}), items=same),
    Case(Made(flat_map), (), {}, ((), {}), items=values, lead=1),
    Case(
        Made(chunks_of_batches), (), {}, ((), {}),
        items=lambda given: flat([result.unwrap() for result in given]), handed=3,
    ),
    Case(Made(steps_over_batches), (), {}, ((), {}), items=values, lead=1),
]  # fmt: skip


# Everything public that makes streams of streams, as the modules list it: none is forgotten.
PUBLIC: dict[str, object] = {
    **{name: made for name, made in vars(windows).items() if isinstance(made, Operator)},
    **{name: getattr(combine, name) for name in combine.__all__},
}
PUBLIC = {name: made for name, made in PUBLIC.items() if not isinstance(made, type)}

# Methods of `ResultStream` that are not operators, and yet have a task of their own.
METHODS = {"flat_map", "chunks_of_batches", "steps_over_batches"}


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", cases, ids=[f"{case.operator.__name__}-{CASES.index(case)}" for case in cases]
    )


every_case = each(CASES)
# One that waits for silence emits nothing while items arrive without a pause.
every_case_that_gives_all = each([case for case in CASES if not case.lossy])


def items_and_pauses(*, until: int = 12) -> list[Item | Wait]:
    """Bursts, pauses shorter and longer than any window, all times apart from each other."""
    steps: list[Item | Wait] = []
    for number in range(until):
        if number % 4 == 1:
            steps.append(Wait(0.3))
        if number % 4 == 3:
            steps.append(Wait(2.7))
        steps.append(Item(number))
    return steps


def only_items(steps: Iterable[object]) -> list[Item]:
    return [step for step in steps if isinstance(step, Item)]


def timers() -> list[asyncio.TimerHandle]:
    """Return those that are armed."""
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return [handle for handle in scheduled if not handle.cancelled()]


def check_complete(case: Case, given: list[Any], expected: list[Item]) -> None:
    """Each item was emitted exactly once, in order within its key; nothing was empty."""
    got = case.items(given)
    if case.lossy:
        expected = [item for item in expected if item in got or item is expected[-1]]
    assert sorted(item.number for item in got) == [item.number for item in expected]
    for key in {case.key(item) for item in expected}:
        mine = [item for item in got if case.key(item) == key]
        assert mine == [item for item in expected if case.key(item) == key]
    assert all(given)


@every_case
@pytest.mark.parametrize("pause", [0.0, 0.6, 7.1], ids=["fast", "slow", "slower"])
def test_every_item_is_emitted_once_in_order_whatever_the_reader_takes(
    case: Case, pause: float
) -> None:
    async def main() -> None:
        steps = items_and_pauses()
        given = []
        async with case.operator(timed(*steps), *case.args, **case.kwargs).stream() as opened:
            async for window in opened:
                given.append(window)
                await asyncio.sleep(pause)
        check_complete(case, given, only_items(steps))

    run(main())


class BareTimer:
    """All that a loop promises of a timer: it can be cancelled."""

    _source_traceback = None

    def __init__(self, handle: asyncio.TimerHandle) -> None:
        self.cancel = handle.cancel
        self.cancelled = handle.cancelled


class BareTimers(VirtualTimeLoop):
    """Its timers do not know when they are due: as uvloop's, if they are due at once."""

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        made: Any = BareTimer(super().call_at(when, callback, *args, context=context))
        return cast("asyncio.TimerHandle", made)


def on_bare_timers(main: Coroutine[Any, Any, T]) -> T:
    """Run it, and fail if a callback does."""
    failed: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=BareTimers) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: failed.append(context))
        given = runner.run(main)
    assert failed == []
    return given


@every_case
def test_a_timer_need_not_know_when_it_is_due(case: Case) -> None:
    async def main() -> list[Any]:
        async with case.operator(timed(*steps), *case.args, **case.kwargs).stream() as opened:
            return [window async for window in opened]

    steps = items_and_pauses()
    check_complete(case, on_bare_timers(main()), only_items(steps))


def test_timers_of_silence_workers_and_rates_need_not_know_when_they_are_due() -> None:
    async def echo_all(_: int, items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield item

    async def note() -> Result[float, Never]:
        return Success(asyncio.get_running_loop().time())

    async def main() -> None:
        pauses = timed(1, Wait(5), 2, Wait(1), 3, Wait(9), 4)
        paused = combine.select({"x": pauses}, timeout=4.0)
        assert [at for at, _ in await timeline(paused)] == [0, 4, 5, 6, 10, 14, 15]
        routed = combine.route(pauses, abs, echo_all, idle_after=3.0)
        assert await timeline(routed) == [(0, 1), (5, 2), (6, 3), (15, 4)]
        limited = rate_limit(1, per=2.0)(note)
        started = asyncio.get_running_loop().time()
        given = await asyncio.gather(*[to_result(limited()) for _ in range(3)])
        assert [result.unwrap() - started for result in given] == [0, 2, 4]

    on_bare_timers(main())


@every_case
def test_a_read_cancelled_at_any_time_loses_nothing(case: Case) -> None:
    """Every read is cancelled again and again, a little later each time, until it returns."""

    async def main() -> None:
        steps = items_and_pauses()
        source = timed(*steps)
        reading = case.raw(source)
        given = []
        cuts = 0
        while True:
            try:
                async with asyncio.timeout(0.17 + cuts % 5 * 0.13):
                    given.append(await anext(reading))
            except TimeoutError:
                cuts += 1
            except StopAsyncIteration:
                break
        assert cuts > 10 or case.operator is sliding
        assert cuts
        assert source.opened == source.closed == 1
        assert not source.cancelled
        check_complete(case, given, only_items(steps))

    run(main())


@every_case
@pytest.mark.parametrize("times", [1, 2])
def test_a_reader_cancelled_at_any_await_point_leaves_nothing_behind(
    case: Case, times: int
) -> None:
    """The source is closed and no task is left, wherever the blow falls, also in the clean-up."""

    async def main() -> None:
        for injector in FaultInjector.every(times=times):
            steps = items_and_pauses(until=8)
            source = timed(*steps)

            async def consume(given: list[Any], source: AsyncIterable[Item] = source) -> None:
                opened = case.operator(source, *case.args, **case.kwargs)
                async with opened.stream() as reading:
                    async for window in reading:
                        given.append(window)
                        await asyncio.sleep(0.1)

            given: list[Any] = []
            with contextlib.suppress(asyncio.CancelledError):
                await injector.run(consume(given))
            assert source.opened == source.closed
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert timers() == []
            if not injector.fired:
                check_complete(case, given, only_items(steps))
            else:
                seen = case.items(given)
                assert len(seen) == len(set(seen))

    run(main())


@every_case
def test_closing_early_stops_the_source_awaits_it_and_leaves_no_timer(case: Case) -> None:
    class Cleaned:
        at: float | None = None

        async def __aiter__(self) -> AsyncIterator[Item]:
            try:
                for number in range(1000):
                    yield Item(number)
                    await asyncio.sleep(0.1)
            finally:
                await asyncio.sleep(3)
                self.at = asyncio.get_running_loop().time()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for limit in range(1, 4):
            source = Cleaned()
            reading = case.raw(source)
            for _ in range(limit):
                await anext(reading)
            await asyncio.sleep(0.05)  # something is open
            await reading.aclose()  # type: ignore[attr-defined]
            assert source.at == loop.time()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert timers() == []
            with pytest.raises(StopAsyncIteration):
                await anext(reading)

    run(main())


@every_case_that_gives_all
@pytest.mark.parametrize("suspends", [True, False])
def test_a_slow_reader_makes_the_source_wait(case: Case, suspends: bool) -> None:
    async def main() -> None:
        read = given = 0

        async def source() -> AsyncIterator[Item]:
            nonlocal read
            for number in range(60):
                read += 1
                handed = 0 if suspends else case.handed
                assert read - given <= case.lead + 1 + handed  # one is being read
                yield Item(number)
                if suspends:
                    await asyncio.sleep(0)

        seen: set[Item] = set()
        async for window in case.raw(source()):
            seen.update(case.items([window]))
            given = len(seen)
            await asyncio.sleep(50)
            assert read - given <= case.lead
        assert read == given == 60

    run(main())


def test_a_slow_reader_of_what_drops_items_gets_the_last_one_and_holds_nothing_up() -> None:
    async def main() -> None:
        for case in CASES:
            if case.lossy:
                items = [Item(number) for number in range(60)]
                given = []
                async for window in case.raw(timed(*items)):
                    given.append(window)
                    await asyncio.sleep(50)
                assert case.items(given) == [items[-1]]

    run(main())


@every_case
def test_what_is_open_is_emitted_before_the_error_of_the_source(case: Case) -> None:
    async def main() -> None:
        for many in range(8):
            items = [Item(number) for number in range(many)]
            given = []
            error = KeyError("source")
            with pytest.raises(KeyError) as caught:
                async for window in case.raw(timed(*items, error)):
                    given.append(window)
            assert caught.value is error
            check_complete(case, given, items)

    run(main())


@every_case
def test_what_a_reader_raises_is_not_thrown_into_the_source(case: Case) -> None:
    async def main() -> None:
        ended: list[type[BaseException]] = []

        async def source() -> AsyncIterator[Item]:
            number = 0
            while True:
                try:
                    number += 1
                    yield Item(number)
                    await asyncio.sleep(0.1)
                except BaseException as error:
                    ended.append(type(error))
                    raise

        with pytest.raises(ZeroDivisionError):
            async with case.operator(source(), *case.args, **case.kwargs).stream() as reading:
                async for _ in reading:
                    raise ZeroDivisionError
        assert ended in ([asyncio.CancelledError], [GeneratorExit])

    run(main())


# With eager tasks, what is read ahead is there before the first turn of the loop.
@pytest.mark.not_eager
@every_case_that_gives_all
def test_a_source_that_never_suspends_is_flushed_in_time_and_lets_others_run(case: Case) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        others: list[float] = []

        async def other() -> None:
            while True:
                others.append(loop.time())
                await asyncio.sleep(0)

        async def source() -> AsyncIterator[Item]:
            number = 0
            while True:
                yield Item(number)
                number += 1
                loop._now += 1e-6  # what its work takes

        running = asyncio.create_task(other())
        args, kwargs = case.prompt
        longest = 0.0
        ticks = 0
        window: Any = None
        async with case.operator(source(), *args, **kwargs).stream() as reading:
            for _ in range(3):
                others.clear()
                started = loop.time()
                window = await anext(reading)
                longest = max(longest, loop.time() - started)
                ticks += len(others)
        running.cancel()
        await asyncio.wait({running})
        assert longest < 0.06
        assert case.items([window])
        assert ticks >= (10 if longest > 0.01 else 1)

    run(main())


@every_case
def test_a_source_that_swallows_the_cancellation_is_stopped_at_its_next_item(case: Case) -> None:
    async def main() -> None:
        reached = 0

        async def source() -> AsyncIterator[Item]:
            nonlocal reached
            for number in range(100):
                reached = number
                yield Item(number)
                if number >= 8:
                    try:
                        await asyncio.sleep(10)
                    except asyncio.CancelledError:
                        await asyncio.sleep(1)

        async with case.operator(source(), *case.args, **case.kwargs).stream() as reading:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):  # then it is the source that is waited for
                    async for _ in reading:
                        pass
            stopped_at = reached
            assert stopped_at >= 8
        assert reached <= stopped_at + 1
        assert asyncio.get_running_loop().time() == 6

    run(main())


def test_ten_thousand_idle_ones_of_all_kinds_hold_no_timer_and_never_wake_up() -> None:
    async def main() -> None:
        async def source() -> AsyncIterator[Item]:
            yield Item(0)
            await silence

        loop = asyncio.get_running_loop()
        silence = loop.create_future()
        many = [case.raw(source()) for case, _ in zip(cycle(CASES), range(10_000), strict=False)]
        reads = [asyncio.ensure_future(anext(reading)) for reading in many]
        await asyncio.sleep(10)
        assert timers() == []
        rounds = 0
        run_once = loop._run_once  # type: ignore[attr-defined]

        def counted() -> None:
            nonlocal rounds
            rounds += 1
            run_once()

        loop._run_once = counted  # type: ignore[attr-defined]
        await asyncio.sleep(1000)
        assert rounds <= 3
        for read in reads:
            read.cancel()
        await asyncio.wait(reads)
        await asyncio.gather(*(reading.aclose() for reading in many))  # type: ignore[attr-defined]

    gc.disable()  # it would take half of the time
    try:
        run(main())
    finally:
        gc.enable()


@every_case
def test_nothing_that_was_emitted_is_kept(case: Case) -> None:
    async def main() -> None:
        alive: weakref.WeakSet[Item] = weakref.WeakSet()

        async def source() -> AsyncIterator[Item]:
            for number in range(300):
                item = Item(number)
                alive.add(item)
                yield item
                del item
                await asyncio.sleep(0)

        reading = case.raw(source())
        most = 0
        async for window in reading:
            del window
            most = max(most, len(alive))
        assert most <= 2 * case.lead + 3
        assert not alive
        dropped = weakref.ref(reading)
        del reading
        assert dropped() is None

    gc.disable()  # references alone must do it
    try:
        run(main())
    finally:
        gc.enable()


# With eager tasks a traceback reaches the frame that keeps it, and the collector must free both.
@pytest.mark.not_eager
@every_case
def test_what_is_held_is_dropped_when_it_is_closed(case: Case) -> None:
    async def main() -> None:
        alive: weakref.WeakSet[Item] = weakref.WeakSet()

        async def source() -> AsyncIterator[Item]:
            for number in range(300):
                item = Item(number)
                alive.add(item)
                yield item
                del item
                if number % 20 == 19:
                    await asyncio.sleep(1)

        for reads in (1, 6, 13):
            reading = case.raw(source())
            for _ in range(reads):
                await anext(reading)
            await reading.aclose()  # type: ignore[attr-defined]
            del reading
            assert not alive

    gc.disable()  # references alone must do it
    try:
        run(main())
    finally:
        gc.enable()


@every_case
def test_a_stream_dropped_unread_stops_its_source(case: Case) -> None:
    async def main() -> None:
        closed = []

        async def source() -> AsyncIterator[Item]:
            try:
                for number in range(100):
                    yield Item(number)
                    await asyncio.sleep(0.1)
            finally:
                closed.append(True)

        reading = case.raw(source())
        await anext(reading)
        del reading
        gc.collect()
        await asyncio.sleep(0.01)
        assert closed == [True]

    run(main())


@every_case
def test_the_stream_can_be_read_again_when_its_source_can(case: Case) -> None:
    async def main() -> None:
        source = timed(*items_and_pauses())
        stream = case.operator(source, *case.args, **case.kwargs)
        piped = case.operator.pipe(*case.args, **case.kwargs)(source)
        rounds = []
        for again in (stream, stream, piped):
            async with again.stream() as reading:
                rounds.append([window async for window in reading])
        assert rounds[0] == rounds[1] == rounds[2]
        assert source.opened == source.closed == 3

    run(main())


@every_case
def test_the_source_is_not_touched_before_the_first_read(case: Case) -> None:
    async def main() -> None:
        source = timed(Item(0))
        reading = case.raw(source)
        await asyncio.sleep(5)
        assert source.opened == 0
        await reading.aclose()  # type: ignore[attr-defined]
        assert source.opened == 0

    run(main())


@every_case
def test_the_source_runs_in_one_task_where_timeouts_work(case: Case) -> None:
    async def main() -> None:
        tasks = set()

        async def source() -> AsyncIterator[Item]:
            tasks.add(asyncio.current_task())
            try:
                async with asyncio.timeout(4.05):  # what some sources do
                    for number in range(100):
                        yield Item(number)
                        tasks.add(asyncio.current_task())
                        await asyncio.sleep(0.5)
            except TimeoutError:
                tasks.add(asyncio.current_task())
            yield Item(9)

        given = [window async for window in case.raw(source())]
        assert [item.number for item in sorted(case.items(given), key=lambda i: i.number)] == [
            *range(10)
        ]
        assert len(tasks) == 1

    run(main())


@every_case
def test_a_source_that_is_not_async_is_a_type_error_at_the_call(case: Case) -> None:
    with pytest.raises(TypeError):
        case.operator([1, 2], *case.args, **case.kwargs)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_docstring_says_when_things_are_emitted_what_is_held_and_what_a_cancelled_read_loses(
    name: str,
) -> None:
    doc = inspect.getdoc(PUBLIC[name]) or ""
    assert "\n1. " in doc
    assert "backpressure" in doc.casefold() or "bounds" in doc.casefold()
    assert "cancel safety" in doc.casefold()
    assert "\nKnown elsewhere as" in doc
    for heading in ("Args:", "Returns:", "Raises:", ">>> "):
        assert f"\n{heading}" in doc


def test_no_operator_is_missing_here() -> None:
    assert PUBLIC.keys() | METHODS == {case.operator.__name__ for case in CASES}
    assert math.inf not in {case.lead for case in CASES}
