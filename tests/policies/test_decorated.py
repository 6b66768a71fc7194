"""Policies as values, and steps made by them: composed, compared, printed, pickled, bound."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import itertools
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from returns.future import FutureResult, future_safe
from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.context import StepContext
from returns_pipeline.errors import InvalidArgument, RetriesExhausted, StepTimeout
from returns_pipeline.policies import (
    PolicyStack,
    RetryPolicy,
    Tier,
    Timeout,
    all_of,
    bulkhead,
    circuit_breaker,
    fallback,
    hedge,
    race,
    rate_limit,
    with_policy,
    with_retry,
    with_timeout,
)
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.saga import Saga
from returns_pipeline.testing import run, timed

if TYPE_CHECKING:
    from collections.abc import Callable


def now() -> float:
    return asyncio.get_running_loop().time()


async def fetch(key: int) -> Result[int, str]:
    """Fetch it."""
    await asyncio.sleep(1)
    return Success(key)


async def other(key: int) -> Result[int, str]:
    return Failure(f"no {key}")


RETRY = RetryPolicy(3, wait=1.0)
EACH = RETRY | Timeout(2.0)
WHOLE = Timeout(10.0) | RETRY
BOTH = Timeout(10.0) | RETRY | Timeout(2.0, grace=1.0)
VALUES: list[Any] = [RETRY, Timeout(2.0), Timeout(2.0, grace=1.0), EACH, WHOLE, BOTH]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_policy_is_frozen_compared_pickled_and_printed_as_it_was_written(value: Any) -> None:
    names = {"RetryPolicy": RetryPolicy, "Timeout": Timeout}
    written = eval(repr(value), names)
    for same in (written, pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert same == value
        assert type(same) is type(value)
        assert hash(same) == hash(value)
    assert [other for other in VALUES if other == value] == [value]
    is_stack = isinstance(value, PolicyStack)
    for name in ["layers"] if is_stack else [each.name for each in dataclasses.fields(value)]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, 1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(value, name)


def test_what_is_as_usual_is_not_printed() -> None:
    assert repr(RetryPolicy()) == "RetryPolicy(attempts=3)"
    assert repr(RetryPolicy(2, retry_on=OSError, total_timeout=9.0)) == (
        "RetryPolicy(attempts=2, retry_on=OSError, total_timeout=9.0)"
    )
    assert repr(BOTH) == (
        "Timeout(10.0) | RetryPolicy(attempts=3, wait=1.0) | Timeout(2.0, grace=1.0)"
    )


def test_a_stack_is_the_same_however_it_is_put_together() -> None:
    assert (
        (Timeout(10.0) | EACH) == (WHOLE | Timeout(2.0)) == (Timeout(10.0) | RETRY | Timeout(2.0))
    )
    assert VALUES.index(EACH) != VALUES.index(WHOLE)  # which compares them
    assert PolicyStack((RETRY, Timeout(2.0))) == EACH
    assert BOTH.layers == (Timeout(10.0), RETRY, Timeout(2.0, grace=1.0))


LAYERS: list[Any] = [RETRY, Timeout(2.0), EACH, WHOLE, BOTH, "text"]


@pytest.mark.parametrize(("outer", "inner"), [*itertools.product(LAYERS, LAYERS)], ids=repr)
def test_only_what_takes_turns_makes_a_stack(outer: Any, inner: Any) -> None:
    """A retry in a retry, or a limit in a limit, is not one."""

    def kinds(value: object) -> str:
        parts = value.layers if isinstance(value, PolicyStack) else (value,)
        return "".join(type(part).__name__[0] for part in parts)

    together = kinds(outer) + kinds(inner)
    if together in {"RT", "TR", "TRT"}:
        assert kinds(outer | inner) == together
    else:
        with pytest.raises(TypeError, match="unsupported operand"):
            _ = outer | inner


def test_what_could_never_work_is_refused_at_the_call() -> None:
    refused: list[Callable[[], object]] = [
        lambda: Timeout(0.0),
        lambda: Timeout(float("nan")),
        lambda: Timeout(1.0, grace=-1.0),
        lambda: Timeout(1.0, grace=float("nan")),
        lambda: PolicyStack(()),
        lambda: PolicyStack((RETRY,)),
        lambda: PolicyStack((RETRY, RETRY)),
        lambda: PolicyStack((RETRY, Timeout(1.0), RETRY)),
    ]
    for wrong in refused:
        with pytest.raises(InvalidArgument):
            wrong()


def test_a_stack_reads_from_the_outside_in() -> None:
    """A limit inside is for each attempt, a limit outside for all of them and their waits."""
    begun: list[float] = []

    async def hang() -> Result[int, str]:
        begun.append(now())
        await asyncio.sleep(99)
        return Success(1)

    async def outcome(policy: Any) -> tuple[object, float]:
        begun.clear()
        step: Callable[[], FutureResult[int, object]] = with_policy(hang, policy)
        result = await to_result(step())
        return result.failure(), now()

    short = StepTimeout("hang", 2.0)
    assert run(outcome(Timeout(2.0))) == (short, 2.0)
    assert run(outcome(RETRY | Timeout(2.0))) == (RetriesExhausted((short,) * 3), 8.0)
    assert begun == [0.0, 3.0, 6.0]
    assert run(outcome(Timeout(10.0) | RETRY)) == (StepTimeout("hang", 10.0), 10.0)
    assert begun == [0.0]
    assert run(outcome(Timeout(10.0) | RETRY | Timeout(2.0))) == (
        RetriesExhausted((short,) * 3),
        8.0,
    )
    assert run(outcome(Timeout(4.0) | RETRY | Timeout(2.0))) == (StepTimeout("hang", 4.0), 4.0)
    assert begun == [0.0, 3.0]


def test_with_policy_is_the_same_as_nesting_by_hand() -> None:
    assert with_policy(fetch, RETRY) == with_retry(fetch, RETRY)
    assert with_policy(fetch, Timeout(2.0, grace=1.0)) == with_timeout(fetch, 2.0, grace=1.0)
    inner = with_timeout(fetch, 2.0, grace=1.0)
    assert with_policy(fetch, BOTH) == with_timeout(with_retry(inner, RETRY), 10.0)
    assert with_policy(fetch, EACH) != with_policy(fetch, WHOLE)


MADE: dict[str, Callable[..., FutureResult[Any, Any]]] = {
    "with_retry(fetch, RetryPolicy(attempts=3, wait=1.0))": with_retry(fetch, RETRY),
    "with_timeout(fetch, 2.0)": with_timeout(fetch, 2.0),
    "with_timeout(fetch, 2.0, grace=1.0)": with_timeout(fetch, 2.0, grace=1.0),
    "with_retry(with_timeout(fetch, 2.0), RetryPolicy(attempts=3, wait=1.0))": with_policy(
        fetch, EACH
    ),
    "race(fetch, other)": race(fetch, other),
    "race(fetch, other, grace=1.0)": race(fetch, other, grace=1.0),
    "hedge(fetch, after=0.5, copies=3)": hedge(fetch, after=0.5, copies=3),
    "all_of(fetch, fetch)": all_of(fetch, fetch),
    "all_of(fetch, fetch, limit=1, fail_fast=False, grace=2.0)": all_of(
        fetch, fetch, limit=1, fail_fast=False, grace=2.0
    ),
    "fallback(Tier('a', other), Tier('b', fetch, fetch))": fallback(
        Tier("a", other), Tier("b", fetch, fetch)
    ),
}


@pytest.mark.parametrize("text", MADE)
def test_what_a_policy_makes_is_printed_compared_pickled_and_frozen(text: str) -> None:
    made = MADE[text]
    assert repr(made) == text
    loaded = pickle.loads(pickle.dumps(made))
    for same in (loaded, copy.copy(made), copy.deepcopy(made), eval(text, globals())):
        assert same == made
        assert hash(same) == hash(made)
        assert repr(same) == text
    assert [name for name, each in MADE.items() if each == made] == [text]
    unequal: object = text
    assert made != unequal
    assert run(to_result(loaded(3))) == run(to_result(made(3)))
    for name in ("_run", "__name__", "more"):
        with pytest.raises(AttributeError, match="is frozen"):
            setattr(made, name, 1)
    with pytest.raises(AttributeError, match="is frozen"):
        del made.__name__


def test_tiers_are_equal_by_name_and_strategies() -> None:
    tier = Tier("a", fetch)
    assert tier == Tier("a", fetch)
    for unequal in (Tier("b", fetch), Tier("a", other), Tier("a", fetch, fetch), object()):
        assert tier != unequal
    assert fallback(tier) != fallback(Tier("b", fetch))


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (rate_limit(5.0), "rate_limit(5.0, per=1.0, burst=1)"),
        (circuit_breaker(3, 1.0), "circuit_breaker(3, 1.0, half_open=1, name='circuit')"),
        (bulkhead(3), "bulkhead(3, queue=inf, name='bulkhead')"),
    ],
)
def test_a_limit_shows_its_step_and_is_shared_and_not_copied(limit: Any, text: str) -> None:
    """A copy would have a state of its own, and so limit nothing."""
    assert repr(limit(fetch)) == f"{text}(fetch)"
    assert limit(fetch) == limit(fetch)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            attempt(limit)
    for made in (limit(fetch), with_retry(limit(fetch), RETRY)):
        assert copy.deepcopy(made) == copy.copy(made) == made  # they share the limit
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            pickle.dumps(made)


def test_a_step_that_cannot_be_pickled_says_so() -> None:
    async def local() -> Result[int, str]:
        return Success(1)

    with pytest.raises((AttributeError, pickle.PicklingError), match="local"):
        pickle.dumps(with_retry(local, RETRY))


def test_a_step_with_a_policy_looks_like_the_step() -> None:
    for made in (with_policy(fetch, BOTH), hedge(fetch, after=1.0), bulkhead(3)(fetch)):
        assert made.__name__ == made.__qualname__ == "fetch"
        assert made.__doc__ == "Fetch it."
        assert made.__module__ == __name__
        assert list(inspect.signature(made).parameters) == ["key"]
        assert inspect.unwrap(made) is fetch
    marked = with_retry(Service.plain, RETRY)
    assert marked.__dict__["mark"] == "of the step"
    together = race(fetch, fetch)
    assert together.__name__ == together.__qualname__ == "race"
    assert (race(fetch, fetch).__doc__ or "").startswith("Run steps side by side")
    # Of a step that has no name of its own, its class's.
    assert with_retry(Callee(), RETRY).__name__ == "Callee"


class Callee:
    async def __call__(self) -> Result[int, str]:
        return Success(1)


class Service:
    """Its methods are steps; policies are put around them in the class."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    async def plain(self, key: int) -> Result[int, str]:
        return Success(key * self.factor)

    plain.__dict__["mark"] = "of the step"
    retried = with_retry(plain, RETRY)
    layered = with_policy(plain, BOTH)
    raced = race(plain, plain)
    bounded = bulkhead(3)(plain)


@pytest.mark.parametrize("name", ["retried", "layered", "raced", "bounded"])
def test_a_step_made_in_a_class_is_a_method(name: str) -> None:
    service = Service(5)
    assert run(to_result(getattr(service, name)(2))) == Success(10)
    assert run(to_result(getattr(Service, name)(service, 2))) == Success(10)
    assert getattr(Service, name) is Service.__dict__[name]
    bound = getattr(service, name)
    assert run(to_result(with_timeout(bound, 1.0)(2))) == Success(10)


def test_arguments_by_name_reach_the_step() -> None:
    for made in MADE.values():
        assert run(to_result(made(key=2))).value_or(None) in {2, (2, 2)}


def test_one_form_serves_streams_sagas_and_single_steps() -> None:
    tries: list[int] = []
    undone: list[str] = []

    async def undo(what: str) -> None:
        undone.append(what)

    async def flaky(key: int) -> Result[int, str]:
        tries.append(key)
        if len(tries) % 2:
            await asyncio.sleep(99)
        return Success(key)

    async def persist(key: int, step: StepContext) -> Result[int, str]:
        await step.register(undo, f"{key}, attempt {len(tries) + 1}")
        return await flaky(key)

    @future_safe(exceptions=(ValueError,))
    async def as_future(key: int) -> int:
        return (await flaky(key)).unwrap()

    async def main() -> None:
        assert await to_result(with_policy(flaky, EACH)(1)) == Success(1)
        stream = ResultStream.of(timed(1, 2)).bind_future_result(with_policy(flaky, EACH))
        assert await to_result(stream.collect()) == Success([1, 2])
        assert await to_result(Saga("s").step("a", with_policy(flaky, EACH)).run(1)) == Success(1)
        assert await to_result(with_policy(as_future, EACH)(1)) == Success(1)
        tries.clear()
        ctx = StepContext("test")
        steps = ResultStream.of(timed(1, 2)).bind_step(with_policy(persist, EACH), ctx)
        assert await to_result(ctx.run(steps.collect())) == Success([1, 2])

    run(main())
    assert undone == ["1, attempt 1", "2, attempt 3"]


def test_steps_side_by_side_in_a_saga_are_passed_its_context() -> None:
    async def near(order: int, ctx: StepContext) -> Result[tuple[int, str], str]:
        return Success((order, ctx.name))

    async def far(key: int, step: StepContext) -> Result[tuple[int, str], str]:
        await asyncio.sleep(1.0)
        return Success((key, step.name))

    async def alone(order: int, *, fast: bool = True) -> Result[str, str]:
        return Success(f"{order} {fast}")

    def outcome(step: Callable[[int, StepContext], FutureResult[object, object]]) -> object:
        return run(to_result(Saga("ship").step("ask", step).run(1)))

    tiers = fallback(Tier("fast", near, far), Tier("slow", far))
    assert outcome(race(near, far)) == Success((1, "near[0]"))
    assert outcome(all_of(near, far)) == Success(((1, "near[0]"), (1, "far[1]")))
    assert outcome(tiers) == Success((1, "near[0]"))
    assert run(to_result(Saga("ship").step("ask", race(alone, alone)).run(1))) == Success("1 True")
