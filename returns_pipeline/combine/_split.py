"""`split`: one stream read by two, each item by one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from typing import Any, Literal, TypeVar, overload

from typing_extensions import TypeIs

from returns_pipeline._engine import checks
from returns_pipeline._engine.calls import recorded
from returns_pipeline._engine.fan_in import SPLIT_BUFFER
from returns_pipeline._engine.operator import refuse_marked
from returns_pipeline.combine._hub import Branch, BranchPump, Hub
from returns_pipeline.errors import BufferOverflow

__all__ = ["split"]

A = TypeVar("A")
T = TypeVar("T")


class _Splitter(Hub[T]):
    __slots__ = ("_counts", "_predicate", "_sides")

    def __init__(
        self, source: AsyncIterable[T], predicate: Callable[[T], bool], buffer: int, overflow: str
    ) -> None:
        checks.function("split", predicate, use="ResultStream.map_async")
        super().__init__(source, 2, buffer, overflow, None)
        self._predicate = predicate
        self._sides = tuple(self.branches)
        self._counts = [0, 0]

    def subscribe(self) -> BranchPump[T]:
        raise RuntimeError("a side of a split has one reader: broadcast() it for several")

    def count_for(self, branch: BranchPump[T]) -> int:
        return self._counts[branch.place]

    async def _deliver(self, item: T) -> bool:
        branch = self._sides[0 if checks.truth(self._predicate(item), self._predicate) else 1]
        self._counts[branch.place] += 1
        if branch.has_left:
            return True
        items = branch.items
        if len(items) >= self.buffer:  # only if a full side is to fail: it had its chance
            branch.dropped += 1
            raise BufferOverflow(branch.place, self.buffer)
        items.append(item)
        if len(items) == 1:
            branch.notify_reader()
        if len(items) >= self.buffer:
            if self._overflow == "backpressure":
                await self._wait_until_not_full([branch])
            else:
                await asyncio.sleep(0)
        return True


# Mypy names the first overload when none fits: not the narrowing one, which few have in mind.
@overload
def split(
    source: AsyncIterable[T],
    predicate: Callable[[T], Literal[True]],
    *,
    buffer: int = SPLIT_BUFFER,
    overflow: Literal["backpressure", "fail"] = "backpressure",
) -> tuple[Branch[T], Branch[T]]: ...
@overload
def split(
    source: AsyncIterable[T],
    predicate: Callable[[T], TypeIs[A]],
    *,
    buffer: int = SPLIT_BUFFER,
    overflow: Literal["backpressure", "fail"] = "backpressure",
) -> tuple[Branch[A], Branch[T]]: ...
@overload
def split(
    source: AsyncIterable[T],
    predicate: Callable[[T], bool],
    *,
    buffer: int = SPLIT_BUFFER,
    overflow: Literal["backpressure", "fail"] = "backpressure",
) -> tuple[Branch[T], Branch[T]]: ...
@recorded
def split(
    source: AsyncIterable[Any],
    predicate: Callable[[Any], bool],
    *,
    buffer: int = SPLIT_BUFFER,
    overflow: Literal["backpressure", "fail"] = "backpressure",
) -> tuple[Branch[Any], Branch[Any]]:
    """Emit the items for which ``predicate`` is true to one branch, the others to a second one.

    1. A branch emits an item when the source has emitted it, in order. Items that arrive
       meanwhile for the other branch are held for it, so the two may be read in any order, also one
       after the other, while no more than ``buffer`` items have to be held.
    2. The source is opened when the first branch is read, and is read once.
    3. When it has ended or failed, or ``predicate`` has, both branches emit their held items and
       then end, or raise the same error.
    4. A branch that is closed or dropped has left; the other continues. Items for a branch that has
       left are counted in its ``dropped``. When both have left, the source is stopped.

    Bounds: ``buffer`` items are held for each branch. When one of them holds that many,

    - ``"backpressure"``: the source waits until the branch is not full, and so does the other one.
      Do not read one branch to its end first if that many items may arrive for the other.
    - ``"fail"``: when the next item arrives for it, both emit their held items and then raise
      `BufferOverflow`.

    Order of events and cancel safety: as `broadcast`.

    Known elsewhere as: ``split`` (Rx, Effect, Akka and Pekko), ``separate``.

    Args:
        source: Read one item at a time.
        predicate: Whether an item belongs to the first branch. If it is typed as a ``TypeIs``, the
            first branch has the narrower type.
        buffer: How many items are held for each branch, at least 1.
        overflow: What happens when a branch is too slow.

    Returns:
        The branch of those for which it is true, and the other one. Each can be read once.

    Raises:
        InvalidArgument: At the call, if ``buffer`` or ``overflow`` is out of range.
        TypeError: At the call, if ``source`` or ``predicate`` is of another kind. From both
            branches, if ``predicate`` returns no ``bool``.
        BufferOverflow: From both branches, when one was too slow, if so chosen.
        Exception: From both branches, any exception of the source or of ``predicate``, after the
            held items.

    >>> from aiostream import stream
    >>> from returns_pipeline.testing import run
    >>> async def main() -> None:
    ...     even, odd = split(stream.range(5), lambda n: n % 2 == 0)
    ...     print(await stream.list(odd), await stream.list(even))
    >>> run(main())
    [1, 3] [0, 2, 4]
    """
    checks.choice("overflow", overflow, "backpressure", "fail")
    refuse_marked("split()", [source])
    left, right = _Splitter(source, predicate, buffer, overflow).branches
    return Branch(left), Branch(right)
