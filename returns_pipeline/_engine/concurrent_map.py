"""Run one step on several items of a stream at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.operator import plain_iterator
from returns_pipeline._engine.reader import Pump, Reader, notify

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

__all__ = ["expand_concurrently", "map_concurrently", "map_only_concurrently"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
F = TypeVar("F")


def map_concurrently(
    source: AsyncIterable[A | F],
    work: Callable[[A], Awaitable[B]],
    limit: int,
    *,
    ordered: bool,
    passing: type[F],
    after: Callable[[B], C],
) -> AsyncIterator[C | F]:
    """Replace each item by ``after`` of what ``work`` makes of it, for ``limit`` items at a time.

    Items of the class ``passing`` are not worked on; they come out as they are.

    Order: that of the source, or, if not ``ordered``, that of completion.

    Bounds: at most ``limit`` items are read and not yet given out, whether they are still being
    worked on or done: a slow reader stops the work.

    Errors: an exception of ``work`` or of the source cancels the work under way and awaits it;
    what was done and may come out by the order still does; then the exception is raised.

    Cancel safety: a read that is cancelled loses nothing. ``aclose()`` cancels the work under way,
    awaits it, and closes the source. The source runs in one task, each piece of work in its own.
    """
    return Reader(_Crew(source, limit, ordered=ordered, passing=passing, work=work, after=after))


def map_only_concurrently(
    source: AsyncIterable[A | F],
    work: Callable[[F], Awaitable[B]],
    limit: int,
    *,
    ordered: bool,
    only: type[F],
    after: Callable[[B], C],
) -> AsyncIterator[A | C]:
    """Do as `map_concurrently` with the items of one class; the others come out as they are."""
    crew = _Crew(source, limit, ordered=ordered, passing=only, work=work, after=after)
    crew.turn_round()
    return Reader(crew)


def expand_concurrently(
    source: AsyncIterable[A | F],
    expand: Callable[[A], AsyncIterable[B]],
    limit: int,
    *,
    passing: type[F],
) -> AsyncIterator[B | F]:
    """Replace each item by the stream that ``expand`` makes of it, reading ``limit`` at a time.

    Items of one stream keep their order; those of streams that are read at the same time come
    as they are ready. Each stream has at most one item waiting for the reader. For the rest, see
    `map_concurrently`.
    """
    return Reader(_Crew(source, limit, ordered=False, passing=passing, expand=expand))


class _Cell:
    """The place of one item among those that have not been given out."""

    __slots__ = ("done", "outcome", "taken")

    def __init__(self) -> None:
        self.done = False
        self.outcome: Any = None  # a B or an F: the engine does not look
        self.taken: asyncio.Future[None] | None = None  # set for one item of many


class _Crew(Pump[Any]):
    """What the task that reads the source, the tasks that work, and the reader share.

    It is untyped inside: the two functions above say what goes in and what comes out.
    """

    def __init__(
        self,
        source: AsyncIterable[Any],
        limit: int,
        *,
        ordered: bool,
        passing: type[Any],
        work: Callable[[Any], Awaitable[Any]] | None = None,
        after: Callable[[Any], Any] | None = None,
        expand: Callable[[Any], AsyncIterable[Any]] | None = None,
    ) -> None:
        super().__init__()
        self._source = source
        self._limit = limit
        self._ordered = ordered
        self._passing = passing
        self._passes = True  # what is of that class; else, what is not
        self._work = work
        self._after = after
        self._expand = expand
        self._cells: deque[_Cell] = deque()  # in the order in which they are to come out
        self._held = 0  # items read whose slot is not free again
        # Tasks are kept for the next item: making one costs more than a short piece of work.
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: list[asyncio.Future[tuple[Any, _Cell]]] = []  # tasks without work
        self._busy = 0
        self._room: asyncio.Future[None] | None = None
        self._idle: asyncio.Future[None] | None = None

    def turn_round(self) -> None:
        """Work on what would pass, and let pass what would be worked on."""
        self._passes = not self._passes

    def has_next(self) -> bool:
        """Say whether an item can be given out."""
        return bool(self._cells) and self._cells[0].done

    def take(self) -> Any:
        """Give the next item out."""
        cell = self._cells.popleft()
        if cell.taken is None:
            self._held -= 1
            notify(self._room)
        else:
            notify(cell.taken)
        return cell.outcome

    def _free_slot(self) -> None:
        self._held -= 1
        notify(self._room)

    async def pump(self) -> None:
        async with plain_iterator(self._source) as items:
            try:
                async for item in items:
                    if self._is_over():  # and the source swallowed the cancellation
                        break
                    self._begin(item)
                    while self._held >= self._limit:
                        self._room = self.loop.create_future()
                        await self._room
                while self._busy and not self._is_over():
                    self._idle = self.loop.create_future()
                    await self._idle
            except BaseException as error:
                if not self._is_over():
                    self.error = error  # so that what the work raises when cancelled is no news
                raise
            finally:
                await self._dismiss()

    def _is_over(self) -> bool:
        return self.closed or self.error is not None

    def _begin(self, item: Any) -> None:
        self._held += 1
        cell = _Cell()
        if self._ordered:
            self._cells.append(cell)
        if isinstance(item, self._passing) is self._passes:
            cell.outcome = item
            self._finish(cell)
            return
        self._busy += 1
        if self._waiting:
            self._waiting.pop().set_result((item, cell))
        else:
            self._tasks.append(self.loop.create_task(self._work_on(item, cell)))

    def _finish(self, cell: _Cell) -> None:
        cell.done = True
        if not self._ordered:
            self._cells.append(cell)
            self.notify_reader()
        elif self._cells[0] is cell:
            self.notify_reader()

    async def _work_on(self, item: Any, cell: _Cell) -> None:
        """Work on this item, and on those that are handed over later."""
        work, after = self._work, self._after
        while True:
            try:
                if work is not None and after is not None:
                    cell.outcome = after(await work(item))
                    self._finish(cell)
                else:
                    await self._give_all(item)
            except BaseException as error:  # noqa: BLE001  # the first is raised to the reader
                self._fail(error)
                return
            self._busy -= 1
            if not self._busy:
                notify(self._idle)
            handed_over = self.loop.create_future()
            self._waiting.append(handed_over)
            item, cell = await handed_over

    async def _give_all(self, item: Any) -> None:
        assert self._expand is not None
        async with plain_iterator(self._expand(item)) as opened:
            async for outcome in opened:
                given = _Cell()
                given.outcome = outcome
                given.taken = self.loop.create_future()
                self._finish(given)
                await given.taken
        self._free_slot()

    def _fail(self, error: BaseException) -> None:
        """Keep the first error, and note the others on it."""
        if not self._is_over():
            self.error = error
            self.task.cancel()  # which dismisses the others
        elif not isinstance(error, asyncio.CancelledError):
            if self.error is None:
                raise error  # closing: whoever awaits this task raises it
            _add_note(self.error, error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error

    async def _dismiss(self) -> None:
        """Cancel the work under way and wait for it; raise the first error of a clean-up."""
        cancelled: asyncio.CancelledError | None = None
        for task in self._tasks:
            task.cancel()
        while any(not task.done() for task in self._tasks):
            try:
                await asyncio.wait(self._tasks)
            except asyncio.CancelledError as error:
                cancelled = error
                for task in self._tasks:
                    task.cancel()
        first: BaseException | None = None
        for task in self._tasks:
            failed = None if task.cancelled() else task.exception()
            if failed is None or failed is self.error:
                continue
            if first is None:
                first = failed
            else:
                _add_note(first, failed)
        if first is not None:
            raise first
        if cancelled is not None:
            raise cancelled


def _add_note(error: BaseException, later: BaseException) -> None:
    add_note(error, f"while its siblings were being cancelled, one raised {later!r}")
