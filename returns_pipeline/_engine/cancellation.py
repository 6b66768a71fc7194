"""Waiting that survives a cancellation, and notes on an exception that propagates.

A cancelled caller must not leave work half done: it waits, and raises its cancellation afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, Final, Generic, TypeVar

from returns_pipeline._engine.logs import facts

__all__ = [
    "ShieldedFuture",
    "abandon",
    "add_note",
    "done_within",
    "raise_both",
    "shielded",
    "shielded_from_anyio",
    "stop_within",
    "wait_done",
    "wait_uncancelled",
]

T = TypeVar("T")

# Seconds after which a spared task is checked again, if its grace time is shorter.
_SPARED: Final = 1.0

_NO_SHIELD: Final = contextlib.nullcontext()

_log = logging.getLogger("returns_pipeline.engine")
_abandoned: set[asyncio.Task[Any]] = set()  # the loop refers to tasks weakly


async def wait_uncancelled(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until a future is done; return the first cancellation of the caller meanwhile.

    The future is not cancelled. The caller must raise what is returned, or it is lost.
    """
    cancelled: asyncio.CancelledError | None = None
    with shielded_from_anyio():
        while not future.done():
            try:
                _ = await asyncio.wait({future})
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
    return cancelled


async def wait_done(task: asyncio.Future[Any]) -> None:
    """Wait until a task that was asked to stop has ended; then raise the caller's cancellation.

    A cancellation of the caller is not passed on: it would cut the task's clean-up off.
    """
    cancelled = await wait_uncancelled(task)
    if cancelled is not None:
        raise cancelled


class _Uncancellable(asyncio.Future[T]):
    """A future that refuses to be cancelled, unless its operation can still be withdrawn.

    If the task that awaits it is cancelled, the cancellation is raised there when the future is
    done: see `asyncio.Task.cancel`.
    """

    withdraw: Callable[[], bool] | None = None

    def cancel(self, msg: object = None) -> bool:
        if self.withdraw is None or not self.withdraw():
            return False
        return super().cancel(msg)


class ShieldedFuture(Generic[T]):
    """Awaits an operation that cannot be cancelled; the caller's cancellation is raised afterwards.

    It must be made in a running loop.

    Args:
        withdraw: Takes the operation back if it has not begun, and returns whether it did: then the
            caller's cancellation is raised at once.

    Attributes:
        future: To be resolved by the operation.
    """

    __slots__ = ("future",)

    def __init__(self, withdraw: Callable[[], bool] | None = None) -> None:
        future: _Uncancellable[T] = _Uncancellable(loop=asyncio.get_running_loop())
        future.withdraw = withdraw
        self.future: asyncio.Future[T] = future

    def __await__(self) -> Generator[Any, None, T]:
        return self._outcome().__await__()

    async def _outcome(self) -> T:
        # A coroutine of its own: the loop of tests recognizes it, and waits for the thread.
        return await self.future


async def shielded(work: Awaitable[T]) -> tuple[T, asyncio.CancelledError | None]:
    """Await work that must not be left half done; return the caller's cancellation, too.

    The caller must raise the cancellation, or it is lost. A `ShieldedFuture` is awaited in this
    task; anything else runs in a task of its own.

    Raises:
        CancelledError: The caller was cancelled and the work failed; its error is the cause.
        Exception: Any exception of the work.
    """
    if isinstance(work, ShieldedFuture):
        whole: ShieldedFuture[T] = work
        future = whole.future
        try:
            with shielded_from_anyio():
                return await whole, None
        except asyncio.CancelledError as error:
            cancelled: asyncio.CancelledError | None = error
            # If code steps this coroutine by hand, the cancellation does not go through the future.
            _ = await wait_uncancelled(future)
    else:
        future = asyncio.ensure_future(work)
        cancelled = await wait_uncancelled(future)
    if cancelled is None or future.cancelled() or (failed := future.exception()) is None:
        return future.result(), cancelled
    raise cancelled from failed


def raise_both(cancelled: asyncio.CancelledError | None, failed: Exception | None) -> None:
    """Raise the caller's cancellation, with what failed as its cause; or one of them, if any."""
    if cancelled is not None:
        raise cancelled from failed
    if failed is not None:
        raise failed


def raise_swallowed() -> None:
    """Raise the cancellation of the running task, if a client has swallowed it.

    Some do if their answer arrives at the same moment. For tasks of the caller's own: another may
    have survived a cancellation on purpose.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def shielded_from_anyio() -> AbstractContextManager[object]:
    """Keep a cancelled anyio scope from cancelling the wait in every turn of the loop.

    anyio repeats a cancellation until the scope is left: a loop that continues to wait inside it
    would use a whole core. Only another anyio scope prevents that. If anyio is not imported, no
    scope is open.
    """
    anyio: Any = sys.modules.get("anyio")
    if anyio is None:
        return _NO_SHIELD
    shield: Callable[..., AbstractContextManager[object]] | None
    shield = getattr(anyio, "CancelScope", None)
    return _NO_SHIELD if shield is None else shield(shield=True)


async def done_within(task: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a task, but no longer than ``seconds``; return whether it is done.

    A cancellation of the caller is ignored: for callers that are never cancelled.
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

    A timer ends the grace time, not a waiting task, which could be cancelled.

    Args:
        task: Is cancelled once, here.
        grace: Seconds that it may take to respond to its cancellation; infinity means no limit.
        spared: Called when they have passed, and then each second: whether the task is in a part
            that must not be abandoned, such as a clean-up, or a request that cannot be taken back.

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
        nonlocal timer
        if task.done():
            return
        if spared is not None and spared():
            # As long again: it may have reached code that responds to a cancellation.
            timer = loop.call_later(max(grace, _SPARED), on_timer)
            return
        abandon(task, f"it ignored its cancellation for {grace:g} s")
        ended.set_result(False)

    _ = task.cancel()
    if grace < math.inf:
        timer = loop.call_later(grace, on_timer)
    task.add_done_callback(on_end)
    return ended


def abandon(task: asyncio.Task[Any], why: str) -> None:
    """Stop waiting for a task that ignores its cancellation, and log that and its end."""
    _log.error(
        "%s was abandoned: %s", task.get_name(), why, extra=facts(task=task.get_name(), reason=why)
    )
    _abandoned.add(task)
    task.add_done_callback(_ended_late)


def _ended_late(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    error = None if task.cancelled() else task.exception()
    _log.warning(
        "%s, which had been abandoned, has ended",
        task.get_name(),
        exc_info=error,
        extra=facts(task=task.get_name()),
    )


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, also to one that takes no new attributes. It never raises.

    Exceptions that are frozen dataclasses, or made by attrs, refuse ``error.add_note(note)`` with
    an exception of their own.
    """
    try:
        error.add_note(note)
    except Exception:  # noqa: BLE001  # whatever a class of the user's raises
        # An exception without a note is better than another one in its place.
        with contextlib.suppress(Exception):
            notes: object = getattr(error, "__notes__", None)
            before: list[object] = notes if isinstance(notes, list) else []  # pyright: ignore[reportUnknownVariableType]
            BaseException.__setattr__(error, "__notes__", [*before, note])
