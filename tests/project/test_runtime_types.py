"""Tools that read annotations and signatures while programs run understand what is public."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest
from returns.result import Result, Success

pytest.importorskip("cronsim", reason="needs the extra cron")

import returns_pipeline as rp
from returns_pipeline import combine, compensation, policies, telemetry, windows
from returns_pipeline.compensation import protocol
from returns_pipeline.cron import CronWait
from returns_pipeline.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable

RECORDS = [
    CronWait,
    combine.KeyFailed,
    combine.TimedOut,
    compensation.CompensationEntry,
    compensation.CompensationReport,
    policies.CircuitEvent,
    policies.RetryEvent,
    policies.RetryPolicy,
    policies.TierFailure,
    policies.Timeout,
    protocol.Intent,
    protocol.RecoveryReport,
    protocol.StoredAction,
    protocol.StoredSaga,
    rp.Counts,
    rp.FailedItems,
    telemetry.StepBegun,
    telemetry.StepEnded,
    telemetry.WindowEmitted,
    windows.EventWindow,
    windows.SessionWindows,
    windows.SlidingWindows,
    windows.TumblingWindows,
]


async def ask(key: int) -> Result[str, str]:
    return Success(str(key))


async def nothing() -> Result[str, str]:
    return Success("")


async def two(number: int, more: str) -> Result[str, str]:
    return Success(more * number)


def schema(record: Any) -> dict[str, Any]:
    """Return the JSON schema of a record that is a field of a model."""
    model = pydantic.create_model("Model", field=(record, ...))
    return model.model_json_schema()["$defs"][record.__name__]  # type: ignore[no-any-return]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_is_a_field_of_a_pydantic_model(record: Any) -> None:
    assert schema(record)["properties"]


def test_the_schema_of_a_policy_has_no_function() -> None:
    assert schema(policies.RetryPolicy)["properties"]["on_retry"]["type"] == "null"
    assert schema(CronWait)["properties"]["now"]["type"] == "null"
    assert "required" not in schema(policies.RetryPolicy)


def test_the_schema_of_a_report_has_no_exception() -> None:
    assert schema(protocol.RecoveryReport)["properties"]["error"]["type"] == "null"
    assert schema(combine.KeyFailed)["required"] == ["key", "items"]
    assert "undo" not in schema(protocol.Intent)["properties"]


def test_pydantic_checks_the_class_of_an_error() -> None:
    report = pydantic.TypeAdapter(protocol.RecoveryReport)
    facts: dict[str, Any] = {"saga": "1", "name": "order"}
    gone = JournalError("a.db", "gone")
    assert report.validate_python({**facts, "error": gone}).error is gone
    with pytest.raises(pydantic.ValidationError, match="instance of JournalError"):
        report.validate_python({**facts, "error": OSError("gone")})


@pytest.mark.parametrize(
    ("facts", "policy"),
    [
        ({"seconds": 2.0}, policies.Timeout(2.0)),
        ({"attempts": 2}, policies.RetryPolicy(2)),
        ({"size": 2.0}, windows.TumblingWindows(2.0)),
    ],
)
def test_a_value_is_read_by_pydantic_and_msgspec(facts: dict[str, Any], policy: object) -> None:
    assert pydantic.TypeAdapter(type(policy)).validate_python(facts) == policy
    assert msgspec.convert(facts, type(policy)) == policy


Stack = policies.PolicyStack[policies.RetryPolicy, policies.Timeout]


def test_pydantic_reads_and_writes_a_stack_as_the_list_of_its_layers() -> None:
    stack = policies.RetryPolicy(2) | policies.Timeout(1.0)
    adapter: Any = pydantic.TypeAdapter(Stack)
    assert adapter.validate_python(stack) is stack
    assert adapter.validate_python([{"attempts": 2}, {"seconds": 1.0}]) == stack
    assert adapter.validate_json(adapter.dump_json(stack)) == stack
    assert adapter.json_schema()["type"] == "array"
    bare: Any = pydantic.TypeAdapter(policies.PolicyStack)
    assert bare.validate_python(stack) is stack
    broken = policies.RetryPolicy(2) | policies.circuit_breaker(3, 1.0)
    with_breaker = policies.PolicyStack[policies.RetryPolicy, policies.CircuitBreaker]
    state: Any = pydantic.TypeAdapter(with_breaker)
    assert state.validate_python(broken) is broken


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (policies.Timeout(1.0) | policies.RetryPolicy(2), "must be RetryPolicy, Timeout, not Tim"),
        ([{"attempts": 0}, {"seconds": 1.0}], "attempts must be at least 1"),
        ([{"attempts": 2}], "Field required"),
        (3, "valid tuple"),
    ],
)
def test_pydantic_refuses_other_stacks(given: object, message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        pydantic.TypeAdapter(Stack).validate_python(given)


@pytest.mark.parametrize(
    "step",
    [
        policies.race(ask),
        policies.race(ask, ask),
        policies.all_of(ask, policies.with_timeout(ask, 1.0)),
    ],
    ids=repr,
)
def test_a_policy_of_several_steps_has_their_parameters(step: Callable[..., Any]) -> None:
    assert str(inspect.signature(step)) == "(key: 'int')"


def test_a_race_of_steps_without_parameters_has_none() -> None:
    async def now() -> Result[int, str]:
        return Success(1)

    assert not inspect.signature(policies.race(now, now)).parameters


def test_steps_that_differ_have_the_parameters_that_one_needs_and_all_take() -> None:
    async def named(number: int, *, fast: bool = True) -> Result[str, str]:
        return Success(f"{number} {fast}")

    async def with_default(number: int, more: str = "") -> Result[str, str]:
        return Success(more * number)

    made: Any = policies.race
    tier: Any = policies.Tier
    tiers: Any = policies.fallback(tier("a", ask, named), tier("b", ask))
    assert list(inspect.signature(made(ask, named)).parameters) == ["key"]
    assert list(inspect.signature(made(with_default, two)).parameters) == ["number", "more"]
    assert list(inspect.signature(tiers).parameters) == ["key"]


@pytest.mark.parametrize("other", [max, nothing, two])
def test_steps_that_do_not_fit_make_a_step_with_any_parameters(other: Any) -> None:
    made: Any = policies.race
    kinds = [each.kind.name for each in inspect.signature(made(ask, other)).parameters.values()]
    assert kinds == ["VAR_POSITIONAL", "VAR_KEYWORD"]


def test_the_signature_of_a_race_of_builtins_can_be_read() -> None:
    made: Any = policies.race
    assert inspect.signature(made(print, print)).parameters == inspect.signature(print).parameters


def test_a_step_with_a_policy_has_the_signature_of_the_step() -> None:
    made = policies.with_retry(ask, policies.RetryPolicy(3))
    assert inspect.signature(made) == inspect.signature(ask)
    assert not hasattr(made, "no_such_name")
    assert list(inspect.signature(policies.rate_limit(3)).parameters)


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        (rp.chunks_or_timeout, "chunks_or_timeout"),
        (rp.sessions, "sessions"),
        (combine.merge, "merge"),
        (windows.event_windows, "event_windows"),
    ],
)
def test_an_operator_is_a_function_with_a_name(operator: Any, name: str) -> None:
    assert operator.__name__ == operator.__qualname__ == name
    assert inspect.signature(operator).parameters
    assert operator.pipe.__name__ == "pipe"
    assert operator.pipe.__self__ is operator
    assert pickle.loads(pickle.dumps(operator)) is operator
    assert copy.copy(operator) is operator


def test_a_stream_class_can_be_parametrized() -> None:
    assert typing.get_args(rp.ResultStream[int, str]) == (int, str)


def test_the_overloads_of_a_method_can_be_read() -> None:
    stream: Any = rp.ResultStream
    assert typing.get_overloads(stream.attempt)
