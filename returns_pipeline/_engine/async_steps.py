"""Asynchronous steps in the form in which a concurrent map runs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from returns.result import Success

from returns_pipeline._engine.future_results import refuse_lost, unpacked
from returns_pipeline._engine.steps import (
    BIND_ASYNC,
    LASH_ASYNC,
    MAP_ASYNC,
    TAP_ASYNC,
    TAP_FAILURE_ASYNC,
    Failed,
    Kind,
    split,
)

__all__ = ["on_its_own"]


def on_its_own(
    kind: Kind, func: Callable[[Any], Awaitable[Any]], extra: Any
) -> tuple[Callable[[Any], Awaitable[Any]], Callable[[Any], Any]]:
    """Return an asynchronous step in two parts: a coroutine function, and a function of its result.

    The first takes a bare value, or, in a step about failures, a `Failed`.
    """
    if kind is MAP_ASYNC:
        return func, _same
    if kind in {BIND_ASYNC, LASH_ASYNC}:

        def split_awaited(given: Any) -> Any:
            if given.__class__ is Success:
                return given.unwrap()  # nearly always: it saves two calls
            result: Any = unpacked(given)
            return split(result, extra)

        return (func if kind is BIND_ASYNC else lambda failed: func(failed.error)), split_awaited
    if kind in {TAP_ASYNC, TAP_FAILURE_ASYNC}:

        async def tap(item: Any) -> Any:
            given = await func(item if kind is TAP_ASYNC else item.error)
            refuse_lost(given, extra, "tap_result_async() or lash_async()")
            return item

        return tap, _same

    async def attempt(value: Any) -> Any:
        try:
            return await func(value)
        except extra as error:
            return Failed(error)

    return attempt, _same


def _same(value: Any) -> Any:
    return value
