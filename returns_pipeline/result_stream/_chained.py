"""How a chain of steps grows: the base of the classes that add steps to `ResultStream`."""

# The modules of this folder need `ResultStream` for annotations alone, and it needs them as bases.
# For `typing.get_type_hints()` the package puts the name into each of them when it is imported.
# pyright: reportImportCycles=false

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from returns.result import Result

from returns_pipeline._engine import checks, fusion
from returns_pipeline._engine.async_steps import on_its_own
from returns_pipeline._engine.concurrent_map import map_concurrently, map_only_concurrently
from returns_pipeline._engine.fusion import Chain, Failed, FanInLink, Link, Segment, Stateful, Step
from returns_pipeline._engine.operator import NO_SOURCE
from returns_pipeline._engine.terminals import Terminals, chain_of
from returns_pipeline._engine.written import Place

if TYPE_CHECKING:
    from returns_pipeline.result_stream import ResultStream

__all__ = ["Chained"]

T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


class Chained(Terminals[T_co, E_co], Generic[T_co, E_co]):
    """Adds links to the chain. The engine is untyped: the public signatures have the types."""

    @abstractmethod
    def _from_chain(self, chain: Chain) -> ResultStream[Any, Any]:
        """Return the stream of another chain."""

    def _linked(self, link: Link) -> ResultStream[Any, Any]:
        return self._from_chain(Chain(self._chain, link))

    def _step(
        self, code: int, func: Callable[[Any], Any], extra: object = None
    ) -> ResultStream[Any, Any]:
        return self._linked((code, func, extra))

    def _place(self, operator: str, func: object) -> Place:
        """Return the place of a step that is about to be added."""
        return Place(self._chain, operator, func)

    def _stateful(self, make: Callable[[], Step]) -> ResultStream[Any, Any]:
        return self._linked(Stateful(make))

    def _segment(self, segment: Segment) -> ResultStream[Any, Any]:
        _ = segment(NO_SOURCE)  # a bad argument is refused at the call
        return self._linked(segment)

    def _fan_in(
        self,
        others: tuple[AsyncIterable[Result[Any, Any]], ...],
        join: Callable[[list[AsyncIterable[Any]]], AsyncIterable[Any]],
    ) -> ResultStream[Any, Any]:
        _ = join([NO_SOURCE])
        return self._linked(FanInLink(tuple([chain_of(other) for other in others]), join))

    def _async_step(
        self,
        code: int,
        operator: str,
        func: Callable[[Any], Awaitable[Any]],
        concurrency: int,
        ordered: bool,
        *,
        exceptions: tuple[type[Exception], ...] = (),
        place: Place | None = None,
    ) -> ResultStream[Any, Any]:
        checks.async_function(operator, func)
        place = place or self._place(operator, func)
        extra = exceptions or place
        if not inspect.iscoroutinefunction(func):
            func = place.awaitable(func)
        if checks.count("concurrency", concurrency) == 1:
            return self._step(code, func, extra)
        work, after = on_its_own(code, func, extra)
        if code in {fusion.LASH_ASYNC, fusion.TAP_FAILURE_ASYNC}:
            return self._segment(
                lambda part: map_only_concurrently(
                    part, work, concurrency, ordered=ordered, only=Failed, after=after
                )
            )
        return self._segment(
            lambda part: map_concurrently(
                part, work, concurrency, ordered=ordered, passing=Failed, after=after
            )
        )
