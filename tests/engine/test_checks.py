"""The one check for each kind of argument: what it refuses, and what it says."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from returns_pipeline._engine import checks
from returns_pipeline.errors import InvalidArgument


class Three:
    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize("value", [3, Three()])
def test_a_count_is_a_whole_number(value: Any) -> None:
    assert checks.count("n", value) == 3


@pytest.mark.parametrize("value", [True, 1.0, 1.5, "3", None, math.nan, Decimal(3)], ids=repr)
def test_a_count_is_nothing_else(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="n must be a whole number, not"):
        checks.count("n", value)


@pytest.mark.parametrize(
    "value", [Decimal("0.3"), Fraction(1, 3), 10**400, 0.5, math.inf], ids=repr
)
def test_an_exact_number_stays_as_it_is(value: Any) -> None:
    assert checks.exact("weight", value) is value
    assert checks.exact("weight", value, zero=True) is value
    assert checks.exact("weight", value, signed=True) is value


@pytest.mark.parametrize("value", [True, "1", None, math.nan, 1j, []], ids=repr)
def test_an_exact_number_is_a_number(value: Any) -> None:
    for options in ({}, {"zero": True}):
        with pytest.raises(InvalidArgument, match=r"weight must be (above|at least) 0, not"):
            checks.exact("weight", value, **options)
    with pytest.raises(InvalidArgument, match="weight must be a number, not"):
        checks.exact("weight", value, signed=True)


def test_an_exact_number_has_the_requested_bound() -> None:
    assert checks.exact("weight", 0, zero=True) == 0
    assert checks.exact("weight", -1, signed=True) == -1
    with pytest.raises(InvalidArgument, match="weight must be above 0, not 0"):
        checks.exact("weight", 0)
    with pytest.raises(InvalidArgument, match="weight must be at least 0, not -1"):
        checks.exact("weight", -1, zero=True)


def test_a_choice_names_the_options() -> None:
    checks.choice("overflow", "b", "a", "b", "c")
    with pytest.raises(InvalidArgument, match="overflow must be 'a', 'b' or 'c', not 'd'"):
        checks.choice("overflow", "d", "a", "b", "c")


@pytest.mark.parametrize("value", [1, 1.0, Fraction(1), Decimal(1)], ids=repr)
def test_seconds_are_a_float(value: Any) -> None:
    assert type(checks.seconds("timeout", value)) is float


@pytest.mark.parametrize("value", [0, -1.0, math.nan, True, "1", None], ids=repr)
def test_seconds_are_above_zero(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="timeout must be above 0 seconds, not"):
        checks.seconds("timeout", value)
