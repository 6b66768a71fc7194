"""Source-first and piped operators do what the methods do."""

# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import inspect
import io
from typing import TYPE_CHECKING, Any

import pytest
from aiostream import stream
from returns.future import FutureResult
from returns.result import Failure, Result, Success

import returns_pipeline.windows
from returns_pipeline import InvalidArgument, ResultStream, StepContext, pipe, results
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiostream import Stream


async def mixed() -> AsyncIterator[Result[int, str]]:
    for n in range(4):
        yield Failure(f"{n} is odd") if n % 2 else Success(n)


class Repeatable:
    """An async iterable that is not a stream of aiostream."""

    def __aiter__(self) -> AsyncIterator[Result[int, str]]:
        return mixed()


def positive(n: int) -> Result[int, KeyError]:
    return Success(n + 1) if n else Failure(KeyError(n))


async def positive_async(n: int) -> Result[int, KeyError]:
    await asyncio.sleep(1)
    return positive(n)


def positive_future(n: int) -> FutureResult[int, KeyError]:
    return FutureResult(positive_async(n))


def positive_step(n: int, _: StepContext) -> FutureResult[int, KeyError]:
    return positive_future(n)


async def one_over(n: int) -> float:
    await asyncio.sleep(1)
    return 1 / n


async def double(n: int) -> int:
    await asyncio.sleep(1)
    return 2 * n


def recover(error: str) -> Result[str, int]:
    return Success(error.upper()) if error[0] == "1" else Failure(3)


async def recover_async(error: str) -> Result[str, int]:
    await asyncio.sleep(1)
    return recover(error)


async def see(value: object) -> None:
    await asyncio.sleep(1)
    seen.append(value)


async def repeat(n: int) -> AsyncIterator[Result[int, KeyError]]:
    for _ in range(n):
        yield Success(n)


seen: list[object] = []

# Name of the method, of the operators, and arguments.
operators: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("map", "map_result", (str,), {}),
    ("filter", "filter_result", (bool,), {}),
    ("bind", "bind_result", (positive,), {}),
    ("bind_async", "bind_async_result", (positive_async,), {"concurrency": 2, "ordered": False}),
    ("bind_future_result", "bind_future_result", (positive_future,), {"concurrency": 3}),
    ("map_async", "map_async", (double,), {"concurrency": 2}),
    ("attempt", "attempt", (lambda n: 1 / n, ZeroDivisionError), {}),
    ("attempt_async", "attempt_async", (one_over, ZeroDivisionError), {"concurrency": 2}),
    ("flat_map", "flat_map", (repeat,), {"concurrency": 2}),
    ("ensure", "ensure", (bool, str), {}),
    ("tap", "tap", (seen.append,), {}),
    ("tap_async", "tap_async", (see,), {}),
    ("tap_async", "tap_async", (see,), {"concurrency": 2, "ordered": False}),
    ("alt", "alt", (len,), {}),
    ("bimap", "bimap", (str, len), {}),
    ("lash", "lash", (recover,), {}),
    ("lash_async", "lash_async", (recover_async,), {}),
    ("lash_async", "lash_async", (recover_async,), {"concurrency": 4, "ordered": False}),
    ("tap_result", "tap_result", (positive,), {}),
    ("tap_result_async", "tap_result_async", (positive_async,), {"concurrency": 2}),
    ("tap_failure", "tap_failure", (seen.append,), {}),
    ("tap_failure_async", "tap_failure_async", (see,), {}),
    ("tap_failure_async", "tap_failure_async", (see,), {"concurrency": 4}),
    ("progress", "progress", (3,), {"file": io.StringIO()}),
]


async def trace(s: Stream[Any]) -> tuple[list[Any], list[object], float]:
    """What was emitted, what was seen on the way, and how long it took."""
    seen.clear()
    started = asyncio.get_running_loop().time()
    out = []
    async with s.stream() as items:
        async for item in items:
            out.append(item.alt(repr) if isinstance(item, Failure) else item)
    return out, list(seen), asyncio.get_running_loop().time() - started


@pytest.mark.parametrize(("method", "name", "args", "kwargs"), operators)
def test_all_three_forms_do_the_same(
    method: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if method == "progress":
        pytest.importorskip("rich", reason="needs the extra live")

    async def main() -> None:
        s = ResultStream.from_results(Repeatable())
        expected = await trace(getattr(s, method)(*args, **kwargs))
        source_first = getattr(results, name)
        piped = getattr(pipe, name)
        assert await trace(source_first(s, *args, **kwargs)) == expected
        assert await trace(source_first(Repeatable(), *args, **kwargs)) == expected
        assert await trace(s | piped(*args, **kwargs)) == expected
        assert isinstance(source_first(s, *args, **kwargs), ResultStream)
        assert isinstance(s | piped(*args, **kwargs), ResultStream)

    run(main())


def test_drain_on_has_all_three_forms() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        stop.set()
        s = ResultStream.from_results(Repeatable())
        assert (await trace(results.drain_on(s, stop)))[0] == []
        assert (await trace(s | pipe.drain_on(stop)))[0] == []

    run(main())


def test_the_two_halves_have_all_three_forms() -> None:
    async def main() -> None:
        s = ResultStream.from_results(Repeatable())
        for values in (s.successes(), results.successes(Repeatable()), s | pipe.successes()):
            assert await stream.list(values) == [0, 2]
        for errors in (s.failures(), results.failures(Repeatable()), s | pipe.failures()):
            assert await stream.list(errors) == ["1 is odd", "3 is odd"]

    run(main())


piped_wrongly: dict[str, Callable[[], object]] = {
    "bind_async": lambda: pipe.bind_async_result(positive_async, concurrency=0),
    "bind_future_result": lambda: pipe.bind_future_result(positive_future, concurrency=0),
    "bind_step": lambda: pipe.bind_step(positive_step, StepContext("job"), concurrency=0),
    "map_async": lambda: pipe.map_async(double, concurrency=0),
    "flat_map": lambda: pipe.flat_map(repeat, concurrency=0),
    "attempt": lambda: pipe.attempt(str),  # type: ignore[call-overload]
    "attempt_async": lambda: pipe.attempt_async(double, KeyError, concurrency=0),
    "tap_async": lambda: pipe.tap_async(see, concurrency=0),
    "lash_async": lambda: pipe.lash_async(recover_async, concurrency=0),
    "tap_failure_async": lambda: pipe.tap_failure_async(see, concurrency=0),
    "broadcast": lambda: pipe.broadcast(0),
    "split": lambda: pipe.split(bool, buffer=0),
    "throttle": lambda: pipe.throttle(0.0),
}


@pytest.mark.parametrize("make", piped_wrongly.values(), ids=piped_wrongly)
def test_a_bad_argument_is_refused_before_the_source_has_come(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument):
        make()


def test_every_step_of_the_class_has_an_operator_and_the_test_above_knows_it() -> None:
    windows = set(pipe.__all__) & set(returns_pipeline.windows.__all__)
    together = set(pipe.__all__) & set(returns_pipeline.combine.__all__)
    beside = {
        "of", "from_results", "from_batches", "or_failure", "bind_step", "subscribe", "zip",
        "observed",
    }  # fmt: skip
    steps = {
        name
        for name, value in inspect.getmembers(ResultStream, inspect.isfunction)
        if not name.startswith("_")
        and "ResultStream[" in str(inspect.signature(value).return_annotation)
        and name not in {*windows, *together, *beside}
    }
    assert steps == {method for method, *_ in operators} | {"drain_on"}
    names = {name for _, name, *_ in operators} | {"drain_on", "successes", "failures"}
    assert set(results.__all__) - {"bind_step"} == names
    assert set(pipe.__all__) - {"bind_step"} == names | windows | together


def test_a_window_piped_onto_results_holds_the_results_themselves() -> None:
    async def main() -> None:
        s = ResultStream.from_results(Repeatable()) | pipe.chunks_or_timeout(3, 1.0)
        windows = []
        async with s.stream() as items:
            async for window in items:
                windows.append(window)
        assert windows == [
            [Success(0), Failure("1 is odd"), Success(2)], [Failure("3 is odd")],
        ]  # fmt: skip

    run(main())


def test_a_source_that_is_none_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="async iterable"):
        results.map_result([1], str)  # type: ignore[arg-type, unused-awaitable]
