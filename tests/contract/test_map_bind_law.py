"""The laws of `map`, `bind` and `lash`, and a model of whole chains."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Result, Success

from returns_pipeline import ResultStream
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Item: TypeAlias = "Result[int, int]"

items = st.lists(st.builds(Success, st.integers()) | st.builds(Failure, st.integers()), max_size=8)
# Functions as data, so that a failing example can be read.
arrows = st.sampled_from(
    [
        lambda n: Success(n + 1),
        lambda n: Success(n * 2),
        lambda n: Failure(-n),
        lambda n: Success(n) if n % 2 else Failure(n),
        lambda n: Failure(n) if n % 3 else Success(n // 3),
    ]
)
functions = st.sampled_from([lambda n: n + 1, lambda n: n * 3, lambda n: -n, lambda n: n])


def stream_of(source: list[Item]) -> ResultStream[int, int]:
    async def read() -> AsyncIterator[Item]:
        for item in source:
            await asyncio.sleep(1)
            yield item

    return ResultStream.from_results(read())


def out(s: ResultStream[Any, Any]) -> list[Item]:
    async def main() -> list[Item]:
        read = []
        async with s.stream() as opened:
            async for item in opened:
                read.append(item)
        return read

    return run(main())


@given(items)
def test_mapping_the_identity_changes_nothing(source: list[Item]) -> None:
    assert out(stream_of(source).map(lambda n: n).alt(lambda e: e)) == source


@given(items, functions, functions)
def test_mapping_twice_is_mapping_the_composition(
    source: list[Item], f: Callable[[int], int], g: Callable[[int], int]
) -> None:
    assert out(stream_of(source).map(f).map(g)) == out(stream_of(source).map(lambda n: g(f(n))))
    assert out(stream_of(source).alt(f).alt(g)) == out(stream_of(source).alt(lambda e: g(f(e))))


@given(st.lists(st.integers(), max_size=8), arrows)
def test_binding_a_lifted_value_is_calling_the_function(
    values: list[int], f: Callable[[int], Item]
) -> None:
    assert out(stream_of([Success(n) for n in values]).bind(f)) == [f(n) for n in values]
    assert out(stream_of([Failure(n) for n in values]).lash(f)) == [f(n) for n in values]


@given(items)
def test_binding_the_constructor_changes_nothing(source: list[Item]) -> None:
    assert out(stream_of(source).bind(Success)) == source
    assert out(stream_of(source).lash(Failure)) == source


@given(items, arrows, arrows)
def test_binding_is_associative(
    source: list[Item], f: Callable[[int], Item], g: Callable[[int], Item]
) -> None:
    one_by_one = out(stream_of(source).bind(f).bind(g))
    assert one_by_one == out(stream_of(source).bind(lambda n: f(n).bind(g)))
    one_by_one = out(stream_of(source).lash(f).lash(g))
    assert one_by_one == out(stream_of(source).lash(lambda e: f(e).lash(g)))


# A model: every step as a function from one Result to its outputs.

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["map", "alt", "filter", "tap"]), functions),
        st.tuples(
            st.sampled_from(
                ["bind", "lash", "bind_async", "bind_crew", "bind_unordered", "flat_map", "ensure"]
            ),
            arrows,
        ),
    ),
    max_size=10,
)


def model(item: Item, name: str, f: Callable[[int], Any]) -> list[Item]:
    """What one step makes of one item."""
    if isinstance(item, Failure):
        if name == "alt":
            return [item.alt(f)]
        return [item.lash(f)] if name == "lash" else [item]
    match name:
        case "map":
            return [item.map(f)]
        case "filter":
            return [item] if f(item.unwrap()) % 2 else []
        case "flat_map":
            return [f(item.unwrap()), f(item.unwrap() + 1)]
        case "ensure":
            made = f(item.unwrap())
            return [item] if isinstance(made, Success) else [made]
        case "alt" | "lash" | "tap":
            return [item]
        case _:
            return [item.bind(f)]


def step(s: ResultStream[Any, Any], name: str, f: Callable[[int], Any]) -> ResultStream[Any, Any]:
    """The same step on a stream."""

    async def later(n: int) -> Any:
        await asyncio.sleep(n % 5)
        return f(n)

    async def twice(n: int) -> AsyncIterator[Any]:
        yield f(n)
        await asyncio.sleep(n % 3)
        yield f(n + 1)

    match name:
        case "filter":
            return s.filter(lambda n: f(n) % 2 == 1)
        case "flat_map":
            return s.flat_map(twice)
        case "ensure":
            return s.ensure(lambda n: isinstance(f(n), Success), lambda n: f(n).failure())
        case "bind_async":
            return s.bind_async(later)
        case "bind_crew":
            return s.bind_async(later, concurrency=3)
        case "bind_unordered":
            return s.bind_async(later, concurrency=1, ordered=False)
        case _:
            changed: ResultStream[Any, Any] = getattr(s, name)(f)
            return changed


@given(items, steps)
def test_a_chain_does_to_a_stream_what_its_steps_do_to_each_item(
    source: list[Item], chain: list[tuple[str, Callable[[int], Any]]]
) -> None:
    expected = source
    s: ResultStream[Any, Any] = stream_of(source)
    for name, f in chain:
        expected = [made for item in expected for made in model(item, name, f)]
        s = step(s, name, f)
    assert out(s) == expected
