"""`Pipelines`: one pipeline for each partition that a worker owns, each in a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

from returns.result import Failure, Result, Success

from returns_pipeline._engine.cancellation import add_note, wait_uncancelled
from returns_pipeline._engine.logs import facts
from returns_pipeline._engine.task_owner import notify
from returns_pipeline.connectors import Partition
from returns_pipeline.errors import PartitionsLost

__all__ = ["Pipelines"]

_log = logging.getLogger("returns_pipeline.worker")

_Partition: TypeAlias = Partition[Any, Any]


class Pipelines:
    """Runs a pipeline for each partition, until the source ends, or one of them fails.

    1. A partition that comes back gets a new pipeline, when the old one has ended.
    2. If a partition is lost while messages of it are in flight, its pipeline is cancelled: what it
       has not committed is undone.
    3. A failure or an exception of one cancels all others, and is the outcome. The context in which
       a pipeline runs adds a note to an exception, which names the partition.
    4. All have ended when `run` returns or raises, whatever is cancelled meanwhile.

    Args:
        partitions: The partitions, as they come.
        pipeline: Runs the pipeline of one.
        on_end: Called when a pipeline has ended by itself: all others are to be drained.
        on_refused: Called when a step of a pipeline has learned that its partition is lost, before
            the source has: it is to be lost then.

    Attributes:
        failed: The partition of the pipeline that failed, if one did.
    """

    def __init__(
        self,
        partitions: AsyncIterator[_Partition],
        pipeline: Callable[[_Partition], Awaitable[Result[int, Any]]],
        on_end: Callable[[], None],
        on_refused: Callable[[PartitionsLost], None],
    ) -> None:
        self._partitions: Final = partitions
        self._pipeline: Final = pipeline
        self._on_end: Final = on_end
        self._on_refused: Final = on_refused
        self._tasks: dict[asyncio.Task[None], str] = {}  # with the names of their partitions
        self._stopped: asyncio.Future[None]  # resolved at the first failure or exception
        self._is_stopping = False
        self._error: BaseException | None = None
        self._outcome: Result[int, Any] = Success(0)
        self.failed: str | None = None

    async def run(self) -> Result[int, Any]:
        """Run them; return the first failure, or how many partitions there were at the end.

        Raises:
            BaseException: The first exception of a pipeline, or of the source.
        """
        loop = asyncio.get_running_loop()
        self._stopped = loop.create_future()
        feeder = loop.create_task(self._feed())
        cancelled: asyncio.CancelledError | None = None
        try:
            _ = await asyncio.wait({feeder, self._stopped}, return_when=asyncio.FIRST_COMPLETED)
            while self._tasks and not self._stopped.done():
                waits = {*self._tasks, self._stopped}
                _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as error:
            cancelled = error
        self._is_stopping = True
        for task in (feeder, *self._tasks):
            _ = task.cancel()
        for task in (feeder, *self._tasks):
            late = await wait_uncancelled(task)
            cancelled = cancelled or late
        return self._end(cancelled)

    def _end(self, cancelled: asyncio.CancelledError | None) -> Result[int, Any]:
        error, self._error = self._error, None
        if error is None:
            if cancelled is not None:
                raise cancelled
            return self._outcome
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    async def _feed(self) -> None:
        """Start a pipeline for each partition that comes."""
        try:
            async for partition in self._partitions:
                self._start(partition)
        except Exception as error:  # noqa: BLE001  # it is raised by `run`
            self._fail(error, None)

    def _start(self, partition: _Partition) -> None:
        name = partition.name
        earlier = {task for task, its_name in self._tasks.items() if its_name == name}
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run_one(partition, earlier), name=f"pipeline of {name}")
        if not task.done():
            self._tasks[task] = name
            task.add_done_callback(self._tasks.pop)
            partition.lost.add_done_callback(lambda _: self._on_lost(task, name))

    def _on_lost(self, task: asyncio.Task[None], name: str) -> None:
        if not self._is_stopping and not task.done():
            _log.warning(
                "the pipeline of %s is cancelled: the partition was lost",
                name,
                extra=facts(partition=name),
            )
            _ = task.cancel()

    async def _run_one(self, partition: _Partition, earlier: set[asyncio.Task[None]]) -> None:
        name = partition.name
        try:
            if earlier:
                _ = await asyncio.wait(earlier)
            if not partition.is_open:
                return
            outcome = await self._pipeline(partition)
        except PartitionsLost as error:
            if not partition.lost.done():
                self._on_refused(error)
        except asyncio.CancelledError as error:
            # One that came from neither here nor from the loss: a step has awaited what was
            # cancelled.
            if not self._is_stopping and not partition.lost.done():
                self._fail(error, name)
        except BaseException as error:
            self._fail(error, name)
            if not isinstance(error, Exception):
                raise
        else:
            self._take(outcome, partition)

    def _take(self, outcome: Result[int, Any], partition: _Partition) -> None:
        """Take the outcome of a pipeline."""
        if isinstance(outcome, Failure):
            if not partition.lost.done():  # else another process has its messages, and fails, too
                self._stop(outcome, partition.name)
        elif partition.is_open:
            self._on_end()

    def _stop(self, outcome: Result[int, Any], name: str) -> None:
        if self.failed is None and self._error is None:
            self._outcome, self.failed = outcome, name
        notify(self._stopped)

    def _fail(self, error: BaseException, name: str | None) -> None:
        """Keep the first exception; later ones become notes on it."""
        if self._error is None:
            self._error, self.failed = error, name
        elif self._error is not error and not isinstance(error, asyncio.CancelledError):
            where = "" if name is None else f" in the pipeline of {name}"
            add_note(self._error, f"while all were stopped, {error!r} was raised{where}")
        notify(self._stopped)
