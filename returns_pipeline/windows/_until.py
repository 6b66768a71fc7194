"""`chunks_until`: lists closed by an item."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final, TypeVar

from aiostream import Stream

from returns_pipeline._engine import checks, ends
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.operator import Operator
from returns_pipeline._engine.reader import Reader
from returns_pipeline.windows._flushing import FlushOn
from returns_pipeline.windows._single import MarkedSingle, SingleWindowPump

__all__ = ["MarkedUntilPump", "UntilPump", "chunks_until"]

T = TypeVar("T")


class _ChunksUntil(Operator):
    def __call__(
        self,
        source: AsyncIterable[T],
        predicate: Callable[[T], bool],
        *,
        n: int | None = None,
        timeout: Seconds = math.inf,
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> Stream[list[T]]:
        """Group items into lists, each closed by an item: a marker, the last line of a record.

        A list is emitted when

        1. an item for which ``predicate`` is true has joined it,
        2. it holds ``n`` items, if ``n`` is given,
        3. ``timeout`` seconds have passed since its first item,
        4. ``flush_on`` is given, and is set or emits an item, or
        5. the source has ended (or failed) and the list is not empty.

        Every item is emitted exactly once, in order; no list is empty, except for the silences that
        ``emit_empty`` shows, as of `chunks_or_timeout`. A reader that arrives after that time
        gets everything that has gathered until then, up to the item that closes the list.

        Backpressure: the items of one list are held ahead of the reader; then the source waits.
        Without ``n`` and ``timeout``, only ``predicate`` bounds a list.

        Order of events: ``predicate`` is called once for each item, in the order of the source, in
        the task that runs the source. If it raises, the open list, with the item, is emitted and
        then that exception is raised; the source is closed.

        Cancel safety: a cancelled read loses nothing; the next read continues where it was.
        ``aclose()`` stops the source, awaits its clean-up and drops the items held. An exception of
        the reader is not thrown into the source.

        Known elsewhere as ``bufferUntil`` (Reactor), ``splitAfter`` (Akka and Pekko),
        ``split_at`` (fs2's ``groupAdjacentBy`` is a relative), ``buffer`` closed by a filter (Rx).

        Args:
            source: Read one item at a time, once the first list is requested.
            predicate: Whether an item closes its list; a plain function that returns a bool.
            n: Items in a full list, at least 1; `None` for no limit.
            timeout: Seconds from a list's first item until it is emitted, above 0; ``math.inf`` for
                no limit. On the running loop's clock.
            flush_on: An event or a stream, as of `chunks_or_timeout`.
            emit_empty: Whether an empty list is emitted where there was no item, as of
                `chunks_or_timeout`.

        Returns:
            A stream of lists.

        Raises:
            InvalidArgument: At the call, if ``n`` or ``timeout`` is out of range, or
                ``emit_empty`` is chosen with no finite ``timeout`` and no ``flush_on``.
            TypeError: At the call, if ``source`` or ``flush_on`` is not an async iterable, or
                ``predicate`` is not a plain function. While reading, after the open list, if
                ``predicate`` returns no ``bool``.
            Exception: Any exception of the source, ``predicate`` or ``flush_on``, after the last
                list.

        >>> from returns_pipeline.testing import Wait, run, timed, timeline
        >>> s = timed("a", "b;", "c;", "d", Wait(9.0), "e;")
        >>> done = chunks_until(s, lambda line: line.endswith(";"), timeout=5.0)
        >>> run(timeline(done))
        [(0.0, ['a', 'b;']), (0.0, ['c;']), (5.0, ['d']), (9.0, ['e;'])]
        """
        return self._stream(
            source, predicate, n=n, timeout=timeout, flush_on=flush_on, emit_empty=emit_empty
        )

    def pipe(
        self,
        predicate: Callable[[T], bool],
        *,
        n: int | None = None,
        timeout: Seconds = math.inf,
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> Callable[[AsyncIterable[T]], Stream[list[T]]]:
        return self._piped(
            predicate, n=n, timeout=timeout, flush_on=flush_on, emit_empty=emit_empty
        )

    def raw(
        self,
        source: AsyncIterable[T],
        predicate: Callable[[T], bool],
        *,
        n: int | None = None,
        timeout: Seconds = math.inf,
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> AsyncIterator[list[T]]:
        return Reader(UntilPump(source, predicate, n, timeout, flush_on, emit_empty))


chunks_until: Final = _ChunksUntil("returns_pipeline.windows.chunks_until")
"""Group items into lists, each closed by an item."""


class UntilPump(SingleWindowPump):
    """A single window that an item closes."""

    __slots__ = ("_predicate",)

    fill = ends.window(
        "chunks_until",
        "closes, n = self._predicate, self._n",
        """\
OPEN
window = self._open
if window is None:  # an empty one, which is due, takes the item
    window = self.begin()
window.append(value)
closed = closes(value)
if (closed if closed is True or closed is False else truth(closed, closes)) or len(window) >= n:
    waiting = self.emit_open("marker")
    WAIT
NEXT
""",
        takes_slices=True,
    )

    operator = "chunks_until"

    def __init__(
        self,
        source: AsyncIterable[Any],
        predicate: Callable[[Any], bool],
        n: int | None,
        timeout: Seconds,
        flush_on: FlushOn | None = None,
        emit_empty: bool = False,
    ) -> None:
        super().__init__(source, timeout, n, flush_on, emit_empty)
        checks.function("chunks_until", predicate, use="ResultStream.map_async")
        self._predicate = predicate


class MarkedUntilPump(MarkedSingle, UntilPump):
    """A `UntilPump` that carries marks."""
