"""Policies: what is done when a step fails, takes too long, or has alternatives.

A policy takes a step function and gives a step function with the same parameters: it goes wherever
a step goes. The types say exactly how each may fail.

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

This is the one way to put a policy on a stage of a stream, on a step of a saga, or on a single
step: ``stream.bind_future_result(with_policy(fetch, policy))``,
``stream.bind_step(with_retry(persist, policy), ctx)``, ``saga.step("fetch", race(near, far))``. It
serves all of them, and every policy there is or will be, because what comes out is a step again;
arguments such as ``retry=`` would have to be repeated by each method, in an order nobody sees.
(`Saga.step` has them all the same, since there they leave the step's own errors as they are.)

Two policies are values, `RetryPolicy` and `Timeout`, so that they can stand in a configuration.
They compose by ``|`` from the outside in, and the type of such a stack is the list of its layers:
with it `with_policy` is exact about errors, as one value with a field for each policy could not be
(which of a limit and a retry is inside of the other changes how a step fails). The limits
`rate_limit`, `circuit_breaker` and `bulkhead` hold what all their steps share: objects, not values.
`race`, `hedge`, `all_of` and `fallback` are about several runs: they are written as calls. What any
of these makes of steps is frozen, compared by its parts, pickled if these can be, and printed as it
was written:

>>> patient
with_retry(with_timeout(fetch, 2.0), RetryPolicy(attempts=3))

The compensation rule: if there is a `StepContext` among the arguments, each attempt, copy or
alternative gets a context of its own in that place. What it registered is handed to the one of the
call if it succeeds, and keeps its place in the order of registration, also among steps that ran
side by side; otherwise it is undone, and before anything else is tried. A step that is stopped is
cancelled and awaited; one that ignores that is left behind after a ``grace`` time, with an error in
the log, and can register nothing more.

Steps that run side by side take their arguments by position.
"""

from returns_pipeline.policies._breaker import (
    CircuitBreaker,
    CircuitEvent,
    CircuitState,
    circuit_breaker,
)
from returns_pipeline.policies._limits import Bulkhead, RateLimit, bulkhead, rate_limit
from returns_pipeline.policies._parallel import all_of, hedge, race
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
    "CircuitBreaker",
    "CircuitEvent",
    "CircuitState",
    "PolicyStack",
    "RateLimit",
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
