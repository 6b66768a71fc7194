# mypy: disable-error-code="unused-awaitable, unreachable, exhaustive-match"
# pyright: reportMatchNotExhaustive=false, reportUnnecessaryComparison=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Never run. What `returns_pipeline.mypy_plugin` finds in a `match` statement without `cases()`.

Needs the plugin, unlike most of the other files here. Pyright finds the same types without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from returns.io import IOFailure, IOResult, IOSuccess
from returns.maybe import Maybe, Some
from returns.result import Failure, Result, Success

from returns_pipeline import cases

if TYPE_CHECKING:
    from returns_pipeline import ResultStream


class Small(Exception):
    """An error."""


def results(result: Result[int, Small], maybe: Maybe[int]) -> None:
    """The value and the error have their types."""
    match result:
        case Success(number):
            assert_type(number, int)
        case Failure(error):
            assert_type(error, Small)
    match result:
        case Success(1 | 2 as small):
            print(small)
        case Success(big) as whole:
            assert_type(big, int)
            print(whole)
        case Failure(Small() as one):
            assert_type(one, Small)
    match maybe:
        case Some(some):
            assert_type(some, int)
    match cases(result):
        case Success(other):
            assert_type(other, int)
        case Failure(wrong):
            assert_type(wrong, Small)


async def awaited(s: ResultStream[int, Small]) -> None:
    """So they have in what a terminal returned."""
    match await s.collect():
        case IOSuccess(Success(values)):
            assert_type(values, list[int])
            values.no_such()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        case IOFailure(Failure(error)):
            assert_type(error, Small)


def nested(
    pair: tuple[Result[int, Small], Result[str, OSError]],
    result: Result[Result[int, str], Small],
    optional: Result[str, OSError] | None,
    either: Result[int, str] | Result[bytes, Small],
) -> None:
    """Patterns inside of others, and unions."""
    match pair:
        case (Success(number), Failure(error)):
            assert_type(number, int)
            assert_type(error, OSError)
        case (Failure(small), Success(text)):
            assert_type(small, Small)
            assert_type(text, str)
    match result:
        case Success(Success(inner)):
            assert_type(inner, int)
        case Success(Failure(message)):
            assert_type(message, str)
        case Failure(outer):
            assert_type(outer, Small)
    match optional:
        case Success(found):
            assert_type(found, str)
        case Failure(missing):
            assert_type(missing, OSError)
    match either:
        case Success(value):
            assert_type(value, int | bytes)
        case Failure(reason):
            assert_type(reason, str | Small)


async def never(
    s: ResultStream[int, Small],
    plain: Result[int, Small],
    either: IOResult[int, Small] | Result[int, str],
    unknown: object,
) -> None:
    """A class that the subject never has is reported."""
    match await s.collect():
        case Success(values):  # type: ignore[must-use]
            print(values)
        case Failure(error):  # type: ignore[must-use]
            print(error)
    match s.collect():
        case IOSuccess(values):  # type: ignore[must-use]
            print(values)
    match plain:
        case IOSuccess(_) | IOFailure(_):  # type: ignore[must-use]
            print("an IOResult")
        case Success(number):
            assert_type(number, int)
    match either:
        case IOSuccess(_):
            print("an IOResult")
        case Success(_):
            print("a Result")
    match unknown:
        case IOSuccess(_):
            print("an IOResult")
        case Success(_):
            print("a Result")
