# mypy: disable-error-code="unused-awaitable"
"""What the methods of `ResultStream` promise, one test each."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from aiostream import Stream, stream
from returns.future import FutureResult
from returns.io import IO, IOFailure, IOSuccess
from returns.result import Failure, Result, Success

from returns_pipeline import (
    Counts,
    FailedItems,
    InvalidArgument,
    ResultStream,
    StreamEmpty,
    cases,
    err,
    ok,
)
from returns_pipeline.policies import RetryPolicy, with_retry
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Source:
    """Numbers from 0; tells how many were read, and whether it was closed."""

    def __init__(self, count: int = 4, *, delay: float = 0.0, error: Exception | None = None):
        self.count = count
        self.delay = delay
        self.error = error
        self.read = 0
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[int]:
        try:
            for n in range(self.count):
                if self.delay:
                    await asyncio.sleep(self.delay)
                self.read += 1
                yield n
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


def numbers(count: int = 4) -> ResultStream[int, Any]:
    return ResultStream.of(Source(count))


def even(n: int) -> Result[int, str]:
    return Failure(f"{n} is odd") if n % 2 else Success(n)


async def even_async(n: int) -> Result[int, str]:
    await asyncio.sleep(1)
    return even(n)


async def collect(s: Stream[Any]) -> list[Any]:
    items = []
    async with s.stream() as opened:
        async for item in opened:
            items.append(item)
    return items


def all_of(s: ResultStream[Any, Any]) -> list[Result[Any, Any]]:
    """Read a stream as its user may: each item a Result."""
    return run(collect(s))


def now() -> float:
    return asyncio.get_running_loop().time()


mixed = [Success(0), Failure("1 is odd"), Success(2), Failure("3 is odd")]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda s: s, mixed),
        (lambda s: s.map(lambda n: n + 1), [Success(1), mixed[1], Success(3), mixed[3]]),
        (lambda s: s.bind(lambda n: Failure(n)), [Failure(0), mixed[1], Failure(2), mixed[3]]),
        (lambda s: s.alt(len), [Success(0), Failure(8), Success(2), Failure(8)]),
        (lambda s: s.bimap(str, len), [Success("0"), Failure(8), Success("2"), Failure(8)]),
        (lambda s: s.lash(lambda e: Success(e[0])), [Success(n) for n in (0, "1", 2, "3")]),
        (lambda s: s.lash(lambda e: Failure(e[0])), [
            mixed[0], Failure("1"), mixed[2], Failure("3"),
        ]),
        (lambda s: s.filter(lambda n: n > 1), [mixed[1], Success(2), mixed[3]]),
        (lambda s: s.ensure(bool, str), [Failure("0"), mixed[1], Success(2), mixed[3]]),
        (lambda s: s.tap(str).tap_failure(len), mixed),
        (lambda s: s.attempt(lambda n: 1 // n, ZeroDivisionError).alt(str), [
            Failure("integer division or modulo by zero"), mixed[1], Success(0), mixed[3],
        ]),
    ],
)  # fmt: skip
def test_a_step_changes_what_it_is_about_and_lets_the_rest_through(
    step: Callable[[Any], Any], expected: list[Any]
) -> None:
    assert all_of(step(numbers().bind(even))) == expected


@pytest.mark.parametrize("concurrency", [1, 3])
def test_asynchronous_steps_do_the_same_as_their_synchronous_forms(concurrency: int) -> None:
    async def one_over(n: int) -> float:
        await asyncio.sleep(1)
        return 1 / n

    async def shout(error: str) -> Result[str, str]:
        return Success(error.upper()) if error[0] == "1" else Failure(error.upper())

    s = numbers()
    assert all_of(s.bind_async(even_async, concurrency=concurrency)) == mixed
    futures = s.bind_future_result(lambda n: FutureResult(even_async(n)), concurrency=concurrency)
    assert all_of(futures) == mixed
    either = s.bind_async(lambda n: FutureResult(even_async(n)), concurrency=concurrency)
    assert all_of(either) == mixed
    retried = s.bind_async(with_retry(even_async, RetryPolicy(1)), concurrency=concurrency)
    assert all_of(retried.alt(lambda exhausted: exhausted.errors[0])) == mixed
    attempted = s.attempt_async(one_over, ZeroDivisionError, concurrency=concurrency)
    assert all_of(attempted.alt(type)) == [
        Failure(ZeroDivisionError), Success(1.0), Success(0.5), Success(1 / 3),
    ]  # fmt: skip
    later = s.filter(bool).map_async(one_over, concurrency=concurrency)
    assert all_of(later) == [Success(1.0), Success(0.5), Success(1 / 3)]
    for shouting in (shout, lambda error: FutureResult(shout(error))):
        assert all_of(s.bind(even).lash_async(shouting, concurrency=concurrency)) == [
            Success(0), Success("1 IS ODD"), Success(2), Failure("3 IS ODD"),
        ]  # fmt: skip


def test_side_effects_see_their_side_alone_and_in_order() -> None:
    seen: list[object] = []

    async def see(value: object) -> None:
        await asyncio.sleep(1)
        seen.append(value)

    s = numbers().bind(even).tap(seen.append).tap_failure(seen.append)
    assert all_of(s.tap_async(see).tap_failure_async(see)) == mixed
    assert seen == [0, 0, "1 is odd", "1 is odd", 2, 2, "3 is odd", "3 is odd"]


def test_a_value_made_of_a_failure_continues_with_the_steps_after_it() -> None:
    seen: list[int] = []
    s = (
        numbers()
        .tap(seen.append)
        .bind(even)
        .lash(lambda error: Success(int(error[0]) * 10))
        .map(lambda n: n + 1)
        .bind(even)
        .lash(lambda error: Success(error))
    )
    assert all_of(s) == [Success(n) for n in ("1 is odd", "11 is odd", "3 is odd", "31 is odd")]
    assert seen == [0, 1, 2, 3]  # steps before it are not run again


def test_an_exception_that_was_not_declared_propagates_after_the_source_is_closed() -> None:
    source = Source()
    s = ResultStream.of(source).attempt(lambda n: 1 // (n - 1), KeyError)
    with pytest.raises(ZeroDivisionError):
        run(s.collect().awaitable())
    assert (source.read, source.closed) == (2, 1)


@pytest.mark.parametrize("method", ["attempt", "attempt_async"])
def test_a_cancellation_is_never_turned_into_a_value(method: str) -> None:
    def give_up(n: int) -> int:
        raise asyncio.CancelledError

    async def give_up_async(n: int) -> int:
        raise asyncio.CancelledError

    s = {
        "attempt": numbers().attempt(give_up, Exception),
        "attempt_async": numbers().attempt_async(give_up_async, Exception),
    }[method]

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await s.collect()

    run(main())


def test_plain_values_and_results_are_lifted_as_they_are() -> None:
    async def results() -> AsyncIterator[Result[int, str]]:
        yield Success(1)
        yield Failure("no")

    assert all_of(ResultStream.from_results(results())) == [Success(1), Failure("no")]
    s = numbers()
    assert ResultStream.from_results(s) is s


def test_wrong_arguments_are_refused_at_the_call() -> None:
    s = numbers()
    for source in ([1], None, 3):
        with pytest.raises(TypeError, match="async iterable"):
            ResultStream.of(source)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="async iterable"):
            ResultStream.from_results(source)  # type: ignore[arg-type]
    for concurrency in (0, -1, 1.5, math.nan, math.inf, "2"):
        limit: Any = concurrency
        with pytest.raises(InvalidArgument, match="concurrency must be"):
            s.bind_async(even_async, concurrency=limit)
        with pytest.raises(InvalidArgument, match="concurrency must be"):
            s.flat_map(lambda n: numbers(n), concurrency=limit)
    with pytest.raises(InvalidArgument, match="n must"):
        s.chunks_or_timeout(0, 1.0)
    with pytest.raises(InvalidArgument, match="timeout"):
        s.chunks_or_timeout(1, 0.0)
    with pytest.raises(InvalidArgument, match="at least one"):
        s.attempt(str)  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match="exception class"):
        s.attempt(str, 3)  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match="exception class"):
        s.or_failure(asyncio.CancelledError)  # type: ignore[type-var]
    with pytest.raises(InvalidArgument, match="right after"):
        s.map(str).or_failure(OSError)


def test_what_has_a_name_in_the_table_of_methods_can_be_given_by_it() -> None:
    s = numbers().ensure(bool, error=str).drain_on(stop=asyncio.Event())
    assert all_of(s) == [Failure("0"), Success(1), Success(2), Success(3)]


@pytest.mark.parametrize("packed", [False, True])
def test_listed_exceptions_of_the_source_become_the_last_failure(packed: bool) -> None:
    error = OSError("gone")

    async def results() -> AsyncIterator[Result[int, str]]:
        yield Success(0)
        yield Failure("no")
        raise error

    if packed:
        s: Any = ResultStream.from_results(results()).or_failure(KeyError, OSError)
        assert all_of(s.map(str)) == [Success("0"), Failure("no"), Failure(error)]
    else:
        s = ResultStream.of(Source(2, error=error)).or_failure(OSError)
        assert all_of(s.map(str)) == [Success("0"), Success("1"), Failure(error)]


def test_a_source_that_cannot_be_opened_fails_by_a_listed_exception_too() -> None:
    error = OSError("refused")

    class Broken:
        def __aiter__(self) -> AsyncIterator[int]:
            raise error

    assert all_of(ResultStream.of(Broken()).or_failure(OSError)) == [Failure(error)]
    with pytest.raises(OSError, match="refused"):
        all_of(ResultStream.of(Broken()).or_failure(KeyError))


def test_exceptions_of_steps_and_others_of_the_source_are_not_folded_in() -> None:
    s = ResultStream.of(Source(2)).or_failure(ZeroDivisionError).map(lambda n: 1 // n)
    with pytest.raises(ZeroDivisionError):
        all_of(s)
    s = ResultStream.of(Source(2, error=KeyError())).or_failure(ZeroDivisionError)
    with pytest.raises(KeyError):
        all_of(s)


def test_a_failure_flushes_the_open_window_and_keeps_its_place() -> None:
    s = numbers(8).ensure(lambda n: n not in {3, 4}, str).chunks_or_timeout(2, 9.0)
    assert all_of(s) == [
        Success([0, 1]), Success([2]), Failure("3"), Failure("4"), Success([5, 6]), Success([7]),
    ]  # fmt: skip


def test_a_window_of_values_is_emitted_at_its_deadline() -> None:
    async def main() -> None:
        seen = []
        s = ResultStream.of(Source(3, delay=1.0)).chunks_or_timeout(9, 1.5)
        async with s.map(len).stream() as items:
            async for item in items:
                seen.append((now(), item))
        assert seen == [(2.5, Success(2)), (3.0, Success(1))]

    run(main())


def test_successes_and_failures_are_plain_streams() -> None:
    s = numbers().bind(even)
    assert run(collect(s.successes())) == [0, 2]
    assert run(collect(s.failures())) == ["1 is odd", "3 is odd"]


def test_a_result_stream_is_a_stream_of_aiostream() -> None:
    async def main() -> None:
        s = numbers().bind(even)
        assert isinstance(s, Stream)
        assert await s == mixed[-1]
        assert await collect(s[1:3]) == mixed[1:3]
        assert await collect(s + s) == mixed + mixed
        assert await collect(stream.take(s, 1)) == mixed[:1]
        assert await collect(s) == mixed  # and again

    run(main())


def test_a_slice_and_a_sum_are_streams_of_results_with_all_their_methods() -> None:
    async def main() -> None:
        s = numbers().bind(even)
        assert await s[1:3].alt(len).partition() == IO(([2], [8]))
        assert await s[2].collect() == IOSuccess([2])
        assert await (s + numbers(2)).partition() == IO(([0, 2, 0, 1], ["1 is odd", "3 is odd"]))
        # What is added need not be Results: then there is nothing to do but read it.
        plain = s[:1] + stream.just("end")
        assert not isinstance(plain, ResultStream)
        assert await collect(plain) == [Success(0), "end"]

    run(main())


def test_a_slice_closes_the_source_when_it_has_ended() -> None:
    source = Source()
    assert run(ResultStream.of(source)[:2].collect().awaitable()) == IOSuccess([0, 1])
    assert (source.read, source.closed) == (2, 1)


def test_flat_map_replaces_each_value_by_the_items_of_its_stream() -> None:
    source = Source(3)
    inner: list[Source] = []

    def expand(n: int) -> ResultStream[int, str]:
        inner.append(Source(n + 1))
        return ResultStream.of(inner[-1]).bind(even)

    s = ResultStream.of(source).ensure(lambda n: n != 1, lambda n: "one").flat_map(expand)
    assert all_of(s) == [mixed[0], Failure("one"), *mixed[:3]]
    assert [each.closed for each in inner] == [1, 1]
    assert source.closed == 1


def test_flat_map_refuses_what_is_not_a_stream() -> None:
    for concurrency in (1, 2):
        with pytest.raises(TypeError, match="async iterable"):
            all_of(numbers().flat_map(lambda n: n, concurrency=concurrency))  # type: ignore[arg-type, return-value]


def test_flat_map_continues_inside_a_stream_where_a_read_was_cancelled() -> None:
    """Neither the stream nor a time limit inside it notices the reader's."""
    entered: list[int] = []

    async def slowly(n: int) -> AsyncIterator[Result[object, str]]:
        entered.append(n)
        async with asyncio.timeout(100):
            yield Success(n)
            await asyncio.sleep(1)
            yield Success(-n)
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(60)
        except TimeoutError:
            yield Failure("slow")

    async def main() -> None:
        seen: list[object] = []
        async with ResultStream.of(Source(3)).flat_map(slowly).stream() as items:
            while True:
                try:
                    async with asyncio.timeout(0.3):
                        seen.append(await anext(items))
                except TimeoutError:
                    continue
                except StopAsyncIteration:
                    break
        every = [[Success(n), Success(-n), Failure("slow")] for n in range(3)]
        assert seen == [item for items in every for item in items]
        assert entered == [0, 1, 2]

    run(main())


def test_flat_map_is_ahead_of_a_slow_reader_by_one_item() -> None:
    async def main() -> None:
        inner = Source(100)
        async with numbers().flat_map(lambda _: ResultStream.of(inner)).stream() as items:
            for taken in range(1, 9):
                await anext(items)
                await asyncio.sleep(1)
                assert inner.read <= taken + 1

    run(main())


@pytest.mark.parametrize("where", ["source", "func", "stream", "no Result"])
def test_flat_map_emits_what_came_before_an_error_and_closes_all(where: str) -> None:
    async def main() -> None:
        sources = [Source(3, error=ValueError() if where == "source" else None)]

        def expand(n: int) -> Any:
            if n == 2 and where == "func":
                raise ValueError
            sources.append(Source(2, error=ValueError() if n == 2 and where == "stream" else None))
            return sources[-1] if n == 2 and where == "no Result" else ResultStream.of(sources[-1])

        seen = []
        with pytest.raises(TypeError if where == "no Result" else ValueError):
            async with ResultStream.of(sources[0]).flat_map(expand).stream() as items:
                async for item in items:
                    seen.append(item.unwrap())
        assert seen == [0, 1] * (3 if where in {"source", "stream"} else 2)
        assert all(source.closed == 1 for source in sources)

    run(main())


def test_flat_map_lets_others_run_while_all_streams_are_empty() -> None:
    async def nothing(_: int) -> AsyncIterator[Result[int, str]]:
        return
        yield

    async def main() -> None:
        stop = asyncio.Event()

        async def another() -> None:
            for _ in range(9):
                await asyncio.sleep(0)
            stop.set()

        source = Source(10_000)
        draining = asyncio.ensure_future(another())
        await ResultStream.of(source).flat_map(nothing).drain_on(stop).run()
        await draining
        assert source.read < 10_000

    run(main())


# Terminals.


def test_collect_returns_all_values() -> None:
    assert run(numbers().collect().awaitable()) == IOSuccess([0, 1, 2, 3])


@pytest.mark.parametrize(
    "terminal",
    [
        lambda s: s.collect(),
        lambda s: s.for_each(str),
        lambda s: s.fold(0, lambda a, b: a + b),
        lambda s: s.last(),
        lambda s: s.run(),
    ],
    ids=["collect", "for_each", "fold", "last", "run"],
)
def test_a_terminal_stops_at_the_first_failure_and_closes_the_source(
    terminal: Callable[[Any], Any],
) -> None:
    source = Source()

    async def main() -> object:
        result = await terminal(ResultStream.of(source).bind(even))
        assert source.closed == 1  # before it returns
        return result

    assert run(main()) == IOFailure("1 is odd")
    assert source.read == 2


def test_collect_all_reads_to_the_end() -> None:
    assert run(numbers(2).collect_all().awaitable()) == IOSuccess([0, 1])
    failed = run(numbers().bind(even).collect_all().awaitable())
    assert failed == IOFailure(FailedItems([0, 2], ["1 is odd", "3 is odd"]))


def test_partition_returns_both_sides_in_order() -> None:
    assert run(numbers().bind(even).partition().awaitable()) == IO(
        ([0, 2], ["1 is odd", "3 is odd"])
    )


def test_for_each_takes_synchronous_and_asynchronous_functions_and_counts() -> None:
    seen: list[tuple[float, int]] = []

    async def slowly(n: int) -> None:
        await asyncio.sleep(1)
        seen.append((now(), n))

    assert run(numbers().for_each(slowly).awaitable()) == IOSuccess(4)
    assert seen == [(1.0, 0), (2.0, 1), (3.0, 2), (4.0, 3)]
    plain: list[int] = []
    assert run(numbers().for_each(plain.append).awaitable()) == IOSuccess(4)
    assert plain == [0, 1, 2, 3]


def test_fold_first_last_and_run() -> None:
    assert run(numbers().fold("", lambda a, n: f"{a}{n}").awaitable()) == IOSuccess("0123")
    assert run(numbers().last().awaitable()) == IOSuccess(3)
    assert run(numbers().run().awaitable()) == IOSuccess(4)
    source = Source()
    assert run(ResultStream.of(source).first().awaitable()) == IOSuccess(0)
    assert (source.read, source.closed) == (1, 1)
    assert run(numbers().filter(bool).bind(even).first().awaitable()) == IOFailure("1 is odd")


def test_fold_awaits_a_coroutine_function_one_value_at_a_time() -> None:
    busy = 0

    async def append(sofar: str, n: int) -> str:
        nonlocal busy
        assert not busy
        busy += 1
        await asyncio.sleep(1)
        busy -= 1
        return f"{sofar}{n}"

    async def main() -> None:
        for func in (append, partial(append), lambda sofar, n: append(sofar, n)):
            assert await numbers().fold("", func) == IOSuccess("0123")
            assert await numbers().bind(even).fold("", func) == IOFailure("1 is odd")
        assert now() == 3 * (4 + 1)

    run(main())


def test_a_stream_without_items_has_no_first_nor_last() -> None:
    assert run(numbers(0).first().awaitable()) == IOFailure(StreamEmpty())
    assert run(numbers(0).last().awaitable()) == IOFailure(StreamEmpty())
    assert run(numbers(0).collect().awaitable()) == IOSuccess([])


def test_nothing_runs_before_a_terminal_is_awaited() -> None:
    source = Source()
    seen: list[int] = []
    s = ResultStream.of(source).tap(seen.append).chunks_or_timeout(2, 1.0)
    future = s.collect()
    assert (source.read, seen) == (0, [])
    assert run(future.awaitable()) == IOSuccess([[0, 1], [2, 3]])


def test_a_stream_can_be_read_again_when_its_source_can() -> None:
    source = Source()
    s = ResultStream.of(source).bind(even).bind_async(even_async, concurrency=2)
    assert all_of(s) == mixed
    assert all_of(s) == mixed
    assert source.closed == 2


def test_a_consumer_that_leaves_early_closes_the_source() -> None:
    source = Source(100)

    async def main() -> None:
        s = ResultStream.of(source).map(str).chunks_or_timeout(3, 1.0)
        with pytest.raises(KeyError):
            async with s.map_async(sleep_and_give, concurrency=2).stream() as items:
                async for _ in items:
                    raise KeyError
        assert source.closed == 1

    run(main())


def test_what_the_consumer_raises_is_not_thrown_into_the_source() -> None:
    thrown: list[BaseException] = []

    async def source() -> AsyncIterator[int]:
        for n in range(3):
            try:
                yield n
            except Exception as error:
                thrown.append(error)

    async def main() -> None:
        for s in (ResultStream.of(source()), ResultStream.of(source()).chunks_or_timeout(1, 1.0)):
            with pytest.raises(KeyError):
                async with s.stream() as items:
                    async for _ in items:
                        raise KeyError

    run(main())
    assert thrown == []


def test_ten_thousand_stages_do_not_recurse() -> None:
    s: ResultStream[int, Any] = numbers(2)
    for _ in range(5_000):
        s = s.map(lambda n: n + 1).bind(Success)
    assert all_of(s) == [Success(5_000), Success(5_001)]
    failing = numbers(1).bind(lambda n: Failure(n))
    for _ in range(10_000):
        failing = failing.alt(lambda n: n + 1)
    assert all_of(failing) == [Failure(10_000)]
    del s, failing
    gc.collect()


def test_adding_a_step_costs_the_same_however_long_the_chain() -> None:
    """The chain is assembled when it is read, not when a step is added."""
    calls = 0

    class Counted:
        def __aiter__(self) -> AsyncIterator[int]:
            nonlocal calls
            calls += 1
            return Source(1).__aiter__()

    s: ResultStream[int, Any] = ResultStream.of(Counted())
    for _ in range(10):
        s = s.chunks_or_timeout(1, 1.0).map(lambda window: window[0])
    assert calls == 0
    assert all_of(s) == [Success(0)]
    assert calls == 1


def test_a_stream_that_was_read_is_not_kept_alive() -> None:
    source = Source()
    s = ResultStream.of(source).map(str).chunks_or_timeout(2, 1.0).map_async(sleep_and_give)
    assert len(all_of(s)) == 2
    alive = weakref.ref(source)
    del s, source
    gc.collect()
    assert alive() is None


async def sleep_and_give(value: Any) -> Any:
    await asyncio.sleep(1)
    return value


# Until.


def test_until_ends_a_silent_source_and_emits_everything_already_read() -> None:
    source = Source(9, delay=1.0)

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_at(3.5, stop.set)
        seen = []
        s = ResultStream.of(source).chunks_or_timeout(2, 60.0).drain_on(stop).map(str)
        async with s.stream() as items:
            async for item in items:
                seen.append((now(), item))
        assert seen == [(2.0, Success("[0, 1]")), (3.5, Success("[2]"))]
        assert source.closed == 1

    run(main())


@pytest.mark.parametrize("concurrency", [1, 3])
def test_until_lets_work_under_way_finish(concurrency: int) -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(10)
        return n

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_at(2.5, stop.set)
        s = ResultStream.of(Source(9, delay=1.0)).map_async(work, concurrency=concurrency)
        expected = [0] if concurrency == 1 else [0, 1]
        assert await s.drain_on(stop).collect() == IOSuccess(expected)

    run(main())


def test_until_set_before_the_first_read_emits_nothing() -> None:
    source = Source()

    async def main() -> None:
        stop = asyncio.Event()
        stop.set()
        assert await ResultStream.of(source).drain_on(stop).collect() == IOSuccess([])

    run(main())
    assert source.read == 0


def test_until_never_set_changes_nothing_and_leaves_no_task() -> None:
    async def main() -> None:
        s = numbers().drain_on(asyncio.Event()).drain_on(asyncio.Event())
        assert await s.collect() == IOSuccess([0, 1, 2, 3])

    run(main())  # which fails on a task left behind


def test_until_is_not_mistaken_for_a_cancellation_from_elsewhere() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        s = ResultStream.of(Source(9, delay=1.0)).drain_on(stop)
        task = asyncio.ensure_future(s.collect().awaitable())
        await asyncio.sleep(2.5)
        stop.set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # and after a drain the task can be cancelled as before
        stop.clear()

        async def drain_then_sleep() -> float:
            asyncio.get_running_loop().call_later(1.5, stop.set)
            await s.collect()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            async with asyncio.timeout(1.0):
                await asyncio.sleep(9)
            return now()

        with pytest.raises(TimeoutError):
            await drain_then_sleep()

    run(main())


def test_a_cancellation_that_comes_together_with_the_stop_propagates() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        s = ResultStream.of(Source(9, delay=1.0)).drain_on(stop)
        task = asyncio.ensure_future(s.collect().awaitable())
        await asyncio.sleep(2.5)
        stop.set()
        await asyncio.sleep(0)  # the read is cancelled for the stop,
        task.cancel()  # and then, before it could end, from elsewhere
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_a_source_without_the_listed_exception_ends_as_ever() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        folded = ResultStream.of(source()).or_failure(OSError)
        assert await folded.collect() == IOSuccess([1])

    run(main())


def test_until_emits_an_item_that_a_cancelled_source_still_delivers() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            yield 2
        yield 3

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_at(1.0, stop.set)
        assert await ResultStream.of(source()).drain_on(stop).collect() == IOSuccess([1, 2])

    run(main())


async def each(n: int) -> AsyncIterator[Result[int, str]]:
    yield Success(n)


@pytest.mark.parametrize(
    "segment",
    [
        lambda s: s.chunks_or_timeout(1, 60.0).map(lambda chunk: chunk[0]),
        lambda s: s.bind_async(even_async, concurrency=3).lash(lambda e: Success(int(e[0]))),
        lambda s: s.flat_map(each),
        lambda s: s.flat_map(each, concurrency=2),
    ],
    ids=["window", "bind_async", "flat_map", "flat_map side by side"],
)
@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (lambda s: s, [Success(n) for n in range(6)]),
        (lambda s: s.map(str).bind(Success), [Success(str(n)) for n in range(6)]),
        (lambda s: s.filter(lambda n: n in (2, 5)), [Success(2), Success(5)]),
        (lambda s: s.filter(lambda n: n == 9), []),
        (
            lambda s: s.bind(even).alt(len),
            [Success(0), Failure(8), Success(2), Failure(8), Success(4), Failure(8)],
        ),
    ],
    ids=["no step", "map", "filter", "drop all", "alt"],
)
def test_a_read_that_is_cancelled_loses_nothing(segment: Any, steps: Any, expected: Any) -> None:
    """Where a part runs in tasks of its own, whatever sequential steps follow."""

    async def main() -> None:
        source = Source(6, delay=1.0)
        seen: list[object] = []
        cut = 0
        async with steps(segment(ResultStream.of(source))).stream() as items:
            while True:
                try:
                    async with asyncio.timeout(0.3):
                        seen.append(await anext(items))
                except TimeoutError:
                    cut += 1
                except StopAsyncIteration:
                    break
        assert seen == expected
        assert cut > 12
        assert source.closed == 1

    run(main())


@pytest.mark.parametrize(
    ("half", "expected"),
    [
        (lambda s: s.successes(), [0, 2, 4]),
        (lambda s: s.failures(), ["1 is odd", "3 is odd", "5 is odd"]),
    ],
    ids=["successes", "failures"],
)
def test_a_cancelled_read_of_one_half_loses_nothing(half: Any, expected: list[object]) -> None:
    async def main() -> None:
        source = Source(6, delay=1.0)
        seen: list[object] = []
        async with half(ResultStream.of(source).prefetch(1).bind(even)).stream() as items:
            while True:
                try:
                    async with asyncio.timeout(0.3):
                        seen.append(await anext(items))
                except TimeoutError:
                    continue
                except StopAsyncIteration:
                    break
        assert seen == expected
        assert source.closed == 1

    run(main())


@pytest.mark.parametrize(
    "half", [lambda s: s.successes(), lambda s: s.failures()], ids=["successes", "failures"]
)
@pytest.mark.parametrize("segment", [lambda s: s, lambda s: s.prefetch(2)], ids=["plain", "task"])
def test_a_half_that_is_closed_early_or_whose_reader_raises_closes_the_source(
    half: Any, segment: Any
) -> None:
    async def main() -> None:
        source = Source(6)
        with pytest.raises(ZeroDivisionError):
            async with half(segment(ResultStream.of(source)).bind(even)).stream() as items:
                await anext(items)
                raise ZeroDivisionError
        assert source.closed == 1

    run(main())


@pytest.mark.parametrize("where", ["source", "step", "step after a cancelled read"])
def test_an_error_after_or_before_a_segment_closes_the_source(where: str) -> None:
    async def main() -> None:
        error = ValueError("no")
        source = Source(4, delay=1.0, error=error if where == "source" else None)

        def step(n: int) -> int:
            if n == 2 and where != "source":
                raise error
            return n

        s = ResultStream.of(source).bind_async(even_async, concurrency=2).map(step).alt(len)
        async with s.stream() as items:
            if where == "step after a cancelled read":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await anext(items)
            with pytest.raises(ValueError, match="no") as raised:
                while True:
                    await anext(items)
            assert raised.value is error
            assert source.closed == 1
            with pytest.raises(StopAsyncIteration):
                await anext(items)

    run(main())


def test_a_cancelled_step_behind_a_segment_ends_the_stream() -> None:
    """It runs in the reader's task, so the cancellation is its own."""

    async def main() -> None:
        source = Source(4)
        s = ResultStream.of(source).chunks_or_timeout(1, 1.0).bind_async(slowly)
        async with s.stream() as items:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(items)
            assert source.closed == 1
            with pytest.raises(StopAsyncIteration):
                await anext(items)

    async def slowly(chunk: list[int]) -> Result[list[int], str]:
        await asyncio.sleep(1)
        return Success(chunk)

    run(main())


def test_a_reader_that_is_cancelled_and_dropped_stops_the_source() -> None:
    async def main() -> None:
        source = Source(9, delay=1.0)

        async def read() -> None:
            opened = ResultStream.of(source).chunks_or_timeout(9, 60.0).filter(bool).stream()
            await anext(await opened.__aenter__())  # and never left

        task = asyncio.create_task(read())
        await asyncio.sleep(2.5)
        task.cancel()
        await asyncio.wait({task})
        del task
        gc.collect()
        await asyncio.sleep(0.1)
        assert source.closed == 1

    run(main())


def test_a_stream_that_is_closed_unread_is_not_opened() -> None:
    async def main() -> None:
        source = Source(2)
        opened = ResultStream.of(source).chunks_or_timeout(1, 1.0).stream()
        async with opened:
            pass
        assert source.read == source.closed == 0

    run(main())


# Effects that can fail.


async def save(n: int) -> Result[int, str]:
    return Failure("disk full") if n == 2 else Success(n)


def save_now(n: int) -> Result[int, str]:
    return Failure("disk full") if n == 2 else Success(n)


def save_later(n: int) -> FutureResult[int, str]:
    return FutureResult(save(n))


async def save_unawaited(n: int) -> FutureResult[int, str]:
    return save_later(n)


@pytest.mark.parametrize("func", [save, save_now, save_later, save_unawaited])
def test_for_each_stops_at_a_failure_of_its_function_and_closes_the_source(
    func: Callable[[int], Any],
) -> None:
    source = Source(9)
    assert run(ResultStream.of(source).for_each(func)) == IOFailure("disk full")
    assert (source.read, source.closed) == (3, 1)
    assert run(numbers(2).for_each(func)) == IOSuccess(2)


def test_tap_result_leaves_the_value_and_puts_a_failure_in_its_place() -> None:
    expected = [Success(0), Success(1), Failure("disk full"), Success(3)]
    assert all_of(numbers().tap_result(lambda n: save_now(n).map(str))) == expected
    for func in (save, save_later):
        for concurrency in (1, 3):
            s: ResultStream[int, Any] = numbers().tap_result_async(func, concurrency=concurrency)
            assert all_of(s) == expected


@pytest.mark.parametrize(
    "made",
    [
        lambda s: s.tap(save_now),
        lambda s: s.tap(save),
        lambda s: s.tap(save_later),
        lambda s: s.tap_async(save),
        lambda s: s.tap_async(save_later),
        lambda s: s.tap_async(save, concurrency=2),
        lambda s: s.filter(save),
        lambda s: s.filter(save_now),
        lambda s: s.ensure(save_later, str),
        lambda s: s.bind(Failure).tap_failure(save_now),
        lambda s: s.bind(Failure).tap_failure_async(save),
    ],
    ids=range(11),
)
def test_a_function_whose_result_would_be_lost_is_refused(
    made: Callable[[ResultStream[int, Any]], ResultStream[Any, Any]],
) -> None:
    with pytest.raises(TypeError, match=r"would be ignored: use |does not await"):
        run(made(numbers()).collect())


@pytest.mark.parametrize("given", [None, [], 0, 1, "yes"])
def test_a_predicate_that_returns_no_bool_is_refused(given: object) -> None:
    def is_wanted(n: int) -> Any:
        return given

    message = r"the predicate is_wanted\(\) returned .*, which is not a bool: wrap it in bool\(\)"
    with pytest.raises(TypeError, match=message):
        run(numbers().filter(is_wanted).collect())
    with pytest.raises(TypeError, match=message):
        run(numbers().ensure(is_wanted, str).collect())


def test_the_bool_of_numpy_is_one() -> None:
    class bool_:  # noqa: N801  # as NumPy calls it
        def __bool__(self) -> bool:
            return False

    def is_wanted(n: int) -> Any:
        return bool_()

    assert all_of(numbers().filter(is_wanted)) == []


def test_run_all_counts_past_failures() -> None:
    assert run(numbers(5).bind(even).run_all()) == IO(Counts(successes=3, failures=2))


def test_a_stage_of_ones_own_is_a_function_of_the_stream() -> None:
    def pairs(s: ResultStream[int, Any]) -> ResultStream[list[int], Any]:
        return s.chunks_or_timeout(2, 1.0)

    assert all_of(numbers().through(pairs)) == [Success([0, 1]), Success([2, 3])]
    assert all_of(numbers() | pairs) == [Success([0, 1]), Success([2, 3])]
    assert run(numbers().through(lambda s: s.run())) == IOSuccess(4)


def test_ok_and_err_are_plain_results() -> None:
    assert (ok(1), err("no")) == (Success(1), Failure("no"))


def test_cases_unpacks_what_await_returned() -> None:
    async def main() -> list[Any]:
        return [cases(await numbers(2).collect()), cases(await numbers(2).bind(even).collect())]

    assert run(main()) == [Success([0, 1]), Failure("1 is odd")]
