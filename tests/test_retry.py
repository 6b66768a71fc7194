"""What a retry policy promises: it is a value, and says when the next attempt is made."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec
import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from returns_pipeline.errors import InvalidArgument
from returns_pipeline.retry import PolicyStack, RetryEvent, RetryPolicy, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable


def linear(state: tenacity.RetryCallState) -> float:
    return state.attempt_number * 1.5


def is_timeout(error: object) -> bool:
    return isinstance(error, TimeoutError)


@pytest.mark.parametrize(
    "arguments",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"wait": -0.1},
        {"wait": math.inf},
        {"wait": math.nan},
        {"total_timeout": 0},
        {"total_timeout": -1.0},
        {"total_timeout": math.nan},
    ],
)
def test_what_could_never_be_carried_out_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(arguments))) as refused:
        RetryPolicy(**arguments)
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (0, [0, 0, 0, 0]),
        (1.5, [1.5, 1.5, 1.5, 1.5]),
        (tenacity.wait_fixed(2), [2, 2, 2, 2]),
        (tenacity.wait_none(), [0, 0, 0, 0]),
        (tenacity.wait_incrementing(start=1, increment=3), [1, 4, 7, 10]),
        (tenacity.wait_exponential(multiplier=1, max=3), [1, 2, 3, 3]),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(5)), [1, 5, 5, 5]),
        (tenacity.wait_fixed(1) + tenacity.wait_incrementing(start=0, increment=1), [1, 2, 3, 4]),
        (tenacity.wait_combine(tenacity.wait_fixed(1), tenacity.wait_fixed(2)), [3, 3, 3, 3]),
        (linear, [1.5, 3, 4.5, 6]),
    ],
)
def test_any_wait_strategy_of_tenacity_will_do(wait: Any, expected: list[float]) -> None:
    policy = RetryPolicy(wait=wait)
    assert [policy.delay(n, OSError()) for n in range(1, 5)] == expected


@pytest.mark.parametrize(
    ("wait", "low", "high"),
    [
        (tenacity.wait_random(2, 5), 2, 5),
        (tenacity.wait_random_exponential(multiplier=1, max=8), 0, 8),
        (tenacity.wait_exponential_jitter(initial=1, max=8, jitter=1), 1, 8),
    ],
)
def test_random_strategies_keep_their_bounds(wait: Any, low: float, high: float) -> None:
    policy = RetryPolicy(wait=wait)
    for attempt in range(1, 200):
        assert low <= policy.delay(attempt, OSError()) <= high


@given(st.integers(1, 5_000))
def test_the_default_is_doubled_up_to_its_most_with_jitter_on_top(attempt: int) -> None:
    """Also for a number of attempts that no float can hold the power of; and also at the most."""
    policy = RetryPolicy()
    base = min(0.1 * 2 ** min(attempt - 1, 100), 30.0)
    delays = [policy.delay(attempt, OSError()) for _ in range(5)]
    assert all(base <= delay <= base + 0.1 for delay in delays)
    assert len(set(delays)) > 1  # those that failed together do not come back together


def test_a_strategy_sees_the_attempt_and_what_came_of_it() -> None:
    seen: list[object] = []

    def wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        failed = state.outcome.failed
        seen.append(state.attempt_number)
        seen.append(state.outcome.exception() if failed else state.outcome.result())
        return 0

    policy = RetryPolicy(wait=wait)
    error = OSError("gone")
    policy.delay(3, error)
    policy.delay(4, "a failure's error")
    assert seen == [3, error, 4, "a failure's error"]


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
def test_a_strategy_that_returns_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidArgument, match="wait"):
        RetryPolicy(wait=lambda _: seconds).delay(1, OSError())


def test_a_policy_is_a_value() -> None:
    policy = RetryPolicy(attempts=5, wait=0.5, retry_on=(OSError, KeyError))
    same = RetryPolicy(5, 0.5, (OSError, KeyError))
    assert policy == same
    assert hash(policy) == hash(same)
    for other in RetryPolicy(4, 0.5), RetryPolicy(5, 0.6), RetryPolicy(5, 0.5, OSError):
        assert policy != other
    with pytest.raises(AttributeError):
        policy.attempts = 6  # type: ignore[misc]  # frozen
    assert repr(policy).startswith("RetryPolicy(attempts=5, wait=0.5, ")


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy(),
        RetryPolicy(attempts=5, wait=0.5, total_timeout=60.0),
        RetryPolicy(wait=linear, retry_on=is_timeout, on_retry=print),
        RetryPolicy(retry_on=(OSError, KeyError)),
    ],
)
def test_policies_can_be_pickled_and_copied(policy: RetryPolicy) -> None:
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert copy.deepcopy(policy) == policy
    policy = RetryPolicy(wait=tenacity.wait_fixed(2) + tenacity.wait_fixed(1))
    assert pickle.loads(pickle.dumps(policy)).delay(1, OSError()) == 3


class Steady(tenacity.wait.wait_base):
    """Is equal to others on its own terms."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked = 0

    def __call__(self, _: tenacity.RetryCallState) -> float:
        self.asked += 1
        return self.seconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Steady) and self.seconds == other.seconds

    def __hash__(self) -> int:
        return hash(self.seconds)


WAITS: list[Callable[[float], Any]] = [
    tenacity.wait_fixed,
    lambda s: tenacity.wait_fixed(s) + tenacity.wait_random(0, 1),
    lambda s: tenacity.wait_fixed(1) + tenacity.wait_random(0, s),
    lambda s: tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_exponential(s)),
    lambda s: tenacity.wait_random_exponential(max=s),
    Steady,
]


@pytest.mark.parametrize("made", WAITS, ids=range(len(WAITS)))
def test_wait_strategies_count_by_what_they_are_made_of(made: Callable[[float], Any]) -> None:
    policy = RetryPolicy(wait=made(2.0))
    for same in RetryPolicy(wait=made(2.0)), pickle.loads(pickle.dumps(policy)):
        assert same == policy
        assert hash(same) == hash(policy)
    policy.delay(1, OSError())
    assert policy == RetryPolicy(wait=made(2.0))
    others = [RetryPolicy(wait=each(3.0)) for each in WAITS] + [RetryPolicy(4, wait=made(2.0))]
    assert policy not in others
    assert policy != made(2.0)


def test_a_policy_prints_what_it_is_made_of_and_not_where_it_is() -> None:
    wait = tenacity.wait_fixed(1.5) + tenacity.wait_chain(tenacity.wait_fixed(0.5))
    assert repr(RetryPolicy(2, wait, (OSError,), on_retry=print)) == (
        "RetryPolicy(attempts=2, wait=wait_combine(wait_funcs=(wait_fixed(wait_fixed=1.5), "
        "wait_chain(strategies=(wait_fixed(wait_fixed=0.5),)))), retry_on=(OSError,), "
        "on_retry=print)"
    )
    assert repr(RetryPolicy(2, retry_on=is_timeout)) == (
        "RetryPolicy(attempts=2, retry_on=is_timeout)"
    )
    assert repr(RetryPolicy(2, wait=Steady(1.0))).startswith("RetryPolicy(attempts=2, wait=<")


def test_tenacity_is_loaded_by_the_first_wait_that_needs_it() -> None:
    program = """
import sys
from returns_pipeline import RetryPolicy
RetryPolicy().attempts, RetryPolicy(wait=1).delay(1, None)
assert "tenacity" not in sys.modules
RetryPolicy().delay(1, None)
assert "tenacity" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        {"attempts": math.nan},
        {"attempts": 2.5},
        {"attempts": True},
        {"attempts": "3"},
        {"wait": "1"},
        {"wait": True},
        {"wait": timedelta(seconds=-1)},
        {"retry_on": [OSError]},
        {"retry_on": (OSError, "KeyError")},
        {"retry_on": "OSError"},
        {"total_timeout": "60"},
        {"on_retry": 3},
    ],
)
def test_what_is_not_a_count_a_time_or_a_function_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(arguments))):
        RetryPolicy(**arguments)


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, True, "2", timedelta(0)])
def test_a_timeout_that_is_not_a_time_is_refused(seconds: Any) -> None:
    with pytest.raises(InvalidArgument, match="timeout must be above 0 seconds"):
        Timeout(seconds)
    with pytest.raises(InvalidArgument, match="grace must be at least 0 seconds"):
        Timeout(1.0, grace=seconds if seconds not in {0, timedelta(0)} else -1)


@pytest.mark.parametrize("two", [2, timedelta(seconds=2), Decimal(2), Fraction(4, 2)])
def test_a_time_may_be_any_real_number_or_a_timedelta(two: Any) -> None:
    policy = RetryPolicy(wait=two, total_timeout=two)
    assert policy == RetryPolicy(wait=2.0, total_timeout=2.0)
    assert hash(policy) == hash(RetryPolicy(wait=2.0, total_timeout=2.0))
    assert policy.delay(1, None) == 2.0
    assert Timeout(two, grace=two) == Timeout(2.0, grace=2.0)
    assert type(Timeout(two).seconds) is type(policy.total_timeout) is float
    assert repr(Timeout(two)) == "Timeout(2.0)"


def test_fields_are_replaced_like_those_of_any_dataclass() -> None:
    assert replace(RetryPolicy(5, 1.0), attempts=2) == RetryPolicy(2, 1.0)
    assert replace(Timeout(5.0, grace=1.0), seconds=2) == Timeout(2.0, grace=1.0)
    with pytest.raises(InvalidArgument, match="attempts"):
        replace(RetryPolicy(), attempts=0)


@dataclass
class Settings:
    """What both libraries read a model from."""

    retry: RetryPolicy
    limit: Timeout = field(default_factory=lambda: Timeout(5.0))


# Before 0.21, msgspec's error is not a ValueError.
REFUSED = (ValueError, msgspec.ValidationError)


def read_with_msgspec(text: str) -> Settings:
    return msgspec.json.decode(text, type=Settings)


def write_with_msgspec(settings: Settings) -> str:
    return msgspec.json.encode(settings).decode()


def read_with_pydantic(text: str) -> Settings:
    pydantic: Any = pytest.importorskip("pydantic")
    settings: Settings = pydantic.TypeAdapter(Settings).validate_json(text)
    return settings


def write_with_pydantic(settings: Settings) -> str:
    pydantic: Any = pytest.importorskip("pydantic")
    text: bytes = pydantic.TypeAdapter(Settings).dump_json(settings)
    return text.decode()


@pytest.mark.parametrize("read", [read_with_msgspec, read_with_pydantic])
def test_policies_are_fields_of_a_model(read: Callable[[str], Settings]) -> None:
    settings = read('{"retry": {"attempts": 5, "wait": 2}, "limit": {"seconds": 3, "grace": 1}}')
    assert settings == Settings(RetryPolicy(5, wait=2.0), Timeout(3.0, grace=1.0))
    assert type(settings.retry.wait) is float
    assert read('{"retry": {}}') == Settings(RetryPolicy())
    for wrong in (
        '{"attempts": 0}',
        '{"wait": "soon"}',
        '{"wait": -1}',
        '{"total_timeout": 0}',
        '{"retry_on": "OSError"}',
    ):
        with pytest.raises(REFUSED, match=r"attempts|wait|total_timeout|retry_on"):
            read('{"retry": ' + wrong + "}")
    with pytest.raises(REFUSED, match="timeout"):
        read('{"retry": {}, "limit": {"seconds": 0}}')


@pytest.mark.parametrize(
    ("read", "write"),
    [(read_with_msgspec, write_with_msgspec), (read_with_pydantic, write_with_pydantic)],
)
def test_a_policy_without_a_limit_comes_back_equal_from_json(
    read: Callable[[str], Settings], write: Callable[[Settings], str]
) -> None:
    """JSON has no infinity: null means that."""
    settings = Settings(RetryPolicy(2, wait=1.5), Timeout(1.0))
    assert '"total_timeout":null' in write(settings)
    assert read(write(settings)) == settings


def test_the_types_of_policies_are_known_at_run_time() -> None:
    for thing in (RetryPolicy, RetryPolicy.__init__, Timeout.__init__, RetryEvent, PolicyStack):
        assert get_type_hints(thing)
