"""Waiting for tasks so that none is lost: through cancellations, up to a time, and not for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from contextlib import AbstractContextManager

__all__ = [
    "ShieldedFuture",
    "abandon",
    "add_note",
    "done_within",
    "shielded",
    "shielded_from_anyio",
    "stop_within",
    "wait_uncancelled",
]

T = TypeVar("T")

_log = logging.getLogger("returns_pipeline")
_left_behind: set[asyncio.Task[Any]] = set()  # the loop itself holds tasks weakly only


async def wait_uncancelled(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until a future is done, and give the first cancellation of the caller meanwhile.

    What is waited for does not learn of it. The caller raises it, or it is lost.
    """
    cancelled: asyncio.CancelledError | None = None
    with shielded_from_anyio():
        while not future.done():
            try:
                _ = await asyncio.wait({future})
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
    return cancelled


class _Settling(asyncio.Future[T]):
    """A future that refuses to be cancelled.

    A task that awaits it hears of a cancellation when it is done: see `asyncio.Task.cancel`.
    """

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002
        return False


class ShieldedFuture(Generic[T]):
    """Awaits what is carried out whole: a cancellation of who awaits it is raised when it is done.

    It must be made in a running loop.

    Attributes:
        future: Takes the outcome.
    """

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[T] = _Settling(loop=asyncio.get_running_loop())

    def __await__(self) -> Generator[Any, None, T]:
        return self._outcome().__await__()

    async def _outcome(self) -> T:
        # A place of its own: by it the loop of tests knows that a thread answers.
        return await self.future


async def shielded(work: Awaitable[T]) -> tuple[T, asyncio.CancelledError | None]:
    """Await what must not be left half-way; give the first cancellation that came meanwhile, too.

    The caller raises it, or it is lost. A `ShieldedFuture` is awaited here; anything else needs a
    task.

    Raises:
        CancelledError: Of the caller, if the work failed as well: that it was cancelled is what it
            must learn of, and the work's own error is the cause.
        Exception: That of the work.
    """
    if isinstance(work, ShieldedFuture):
        whole: ShieldedFuture[T] = work
        future = whole.future
        try:
            with shielded_from_anyio():
                return await whole, None
        except asyncio.CancelledError as error:
            cancelled: asyncio.CancelledError | None = error
            _ = await wait_uncancelled(future)  # what steps a coroutine by hand does not cancel so
    else:
        future = asyncio.ensure_future(work)
        cancelled = await wait_uncancelled(future)
    if cancelled is None or future.cancelled() or (failed := future.exception()) is None:
        return future.result(), cancelled
    raise cancelled from failed


def shielded_from_anyio() -> AbstractContextManager[object]:
    """Keep a cancelled anyio scope from cancelling the wait anew in every turn of the loop.

    anyio cancels by level: a wait loop that goes on in its scope would use a whole core. Only an
    anyio scope can say that it is meant to; if anyio is not loaded, there is none around.
    """
    anyio: Any = sys.modules.get("anyio")
    shield: Callable[..., AbstractContextManager[object]] | None
    shield = getattr(anyio, "CancelScope", None)
    return contextlib.nullcontext() if shield is None else shield(shield=True)


async def done_within(task: asyncio.Task[Any], seconds: float) -> bool:
    """Wait until a task is done, at most so long; say whether it is.

    A cancellation of the waiting task changes nothing. For tasks that nobody cancels.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    while not task.done() and (left := due - loop.time()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            _ = await asyncio.wait({task}, timeout=None if left == math.inf else left)
    return task.done()


def stop_within(
    task: asyncio.Task[Any], grace: float, *, spared: Callable[[], bool] | None = None
) -> asyncio.Future[bool]:
    """Cancel a task; give it a grace time to end, then abandon it.

    No task waits for the grace time, so that nobody can cancel the wait: a timer ends it.

    Args:
        task: Is cancelled once, here.
        grace: Seconds that it may take to heed its cancellation; infinity is no limit.
        spared: Asked when they have passed: whether the task has done its own work and is in a
            clean-up that must not be abandoned. It is then waited for without a limit.

    Returns:
        A future: true when the task has ended, false when it was abandoned.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[bool] = loop.create_future()
    timer: asyncio.TimerHandle | None = None

    def on_end(_: object) -> None:
        if timer is not None:
            timer.cancel()
        if not ended.done():
            ended.set_result(True)

    def on_timer() -> None:
        if not task.done() and (spared is None or not spared()):
            abandon(task, f"it ignored its cancellation for {grace:g} s")
            ended.set_result(False)

    _ = task.cancel()
    if grace < math.inf:
        timer = loop.call_later(grace, on_timer)
    task.add_done_callback(on_end)
    return ended


def abandon(task: asyncio.Task[Any], why: str) -> None:
    """Give up waiting for a task that does not heed its cancellation, but not silently."""
    _log.error("%s was left behind: %s", task.get_name(), why)
    _left_behind.add(task)
    task.add_done_callback(_came_after)


def _came_after(task: asyncio.Task[Any]) -> None:
    _left_behind.discard(task)
    error = None if task.cancelled() else task.exception()
    _log.warning("%s, which had been left behind, has ended", task.get_name(), exc_info=error)


def add_note(error: BaseException, note: str) -> None:
    """Do as ``error.add_note(note)``, also for an exception that takes no new attributes.

    Those of a frozen dataclass or of attrs refuse the usual way with an exception of their own.
    """
    try:
        error.add_note(note)
    except Exception:  # noqa: BLE001  # whatever a class of the user's raises
        # An exception without a note is better than another one in its place.
        with contextlib.suppress(Exception):
            notes: object = getattr(error, "__notes__", None)
            before: list[object] = notes if isinstance(notes, list) else []  # pyright: ignore[reportUnknownVariableType]
            BaseException.__setattr__(error, "__notes__", [*before, note])
