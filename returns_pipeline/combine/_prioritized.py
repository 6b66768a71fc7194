"""`merge_prioritized`: several streams made into one, the important ones first."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, Final, Generic, TypeVar, overload

from aiostream import Stream
from returns.result import Result

from returns_pipeline._engine import checks
from returns_pipeline._engine.fan_in import BUFFER, FanIn, Input
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader

__all__ = ["merge_prioritized"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
T = TypeVar("T")


class _MergePrioritized(Operator):
    # Results first: mypy would join a union of them, where it has to read one type from it.
    @overload
    def __call__(
        self,
        a: tuple[float, AsyncIterable[Result[A, E]]],
        b: tuple[float, AsyncIterable[Result[B, F]]],
        /,
        *,
        starvation_limit: int | None = 32,
        buffer: int = BUFFER,
    ) -> Stream[Result[A | B, E | F]]: ...
    @overload
    def __call__(
        self,
        a: tuple[float, AsyncIterable[Result[A, E]]],
        b: tuple[float, AsyncIterable[Result[B, F]]],
        c: tuple[float, AsyncIterable[Result[C, G]]],
        /,
        *,
        starvation_limit: int | None = 32,
        buffer: int = BUFFER,
    ) -> Stream[Result[A | B | C, E | F | G]]: ...
    @overload
    def __call__(
        self,
        a: tuple[float, AsyncIterable[A]],
        b: tuple[float, AsyncIterable[B]],
        /,
        *,
        starvation_limit: int | None = 32,
        buffer: int = BUFFER,
    ) -> Stream[A | B]: ...
    @overload
    def __call__(
        self,
        a: tuple[float, AsyncIterable[A]],
        b: tuple[float, AsyncIterable[B]],
        c: tuple[float, AsyncIterable[C]],
        /,
        *,
        starvation_limit: int | None = 32,
        buffer: int = BUFFER,
    ) -> Stream[A | B | C]: ...
    @overload
    def __call__(
        self,
        *sources: tuple[float, AsyncIterable[T]],
        starvation_limit: int | None = 32,
        buffer: int = BUFFER,
    ) -> Stream[T]: ...
    def __call__(
        self,
        *sources: tuple[float, AsyncIterable[Any]],
        starvation_limit: int | None = 32,
        buffer: int = BUFFER,
    ) -> Stream[Any]:
        """Emit the items of several sources, those of a higher priority first.

        Of the items that wait, the next one emitted is

        1. one of a priority that was passed over ``starvation_limit`` times in a row, if any;
        2. else one of the highest priority that has an item waiting. An item overtakes all those of
           lower priority that are not yet emitted, whenever they came.
        3. Sources of equal priority take turns.

        A source without an item is not waited for, whatever its priority. A source that has just
        resumed has one turn of the loop to deliver its next item, and counts as waiting until then.
        Each source's items keep their order. The stream ends when all sources have ended.

        Backpressure, order of events, errors and cancel safety: as `merge`; after an error, the
        items that were read are still emitted by priority.

        Known elsewhere as: ``MergePrioritized`` (Akka and Pekko, where priorities are weights),
        ``MergePreferred``.

        Args:
            sources: Pairs of a priority and a source. The higher number goes first.
            starvation_limit: How often in a row items of higher priority may be preferred to one
                priority that has items waiting, at least 1; then it has its turn. `None` for no
                limit.
            buffer: How many items of each source may be held, at least 1.

        Returns:
            A stream of their items.

        Raises:
            InvalidArgument: At the call, if ``starvation_limit`` or ``buffer`` is out of range, or
                a priority is not a number.
            TypeError: At the call, if a source is not an async iterable.
            Exception: Any exception of a source, after the items that were read.

        >>> from returns_pipeline.testing import run, script, timeline
        >>> alarms, records = script("---!|", values={"!": "fire"}), script("(abc)|")
        >>> run(timeline(merge_prioritized((1, records), (9, alarms)), pause=2.0))
        [(0.0, 'a'), (2.0, 'b'), (4.0, 'fire'), (6.0, 'c')]
        """
        return self._stream(*sources, starvation_limit=starvation_limit, buffer=buffer)

    def raw(
        self,
        *sources: tuple[float, AsyncIterable[Any]],
        starvation_limit: int | None = 32,
        buffer: int = BUFFER,
    ) -> AsyncIterator[Any]:
        pump: _PrioritizedPump[Any] = _PrioritizedPump(sources, starvation_limit, buffer)
        return Reader(pump)


merge_prioritized: Final = _MergePrioritized("returns_pipeline.combine.merge_prioritized")
"""Emit the items of several sources, those of a higher priority first."""


# How many turns of the loop a source that was just emptied has to deliver its next item, before
# items of lower priority are emitted: one if it does not suspend, and one for a ``sleep(0)``.
_TURNS: Final = 1


class _Level(Generic[T]):
    """The inputs of one priority.

    Attributes:
        priority: The priority.
        ready: The inputs with items, the next one first.
        passed_over: Items of higher levels emitted while this one had some, or soon might.
        settling: How many of its sources have resumed and had no chance yet to deliver an item.
    """

    __slots__ = ("passed_over", "priority", "ready", "settling")

    def __init__(self, priority: float) -> None:
        self.priority = priority
        self.ready: deque[Input[T]] = deque()
        self.passed_over = 0
        self.settling = 0


class _PrioritizedPump(FanIn[T, T]):
    """Finds the level whose turn it is, each time an item is taken."""

    def __init__(
        self,
        sources: tuple[tuple[float, AsyncIterable[T]], ...],
        starvation_limit: int | None,
        buffer: int,
    ) -> None:
        super().__init__([source for _, source in sources], buffer)
        self._limit = (
            math.inf
            if starvation_limit is None
            else checks.count("starvation_limit", starvation_limit)
        )
        levels: dict[float, _Level[T]] = {}
        self._level_of: list[_Level[T]] = []  # by the input's index
        for priority, _ in sources:
            _ = checks.exact("a priority", priority, signed=True)
            self._level_of.append(levels.setdefault(priority, _Level(priority)))
        self._levels = sorted(levels.values(), key=lambda level: -level.priority)

    def on_item(self, input_: Input[T]) -> None:
        self._level_of[input_.index].ready.append(input_)

    def has_next(self) -> bool:
        if self.stopping or self.ended:
            # No source is about to deliver an item, so held items must not wait for one.
            return any(level.ready for level in self._levels)
        # A level whose source may have its next item at once is not to be passed over: neither by
        # lower ones nor, if it is its turn, by higher ones.
        if any(level.passed_over >= self._limit and not level.ready for level in self._levels):
            return False
        settling = False
        for level in self._levels:
            if level.ready and (not settling or level.passed_over >= self._limit):
                return True
            settling = settling or level.settling > 0
        return False

    def take(self) -> T:
        waiting = [level for level in self._levels if level.ready]
        # Of those whose turn has come, the one passed over most often; of two equal, the higher.
        level = max(waiting, key=lambda level: level.passed_over)
        if level.passed_over < self._limit:
            level = waiting[0]
        for lower in self._levels[self._levels.index(level) + 1 :]:
            if lower.ready or lower.settling:
                lower.passed_over += 1
        level.passed_over = 0
        input_ = level.ready.popleft()
        item = input_.pop()
        if input_.items:
            level.ready.append(input_)
        elif not (input_.ended or self.stopping):
            level.settling += 1
            _ = self.loop.call_soon(self._settle, level, _TURNS)
        return item

    def _settle(self, level: _Level[T], turns: int) -> None:
        if turns:
            _ = self.loop.call_soon(self._settle, level, turns - 1)
        else:
            level.settling -= 1
            if not (level.settling or level.ready):
                level.passed_over = 0  # it had no item after all
            self.notify_reader()

    def discard(self) -> None:
        super().discard()
        for level in self._levels:
            level.ready.clear()
