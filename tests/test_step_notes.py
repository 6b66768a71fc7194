"""An exception out of a step says which step it was, once, and its traceback is short."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiostream import stream
from returns.result import Failure, Result, Success

import returns_pipeline
from returns_pipeline import ResultStream, Saga, StepContext, to_result
from returns_pipeline.errors import StepTimeout
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
from returns_pipeline.windows import TumblingWindows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

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


async def after_segments(ctx: StepContext) -> None:
    _ = await numbers().map(wrong).prefetch(3).chunks_or_timeout(2, 1.0)


async def awaited_branch(ctx: StepContext) -> None:
    [branch, other] = numbers().map(wrong).broadcast(2)
    with contextlib.suppress(KeyError):
        _ = await other
    _ = await branch


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
    "await of a stream": after_segments,
    "await of a branch": awaited_branch,
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
    assert __file__ not in between or USES[use].__name__ != "<lambda>"


async def wrong_items(n: Any) -> AsyncIterator[Any]:
    for item in [n][1:]:
        yield item
    raise KeyError(n)


# Each kind of step, with the function that raises.
STEPS: dict[str, Callable[[ResultStream[Any, Any]], ResultStream[Any, Any]]] = {
    "map": lambda s: s.map(wrong),
    "alt": lambda s: s.bind(Failure).alt(wrong),
    "bimap": lambda s: s.bimap(wrong, str),
    "bind": lambda s: s.bind(wrong),
    "bind_async": lambda s: s.bind_async(wrong_async),
    "bind_async, concurrent": lambda s: s.bind_async(wrong_async, concurrency=3, ordered=False),
    "bind_future_result": lambda s: s.bind_future_result(wrong, concurrency=3),
    "map_async": lambda s: s.map_async(wrong_async),
    "attempt": lambda s: s.attempt(wrong, OSError),
    "attempt_async": lambda s: s.attempt_async(wrong_async, OSError, concurrency=3),
    "lash": lambda s: s.bind(Failure).lash(wrong),
    "lash_async": lambda s: s.bind(Failure).lash_async(wrong_async),
    "filter": lambda s: s.filter(wrong),
    "ensure": lambda s: s.ensure(lambda _: False, wrong),
    "tap": lambda s: s.tap(wrong),
    "tap_failure": lambda s: s.bind(Failure).tap_failure(wrong),
    "tap_async": lambda s: s.tap_async(wrong_async),
    "tap_result": lambda s: s.tap_result(wrong),
    "tap_result_async": lambda s: s.tap_result_async(wrong_async),
    "flat_map": lambda s: s.flat_map(wrong_items),
    "flat_map, concurrent": lambda s: s.flat_map(wrong_items, concurrency=3),
    "scan": lambda s: s.scan(0, lambda _, n: wrong(n)),
    "distinct_until_changed": lambda s: s.distinct_until_changed(wrong),
    "chunks_by_weight": lambda s: s.chunks_by_weight(3, 1.0, weight=wrong),
    "keyed_chunks": lambda s: s.keyed_chunks(3, 1.0, key=wrong),
    "sessions": lambda s: s.sessions(1.0, key=wrong),
    "chunks_until": lambda s: s.chunks_until(wrong),
    "event_windows": lambda s: s.event_windows(TumblingWindows(1.0), timestamp=wrong),
    "route": lambda s: s.route(wrong, lambda _, items: items),
    "a source": lambda _: ResultStream.of(wrong_items(1)),
    "a concurrent step after a window": lambda s: (
        s.chunks_or_timeout(2, 1.0).bind_async(wrong_async, concurrency=2).prefetch(2)
    ),
}


async def iterate(s: ResultStream[Any, Any]) -> None:
    async with s.stream() as items:
        async for _ in items:
            pass


async def awaited(s: ResultStream[Any, Any]) -> None:
    _ = await s


ENDS: dict[str, Callable[[ResultStream[Any, Any]], Awaitable[object]]] = {
    "collect": lambda s: s.collect(),
    "collect_all": lambda s: s.collect_all(),
    "partition": lambda s: s.partition(),
    "for_each": lambda s: s.for_each(lambda _: None),
    "for_each_all": lambda s: s.for_each_all(lambda _: None),
    "fold": lambda s: s.fold(0, lambda total, _: total),
    "first": lambda s: s.first(),
    "last": lambda s: s.last(),
    "run": lambda s: s.run(),
    "run_all": lambda s: s.run_all(),
    "context": lambda s: StepContext("shop").run(s.collect()),
    "async for": iterate,
    "await": awaited,
}


@pytest.mark.parametrize("step", STEPS)
def test_each_step_and_each_end_of_a_chain_has_a_short_traceback(step: str) -> None:
    async def frames(end: str) -> list[str]:
        try:
            _ = await ENDS[end](STEPS[step](numbers()))
        except KeyError as error:
            return [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        raise AssertionError("it was to fail")

    for end in ENDS:
        if (step, end) == ("chunks_until", "first"):
            continue  # it has the list before the error
        found = run(frames(end))
        assert found[0] == found[-1] == __file__
        ours = "".join("." if name == __file__ else "x" for name in found)
        assert "xxxxxx" not in ours, (end, ours)


def test_an_error_of_ours_keeps_the_frames_in_which_it_was_raised() -> None:
    async def main() -> list[str]:
        try:
            _ = await numbers().bind(lambda n: n).collect()  # type: ignore[arg-type, return-value]
        except TypeError as error:
            return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        raise AssertionError("it was to fail")

    assert run(main())[-2:] == ["bind_collect", "error_of"]


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


def test_a_time_limit_that_the_function_of_errors_does_not_know_is_not_retried() -> None:
    async def ask(n: int) -> Result[int, Busy]:
        await asyncio.sleep(9.0)
        return Success(n)

    policy = RetryPolicy(9, wait=0.0, retry_on=is_busy)
    outcome = run(to_result(Saga("shop").step("ask", ask, retry=policy, timeout=2.0).run(7)))
    assert isinstance(outcome.failure(), StepTimeout)
