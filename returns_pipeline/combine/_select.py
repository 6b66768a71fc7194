"""`select`: several streams made into one, each item with the key of its stream."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, Generic, TypeVar, overload

from aiostream import Stream

from returns_pipeline._engine import checks
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.deadlines import DeadlineTimer
from returns_pipeline._engine.fan_in import BUFFER, FairMerge, Input
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader

__all__ = ["TimedOut", "select"]

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TimedOut:
    """Emitted by `select` when no source has emitted anything for too long.

    Attributes:
        after: The seconds of silence.

    >>> TimedOut(3.0).after
    3.0
    """

    after: float


class _Select(Operator):
    @overload
    def __call__(
        self,
        sources: Mapping[K, AsyncIterable[T]],
        /,
        *,
        timeout: None = None,
        buffer: int = BUFFER,
    ) -> Stream[tuple[K, T]]: ...
    @overload
    def __call__(
        self, sources: Mapping[K, AsyncIterable[T]], /, *, timeout: Seconds, buffer: int = BUFFER
    ) -> Stream[tuple[K, T] | TimedOut]: ...
    def __call__(
        self,
        sources: Mapping[K, AsyncIterable[T]],
        /,
        *,
        timeout: Seconds | None = None,
        buffer: int = BUFFER,
    ) -> Stream[Any]:
        """Emit the items of several sources as they come, each with its source's key.

        1. A pair of key and item is emitted by the rules of `merge`.
        2. With a ``timeout``, a `TimedOut` is emitted when no pair is waiting and that many seconds
           have passed since the last pair or `TimedOut` was emitted, or since the first read. The
           stream continues after it.

        Backpressure, order of events, errors and cancel safety: as `merge`. A read that is
        cancelled and made again does not start the time-out again.

        Types: mypy joins the types in a dictionary to a common base class. With
        `returns_pipeline.mypy_plugin`, and in pyright, the items have the union.

        Known elsewhere as: ``select!`` (tokio, where the losers of each round are dropped),
        ``StreamMap`` (tokio-stream), ``select`` (Go).

        Args:
            sources: The sources by their keys.
            timeout: Seconds of silence, above 0; `None` for no limit. On the running loop's clock.
            buffer: How many items of each source may be held, at least 1.

        Returns:
            A stream of pairs; with a ``timeout``, of `TimedOut` also.

        Raises:
            InvalidArgument: At the call, if ``timeout`` or ``buffer`` is out of range.
            TypeError: At the call, if a source is not an async iterable.
            Exception: Any exception of a source, after the items that were read.

        >>> from returns_pipeline.testing import run, script, timeline
        >>> run(timeline(select({"x": script("a----b|"), "y": script("-1|")}, timeout=3.0)))
        [(0.0, ('x', 'a')), (1.0, ('y', '1')), (4.0, TimedOut(after=3.0)), (5.0, ('x', 'b'))]
        """
        return self._stream(dict(sources), timeout=timeout, buffer=buffer)

    def raw(
        self,
        sources: Mapping[Any, AsyncIterable[Any]],
        /,
        *,
        timeout: Seconds | None = None,
        buffer: int = BUFFER,
    ) -> AsyncIterator[Any]:
        pump: _SelectPump[Any, Any] = _SelectPump(sources, timeout, buffer)
        return Reader(pump)


select: Final = _Select("returns_pipeline.combine.select")
"""Emit the items of several sources as they come, each with its source's key."""


class _SelectPump(FairMerge[T, "tuple[K, T] | TimedOut"], Generic[K, T]):
    tags = True

    def __init__(
        self, sources: Mapping[K, AsyncIterable[T]], timeout: Seconds | None, buffer: int
    ) -> None:
        super().__init__(sources.values(), buffer)
        self._keys = list(sources)
        self._timeout = math.inf if timeout is None else checks.seconds("timeout", timeout)
        self._timer = DeadlineTimer()  # of the current silence, also while nothing is read
        self._is_silent = False  # whether that time has passed

    def tagged(self, input_: Input[T], item: T) -> tuple[K, T]:
        return self._keys[input_.index], item

    def all_tagged(self, input_: Input[T], items: list[T]) -> Iterable[tuple[K, T]]:
        return zip(repeat(self._keys[input_.index]), items)

    def start_tasks(self) -> None:
        self._restart_timer()
        super().start_tasks()

    def _restart_timer(self) -> None:
        self._is_silent = False
        if self._timeout != math.inf:
            self._timer.set(self.loop, self.loop.time() + self._timeout, self._on_silence)

    def _on_silence(self, _: float) -> None:
        self._is_silent = True
        self.notify_reader()

    def has_next(self) -> bool:
        return super().has_next() or (self._is_silent and not (self.stopping or self.ended))

    def take(self) -> tuple[K, T] | TimedOut:
        self._restart_timer()
        return super().take() if super().has_next() else TimedOut(self._timeout)

    def discard(self) -> None:
        super().discard()
        self._timer.cancel()

    def on_all_ended(self) -> None:
        self._timer.cancel()
        super().on_all_ended()
