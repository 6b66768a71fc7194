# mypy: disable-error-code="unused-awaitable, unused-coroutine"
# pyright: reportUnusedCoroutine=false
"""What the checkers must say about policies: same parameters, exact errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, assert_type
from zoneinfo import ZoneInfo

from returns.future import FutureResult, future_safe
from returns.result import Failure, Result, Success

from returns_pipeline import pipe
from returns_pipeline.context import StepContext
from returns_pipeline.cron import CronWait, cron
from returns_pipeline.errors import (
    AllFailed,
    BulkheadFull,
    CircuitOpen,
    RetriesExhausted,
    StepTimeout,
)
from returns_pipeline.policies import (
    Bulkhead,
    CircuitBreaker,
    CircuitEvent,
    CircuitState,
    PolicyStack,
    RateLimit,
    RetryEvent,
    RetryPolicy,
    Tier,
    TierFailure,
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

if TYPE_CHECKING:
    from collections.abc import AsyncIterable


@future_safe(exceptions=(KeyError,))
async def fetch(key: int, step: StepContext) -> str:
    """Return a FutureResult."""
    return f"{step.name}{key}"


async def look_up(number: int, step: StepContext) -> Result[bytes, OSError]:
    """Be a coroutine of a Result."""
    return Success(step.name.encode() * number)


async def simple() -> Result[float, ValueError]:
    """Take nothing."""
    return Success(1.0)


def check_one(ctx: StepContext, policy: RetryPolicy) -> None:
    """A policy on one step keeps its parameters and says how its error changes."""
    assert_type(with_retry(fetch, policy)(1, ctx), FutureResult[str, RetriesExhausted[KeyError]])
    assert_type(with_timeout(fetch, 2.0)(1, step=ctx), FutureResult[str, KeyError | StepTimeout])
    assert_type(
        with_retry(with_timeout(look_up, 2.0), policy)(1, ctx),
        FutureResult[bytes, RetriesExhausted[OSError | StepTimeout]],
    )
    assert_type(hedge(simple, after=1.0)(), FutureResult[float, AllFailed[ValueError]])
    assert_type(
        with_retry(fetch, policy, key="step")(1, ctx), FutureResult[str, RetriesExhausted[KeyError]]
    )
    with_retry(fetch, policy, key="call")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with_retry(fetch, policy)("one", ctx)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with_timeout(fetch, 2.0)(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with_retry(fetch(1, ctx), policy)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with_timeout(fetch)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    hedge(simple)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def check_values(ctx: StepContext) -> None:
    """Policies are values; a stack of them says in its type in which order they work."""
    retry, limit = RetryPolicy(3), Timeout(2.0, grace=1.0)
    assert_type((limit.seconds, limit.grace), tuple[float, float])
    assert_type(retry | limit, PolicyStack[RetryPolicy, Timeout])
    assert_type(limit | retry, PolicyStack[Timeout, RetryPolicy])
    assert_type(limit | retry | limit, PolicyStack[Timeout, RetryPolicy, Timeout])
    assert_type(limit | (retry | limit), PolicyStack[Timeout, RetryPolicy, Timeout])
    assert_type(PolicyStack((retry, limit)), PolicyStack[RetryPolicy, Timeout])
    assert_type((limit | retry).layers, tuple[Timeout, RetryPolicy])
    _ = retry | retry  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    _ = limit | limit  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownVariableType]
    _ = retry | limit | limit  # type: ignore[misc]  # pyright: ignore[reportOperatorIssue]
    _ = retry | 3.0  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    Timeout(2.0, 1.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Timeout("2 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    limit.seconds = 3.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    PolicyStack(retry)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert_type(with_policy(fetch, retry)(1, ctx), FutureResult[str, RetriesExhausted[KeyError]])
    assert_type(with_policy(fetch, limit)(1, step=ctx), FutureResult[str, KeyError | StepTimeout])
    assert_type(
        with_policy(look_up, retry | limit)(1, ctx),
        FutureResult[bytes, RetriesExhausted[OSError | StepTimeout]],
    )
    assert_type(
        with_policy(look_up, limit | retry)(1, ctx),
        FutureResult[bytes, RetriesExhausted[OSError] | StepTimeout],
    )
    assert_type(
        with_policy(fetch, Timeout(9.0) | retry | limit)(1, ctx),
        FutureResult[str, RetriesExhausted[KeyError | StepTimeout] | StepTimeout],
    )
    assert_type(
        with_policy(with_policy(simple, retry), limit)(),
        FutureResult[float, RetriesExhausted[ValueError] | StepTimeout],
    )
    assert_type(
        with_policy(lambda: simple(), retry | limit)(),
        FutureResult[float, RetriesExhausted[ValueError | StepTimeout]],
    )
    with_policy(fetch, retry | limit)("one", ctx)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with_policy(fetch, retry | limit)(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with_policy(fetch(1, ctx), retry)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with_policy(fetch, 2.0)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]


def check_several(ctx: StepContext) -> None:
    """Steps side by side take the same arguments; types and errors unite."""
    assert_type(
        race(fetch, look_up)(1, ctx), FutureResult[str | bytes, AllFailed[KeyError | OSError]]
    )
    assert_type(race(lambda: simple())(), FutureResult[float, AllFailed[ValueError]])
    assert_type(
        all_of(fetch, look_up, fetch)(1, ctx),
        FutureResult[tuple[str, bytes, str], KeyError | OSError],
    )
    assert_type(
        all_of(fetch, look_up, limit=1, fail_fast=False)(1, ctx),
        FutureResult[tuple[str, bytes], AllFailed[KeyError | OSError]],
    )
    assert_type(all_of(*[simple] * 20)(), FutureResult[list[float], ValueError])
    assert_type(
        all_of(*[simple] * 20, fail_fast=False)(), FutureResult[list[float], AllFailed[ValueError]]
    )
    eight = all_of(fetch, look_up, fetch, look_up, fetch, look_up, fetch, look_up)
    assert_type(
        eight(1, ctx),
        FutureResult[tuple[str, bytes, str, bytes, str, bytes, str, bytes], KeyError | OSError],
    )
    gathered = all_of(
        look_up, fetch, look_up, fetch, look_up, fetch, look_up, fetch, fail_fast=False
    )
    assert_type(
        gathered(1, ctx),
        FutureResult[
            tuple[bytes, str, bytes, str, bytes, str, bytes, str], AllFailed[OSError | KeyError]
        ],
    )
    nine = all_of(fetch, fetch, fetch, fetch, fetch, fetch, fetch, fetch, fetch)
    assert_type(nine(1, ctx), FutureResult[list[str], KeyError])
    assert_type(
        race(fetch, look_up, fetch, look_up, fetch)(1, ctx),
        FutureResult[str | bytes, AllFailed[KeyError | OSError]],
    )
    assert_type(race(*[simple] * 9)(), FutureResult[float, AllFailed[ValueError]])
    assert_type(
        fallback(Tier("a", fetch), Tier("b", look_up, look_up))(1, ctx),
        FutureResult[str | bytes, AllFailed[TierFailure[KeyError | OSError]]],
    )
    assert_type(
        Tier("a", fetch, look_up, fetch), Tier[int, StepContext, str | bytes, KeyError | OSError]
    )
    assert_type(Tier("a", *[simple] * 9), Tier[float, ValueError])
    assert_type(
        fallback(*[Tier("a", fetch, look_up)] * 9)(1, ctx),
        FutureResult[str | bytes, AllFailed[TierFailure[KeyError | OSError]]],
    )
    race(fetch, simple)(1, ctx)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    all_of(fetch, "look_up")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    fallback(fetch)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Tier(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def check_lambdas(ctx: StepContext) -> None:
    """A lambda is read by the steps beside it, and does not make the rest Any."""
    assert_type(
        race(lambda key, step: fetch(key + 1, step), look_up)(1, ctx),
        FutureResult[str | bytes, AllFailed[KeyError | OSError]],
    )
    assert_type(
        all_of(fetch, lambda key, step: look_up(key + 1, step))(1, ctx),
        FutureResult[tuple[str, bytes], KeyError | OSError],
    )
    assert_type(
        all_of(fetch, lambda key, step: look_up(key + 1, step), fail_fast=False)(1, ctx),
        FutureResult[tuple[str, bytes], AllFailed[KeyError | OSError]],
    )
    assert_type(
        fallback(Tier("a", fetch), Tier("b", fetch, lambda key, step: look_up(key + 1, step)))(
            1, ctx
        ),
        FutureResult[str | bytes, AllFailed[TierFailure[KeyError | OSError]]],
    )
    race(lambda key, step: fetch(key.upper(), step), fetch)  # type: ignore[arg-type]  # pyright: ignore[reportAttributeAccessIssue]
    race(lambda key, step: fetch(key.upper(), step), fetch, fetch)  # type: ignore[arg-type]  # pyright: ignore[reportAttributeAccessIssue]


async def near(order: int) -> Result[str, KeyError]:
    """A step with one parameter."""
    return Success(str(order))


async def far(order: int, fast: bool = True) -> Result[bytes, OSError]:
    """A step with another parameter, which has a default."""
    return Success(b"fast" if fast else str(order).encode())


async def named(order: int, *, fast: bool = True) -> Result[float, KeyError]:
    """A step with a default that is passed by name."""
    return Success(float(order + fast))


def check_a_step_with_a_default() -> None:
    """A step that has a default races with one that has not."""
    assert_type(race(near, far)(1), FutureResult[str | bytes, AllFailed[KeyError | OSError]])
    assert_type(race(far, near)(1), FutureResult[str | bytes, AllFailed[KeyError | OSError]])
    assert_type(race(far, far)(1), FutureResult[bytes, AllFailed[OSError]])
    assert_type(race(far, far)(1, False), FutureResult[bytes, AllFailed[OSError]])
    assert_type(race(far, far, far)(1), FutureResult[bytes, AllFailed[OSError]])
    assert_type(race(far, far, far)(1, False), FutureResult[bytes, AllFailed[OSError]])
    assert_type(race(near, named)(1), FutureResult[str | float, AllFailed[KeyError]])
    assert_type(race(named, near)(1), FutureResult[float | str, AllFailed[KeyError]])
    assert_type(race(named, named)(1), FutureResult[float, AllFailed[KeyError]])
    assert_type(race(near, near, far)(1), FutureResult[str | bytes, AllFailed[KeyError | OSError]])
    assert_type(race(near, far, near)(1), FutureResult[str | bytes, AllFailed[KeyError | OSError]])
    assert_type(race(far, near, near)(1), FutureResult[str | bytes, AllFailed[KeyError | OSError]])
    assert_type(
        race(near, far, named)(1),
        FutureResult[str | bytes | float, AllFailed[KeyError | OSError]],
    )
    assert_type(
        race(lambda order: far(order + 1), near, named)(1),
        FutureResult[bytes | str | float, AllFailed[OSError | KeyError]],
    )
    assert_type(
        all_of(near, lambda order: far(order))(1),
        FutureResult[tuple[str, bytes], KeyError | OSError],
    )
    assert_type(all_of(near, far)(1), FutureResult[tuple[str, bytes], KeyError | OSError])
    assert_type(all_of(far, far)(1), FutureResult[tuple[bytes, bytes], OSError])
    assert_type(all_of(far, far)(1, False), FutureResult[tuple[bytes, bytes], OSError])
    assert_type(
        all_of(near, far, named, fail_fast=False)(1),
        FutureResult[tuple[str, bytes, float], AllFailed[KeyError | OSError]],
    )
    assert_type(Tier("a", far), Tier[int, bytes, OSError])
    assert_type(Tier("a", near, far), Tier[int, str | bytes, KeyError | OSError])
    assert_type(Tier("a", near, far, named), Tier[int, str | bytes | float, KeyError | OSError])
    assert_type(
        fallback(Tier("a", near), Tier("b", far))(1),
        FutureResult[str | bytes, AllFailed[TierFailure[KeyError | OSError]]],
    )
    all_of(near, far)(1, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    fallback(Tier("a", far))(1, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    race(near, far)("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    race(near, far)(1, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    race(near, near, far)("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    race(near, named)(1, fast=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def check_limits(ctx: StepContext) -> None:
    """A limit says how it can turn a step away."""
    assert_type(rate_limit(10), RateLimit)
    assert_type(circuit_breaker(3, 10.0), CircuitBreaker)
    assert_type(bulkhead(3, queue=10), Bulkhead)
    assert_type(rate_limit(10)(fetch)(1, ctx), FutureResult[str, KeyError])
    assert_type(circuit_breaker(3, 10.0)(fetch)(1, ctx), FutureResult[str, KeyError | CircuitOpen])
    assert_type(bulkhead(3)(look_up)(1, ctx), FutureResult[bytes, OSError | BulkheadFull])
    rate_limit(10)(fetch)("one", ctx)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rate_limit("ten")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    circuit_breaker(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    bulkhead()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def check_stacks_with_a_breaker(ctx: StepContext, breaker: CircuitBreaker) -> None:
    """The position of a breaker in a stack decides what it adds to the error."""
    retry, limit = RetryPolicy(3), Timeout(1.0)
    assert_type(with_policy(fetch, breaker)(1, ctx), FutureResult[str, KeyError | CircuitOpen])
    assert_type(with_policy(fetch, bulkhead(1))(1, ctx), FutureResult[str, KeyError | BulkheadFull])
    assert_type(with_policy(fetch, rate_limit(1))(1, ctx), FutureResult[str, KeyError])
    assert_type(breaker | retry, PolicyStack[CircuitBreaker, RetryPolicy])
    assert_type(breaker | retry | limit, PolicyStack[CircuitBreaker, RetryPolicy, Timeout])
    assert_type(breaker | (retry | limit), PolicyStack[CircuitBreaker, RetryPolicy, Timeout])
    assert_type(retry | (breaker | limit), PolicyStack[RetryPolicy, CircuitBreaker, Timeout])
    assert_type(
        with_policy(fetch, breaker | retry)(1, ctx),
        FutureResult[str, RetriesExhausted[KeyError] | CircuitOpen],
    )
    assert_type(
        with_policy(fetch, breaker | retry | limit)(1, ctx),
        FutureResult[str, RetriesExhausted[KeyError | StepTimeout] | CircuitOpen],
    )
    assert_type(
        with_policy(fetch, retry | breaker)(1, ctx),
        FutureResult[str, RetriesExhausted[KeyError | CircuitOpen]],
    )
    assert_type(
        with_policy(fetch, retry | (breaker | limit))(1, ctx),
        FutureResult[str, RetriesExhausted[KeyError | StepTimeout | CircuitOpen]],
    )
    assert_type(
        with_policy(fetch, breaker | limit)(1, ctx),
        FutureResult[str, KeyError | StepTimeout | CircuitOpen],
    )
    assert_type(
        with_policy(fetch, limit | breaker)(1, ctx),
        FutureResult[str, KeyError | CircuitOpen | StepTimeout],
    )
    breaker | breaker  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]
    with_policy(breaker, fetch)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]

    def page(event: CircuitEvent) -> None:
        assert_type(event.state, Literal["closed", "open", "half open"])

    circuit_breaker(3, 10.0, counts=OSError, failure_rate=0.5, on_state_change=page)
    circuit_breaker(3, 10.0, on_state_change=lambda event: event.status)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]
    CircuitEvent("db")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def check_use(numbers: AsyncIterable[int], ctx: StepContext) -> None:
    """They can be used wherever a step can."""
    patient = with_retry(with_timeout(fetch, 2.0), RetryPolicy(wait=cron("0 3 * * *")))
    assert_type(
        ResultStream.of(numbers).bind_step(patient, ctx),
        ResultStream[str, RetriesExhausted[KeyError | StepTimeout]],
    )

    async def convert(text: str) -> Result[int, ValueError]:
        return Success(int(text))

    assert_type(
        Saga("s").step("a", with_timeout(convert, 1.0)), Saga[str, int, ValueError | StepTimeout]
    )
    each = RetryPolicy(3) | Timeout(2.0)
    assert_type(
        Saga("s").step("a", with_policy(convert, each)),
        Saga[str, int, RetriesExhausted[ValueError | StepTimeout]],
    )
    texts = ResultStream.of(numbers).map(str)
    assert_type(
        texts.bind_future_result(with_policy(convert, each), concurrency=8).map(lambda n: n / 2),
        ResultStream[float, RetriesExhausted[ValueError | StepTimeout]],
    )
    assert_type(
        texts.bind_future_result(lambda text: with_policy(convert, each)(text.strip())),
        ResultStream[int, RetriesExhausted[ValueError | StepTimeout]],
    )
    assert_type(
        ResultStream.of(numbers)
        .bind_step(with_policy(fetch, each), ctx)
        .bind_step(lambda text, step: with_policy(look_up, Timeout(1.0))(len(text), step), ctx),
        ResultStream[bytes, RetriesExhausted[KeyError | StepTimeout] | OSError | StepTimeout],
    )
    texts.bind_future_result(with_policy(look_up, each))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(
        texts.bind_async(with_policy(convert, each), concurrency=8),
        ResultStream[int, RetriesExhausted[ValueError | StepTimeout]],
    )
    assert_type(
        texts.bind_async(lambda text: with_policy(convert, each)(text.strip())),
        ResultStream[int, RetriesExhausted[ValueError | StepTimeout]],
    )
    assert_type(
        texts | pipe.bind_async_result(with_policy(convert, each)),
        ResultStream[int, RetriesExhausted[ValueError | StepTimeout]],
    )
    texts.bind_async(with_policy(look_up, each))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def told(event: RetryEvent) -> None:
        assert_type(event.attempt, int)

    async def told_slowly(event: RetryEvent) -> None:
        assert_type(event.delay, float)

    RetryPolicy(on_retry=told, retry_on=(KeyError, OSError))
    RetryPolicy(on_retry=told_slowly)
    RetryPolicy(on_retry=lambda event: event.attempts)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]
    RetryPolicy(retry_on="KeyError")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    cron(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def check_objects(limit: RateLimit, breaker: CircuitBreaker, gate: Bulkhead) -> None:
    """Limits are made by their functions, not by hand; waits are seconds."""
    await limit.acquire()
    assert_type(breaker.state, Literal["closed", "open", "half open"])
    state: CircuitState = breaker.state
    wrong: CircuitState = "closing"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(state, wrong)
    breaker.reset()
    breaker.reset(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(gate.name, str)
    await limit.acquire(2)
    async with gate.acquire(2):
        pass
    gate.acquire("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(cron("0 3 * * *"), CronWait)
    assert_type(cron("0 3 * * *", ZoneInfo("Europe/Berlin")), CronWait)
    assert_type(CronWait("0 3 * * *", "UTC")(), float)
    await limit.acquire("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimit(10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    CircuitBreaker("db")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Bulkhead()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    CronWait("0 3 * * *")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def check_facts(
    event: RetryEvent,
    failure: TierFailure[KeyError],
    retries: RetriesExhausted[KeyError],
    failed: AllFailed[KeyError],
) -> None:
    """Facts are attributes, with their types; values are frozen."""
    assert_type((event.error, event.delay), tuple[object, float])
    assert_type((failure.tier, failure.index, failure.error), tuple[str, int, KeyError])
    event.attempt = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    RetryEvent(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TierFailure("a", 0, "fetch")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    other: RetriesExhausted[OSError] = retries  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    others: AllFailed[OSError] = failed  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    CircuitOpen("circuit", "1 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BulkheadFull("gate", 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    del other, others


class HttpError(Exception):
    """An error with facts."""

    code: int = 503


async def fetch_http(url: str) -> Result[str, HttpError]:
    return Failure(HttpError(url))


async def parse_text(text: str) -> Result[int, str]:
    return Failure(text)


def is_busy(error: HttpError) -> bool:
    return error.code == 503


def is_known(error: Exception) -> bool:
    return bool(error.args)


def errors_that_are_retried(policy: RetryPolicy[Exception]) -> None:
    """A function that names errors takes those of the step."""
    busy = RetryPolicy(3, retry_on=is_busy)
    assert_type(RetryPolicy(3), RetryPolicy[object])
    assert_type(RetryPolicy(3, retry_on=(OSError, KeyError)), RetryPolicy[object])
    assert_type(busy, RetryPolicy[HttpError])
    assert_type(with_retry(fetch_http, busy)("a"), FutureResult[str, RetriesExhausted[HttpError]])
    assert_type(
        with_retry(fetch_http, RetryPolicy(3, retry_on=is_known))("a"),
        FutureResult[str, RetriesExhausted[HttpError]],
    )
    assert_type(
        with_retry(parse_text, RetryPolicy(3, retry_on=OSError))("a"),
        FutureResult[int, RetriesExhausted[str]],
    )
    assert_type(
        with_policy(fetch_http, policy)("a"), FutureResult[str, RetriesExhausted[HttpError]]
    )
    with_retry(parse_text, busy)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    with_policy(parse_text, policy)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
