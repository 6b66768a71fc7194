"""A `FutureResult` of this package is as good as one of `returns`, whatever is done with it."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from returns.context import RequiresContextFutureResult
from returns.functions import identity
from returns.future import Future, FutureResult
from returns.io import IO, IOFailure, IOResult, IOSuccess
from returns.pipeline import flow, is_successful
from returns.pointfree import bind
from returns.result import Failure, Result, Success
from returns.unsafe import unsafe_perform_io

from returns_pipeline import ResultStream
from returns_pipeline._engine.future_results import future_result, to_result
from returns_pipeline.context import StepContext
from returns_pipeline.errors import ScopeBusy
from returns_pipeline.sources import from_iterable
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Make = Callable[[Coroutine[Any, Any, Result[int, str]]], FutureResult[int, str]]


async def work(given: Result[int, str], times: list[int] | None = None) -> Result[int, str]:
    await asyncio.sleep(0)
    if times is not None:
        times.append(1)
    return given


async def half(value: int) -> float:
    return value / 2


async def later(value: int) -> FutureResult[int, str]:
    return FutureResult.from_value(value)


def same(value: int) -> FutureResult[int, str]:
    return FutureResult.from_value(value)


USES: dict[str, Callable[[FutureResult[int, str]], Any]] = {
    "await": identity,
    "map": lambda it: it.map(lambda value: value + 1),
    "alt": lambda it: it.alt(len),
    "swap": lambda it: it.swap(),
    "apply": lambda it: it.apply(FutureResult.from_value(lambda value: value * 3)),
    "bind": lambda it: it.bind(lambda value: FutureResult.from_value(value + 1)),
    "bind to a failure": lambda it: it.bind(lambda value: FutureResult.from_failure("no")),
    "bind_async": lambda it: it.bind_async(later),
    "bind_awaitable": lambda it: it.bind_awaitable(half),
    "bind_result": lambda it: it.bind_result(lambda value: Success(value)),
    "bind_ioresult": lambda it: it.bind_ioresult(lambda value: IOFailure("no")),
    "bind_io": lambda it: it.bind_io(lambda value: IO(value)),
    "bind_future": lambda it: it.bind_future(lambda value: Future.from_value(value)),
    "bind_async_future": lambda it: it.bind_async_future(half_future),
    "lash": lambda it: it.lash(lambda error: FutureResult.from_value(len(error))),
    "compose_result": lambda it: it.compose_result(lambda given: FutureResult.from_result(given)),
    "itself in a bind": lambda it: FutureResult.from_value(1).bind(lambda _: it),
    "flow": lambda it: flow(it, bind(same)),
    "do": lambda it: FutureResult.do(value + other async for value in it async for other in it),
    "context": lambda it: RequiresContextFutureResult.from_future_result(it)(None),
}


async def half_future(value: int) -> Future[float]:
    return Future(half(value))


@pytest.mark.parametrize("given", [Success(7), Failure("wrong")], ids=str)
@pytest.mark.parametrize("use", USES)
def test_whatever_is_made_of_it_is_what_is_made_of_any_other(
    use: str, given: Result[int, str]
) -> None:
    async def outcome(make: Make) -> object:
        return await USES[use](make(work(given)))

    expected = run(outcome(FutureResult))
    found = run(outcome(future_result))
    assert found == expected
    assert type(found) is type(expected)
    assert isinstance(found, IOSuccess | IOFailure)


def test_the_work_of_a_future_result_is_done_once() -> None:
    times: list[int] = []

    async def main() -> None:
        made = future_result(work(Success(7), times))
        assert isinstance(made, FutureResult)
        assert repr(made).startswith("<FutureResult: <coroutine object work at")
        first = await made
        assert first == IOSuccess(7)
        assert is_successful(first)
        assert await made == IOSuccess(7)
        assert await made.awaitable() == IOSuccess(7)
        assert await made.map(str) == IOSuccess("7")
        assert await to_result(made) == Success(7)
        assert times == [1]
        again = future_result(work(Success(8), times))
        assert await to_result(again) == await to_result(again) == Success(8)
        assert await again == IOSuccess(8)
        assert times == [1, 1]

    run(main())


def test_what_the_work_raises_propagates_and_awaiting_it_again_is_an_error() -> None:
    async def broken() -> Result[int, str]:
        raise ZeroDivisionError

    async def main() -> None:
        for make in (FutureResult, future_result):
            made: FutureResult[int, str] = make(broken())
            with pytest.raises(ZeroDivisionError):
                await made
            with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
                await made

    run(main())


def test_a_cancellation_reaches_the_work() -> None:
    seen: list[str] = []

    async def hang() -> Result[int, str]:
        try:
            await asyncio.sleep(99)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return Success(1)

    async def main() -> None:
        for wait in (to_result, lambda it: it.awaitable()):
            task = asyncio.create_task(wait(future_result(hang())))
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()

    run(main())
    assert seen == ["cancelled"] * 2


def test_a_future_result_that_is_never_awaited_is_warned_about() -> None:
    def forget() -> None:
        _ = future_result(work(Success(1)))

    with pytest.warns(RuntimeWarning, match="'work' was never awaited"):
        forget()


@pytest.mark.parametrize("make", [FutureResult, future_result, identity])
def test_a_step_that_is_refused_is_closed_without_a_warning(make: Callable[..., Any]) -> None:
    async def main() -> None:
        ctx = StepContext("test")

        async def outer() -> Result[int, str]:
            with pytest.raises(ScopeBusy):
                await ctx.run(make(work(Success(1))))
            return Success(2)

        assert await ctx.run(outer()) == IOSuccess(2)

    run(main())
    gc.collect()


@pytest.mark.parametrize("make", [FutureResult, future_result, identity])
def test_a_step_that_returns_no_result_is_a_type_error(make: Callable[..., Any]) -> None:
    async def wrong() -> int:
        return 1

    async def main() -> None:
        with pytest.raises(TypeError, match="a step returned 1 and no Result"):
            await to_result(make(wrong()))

    run(main())


def test_an_io_result_is_unpacked_too() -> None:
    async def wrapped() -> IOResult[int, str]:
        return IOSuccess(1)

    assert run(to_result(wrapped())) == Success(1)  # type: ignore[arg-type]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_step_of_a_stream_makes_no_io_result_around_the_result_of_a_future_result(
    concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> IOResult[int, str]:
        raise AssertionError("this costs more than all the rest of a step")

    def step(value: int) -> FutureResult[int, str]:
        return FutureResult(work(Success(value) if value else Failure("zero")))

    async def main() -> tuple[list[int], list[str]]:
        numbers = ResultStream.of(from_iterable([0, 1, 2]))
        halves = numbers.bind_future_result(step, concurrency=concurrency)
        recovered = halves.lash_async(lambda _: step(7), concurrency=concurrency)
        kept = recovered.tap_result_async(step, concurrency=concurrency)
        return unsafe_perform_io(await kept.partition())

    monkeypatch.setattr(IOResult, "from_result", refuse)
    assert run(main()) == ([7, 1, 2], [])
