"""The methods of `ResultStream` that put streams together: failures go by, in their place."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest
from aiostream import stream
from returns.future import future_safe
from returns.result import Failure, Result, Success

from returns_pipeline import InvalidArgument, ResultStream, StepContext, combine, pipe
from returns_pipeline.combine import KeyFailed
from returns_pipeline.errors import BufferOverflow, UnevenSources
from returns_pipeline.testing import Scripted, run, script, timeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LETTERS: dict[str, Result[str, str]] = {
    **{letter: Success(letter) for letter in "abcdef"},
    **{letter: Failure(letter) for letter in "XYZ"},
}


def results(marbles: str) -> ResultStream[str, str]:
    """Small letters are values, capitals failures."""
    return ResultStream.from_results(source(marbles))


def source(marbles: str) -> Scripted[Result[str, str]]:
    return script(marbles, values=LETTERS)


async def shown(s: ResultStream[Any, Any]) -> list[tuple[float, Any]]:
    return [
        (at, item.unwrap() if isinstance(item, Success) else item.failure())
        for at, item in await timeline(s)
    ]


def joined(before: str, item: str) -> str:
    return before + item


CASES: dict[str, tuple[Callable[[], ResultStream[Any, Any]], list[tuple[float, Any]]]] = {
    "merge": (
        lambda: results("a-X|").merge(results("-b-Y|"), results("-----c|")),
        [(0, "a"), (1, "b"), (2, "X"), (3, "Y"), (5, "c")],
    ),
    "concat": (
        lambda: results("a-X|").concat(results("-b|")),
        [(0, "a"), (2, "X"), (4, "b")],
    ),
    "zip": (
        lambda: results("abXc|").zip(results("d-eY(fa)|")),
        [(0, ("a", "d")), (2, ("b", "e")), (3, "X"), (4, ("c", "f"))],
    ),
    "zip, both failed": (lambda: results("X|").zip(results("Y|")), [(0, "X")]),
    "scan": (lambda: results("aXb|").scan("", joined), [(0, "a"), (1, "X"), (2, "ab")]),
    "distinct_until_changed": (
        lambda: results("aaXabXX|").distinct_until_changed(),
        [(0, "a"), (2, "X"), (4, "b"), (5, "X"), (6, "X")],
    ),
    "distinct_until_changed by key": (
        lambda: results("abXc|").distinct_until_changed(lambda letter: letter in "ab"),
        [(0, "a"), (2, "X"), (3, "c")],
    ),
    "prefetch": (lambda: results("aX|").prefetch(2), [(0, "a"), (1, "X")]),
    "take_until": (lambda: results("aX--b|").take_until(script("--a")), [(0, "a"), (1, "X")]),
    "throttle": (
        lambda: results("(abX)--(cYZ)|").throttle(2.0),
        [(0, "a"), (2, "b"), (2, "X"), (4, "c"), (4, "Y"), (4, "Z")],
    ),
    "throttle, failures do not count": (
        lambda: results("(XYaZb)|").throttle(2.0),
        [(0, "X"), (0, "Y"), (0, "a"), (0, "Z"), (2, "b")],
    ),
    "debounce": (
        lambda: results("ab----cX-d----e|").debounce(2.0),
        [(3, "b"), (7, "c"), (7, "X"), (11, "d"), (15, "e")],
    ),
    "debounce, failures alone": (
        lambda: results("XY--a|").debounce(9.0),
        [(0, "X"), (1, "Y"), (5, "a")],
    ),
}


@pytest.mark.parametrize(("make", "expected"), CASES.values(), ids=CASES)
def test_values_are_worked_on_and_failures_pass_also_when_read_again(
    make: Callable[[], ResultStream[Any, Any]], expected: list[tuple[float, Any]]
) -> None:
    async def main() -> None:
        s = make()
        assert isinstance(s, ResultStream)
        assert await shown(s) == expected
        assert await shown(s) == expected
        assert len(await shown(s.map(repr).alt(repr))) == len(expected)

    run(main())


def test_a_slow_reader_of_debounce_loses_neither_failures_nor_what_stood_before_them() -> None:
    async def main() -> None:
        seen = await timeline(results("aXbYZc----dX|").debounce(1.5), pause=10.0)
        letters = [
            item.unwrap() if isinstance(item, Success) else item.failure() for _, item in seen
        ]
        assert letters == ["a", "X", "b", "Y", "Z", "d", "X"]  # d had come when c was read

    run(main())


def test_the_other_stream_s_steps_run_too_and_terminals_stop_at_its_failures() -> None:
    async def main() -> None:
        merged = results("a--b|").merge(results("-cX-d|").map(str.upper))
        assert await merged.collect() == await results("X|").collect()
        assert (await merged.successes()) == "D"

    run(main())


@pytest.mark.parametrize("method", ["merge", "concat", "zip"])
def test_until_drains_all_streams_that_were_joined_before_it(method: str) -> None:
    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(2.5, stop.set)
        first, second = source("a-b-----c|"), source("d-e-----f|")
        s = getattr(ResultStream.from_results(first), method)(ResultStream.from_results(second))
        seen = await shown(s.chunks_or_timeout(100, math.inf).drain_on(stop))
        assert asyncio.get_running_loop().time() == 2.5
        assert seen == [
            (
                2.5,
                {
                    "merge": ["a", "d", "b", "e"],
                    "concat": ["a", "b"],
                    "zip": [("a", "d"), ("b", "e")],
                }[method],
            )
        ]
        assert (first.cancelled, second.opened) == (1, 0 if method == "concat" else 1)

    run(main())


def test_until_before_a_join_leaves_the_other_stream_alone() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        stop.set()
        s = results("a-b|").drain_on(stop).merge(results("--c|"))
        assert await shown(s) == [(2, "c")]

    run(main())


SAFE: dict[str, Callable[[ResultStream[str, str]], ResultStream[Any, Any]]] = {
    "merge": lambda s: s.merge(results("|")),
    "concat": lambda s: s.concat(results("|")),
    "zip": lambda s: s.zip(results("(abcdef)|")),
    "prefetch": lambda s: s.prefetch(1),
    "scan behind a step with a task": lambda s: s.prefetch(1).scan("", lambda _, item: item),
    "distinct_until_changed after one": lambda s: s.prefetch(1).distinct_until_changed(),
    "take_until": lambda s: s.take_until(script("-----------|")),
    "route": lambda s: s.route(by_letter, echo),
    "throttle": lambda s: s.throttle(0.1),
    "debounce": lambda s: s.debounce(0.1),
}


@pytest.mark.parametrize("add", SAFE.values(), ids=SAFE)
def test_a_read_that_is_cancelled_loses_nothing(
    add: Callable[[ResultStream[str, str]], ResultStream[Any, Any]],
) -> None:
    async def main() -> None:
        cuts = 0
        given = []
        async with add(results("a---bX--c|")).stream() as items:
            while True:
                try:
                    async with asyncio.timeout(0.7):
                        given.append(await anext(items))
                except TimeoutError:
                    cuts += 1
                except StopAsyncIteration:
                    break
        assert cuts > 5
        assert len(given) == 4
        assert [item for item in given if isinstance(item, Failure)] == [Failure("X")]

    run(main())


@pytest.mark.parametrize("method", ["scan", "distinct_until_changed"])
def test_a_step_that_raises_ends_the_stream_and_closes_the_source(method: str) -> None:
    async def main() -> None:
        def broken(*_: object) -> str:
            raise KeyError

        first = source("abc|")
        args = ("", broken) if method == "scan" else (broken,)
        s = getattr(ResultStream.from_results(first).prefetch(1), method)(*args)
        async with s.stream() as items:
            with pytest.raises(KeyError):
                await anext(items)
            assert first.closed == 1
            with pytest.raises(StopAsyncIteration):
                await anext(items)

    run(main())


def test_zip_says_when_strict_that_one_is_shorter() -> None:
    async def main() -> None:
        with pytest.raises(UnevenSources):
            await shown(results("ab|").zip(results("a|"), strict=True))

    run(main())


def test_broadcast_emits_values_and_failures_to_each_stream() -> None:
    async def main() -> None:
        for branches in results("aXb|").broadcast(2), results("aXb|") | pipe.broadcast(2):
            streams = [ResultStream.from_results(branch) for branch in branches]
            for seen in await asyncio.gather(*map(shown, streams)):
                assert [item for _, item in seen] == ["a", "X", "b"]
        left, right = results("aXb|").broadcast(2, buffer=1, overflow="fail")
        assert len(await shown(left)) == 3
        with pytest.raises(BufferOverflow):
            await shown(right)

    run(main())


async def echo(key: str, items: AsyncIterator[str]) -> AsyncIterator[Result[str, str]]:
    async for item in items:
        assert item == key
        await asyncio.sleep(2)
        yield Failure(item * 2) if item == "d" else Success(item * 2)


async def whole(_: bool, items: AsyncIterator[str]) -> Result[str, str]:
    return Success("".join([item async for item in items]))


@future_safe(exceptions=(KeyError,))
async def future(_: bool, items: AsyncIterator[str]) -> str:
    return "".join([item async for item in items])


def by_letter(letter: str) -> str:
    return letter


def early(letter: str) -> bool:
    return letter < "c"


def test_route_gives_each_key_s_values_to_a_worker_and_lets_failures_go_by() -> None:
    async def main() -> None:
        s = results("(aXbd)-aY|").route(by_letter, echo)
        expected = [(0, "X"), (2, "aa"), (2, "bb"), (2, "dd"), (3, "Y"), (4, "aa")]
        for _ in range(2):
            assert await shown(s) == expected
        assert await stream.list(s.failures()) == ["X", "dd", "Y"]
        for worker in whole, future:
            seen = await shown(results("abXcYd|").route(early, worker))
            assert seen == [(2, "X"), (4, "Y"), (6, "ab"), (6, "cd")]

    run(main())


def test_failures_that_go_by_route_wait_for_the_reader() -> None:
    async def main() -> None:
        first = source("(XYZXYZXYZa)|")
        async with ResultStream.from_results(first).route(by_letter, echo).stream() as items:
            for taken in range(1, 5):
                await anext(items)
                await asyncio.sleep(9)
                assert first.given <= taken + 1

    run(main())


def test_what_a_worker_of_route_raises_is_fatal_or_a_failure_as_chosen() -> None:
    async def worker(key: str, items: AsyncIterator[str]) -> AsyncIterator[Result[str, str]]:
        async for item in items:
            if key == "b":
                raise ZeroDivisionError
            yield Success(item)

    async def main() -> None:
        s = results("a-b-cX|")
        with pytest.raises(ZeroDivisionError) as caught:
            await s.route(by_letter, worker).collect_all()
        assert "key 'b'" in caught.value.__notes__[0]
        values, errors = (
            await s.route(by_letter, worker, failing="isolate").partition()
        )._inner_value
        assert values == ["a", "c"]
        [failed, other] = errors
        assert isinstance(failed, KeyFailed)
        assert (failed.key, failed.items, other) == ("b", ("b",), "X")
        assert isinstance(failed.error, ZeroDivisionError)

    run(main())


def test_a_worker_of_route_that_returns_no_result_fails_like_one_that_raises() -> None:
    async def worker(_: str, items: AsyncIterator[str]) -> AsyncIterator[Any]:
        async for item in items:
            yield item

    async def main() -> None:
        with pytest.raises(TypeError, match="a step returned 'a' and no Result"):
            await results("ab|").route(by_letter, worker).collect()
        isolated = results("a|").route(by_letter, worker, failing="isolate")
        [failed] = await stream.list(isolated.failures())
        assert isinstance(failed, KeyFailed)
        assert failed.items == ("a",)

    run(main())


def test_what_a_worker_of_route_registered_is_settled_as_by_bind_step() -> None:
    undone: list[str] = []

    async def undo(item: str) -> None:
        undone.append(item)

    async def worker(key: str, items: AsyncIterator[str], step: StepContext) -> Result[str, str]:
        async for item in items:
            await step.register(undo, item)
        return Failure("no") if key == "b" else Success(key)

    async def main() -> None:
        async with StepContext("job") as ctx:
            s = results("(abX)|").route(by_letter, worker, ctx=ctx)
            assert [item for _, item in await shown(s)] == ["X", "a", "no"]
            assert undone == ["b"]
            await results("(ca)|").route(by_letter, worker, ctx=ctx, hold=True).run()
            await ctx.scope.compensate()
        assert undone == ["b", "a", "c"]

    run(main())


def test_until_lets_the_workers_of_route_finish_what_was_read() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1.5, stop.set)
        first = source("abX-----c|")
        s = ResultStream.from_results(first).route(by_letter, echo).drain_on(stop)
        assert await shown(s) == [(2, "aa"), (3, "bb")]
        assert first.cancelled == 1

    run(main())


def test_where_no_stream_comes_first_a_result_stream_is_made_of_what_is_emitted() -> None:
    async def main() -> None:
        first = ResultStream.from_results(
            combine.merge_prioritized((1, results("(aX)|")), (2, results("(bY)|")))
        )
        assert [item for _, item in await shown(first.map(str.upper))] == ["B", "Y", "A", "X"]
        tagged = await timeline(combine.select({"l": results("aX|"), "r": results("--b|")}))
        assert [(key, item) for _, (key, item) in tagged] == [
            ("l", Success("a")),
            ("l", Failure("X")),
            ("r", Success("b")),
        ]
        sides = combine.split(results("aXbY|"), lambda item: isinstance(item, Success))
        good, bad = [ResultStream.from_results(side) for side in sides]
        assert [item for _, item in await shown(good)] == ["a", "b"]
        assert [item for _, item in await shown(bad)] == ["X", "Y"]

    run(main())


def test_partition_behind_a_pipe() -> None:
    async def main() -> None:
        good, bad = results("aXb|") | pipe.split(lambda item: isinstance(item, Success))
        assert await timeline(good) == [(0, Success("a")), (2, Success("b"))]
        assert [item for _, item in await timeline(bad)] == [Failure("X")]

    run(main())


@pytest.mark.parametrize(
    "make",
    [
        lambda s: s.merge(s, buffer=0),
        lambda s: s.prefetch(0),
        lambda s: s.throttle(0),
        lambda s: s.debounce(0),
        lambda s: s.broadcast(0),
        lambda s: s.route(by_letter, echo, max_keys=0),
        lambda s: s.route(by_letter, echo, buffer=0),
        lambda s: s.route(by_letter, echo, idle_after=0),
        lambda s: s.route(by_letter, echo, failing="drop"),
    ],
    ids=range(9),
)
def test_arguments_out_of_range_are_refused_at_the_call(make: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidArgument):
        make(results("a|"))


@pytest.mark.parametrize("method", ["merge", "concat", "zip", "take_until"])
def test_what_is_not_a_stream_is_refused_at_the_call(method: str) -> None:
    with pytest.raises(TypeError):
        getattr(results("a|"), method)([1])


def test_a_reader_that_stops_early_closes_all_sources() -> None:
    async def main() -> None:
        first, second = source("a-b----|"), source("c-d----|")
        s = ResultStream.from_results(first).merge(ResultStream.from_results(second))
        await s.scan("", joined).first()
        assert first.closed == second.closed == 1

    run(main())
