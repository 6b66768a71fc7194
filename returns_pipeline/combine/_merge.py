"""Several streams made into one: at the same time, or one after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import Any, Final

from returns_pipeline._engine import checks
from returns_pipeline._engine.fan_in import BUFFER, FairMerge
from returns_pipeline._engine.operator import Deferred, plain_iterator
from returns_pipeline._engine.reader import Reader
from returns_pipeline._engine.task_owner import was_stopped
from returns_pipeline.combine._signatures import JoinOperator

__all__ = ["concat", "merge"]


class _Merge(JoinOperator):
    def raw(self, *sources: AsyncIterable[Any], buffer: int = BUFFER) -> AsyncIterator[Any]:
        """Emit the items of several sources as they come.

        An item is emitted when

        1. it arrives; a reader that keeps up gets the items in the order in which they arrive;
        2. its turn comes, if several sources have items waiting: one item of each in turn, so that
           of two sources that are always ready each gets half.

        Each source's items keep their order. The stream ends when all sources have ended.

        Backpressure: at most ``buffer`` items of each source are held. The bound begins with one.
        It doubles only for a reader that takes everything and waits for more, so no source is ever
        ahead by more than (items taken + 1). For a reader that is slower than the sources it is one
        again.

        Order of events: the sources are opened at the first read. Each runs in one task of its own
        from its first item to its clean-up, in a copy of the first reader's context.

        Errors: when a source fails, the others are stopped at once. The items that were read from
        all of them are emitted, then the error is raised. So a clean end means that all ended
        cleanly.

        Cancel safety: a read that is cancelled loses nothing; the next one continues where it was.
        ``aclose()`` stops the sources, awaits their clean-up to its end, and drops held items. An
        exception of the reader is not thrown into a source.

        Known elsewhere as: ``merge`` (Rx, fs2, Akka and Pekko, Effect, tokio-stream), fan-in.

        Args:
            sources: Any number; of differing types, the result has the union. None at all is an
                empty stream.
            buffer: How many items of each source may be held, at least 1.

        Returns:
            A stream of their items.

        Raises:
            InvalidArgument: At the call, if ``buffer`` is out of range.
            TypeError: At the call, if a source is not an async iterable.
            Exception: Any exception of a source, after the items that were read.

        >>> from returns_pipeline.testing import run, script, timeline
        >>> s = script("a--b|")
        >>> done = merge(s, script("-1-2--3|"))
        >>> run(timeline(done))
        [(0.0, 'a'), (1.0, '1'), (3.0, 'b'), (3.0, '2'), (6.0, '3')]
        """
        pump: FairMerge[Any, Any] = FairMerge(sources, buffer)
        return Reader(pump)


merge: Final = _Merge("returns_pipeline.combine.merge")
"""Emit the items of several sources as they come."""


class _Concat(JoinOperator):
    def raw(self, *sources: AsyncIterable[Any], buffer: int = BUFFER) -> AsyncIterator[Any]:
        """Emit the items of the first source, then those of the second, and so on.

        1. A source is opened when the one before it has ended and is closed.
        2. A source that fails ends the stream with its error; the following ones are not opened.

        Order of events: the sources run in one task, in a copy of the first reader's context.

        Backpressure and cancel safety: as `merge`.

        Known elsewhere as: ``concat`` (Rx, Akka and Pekko, Effect), ``++`` (fs2), ``chain``
        (tokio-stream, aiostream).

        Args:
            sources: Any number; of differing types, the result has the union.
            buffer: How many items may be held, at least 1.

        Returns:
            A stream of their items.

        Raises:
            InvalidArgument: At the call, if ``buffer`` is out of range.
            TypeError: At the call, if a source is not an async iterable.
            Exception: Any exception of a source, after the items that were read.

        >>> from returns_pipeline.testing import run, script, timeline
        >>> s = script("a--b|")
        >>> done = concat(s, script("-1|"))
        >>> run(timeline(done))
        [(0.0, 'a'), (3.0, 'b'), (5.0, '1')]
        """
        for source in sources:
            _ = checks.source(source)
        joined = Deferred(lambda: _one_after_the_other(sources), lambda: sources)
        pump: FairMerge[Any, Any] = FairMerge([joined], buffer)
        return Reader(pump)


async def _one_after_the_other(
    sources: tuple[AsyncIterable[Any], ...],
) -> AsyncGenerator[Any, None]:
    for source in sources:
        async with plain_iterator(source) as items:
            async for item in items:
                yield item
        if was_stopped():
            return  # and the source has swallowed the cancellation


concat: Final = _Concat("returns_pipeline.combine.concat")
"""Emit the items of the first source, then those of the second, and so on."""
