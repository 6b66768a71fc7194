"""How a chain is read: by a loop of the user's, which may be cancelled, and by a segment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from functools import partial
from types import AsyncGeneratorType
from typing import Any

from returns.result import Result

from returns_pipeline._engine import ends, steps
from returns_pipeline._engine.chain import Chain, Part, sources
from returns_pipeline._engine.compiler import BATCHED, DROPPED
from returns_pipeline._engine.ends import End
from returns_pipeline._engine.marks import Mark, MarksRefused, Unmarked
from returns_pipeline._engine.operator import (
    Deferred,
    OpenIterator,
    QuickStreamer,
    open_iterator,
    plain_iterator,
)
from returns_pipeline._engine.steps import Count, packed
from returns_pipeline._engine.terminals import Terminals
from returns_pipeline._engine.tracebacks import shorten

__all__ = ["open_half", "open_results", "part_of", "read", "with_marks"]


def read(chain: Chain) -> AsyncGenerator[Any, None]:
    """Run a chain that `flat_map` reads: emit bare values, and a `Failed` for each failure.

    Raises:
        MarksRefused: It is marked: the chain that reads it is not.
    """
    refuse_marked(chain)
    items: AsyncGenerator[Any, None] = chain.assemble().run_to(ends.ITEMS)
    return items


def refuse_marked(chain: Chain) -> None:
    """Refuse to read a marked chain as one of the streams of `flat_map`.

    Raises:
        MarksRefused: It is marked.
    """
    if chain.marked:
        raise MarksRefused("a flat_map() that expands a value to this stream")


def open_results(chain: Chain) -> QuickStreamer[Result[Any, Any]]:
    """Emit a Result for each item, for a reader that may be cancelled, or closed while it reads.

    If a segment of the chain runs in tasks of its own, a read that is cancelled while it waits for
    that segment loses nothing, and the next one continues.
    """
    return _open(chain, ends.RESULTS)


def part_of(source: AsyncIterable[Any]) -> Part:
    """Return a source as a part of a chain, for an end that runs its steps too."""
    if source.__class__ is AsyncGeneratorType:
        return Part(source, [])  # the usual case: the class of a `Part` is looked up slowly
    if isinstance(source, Part):
        return source
    given: object = source  # else checkers lose the type of its items
    chain = given._chain if isinstance(given, Terminals) else None  # pyright: ignore[reportPrivateUsage]
    part = None if chain is None or chain.segmented else chain.assemble()
    if part is None or part.form is not BATCHED:
        return Part(source, [])
    part.steps.append((steps.PACK, packed, None))
    return part


def with_marks(chain: Chain) -> AsyncIterable[Any]:
    """Emit a Result for each item of a marked chain, and its marks."""
    return Deferred(
        lambda: chain.assemble().run_to(ends.RESULTS_AND_MARKS, owned=True),
        partial(sources, chain),
    )


def open_half(chain: Chain, *, failed: bool) -> QuickStreamer[Any]:
    """Emit the values of a chain alone, or its errors, as `open_results` emits both."""
    return _open(chain, ends.ERRORS if failed else ends.VALUES)


def _open(chain: Chain, end: End) -> QuickStreamer[Any]:
    if chain.segmented:
        return QuickStreamer(_Resumable(chain, end), sources=partial(sources, chain))
    part = chain.assemble()
    source = _OpenSource(part.items())
    running = part.run_to(end, opening=source)
    return QuickStreamer(running, partial(source.close, running), partial(sources, chain))


class _OpenSource(plain_iterator[Any]):
    """The source that fused steps read, for a task that closes them while another runs a step.

    A running async generator cannot be closed, but the source that it will read next can: then the
    step runs to its end, its item is emitted, and the stream ends.
    """

    __slots__ = ("_items",)

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self._items: AsyncIterator[Any] | None = None

    async def __aenter__(self) -> AsyncIterator[Any]:
        self._items = await super().__aenter__()
        return self._items

    async def close(self, running: Any) -> None:
        """Close the steps, or, if they run, their source.

        Raises:
            RuntimeError: Another task waits for the source itself, as for any async generator.
        """
        if not running.ag_running:
            await running.aclose()
        elif (aclose := getattr(self._items, "aclose", None)) is not None:
            await aclose()


class _Resumable:
    """Read a chain that has a segment, so that a cancelled read loses nothing.

    An async generator cannot be read again after a read of it was cancelled. So the steps after the
    last segment are a coroutine for each item, which has arrived already. Only the cancellation of
    a step ends the stream, as it ends any chain.

    States: new; open, from the first read; closed. `aclose` may be called in each of them, also
    while another task reads: a task that waits for the segment then sees the end, and one that runs
    a step emits its item first.
    """

    def __init__(self, chain: Chain, end: End) -> None:
        self._chain = chain
        self._end = end
        self._segment: OpenIterator[Any] | None = None
        self._items: AsyncIterator[Any]
        self._run: Callable[[Any], Awaitable[Any]]  # the steps after the segment
        self._counts: list[Count] = []
        self._is_read = False
        self._closed = False

    def __aiter__(self) -> _Resumable:
        return self

    @property
    def ag_running(self) -> bool:
        """Whether a task reads it now, as an async generator tells."""
        return self._is_read

    async def __anext__(self) -> Any:
        if self._is_read:
            # Here, because the same error of the segment would end the stream of the first reader.
            raise RuntimeError("another task is reading this iterator")
        if self._closed:
            raise StopAsyncIteration
        self._is_read = True
        in_step = False
        try:
            if self._segment is None:
                await self._open()
            while True:
                in_step = False
                item = await anext(self._items)
                in_step = True
                if (result := await self._run(item)) is not DROPPED:
                    return result
        except BaseException as error:
            if in_step or not isinstance(error, asyncio.CancelledError):  # else a read continues
                shorten(error)
                await self.aclose()
            if in_step and isinstance(error, StopAsyncIteration):  # it would look like the end
                raise RuntimeError("a step raised StopAsyncIteration") from error
            raise
        finally:
            self._is_read = False

    async def _open(self) -> None:
        last = self._chain.assemble()
        self._run = last.one_by_one(self._end)
        self._segment = await open_iterator(last.source)
        self._items = self._segment.items
        self._counts = last.counts
        for count in self._counts:
            count.open()
        if self._chain.marked:
            self._items = Unmarked(self._items, _ignore)

    async def aclose(self) -> None:
        """Close the segment."""
        self._closed = True
        try:
            if self._segment is not None:
                await self._segment.aclose()
        finally:
            self._close_counts()

    def _close_counts(self) -> None:
        for count in self._counts:
            count.close()


def _ignore(_: Mark) -> None:
    """Drop a mark: it is not known when the reader has handled what came before."""
