"""`broadcast` of a marked stream: a mark is reached when all branches have reached it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any

from returns_pipeline._engine import checks
from returns_pipeline._engine.marks import CarriesMarks, InOrder, Mark, Unmarked
from returns_pipeline._engine.reader import Reader
from returns_pipeline.combine._hub import Branch, BranchPump, BranchReader, Hub

__all__ = ["MarkedBranchPump", "marked_broadcast"]


class _Fork:
    """The marks of one source: which one each branch has reached.

    Args:
        source: The source.
        places: The branches that are to reach its marks.
    """

    __slots__ = ("_branches", "_last", "_reached", "_reached_by", "_source")

    def __init__(self, source: Callable[[int], object], places: Iterable[int]) -> None:
        self._source = source
        self._branches: dict[int, Callable[[int], object]] = {}
        self._reached_by: dict[int, int] = {}
        self._reached = self._last = 0
        for place in places:
            self.join(place)

    def join(self, place: int) -> None:
        """Wait for a branch at the marks that follow."""
        self._branches[place] = partial(self._reach, place)
        self._reached_by[place] = self._last

    def leave(self, place: int) -> None:
        """Wait for a branch no longer."""
        del self._reached_by[place]
        self._look()

    def split(self, mark: Mark, places: Iterable[int]) -> dict[int, Mark]:
        """Return the marks that branches emit in place of one of the source."""
        self._last = mark.number
        return {
            place: Mark(self._branches[place], mark.number, flushes=mark.flushes)
            for place in places
        }

    def _reach(self, place: int, number: int) -> None:
        self._reached_by[place] = number
        self._look()

    def _look(self) -> None:
        reached = min(self._reached_by.values(), default=0)
        if reached > self._reached:
            self._reached = reached
            _ = self._source(reached)


class MarkedBranchPump(CarriesMarks[InOrder], BranchPump[Any]):
    """Emits a mark after the items that the branch held when it came. Marks do not count."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.marks = InOrder()
        self.was_read = False

    def reader(self) -> Reader[Any]:
        return _MarkedReader(self)

    def start(self) -> None:
        self.was_read = True
        super().start()

    def keep(self, mark: Mark) -> None:
        self.marks.put(mark, len(self.items))
        if self.marks.ready:
            self.notify_reader()

    def take_item(self) -> Any:
        item = super().take_item()
        self.marks.passed()
        return item

    def drop_oldest(self) -> None:
        super().drop_oldest()
        self.marks.passed()

    def close(self) -> None:
        super().close()
        self.marks.clear()


class _MarkedReader(BranchReader[Any]):
    """A reader without the fast path past `BranchPump.take`."""

    __slots__ = ()

    async def __anext__(self) -> Any:
        return await super(BranchReader, self).__anext__()


class _MarkedHub(Hub[Any]):
    """Passes each mark to all branches.

    A branch that leaves before it was read is not waited for. One that was read, and leaves before
    the end, may have failed: no mark after that is reached, so that what it has not handled comes
    again.
    """

    __slots__ = ("_answering", "_forks")

    def __init__(self, *args: Any) -> None:
        self._forks: dict[Callable[[int], object], _Fork] = {}
        self._answering: set[int] = set()
        super().__init__(*args)

    def new_branch(self, place: int, capacity: int) -> BranchPump[Any]:
        self._answering.add(place)
        for fork in self._forks.values():
            fork.join(place)
        return MarkedBranchPump(self, place, capacity)

    def on_left(self, branch: BranchPump[Any]) -> None:
        if isinstance(branch, MarkedBranchPump) and not branch.was_read:
            self._answering.discard(branch.place)
            for fork in self._forks.values():
                fork.leave(branch.place)
        super().on_left(branch)

    def incoming(self, items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        return Unmarked(items, self._on_mark)

    def _on_mark(self, mark: Mark) -> None:
        fork = self._forks.get(mark.source)
        if fork is None:
            fork = self._forks[mark.source] = _Fork(mark.source, self._answering)
        branches = {
            branch.place: branch
            for branch in self.branches
            if isinstance(branch, MarkedBranchPump) and not branch.ended
        }
        for place, its_mark in fork.split(mark, branches).items():
            branches[place].keep(its_mark)


def marked_broadcast(
    source: AsyncIterable[Any],
    n: int,
    *,
    buffer: int,
    overflow: str,
    on_drop: Callable[[int, int], object] | None,
    replay: int,
) -> tuple[Branch[Any], ...]:
    """Do as `broadcast` with a stream that has marks among its items."""
    checks.choice("overflow", overflow, "backpressure", "drop_oldest", "fail")
    hub = _MarkedHub(source, n, buffer, overflow, on_drop, replay)
    return tuple([Branch(branch) for branch in hub.branches])
