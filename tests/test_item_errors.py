"""`with_item`, and what to do with the items that failed: dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiostream import stream
from returns.future import future_safe
from returns.io import IO
from returns.result import Failure, Result, Success

from returns_pipeline import Counts, ItemError, ResultStream, StepContext, to_result, with_item
from returns_pipeline.policies import RetryPolicy, with_retry
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Callable


def numbers() -> ResultStream[int, Any]:
    return ResultStream.of(stream.range(4, interval=0.0))


def half(n: int, /) -> Result[int, str]:
    return Failure("odd") if n % 2 else Success(n // 2)


async def half_async(n: int) -> Result[int, str]:
    return half(n)


@future_safe(exceptions=(ValueError,))
async def half_future(n: int) -> int:
    if n % 2:
        raise ValueError("odd")
    return n // 2


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (lambda s: s.bind(with_item(half)), "odd"),
        (lambda s: s.bind_async(with_item(half_async)), "odd"),
        (lambda s: s.bind_async(with_item(half_async), concurrency=3), "odd"),
        (lambda s: s.bind_async(with_item(half_future)), ValueError("odd")),
        (lambda s: s.bind_async(with_item(with_retry(half_async, RetryPolicy(1)))), None),
    ],
    ids=["sync", "async", "concurrent", "FutureResult", "policy"],
)
def test_a_failure_has_the_item_and_the_error(
    read: Callable[[ResultStream[int, Any]], ResultStream[int, Any]], error: object
) -> None:
    values, errors = run(read(numbers()).partition())._inner_value
    assert values == [0, 1]
    assert [type(each) for each in errors] == [ItemError, ItemError]
    assert [each.item for each in errors] == [1, 3]
    if error is not None:
        assert [repr(each.error) for each in errors] == [repr(error)] * 2


def test_the_step_keeps_its_name_its_other_arguments_and_its_exceptions() -> None:
    async def store(n: int, step: StepContext, *, twice: bool = False) -> Result[str, str]:
        if n == 9:
            raise KeyError(n)
        return Failure("full") if twice else Success(step.path)

    named = with_item(store)
    assert named.__name__ == "store"
    context = StepContext("shop")
    assert run(to_result(named(1, context))) == Success("shop")
    assert run(to_result(named(1, context, twice=True))) == Failure(ItemError(1, "full"))
    with pytest.raises(KeyError, match="9"):
        run(to_result(named(9, context)))
    paths = numbers().bind_step(named, context).collect()
    assert run(to_result(paths)) == Success([f"shop/store[{n}]" for n in range(4)])


def test_what_is_not_a_step_is_refused() -> None:
    def forgot(n: int) -> Any:
        return n

    with pytest.raises(TypeError, match=r"with_item\(\) takes a function, not 3"):
        with_item(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"forgot\(\) returned 1 and no Result"):
        made: Any = with_item(forgot)
        made(1)


def test_dead_letters_are_three_lines() -> None:
    async def persist(order: int, step: StepContext) -> Result[int, str]:
        return half(order)

    async def main() -> tuple[Counts, list[tuple[int, str]]]:
        letters: list[tuple[int, str]] = []
        orders = numbers()
        async with StepContext("shop") as ctx:
            stored = orders.bind_step(with_item(persist), ctx)
            dead = stored.tap_failure(lambda failed: letters.append((failed.item, failed.error)))
            counts = await dead.run_all()
        return counts._inner_value, letters

    assert run(main()) == (Counts(successes=2, failures=2), [(1, "odd"), (3, "odd")])


@pytest.mark.parametrize("func", [half, half_async, half_future])
def test_for_each_all_counts_the_failures_of_both(func: Callable[[int], object]) -> None:
    seen: list[int] = []
    s = numbers().tap(seen.append).bind(lambda n: Success(n) if n else Failure("zero"))
    assert run(s.for_each_all(func)) == IO(Counts(successes=1, failures=3))
    assert seen == [0, 1, 2, 3]
    assert run(s.for_each_all(seen.append)) == IO(Counts(successes=3, failures=1))


def test_a_generator_of_streams_is_not_a_function_for_a_terminal() -> None:
    async def lines(n: int) -> Any:
        yield n

    for terminal in (numbers().for_each, numbers().for_each_all):
        with pytest.raises(TypeError, match=r"does not iterate over lines\(\): use flat_map"):
            terminal(lines)
    with pytest.raises(TypeError, match="a function returned a ResultStream: it has no outcome"):
        run(numbers().for_each(lambda n: numbers()))
