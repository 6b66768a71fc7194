"""`StreamStatistics`: what the operators of a stream hold at this moment."""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Any

from returns_pipeline._engine import checks
from returns_pipeline._engine.reader import Pump
from returns_pipeline.inspection._graph import Kind, Node, graph_of

__all__ = ["OperatorStatistics", "StreamStatistics", "statistics"]


@dataclass(frozen=True, slots=True)
class OperatorStatistics:
    """What an operator holds that has tasks, or a buffer.

    Attributes:
        operator: What it is called, as in a `Diagram`.
        tasks: Its tasks that have not ended; 0 if it is not read.
        buffered: The items that are held for its reader, in open windows, too (but not in those of
            `event_windows`, whose windows share items).
        in_flight: The items that its step works on, or, of `route`, its workers that are busy.
        waiting_readers: How many readers wait for an item of it: 0 means that the reader is busy,
            and 1 that the source is slow, or nothing is to be done.
        windows: How many windows are open.
        oldest: Seconds since the first item of the oldest open window has come; None if no window
            is open, or the operator does not keep that time: `sliding`, `sessions` and
            `event_windows`, and those whose ``timeout`` is infinite.
        pipeline: The name of its pipeline in events; empty if it has none, or is not observed.
        stage: The name of its stage in events; empty if it is not observed.

    >>> OperatorStatistics("prefetch(n=2)", tasks=1, buffered=2).waiting_readers
    0
    """

    operator: str
    tasks: int = 0
    buffered: int = 0
    in_flight: int = 0
    waiting_readers: int = 0
    windows: int = 0
    oldest: float | None = None
    pipeline: str = ""
    stage: str = ""


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """What a stream holds. `statistics` makes it.

    Attributes:
        operators: Those that have tasks, or a buffer, each after those that it reads.

    >>> StreamStatistics(()).buffered
    0
    """

    operators: tuple[OperatorStatistics, ...]

    @property
    def tasks(self) -> int:
        """All tasks that have not ended.

        >>> StreamStatistics((OperatorStatistics("merge()", tasks=2),)).tasks
        2
        """
        return sum(each.tasks for each in self.operators)

    @property
    def buffered(self) -> int:
        """All items that are held.

        >>> StreamStatistics((OperatorStatistics("merge()", buffered=2),)).buffered
        2
        """
        return sum(each.buffered for each in self.operators)


def statistics(stream: AsyncIterable[object]) -> StreamStatistics:
    """Return what the operators of a stream hold at this moment.

    It may be called at any time, in the thread of the loop: while the stream is read, by any task,
    and before and afterwards. Nothing is counted for it while the stream runs. A stream that is
    read several times shows its latest reading. A `ResultStream` has the method of the same name.

    Args:
        stream: Any stream of this library.

    Returns:
        The statistics; without operators, if the stream is of another class.

    Raises:
        TypeError: At the call, if it is not an async iterable.

    >>> import asyncio
    >>> from returns_pipeline.combine import prefetch
    >>> from returns_pipeline.sources import ticks
    >>> from returns_pipeline.testing import run
    >>> async def main():
    ...     stream = prefetch(ticks(1.0), 5)
    ...     async with stream.stream() as items:
    ...         await anext(items)
    ...         await asyncio.sleep(3.5)
    ...         return statistics(stream).operators[-1]
    >>> run(main())
    OperatorStatistics(operator='prefetch(n=5)', tasks=1, buffered=3, in_flight=0, \
waiting_readers=0, windows=0, oldest=None, pipeline='', stage='')
    """
    nodes = graph_of([checks.source(stream)]).nodes
    return StreamStatistics(
        tuple([_of(node) for node in nodes if node.kind is Kind.PUMP or node.reading is not None])
    )


def _of(node: Node) -> OperatorStatistics:
    pump: Pump[Any] | None = node.reading
    if pump is None:
        return OperatorStatistics(node.label)
    windows, oldest = pump.open_windows()
    return OperatorStatistics(
        node.label,
        pump.tasks_alive(),
        pump.held(),
        pump.in_flight(),
        pump.waiting_readers(),
        windows,
        oldest,
        "" if pump.stage is None else pump.stage.pipeline,
        "" if pump.stage is None else pump.stage.name,
    )
