# mypy: disable-error-code="unused-awaitable, truthy-bool, unreachable, redundant-expr"
# pyright: reportUnnecessaryComparison=false, reportUnusedExpression=false, reportUnusedCoroutine=false
# ruff: noqa: B018, C419
"""Never run. Where `returns_pipeline.mypy_plugin` says that a container is always true, and others.

Needs the plugin, unlike most of the other files here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from returns.result import Result, Success
from returns.unsafe import unsafe_perform_io

from returns_pipeline import RetryPolicy, Saga
from returns_pipeline.policies import race, with_retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from returns.maybe import Maybe

    from returns_pipeline import ResultStream


def check(n: int) -> Result[int, str]:
    """Return a Result, which is true whatever it holds."""
    return Success(n)


async def charge(n: int) -> Result[int, str]:
    return Success(n)


async def price(n: int) -> int:
    return n


def is_odd(n: int) -> bool:
    return n % 2 == 1


def conditions(n: int, numbers: list[int], maybe: Result[int, str] | None, unknown: Any) -> None:
    """A Result in the place of a condition."""
    assert check(n)  # type: ignore[must-use]
    assert not check(n)  # type: ignore[must-use]
    print(check(n) or check(n))  # type: ignore[must-use]
    print(check(n) and n)  # type: ignore[must-use]
    print(1 if check(n) else 2)  # type: ignore[must-use]
    print([m for m in numbers if check(m)])  # type: ignore[must-use]
    print({m for m in numbers if check(m)})  # type: ignore[must-use]
    print({m: m for m in numbers if check(m)})  # type: ignore[must-use]
    print(list(filter(check, numbers)))  # type: ignore[must-use]
    print(any(check(m) for m in numbers))  # type: ignore[must-use]
    print(all([check(m) for m in numbers]))  # type: ignore[must-use]
    print(bool(check(n)))  # type: ignore[must-use]
    while check(n):  # type: ignore[must-use]
        print("forever")
    print(maybe or check(n), 1 if maybe else 2, unknown and check(n), n and check(n))
    print([check(m) for m in numbers if is_odd(m)], any(map(is_odd, numbers)), bool(unknown))
    print(list(filter(is_odd, numbers)), list(filter(None, numbers)), all(numbers))


async def comparisons(s: ResultStream[int, str], n: int, unknown: Any) -> None:
    """A container is equal to none of Python's values."""
    print((await s.run()) == n)  # type: ignore[must-use]
    print("text" != check(n))  # type: ignore[must-use]  # noqa: SIM300
    print(check(n) == (n, n))  # type: ignore[must-use]
    print(check(n) == Success(n), (await s.run()) == unknown, check(n) is None, n == n + 1)


async def uncalled(s: ResultStream[int, str], step: Callable[[int], Result[int, str]]) -> None:
    """A function that is named, and not called."""
    s.run  # type: ignore[must-use]
    lambda: check(1)  # type: ignore[must-use]
    s.__len__  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    "text".upper
    step


async def functions(s: ResultStream[int, str]) -> None:
    """What a function returns is lost."""
    _ = s.tap(lambda n: asyncio.create_task(charge(n)))  # type: ignore[must-use]  # pyright: ignore[reportDeprecated]
    _ = s.for_each(lambda n: [check(n)])  # type: ignore[must-use]
    _ = s.for_each(lambda _n: s.map(str))  # type: ignore[must-use]
    _ = s.attempt(check, ValueError)  # type: ignore[must-use]
    _ = s.attempt(price, ValueError)  # type: ignore[must-use]
    _ = s.attempt_async(charge, ValueError)  # type: ignore[must-use]
    _ = s.keyed_chunks(2, 1.0, key=price)  # type: ignore[must-use]
    _ = s.sessions(1.0, key=check)  # type: ignore[must-use]
    _ = s.for_each(charge), s.for_each(check), s.for_each(price), s.for_each(print)
    _ = s.attempt_async(price, ValueError), s.keyed_chunks(2, 1.0, key=is_odd)


def steps(s: ResultStream[int, str]) -> None:
    """A stream is not the outcome of a step: mypy says so, and the plugin what to do."""
    print(s.bind_async(lambda n: s))  # type: ignore[must-use, arg-type, return-value]  # pyright: ignore[reportArgumentType]
    print(with_retry(lambda n: s, RetryPolicy()))  # type: ignore[must-use, arg-type, return-value]  # pyright: ignore[reportArgumentType]
    print(race(lambda n: s))  # type: ignore[must-use, arg-type, return-value]  # pyright: ignore[reportArgumentType]
    print(Saga("shop").step("read", lambda n: s))  # type: ignore[must-use, arg-type, return-value]  # pyright: ignore[reportArgumentType]


async def nested(s: ResultStream[int, str], unknown: Any) -> None:
    """A Result, or a coroutine, inside of a Result."""
    _ = check(1).map(check)  # type: ignore[must-use]
    _ = s.collect().map(lambda numbers: charge(numbers[0]))  # type: ignore[must-use]
    _ = (await s.run()).alt(lambda _: check(1))  # type: ignore[must-use]
    _ = s.run().map(lambda _: s.run())  # type: ignore[must-use]
    _ = s.run().bind_result(check), check(1).map(str), s.run().bind_awaitable(price)
    _ = unknown.map(check)
    _ = s.collect().map(unknown), check(1).map(print)


async def items(
    s: ResultStream[int, str], maybe: Maybe[list[int]], numbers: list[int], pair: tuple[int, int]
) -> None:
    """A container in the place of the items inside of it."""
    for numbers in await s.collect():  # type: ignore[must-use]
        print(numbers)
    for found in check(1):  # type: ignore[must-use]
        print(found)
    for numbers in maybe:  # type: ignore[must-use]
        print(numbers)
    async for numbers in s.collect():  # type: ignore[must-use]
        print(numbers)
    async for both in s.partition():  # type: ignore[must-use]
        print(both)
    both, *_ = await s.partition()  # type: ignore[must-use]
    [both, more] = await s.partition()  # type: ignore[must-use]
    print([str(value) for value in await s.collect()])  # type: ignore[must-use]
    print({str(value) for value in await s.collect()})  # type: ignore[must-use]
    print(list(await s.collect()))  # type: ignore[must-use]
    print(sum(check(1)), dict(enumerate(numbers)))  # type: ignore[must-use]
    print({value: value for value in check(1)})  # type: ignore[must-use]
    print(both, more, [n for number in numbers for n in check(number)])  # type: ignore[must-use]
    _ = Result.do(n + m for n in check(1) for m in check(2))  # pyright: ignore[reportUnknownVariableType]
    values, errors = unsafe_perform_io(await s.partition())
    for value, error in zip(values, errors, strict=False):
        print(value, error, [number + 1 for number in numbers])
    one, another = pair
    async for item in s:
        print(one, another, item)
