"""`broadcast`: one stream read by several, all of it by each."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import Literal, TypeVar, overload

from returns_pipeline._engine import checks
from returns_pipeline._engine.calls import recorded
from returns_pipeline._engine.fan_in import BUFFER
from returns_pipeline._engine.operator import refuse_marked
from returns_pipeline.combine._hub import Branch, Hub

__all__ = ["broadcast"]

T = TypeVar("T")


@overload
def broadcast(
    source: AsyncIterable[T],
    n: Literal[2],
    *,
    buffer: int = BUFFER,
    overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
    on_drop: Callable[[int, int], object] | None = None,
    replay: int = 0,
) -> tuple[Branch[T], Branch[T]]: ...
@overload
def broadcast(
    source: AsyncIterable[T],
    n: Literal[3],
    *,
    buffer: int = BUFFER,
    overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
    on_drop: Callable[[int, int], object] | None = None,
    replay: int = 0,
) -> tuple[Branch[T], Branch[T], Branch[T]]: ...
@overload
def broadcast(
    source: AsyncIterable[T],
    n: int,
    *,
    buffer: int = BUFFER,
    overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
    on_drop: Callable[[int, int], object] | None = None,
    replay: int = 0,
) -> tuple[Branch[T], ...]: ...
@recorded
def broadcast(
    source: AsyncIterable[T],
    n: int,
    *,
    buffer: int = BUFFER,
    overflow: Literal["backpressure", "drop_oldest", "fail"] = "backpressure",
    on_drop: Callable[[int, int], object] | None = None,
    replay: int = 0,
) -> tuple[Branch[T], ...]:
    """Emit every item of a source to each of ``n`` branches.

    1. A branch emits an item when the source has emitted it, in order. All branches exist from the
       start: one that is read later emits the items that were held for it.
    2. The source is opened when the first branch is read, and is read once.
    3. When it has ended or failed, each branch emits its held items and then ends, or raises the
       same error: a failed source is a clean end for no branch.
    4. A branch that is closed or dropped has left; the others continue. The last one to leave stops
       the source; closing awaits its clean-up to its end.
    5. A branch can join late: ``branch.subscribe()`` returns one more. It emits the last ``replay``
       items first, and then each item that follows.

    Bounds: ``buffer`` items are held for each branch. When one of them holds that many,

    - ``"backpressure"``: the source waits until the branch is not full. A branch without a reader
      stops the others: close it.
    - ``"drop_oldest"``: its oldest item is dropped for the next. The branch counts these items in
      ``dropped``, and when it is read again, ``on_drop`` is called with its place and the number of
      items dropped; without one, a warning is logged.
    - ``"fail"``: the branch emits its held items, raises `BufferOverflow`, and ends.

    A branch whose reader is ready has the chance to take its items before it counts as slow, also
    if the source never suspends.

    Order of events: the source runs in one task from its first item to its clean-up, in a copy of
    the context of the first reader.

    Cancel safety: a read that is cancelled loses nothing. An exception of a reader is not thrown
    into the source, nor into other branches.

    Known elsewhere as: ``broadcastThrough``, ``Topic`` (fs2), ``BroadcastHub`` (Akka and Pekko),
    ``broadcast`` (Effect; tokio's ``sync::broadcast``, which drops the oldest), ``share``,
    ``publish`` (Rx), ``tee``.

    Args:
        source: Read one item at a time.
        n: How many branches, at least 1.
        buffer: How many items are held for each, at least 1.
        overflow: What happens to a branch that is too slow.
        on_drop: Called with the place of a branch and the number of items that it did not get, in
            the task that reads it, before its next item. Its exceptions are raised by that read.
        replay: How many of the latest items are kept for a branch that joins late, at least 0.

    Returns:
        The branches. Each is a stream that can be read once.

    Raises:
        InvalidArgument: At the call, if ``n``, ``buffer``, ``overflow`` or ``replay`` is out of
            range.
        TypeError: At the call, if ``source`` is not an async iterable.
        BufferOverflow: From a branch that was too slow, if so chosen.
        Exception: From every branch, any exception of the source, after the held items.

    >>> import asyncio
    >>> from returns_pipeline.testing import run, script, timeline
    >>> async def main() -> None:
    ...     left, right = broadcast(script("a-b|"), 2)
    ...     for seen in await asyncio.gather(timeline(left), timeline(right, pause=3.0)):
    ...         print(seen)
    >>> run(main())
    [(0.0, 'a'), (2.0, 'b')]
    [(0.0, 'a'), (3.0, 'b')]
    >>> async def join_late() -> None:
    ...     (early,) = broadcast(script("abc-d|"), 1, replay=2)
    ...     reading = asyncio.create_task(timeline(early))
    ...     await asyncio.sleep(2.5)
    ...     print(await timeline(early.subscribe()))
    ...     print(await reading)
    >>> run(join_late())
    [(0.0, 'b'), (0.0, 'c'), (1.5, 'd')]
    [(0.0, 'a'), (1.0, 'b'), (2.0, 'c'), (4.0, 'd')]
    """
    checks.choice("overflow", overflow, "backpressure", "drop_oldest", "fail")
    refuse_marked("broadcast()", [source])
    hub: Hub[T] = Hub(source, n, buffer, overflow, on_drop, replay)
    return tuple([Branch(branch) for branch in hub.branches])
