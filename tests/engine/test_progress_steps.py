"""Whether a loop of ours has come to another item, from what a suspended coroutine awaits."""

from __future__ import annotations

import asyncio
import contextlib
import types
from typing import TYPE_CHECKING, Any

import pytest

from returns_pipeline._engine.progress import has_read_on, place_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable


def ours(func: Any) -> Any:
    """Return a function as if it were defined in a module that reads sources."""
    names = {**func.__globals__, "__name__": "returns_pipeline.combine._example"}
    return types.FunctionType(func.__code__, names, func.__name__)


@types.coroutine
def pause() -> Any:
    yield


async def numbers() -> AsyncGenerator[int, None]:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await pause()
        yield 0


async def read(source: AsyncIterator[int]) -> None:
    async for _ in source:
        pass


async def read_and_clean_up(source: AsyncIterator[int]) -> None:
    try:
        async for _ in source:
            pass
    except asyncio.CancelledError:
        async for _ in numbers():
            pass


async def within(reader: Callable[[Any], Awaitable[None]], source: Any) -> None:
    await reader(source)


async def silence() -> AsyncGenerator[int, None]:
    await pause()
    yield 0


@pytest.mark.parametrize(
    ("reader", "source", "expected"),
    [
        pytest.param(ours(read), numbers, True, id="a loop of ours"),
        pytest.param(ours(read_and_clean_up), numbers, True, id="a loop that may clean up"),
        pytest.param(ours(read_and_clean_up), silence, False, id="a loop that cleans up"),
        pytest.param(read, numbers, False, id="a loop of the user's"),
    ],
)
def test_a_loop_has_read_on_if_it_waits_for_another_item(
    reader: Callable[[Any], Any], source: Callable[[], Any], expected: bool
) -> None:
    suspended = ours(within)(reader, source())
    suspended.send(None)
    place = place_of(suspended)
    assert not has_read_on(place, suspended)
    suspended.throw(asyncio.CancelledError())
    assert has_read_on(place, suspended) is expected
    suspended.close()


def test_a_clean_up_that_continues_has_not_read_on() -> None:
    suspended = ours(within)(read_and_clean_up, silence())
    suspended.send(None)
    suspended.throw(asyncio.CancelledError())
    place = place_of(suspended)
    suspended.send(None)
    assert not has_read_on(place, suspended)
    suspended.close()
