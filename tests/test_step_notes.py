"""An exception out of a step says which step it was, once, and its traceback is short."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiostream import stream
from returns.result import Failure, Result, Success

import returns_pipeline
from returns_pipeline import ResultStream, Saga, StepContext, to_result
from returns_pipeline.policies import (
    RetryPolicy,
    Timeout,
    all_of,
    race,
    with_policy,
    with_retry,
    with_timeout,
)
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from returns.future import FutureResult

TWICE = RetryPolicy(3, wait=0.0)


class Shop:
    """Its step fails at the third item, by a value at the first attempt, then by an exception."""

    def __init__(self, failures: int = 1) -> None:
        self.failures = failures

    async def persist(self, n: int, step: StepContext | None = None) -> Result[int, str]:
        if n < 2:
            return Success(n)
        if self.failures:
            self.failures -= 1
            return Failure("not yet")
        raise KeyError(n)


def numbers() -> ResultStream[int, Any]:
    return ResultStream.of(stream.range(4, interval=0.0))


def notes(made: Callable[[StepContext], Awaitable[object]]) -> list[str]:
    """Return the notes of the exception that this ends with."""

    async def main() -> None:
        async with StepContext("shop") as ctx:
            _ = await made(ctx)

    with pytest.raises(KeyError) as caught:
        run(main())
    return getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_note_names_the_context_the_step_and_the_item(concurrency: int) -> None:
    def chain(ctx: StepContext) -> FutureResult[int, Any]:
        return numbers().bind_step(Shop(0).persist, ctx, concurrency=concurrency).run()

    assert notes(chain) == ["in step shop/persist[2]"]
    assert notes(lambda ctx: ctx.run(chain(ctx))) == ["in step shop/persist[2]"]


def test_a_step_may_be_named() -> None:
    assert notes(lambda ctx: numbers().bind_step(Shop(0).persist, ctx, name="store").run()) == [
        "in step shop/store[2]"
    ]


@pytest.mark.parametrize("policy", [TWICE, TWICE | Timeout(9.0), Timeout(9.0) | TWICE])
def test_the_note_tells_the_attempt(policy: Any) -> None:
    step: Any = with_policy(Shop().persist, policy)
    assert notes(lambda ctx: numbers().bind_step(step, ctx).run()) == [
        "in step shop/persist[2], attempt 2"
    ]
    direct: Any = with_policy(Shop().persist, policy)
    assert notes(lambda ctx: direct(2, ctx))[0].startswith("in step shop/persist")


def test_a_step_without_a_context_is_named_by_its_function() -> None:
    assert notes(lambda _: with_retry(Shop().persist, TWICE)(2)) == ["in step persist, attempt 2"]


def test_a_step_of_a_policy_over_several_is_named_itself() -> None:
    step = race(Shop(0).persist)
    assert notes(lambda ctx: numbers().bind_step(step, ctx).run()) == [
        "in step shop/race[2]/persist[0]"
    ]
    step_of_all = all_of(Shop(0).persist)
    assert notes(lambda ctx: step_of_all(2, ctx)) == ["in step shop/all_of[0]/persist[0]"]


def test_a_step_of_a_saga_is_named() -> None:
    saga = Saga("ship").step("reserve", Shop(0).persist)
    assert notes(lambda _: saga.run(2)) == ["in step ship/reserve[0]"]
    saga = Saga("ship").step("reserve", Shop().persist, retry=TWICE)
    assert notes(lambda ctx: saga.run(2, ctx)) == ["in step shop/ship[0]/reserve, attempt 2"]


def test_a_bare_run_is_named_by_its_context() -> None:
    assert notes(lambda ctx: ctx.run(Shop(0).persist(2))) == ["in step shop"]


# Tracebacks.

OURS = str(Path(returns_pipeline.__file__).parent)


def wrong(n: Any) -> Any:
    raise KeyError(n)


async def wrong_async(n: Any, step: Any = None) -> Any:
    raise KeyError(n)


def policies(ctx: StepContext) -> Awaitable[object]:
    step = with_policy(wrong_async, Timeout(9.0) | TWICE | Timeout(2.0))
    return ctx.run(numbers().bind_step(step, ctx).run())


async def async_for(_: StepContext) -> None:
    async with numbers().map(wrong).chunks_or_timeout(2, 1.0).stream() as pairs:
        async for _pair in pairs:
            pass


USES: dict[str, Callable[[StepContext], Awaitable[object]]] = {
    "a sequential step": lambda _: numbers().map(wrong).collect(),
    "with to_result": lambda _: to_result(numbers().bind(wrong).collect()),
    "a terminal's function": lambda _: numbers().for_each(wrong),
    "concurrent": lambda _: numbers().bind_async(wrong_async, concurrency=3).run(),
    "after a window": lambda _: numbers().chunks_or_timeout(2, 1.0).map(wrong).partition(),
    "before a window": lambda _: numbers().map(wrong).chunks_or_timeout(2, 1.0).fold(0, max),  # type: ignore[arg-type]
    "before several windows": lambda _: (
        numbers().map(wrong).chunks_or_timeout(2, 1.0).prefetch(2).sliding(2).run_all()
    ),
    "merged": lambda _: numbers().map(wrong).merge(numbers()).collect_all(),
    "in a context": lambda ctx: ctx.run(numbers().bind_step(wrong_async, ctx).run()),
    "in a concurrent context": lambda ctx: ctx.run(
        numbers().chunks_or_timeout(2, 1.0).bind_step(wrong_async, ctx, concurrency=2).run()
    ),
    "with policies": policies,
    "a policy alone": lambda ctx: with_timeout(wrong_async, 2.0)(1, ctx),
    "a race": lambda ctx: race(wrong_async)(1, ctx),
    "all of": lambda ctx: all_of(wrong_async, wrong_async)(1, ctx),
    "a saga": lambda _: Saga("ship").step("reserve", wrong_async).run(1),
    "a saga in a context": lambda ctx: Saga("ship").step("reserve", wrong_async).run(1, ctx),
    "iteration": async_for,
}


@pytest.mark.parametrize("use", USES)
def test_at_most_five_frames_of_ours_stand_between_two_of_the_user(use: str) -> None:
    async def main() -> list[str]:
        async with StepContext("shop") as ctx:
            try:
                _ = await USES[use](ctx)
            except KeyError as error:
                return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        raise AssertionError("it was to fail")

    first, *between, last = run(main())
    assert first == last == __file__
    assert len([name for name in between if name != __file__]) <= 5
    assert __file__ not in between or use == "iteration"


def test_an_error_of_ours_keeps_the_frames_in_which_it_was_raised() -> None:
    async def main() -> list[str]:
        try:
            _ = await numbers().bind(lambda n: n).collect()  # type: ignore[arg-type, return-value]
        except TypeError as error:
            return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        raise AssertionError("it was to fail")

    assert run(main())[-2:] == ["_fuse", "_error_of"]


class Busy(Exception):
    code = 503


def is_busy(error: Busy) -> bool:
    return error.code == 503


def test_an_exception_that_the_function_of_errors_does_not_know_is_not_retried() -> None:
    calls: list[int] = []

    async def ask(n: int) -> Result[int, Busy]:
        calls.append(n)
        if len(calls) == 1:
            return Failure(Busy())
        raise KeyError(n)  # it has no code

    with pytest.raises(KeyError) as caught:
        run(to_result(with_retry(ask, RetryPolicy(9, wait=0.0, retry_on=is_busy))(7)))
    assert calls == [7, 7]
    assert caught.value.__notes__ == ["in step ask, attempt 2"]
