"""Policies: what happens when a step fails, takes too long, or has alternatives.

A policy takes a step function and returns a step function with the same parameters, so it can be
used wherever a step can. The types show exactly how the new step may fail.

>>> from returns.result import Result, Success
>>> from returns_pipeline import ResultStream
>>> from returns_pipeline.testing import run, timed
>>> async def fetch(url: str) -> Result[str, OSError]:
...     return Success(f"<{url}>")
>>> patient = with_policy(fetch, RetryPolicy(3) | Timeout(2.0))  # two seconds for each of three
>>> run(patient("home"))
<IOResult: <Success: <home>>>
>>> run(ResultStream.of(timed("a", "b")).bind_future_result(patient, concurrency=8).collect())
<IOResult: <Success: ['<a>', '<b>']>>

There is one way to apply a policy to a stage of a stream, to a step of a saga, or to a single step:
``stream.bind_future_result(with_policy(fetch, policy))``,
``stream.bind_step(with_retry(persist, policy), ctx)``, ``saga.step("fetch", race(near, far))``. It
works for every method and every policy, because the result is a step again. Arguments such as
``retry=`` would have to be repeated by each method, and their order would be hidden. (`Saga.step`
has them nevertheless: there they do not change the errors of the step.)

Two policies are values, `RetryPolicy` and `Timeout`, so that they can be part of a configuration.
They compose by ``|`` from the outside in, and the type of such a stack is the list of its layers.
So `with_policy` is exact about errors: whether a limit is inside a retry or around it changes how a
step fails, which one value with a field for each policy could not express. The limits `rate_limit`,
`circuit_breaker` and `bulkhead` are objects, not values: they hold the state that their steps
share. `race`, `hedge`, `all_of` and `fallback` concern several runs, and are written as calls. The
steps that they return are frozen, compared by their parts, picklable if their parts are, and
printed as they were written:

>>> patient
with_retry(with_timeout(fetch, 2.0), RetryPolicy(attempts=3))

The compensation rule: if there is a `StepContext` among the arguments, each attempt, copy or
alternative gets a context of its own in its place. If it succeeds, its actions pass to the context
of the call, where they keep the order of registration, also among steps that ran side by side.
Otherwise they are undone before anything else is tried. A step that is stopped is cancelled and
awaited. A step that ignores its cancellation is abandoned after a ``grace`` time, with an error in
the log, and can no longer register anything.

Steps that run side by side take their arguments by position.
"""

from typing import TypeAlias

from returns_pipeline.policies import _breaker
from returns_pipeline.policies._all_of import all_of
from returns_pipeline.policies._breaker import (
    CircuitBreaker,
    CircuitEvent,
    CircuitStatistics,
    circuit_breaker,
)
from returns_pipeline.policies._limits import (
    Bulkhead,
    BulkheadStatistics,
    RateLimit,
    RateLimitStatistics,
    bulkhead,
    rate_limit,
)
from returns_pipeline.policies._parallel import hedge, race
from returns_pipeline.policies._sequential import (
    Tier,
    TierFailure,
    fallback,
    with_policy,
    with_retry,
    with_timeout,
)
from returns_pipeline.retry import PolicyStack, RetryEvent, RetryPolicy, Timeout

__all__ = [
    "Bulkhead",
    "BulkheadStatistics",
    "CircuitBreaker",
    "CircuitEvent",
    "CircuitState",
    "CircuitStatistics",
    "PolicyStack",
    "RateLimit",
    "RateLimitStatistics",
    "RetryEvent",
    "RetryPolicy",
    "Tier",
    "TierFailure",
    "Timeout",
    "all_of",
    "bulkhead",
    "circuit_breaker",
    "fallback",
    "hedge",
    "race",
    "rate_limit",
    "with_policy",
    "with_retry",
    "with_timeout",
]

# Assigned, for a docstring here: documentation tools look for it where users import the name.
CircuitState: TypeAlias = _breaker.CircuitState
"""The state of a `CircuitBreaker`."""
