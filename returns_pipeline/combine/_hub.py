"""The branches of a stream that several readers share, and the task that reads it for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from aiostream.core import Streamer

from returns_pipeline import telemetry
from returns_pipeline._engine import checks, observing
from returns_pipeline._engine.budget import Budget
from returns_pipeline._engine.calls import Call
from returns_pipeline._engine.chain import Chain
from returns_pipeline._engine.logs import Repeats, facts
from returns_pipeline._engine.observing import Stage
from returns_pipeline._engine.operator import QuickStreamer, ReadOnce, plain_iterator
from returns_pipeline._engine.reader import Pump, Reader, notify
from returns_pipeline._engine.task_owner import TaskOwner
from returns_pipeline._engine.tracebacks import shorten
from returns_pipeline.errors import BufferOverflow

__all__ = ["Branch", "BranchPump", "BranchReader", "BranchStatistics", "Hub"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_log = logging.getLogger("returns_pipeline.combine")


@dataclass(frozen=True, slots=True)
class BranchStatistics:
    """What a `Branch` holds. `Branch.statistics` makes it.

    Attributes:
        buffered: The items that are held for its reader.
        dropped: Its items that were not, and will not be, emitted.
        waiting_readers: How many readers wait for an item.

    >>> BranchStatistics(buffered=1, dropped=0, waiting_readers=0).buffered
    1
    """

    buffered: int
    dropped: int
    waiting_readers: int


class Branch(ReadOnce[T_co], Generic[T_co]):
    """One of the streams that share a source.

    It can be read once: its items are gone when they are read. ``async with branch.stream()``
    leaves at its end, as does ``async with contextlib.aclosing(branch)``; a branch that is dropped
    has left, too.

    Attributes:
        place: The number of the branch, from 0.

    >>> from returns_pipeline.testing import run, script
    >>> from returns_pipeline.combine import broadcast
    >>> left, right = broadcast(script("ab|"), 2)
    >>> left.place, right.place
    (0, 1)
    """

    def __init__(self, pump: BranchPump[T_co], call: Call | None = None) -> None:
        """Not for callers: `broadcast` and `split` make branches."""
        self._call = call
        self.place: int = pump.place
        self._pump = pump
        self._unread: Reader[T_co] | None = pump.reader()

    def _is_unread(self) -> bool:
        return self._unread is not None

    def _peek(self) -> object:
        return self._pump

    _latest = _peek

    @property
    def dropped(self) -> int:
        """The number of its items that were not, and will not be, emitted.

        These are the items that it was too slow for, those that it held when it left, and those
        that arrived for it later. Each item of the source that is meant for it is emitted, held or
        counted here.
        """
        return self._pump.lost()

    def statistics(self) -> BranchStatistics:
        """Return what it holds at this moment.

        >>> from returns_pipeline.combine import broadcast
        >>> from returns_pipeline.testing import script
        >>> left, right = broadcast(script("ab|"), 2)
        >>> left.statistics()
        BranchStatistics(buffered=0, dropped=0, waiting_readers=0)
        """
        pump = self._pump
        return BranchStatistics(len(pump.items), pump.lost(), int(pump.reading))

    def stream(self) -> Streamer[T_co]:
        """Open the branch for reading: ``async with branch.stream() as items``.

        Raises:
            RuntimeError: It was opened before.
        """
        return self._open()

    def __aiter__(self) -> Streamer[T_co]:
        return self._open()

    def _open(self) -> QuickStreamer[T_co]:
        reader, self._unread = self._unread, None
        if reader is None:
            raise RuntimeError("a branch can be read once; ask for one more branch")
        return QuickStreamer(reader)

    def subscribe(self) -> Branch[T_co]:
        """Return one more branch of the same source, which joins now.

        It emits the last items that were emitted before, as many as ``replay`` says, and then each
        item that follows. If the source has ended or failed, it emits those and then ends, or
        raises the same error. It holds up to ``replay`` items more than the others.

        It may be called on a branch that is being read, or has left. Where the branches are streams
        of Results, ``ResultStream.from_results(branch.subscribe())`` has the methods.

        Raises:
            RuntimeError: The source was stopped before its end, as no branch was left; or it is
                a side of a `split`.
        """
        return Branch(self._pump.hub.subscribe(), self._call)

    async def aclose(self) -> None:
        """Leave, whether the branch was opened or not.

        The last branch to leave stops the source and awaits its clean-up.
        """
        # A branch has no reference to its reader, so that a dropped reader leaves. So another
        # reader is made to close it and wait.
        reader, self._unread = self._unread or self._pump.reader(), None
        await reader.aclose()


class BranchPump(Pump[T]):
    """The items that one branch has still to emit. It has no task: the hub fills it.

    States: *subscribed*; *ended*, when the hub has no more items for it (held items may still be
    taken); *left*, when it was closed or dropped (no items are held).
    """

    __slots__ = (
        "capacity",
        "dropped",
        "gap",
        "has_left",
        "hub",
        "items",
        "missing_since",
        "place",
    )

    def __init__(self, hub: Hub[T], place: int, capacity: int) -> None:
        super().__init__()
        self.hub: Hub[T] = hub
        self.place: int = place
        self.capacity: int = capacity  # how many items it may hold
        self.items: deque[T] = deque()
        self.dropped: int = 0  # while it was subscribed, or when it left
        self.gap: int = 0  # items dropped since the last one that was emitted
        self.has_left: bool = False
        self.missing_since: int | None = None  # how many items had come when it left, or failed

    def reader(self) -> Reader[T]:
        """Make a reader of this branch."""
        return BranchReader(self)

    def start(self) -> None:
        """Start the hub, if this is the first branch that is read."""
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.hub.start_once()

    def lost(self) -> int:
        """Return how many items were not, and will not be, emitted."""
        if self.missing_since is None:
            return self.dropped
        return self.dropped + self.hub.count_for(self) - self.missing_since

    def end(self, error: BaseException | None, missing_since: int) -> None:
        """Record that no more items will come, and which one was the last."""
        if not self.ended:
            self.ended = True
            self.error = error
            self.missing_since = missing_since
            self.notify_reader()

    def take_error(self) -> BaseException | None:
        """Return the error; one that all branches raise is as it was when the source raised it."""
        error = super().take_error()
        if error is not None and self.hub.is_shared(error):
            # Otherwise the last of 200 branches would show the frames of all the others.
            error = error.with_traceback(self.hub.traceback)
            self.hub.forget_error()
        return error

    def sources(self) -> list[AsyncIterable[T]]:
        """Return the hub's source, if this was the last branch that would have read it."""
        return [] if self.hub.branches else [self.hub.source]

    def tasks_alive(self) -> int:
        return self.hub.tasks_alive()

    def held(self) -> int:
        return sum(len(branch.items) for branch in self.hub.branches)

    def waiting_readers(self) -> int:
        return sum(branch.reading for branch in self.hub.branches)

    def bounds(self) -> str:
        return f"holds up to {self.hub.buffer} for each branch"

    def has_next(self) -> bool:
        return bool(self.items)

    def take(self) -> T:
        if self.gap:
            gap, self.gap = self.gap, 0
            self.hub.report(self.place, gap)
        item = self.items.popleft()
        notify(self.hub.not_full)
        self.hub.not_full = None  # notified once: the next reads take the fast path
        return item

    def drop_oldest(self) -> None:
        """Notify the hub that the branch is not full."""
        _ = self.items.popleft()
        self.dropped += 1
        self.gap += 1

    def close(self) -> None:
        """Leave: the hub is stopped by the last branch that does."""
        self.closed = True
        self.error = None
        if self.has_left:
            return
        self.has_left = True
        if self.missing_since is None:
            self.missing_since = self.hub.count_for(self)
        self.dropped += len(self.items)
        self.items.clear()
        if self.gap:
            self.hub.report_drop(self.place, self.gap)
            self.gap = 0
        self.ended: bool = True
        self.notify_reader()
        self.hub.on_left(self)

    def drop(self) -> None:
        """Leave, when the reader was dropped: an error is reported to the loop."""
        self.close()
        if self.hub.stopping:
            self.hub.report_error()

    def check_outside(self) -> None:
        """Refuse to be closed by the source that it would stop."""
        self.hub.check_outside()

    async def wait_ended(self) -> None:
        """Wait for the clean-up of the source if this was the last branch."""
        await self.hub.wait_if_stopped(self)


class BranchReader(Reader[T]):
    """A reader that can leave without ever having read."""

    __slots__ = ("_branch", "_hub", "_items")

    def __init__(self, branch: BranchPump[T]) -> None:
        super().__init__(branch)
        self._branch = branch
        self._items = branch.items
        self._hub = branch.hub

    async def __anext__(self) -> T:
        if self._items and self._hub.not_full is None and not self._branch.gap:
            return self._items.popleft()
        try:
            return await super().__anext__()
        except Exception as error:
            shorten(error)
            raise

    async def aclose(self) -> None:
        if not self._started and self._hub.is_started:
            self._branch.loop = self._hub.loop
            self._started = True
        if self._started:
            await super().aclose()
        else:
            self._branch.close()
            await super().aclose()

    def __del__(self) -> None:
        if self._branch.has_left:
            return
        if self._hub.is_started:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                _ = self._hub.loop.call_soon_threadsafe(self._branch.drop)
        else:
            self._branch.close()


class Hub(TaskOwner, Generic[T]):
    """The source, and the task that reads it for all branches.

    Attributes:
        source: What it reads.
        branches: The branches that have not left.
        buffer: How many items are held for each.
        error: The error of the source, or of its clean-up.
        traceback: The traceback of that error, without the frames of branches that raise it later.
        not_full: The future that the task waits for while a branch is full.
        is_started: Whether a branch was read.
        count: The number of items that the source has emitted.
    """

    __slots__ = (
        "_failure",
        "_on_drop",
        "_overflow",
        "_places",
        "_recent",
        "_repeats",
        "_stage",
        "_was_left",
        "branches",
        "buffer",
        "count",
        "error",
        "is_started",
        "not_full",
        "source",
        "traceback",
    )

    def __init__(
        self,
        source: AsyncIterable[T],
        n: int,
        buffer: int,
        overflow: str,
        on_drop: Callable[[int, int], object] | None,
        replay: int = 0,
    ) -> None:
        super().__init__()
        self.source: AsyncIterable[T] = checks.source(source)
        self.buffer: int = checks.count("buffer", buffer)
        self._overflow = overflow
        self._on_drop = on_drop
        self._repeats = Repeats(_log)
        self._places = checks.count("n", n)  # how many branches there have been
        self._recent: deque[T] | None = None  # what a branch that joins is to emit first
        if checks.count("replay", replay, least=0):
            self._recent = deque(maxlen=replay)
        self._stage: Stage | None = None  # if it is observed
        self._was_left = False  # all branches were too slow
        self._failure: BaseException | None = None  # what it is to raise, if the source has failed
        self.branches: list[BranchPump[T]] = [
            self.new_branch(place, self.buffer) for place in range(n)
        ]
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None
        self.not_full: asyncio.Future[None] | None = None
        self.is_started: bool = False
        self.count: int = 0

    def start_once(self) -> None:
        """Start the task that reads the source, for the first branch that is read."""
        if not self.is_started:
            self.is_started = True
            chain: object = getattr(self.source, "_chain", None)
            own = chain.observed if isinstance(chain, Chain) else None
            if (observed := observing.opened(own)) is not None:
                self._stage = observed.stage("broadcast", "broadcast")
            self.start()

    def subscribe(self) -> BranchPump[T]:
        """Add a branch that joins now.

        Raises:
            RuntimeError: The source was stopped.
        """
        if self.stopping or self._was_left:
            raise RuntimeError("the source was stopped before its end, as no branch was left")
        recent = () if self._recent is None else self._recent
        # The items that it emits again are held besides, so that it is not full before it is read.
        branch = self.new_branch(self._places, self.buffer + len(recent))
        branch.items.extend(recent)
        self._places += 1
        self.branches.append(branch)
        if self.ended:
            branch.end(self._failure, self.count_for(branch))
        return branch

    def new_branch(self, place: int, capacity: int) -> BranchPump[T]:
        """Make a branch."""
        return BranchPump(self, place, capacity)

    def incoming(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """Return the items of the open source as they are to be read: a hook for marks."""
        return items

    def start_tasks(self) -> None:
        self.start_task(self._run)

    def count_for(self, branch: BranchPump[T]) -> int:  # noqa: ARG002
        """Return how many items have come that are meant for a branch."""
        return self.count

    def on_left(self, branch: BranchPump[T]) -> None:
        """Emit no more items to a branch; without any, stop the source."""
        self.branches.remove(branch)
        notify(self.not_full)
        if not self.branches and self.is_started and not self.ended:
            self.error = None  # from here on it is the error of the clean-up
            self.ask_to_stop()

    async def wait_if_stopped(self, branch: BranchPump[T]) -> None:
        """Wait for the clean-up of the source if no branch is left, and return its error."""
        if not self.stopping:
            return
        try:
            await self.wait_ended()
        finally:
            if self.ended:  # the first one that waited raises it
                branch.error = self.take_error()

    def take_error(self) -> BaseException | None:
        error, self.error = self.error, None
        return error

    def is_shared(self, error: BaseException) -> bool:
        """Return whether other branches raise this error, too; some may join later."""
        return error is self.error or error is self._failure

    def forget_error(self) -> None:
        """Drop the error of a clean-up when all branches have raised it: it refers to the hub."""
        if self._failure is None and all(branch.error is None for branch in self.branches):
            self.error = self.traceback = None

    def report_drop(self, place: int, gap: int) -> None:
        """Report dropped items to the observers."""
        if (stage := self._stage) is None:
            return
        event = telemetry.ItemsDropped(
            pipeline=stage.pipeline,
            stage=stage.name,
            branch=place,
            count=gap,
            at=self.loop.time(),
        )
        stage.report(event)

    def report(self, place: int, gap: int) -> None:
        """Report dropped items."""
        self.report_drop(place, gap)
        if self._on_drop is not None:
            _ = self._on_drop(place, gap)
        else:
            self._repeats.warning(
                "a slow reader, branch %d of a broadcast, did not get %d items",
                place,
                gap,
                extra=facts(messages=gap),
            )

    def on_failure(self, error: BaseException) -> None:
        """Take the error of the source, or of its clean-up."""
        if not self.stopping or not isinstance(error, asyncio.CancelledError):
            self.error, self.traceback = error, error.__traceback__
            if not self.stopping:
                self._failure = error

    def on_all_ended(self) -> None:
        """End all branches."""
        for branch in self.branches:
            branch.end(self.error, self.count_for(branch))

    async def _run(self) -> None:
        async with plain_iterator(self.source) as items:
            await self._read(self.incoming(items))

    async def _read(self, items: AsyncIterator[T]) -> None:
        budget = Budget(self.loop)
        left = 1  # items until it is to be renewed
        async for item in items:
            if self.stopping:
                return  # and the source has swallowed the cancellation
            self.count += 1
            if self._recent is not None:
                self._recent.append(item)
            if not await self._deliver(item):
                self._was_left = True
                return
            left -= 1
            if not left:
                left = await budget.renew()

    async def _deliver(self, item: T) -> bool:
        """Pass an item to its branches, and wait while one of them is full.

        Return whether a branch is left that may get the next one.
        """
        crowded = False  # whether one is full now, or has failed
        for branch in self.branches:
            items = branch.items
            if branch.ended:  # it was too slow
                crowded = True
                continue
            if len(items) >= branch.capacity:  # it had its chance
                if self._overflow == "fail":
                    branch.end(BufferOverflow(branch.place, branch.capacity), self.count - 1)
                    crowded = True
                    continue
                branch.drop_oldest()
            items.append(item)
            held = len(items)
            if held == 1 and branch.ready is not None:
                branch.notify_reader()
            if held >= branch.capacity:
                crowded = True
        if not crowded:
            return True
        if self._overflow == "backpressure":
            await self._wait_until_not_full(self.branches)
        else:
            await asyncio.sleep(0)  # readers that are ready take their items now
        return any(not branch.ended for branch in self.branches)

    async def _wait_until_not_full(self, branches: list[BranchPump[T]]) -> None:
        while any(len(branch.items) >= branch.capacity for branch in branches):
            self.still_reading()
            self.not_full = self.loop.create_future()
            try:
                await self.not_full
            finally:
                self.not_full = None
