"""How a chain of steps grows: the base of the classes that add steps to `ResultStream`."""

# The modules of this folder need `ResultStream` for annotations alone, and it needs them as bases.
# For `typing.get_type_hints()` the package puts the name into each of them when it is imported.
# pyright: reportImportCycles=false

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from returns_pipeline._engine import checks, steps
from returns_pipeline._engine.async_steps import on_its_own
from returns_pipeline._engine.chain import Chain, FanInLink, Link, Segment, Stateful, parts
from returns_pipeline._engine.concurrent_map import map_concurrently, map_only_concurrently
from returns_pipeline._engine.marks import MarksRefused
from returns_pipeline._engine.operator import NO_SOURCE
from returns_pipeline._engine.steps import Failed, Kind, Step
from returns_pipeline._engine.terminals import Terminals
from returns_pipeline._engine.written import Place
from returns_pipeline.errors import InvalidArgument

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
        self, kind: Kind, func: Callable[[Any], Any], extra: object = None
    ) -> ResultStream[Any, Any]:
        return self._linked((kind, func, extra))

    def _place(self, operator: str, func: object) -> Place:
        """Return the place of a step that is about to be added."""
        return Place(self._chain, operator, func)

    def _stateful(self, make: Callable[[], Step]) -> ResultStream[Any, Any]:
        return self._linked(Stateful(make))

    def _segment(self, segment: Segment, *, carries_marks: bool = False) -> ResultStream[Any, Any]:
        """Add a step with tasks of its own.

        Args:
            segment: The step.
            carries_marks: Whether it obeys the law of `marks`. If not, it is refused in a marked
                chain. A step that says so is in ``tests/contract/test_mark_law.py``.
        """
        _ = segment(NO_SOURCE)  # a bad argument is refused at the call
        return self._from_chain(Chain(self._chain, segment, carries_marks=carries_marks))

    def _fan_in(
        self,
        others: tuple[Chain, ...],
        join: Callable[[list[AsyncIterable[Any]]], AsyncIterable[Any]],
        *,
        carries_marks: bool = False,
    ) -> ResultStream[Any, Any]:
        """Add a step that reads other chains as well; see `_segment`."""
        _ = join([NO_SOURCE])
        link = FanInLink(others, join)
        return self._from_chain(Chain(self._chain, link, carries_marks=carries_marks))

    def _refuse_marks(self, operator: str) -> None:
        """Refuse an operator that reads the stream as its user would: it sees no marks.

        Raises:
            MarksRefused: The chain is marked.
        """
        if self._chain.marked:
            raise MarksRefused(operator)

    def _refuse_repeats(self, operator: str) -> None:
        """Refuse an operator that may put a message into several items.

        Raises:
            MarksRefused: The step that handles one of them would store its position.
        """
        if self._chain.stores:
            reason = "a message in several of its items would be skipped when one was handled"
            raise MarksRefused(f"{operator}() and stored positions", reason)

    def _refuse_held(self, operator: str, *, hold: bool) -> None:
        """Refuse to hold undo actions of a marked chain.

        Raises:
            MarksRefused: The chain is marked.
        """
        if hold and self._chain.marked:
            reason = "what it has done may be undone after the message was acknowledged"
            raise MarksRefused(f"{operator}(hold=True)", reason)

    def _stores_in(self, journal: object | None, place: Place) -> bool:
        """Return whether the commits of a step store the positions of messages in a journal.

        Raises:
            InvalidArgument: Those of another step do.
        """
        if journal is None or not any(store is journal for store in self._chain.stores):
            return False
        for part in parts(self._chain):
            if part.storing is not None and part.storing[0] is journal:
                raise InvalidArgument(
                    f"{part.storing[1]} stores the positions of the messages already: {place} would"
                    " be skipped after a crash between the two. Make one step of them"
                )
        return True

    def _async_step(
        self,
        kind: Kind,
        operator: str,
        func: Callable[[Any], Awaitable[Any]],
        concurrency: int,
        ordered: bool,
        *,
        exceptions: tuple[type[Exception], ...] = (),
        place: Place | None = None,
    ) -> ResultStream[Any, Any]:
        checks.async_function(operator, func)
        if place is None:
            place = self._place(operator, func)
            if not inspect.iscoroutinefunction(func):
                for_result = kind in {steps.BIND_ASYNC, steps.LASH_ASYNC}
                func = place.awaitable(func, for_result=for_result)
        extra = exceptions or place
        if checks.count("concurrency", concurrency) == 1:
            return self._step(kind, func, extra)
        marked = self._chain.marked
        work, after = on_its_own(kind, func, extra)
        if kind in {steps.LASH_ASYNC, steps.TAP_FAILURE_ASYNC}:
            return self._segment(
                lambda part: map_only_concurrently(
                    part,
                    work,
                    concurrency,
                    ordered=ordered,
                    only=Failed,
                    after=after,
                    marked=marked,
                ),
                carries_marks=True,
            )
        return self._segment(
            lambda part: map_concurrently(
                part,
                work,
                concurrency,
                ordered=ordered,
                passing=Failed,
                after=after,
                marked=marked,
            ),
            carries_marks=True,
        )
