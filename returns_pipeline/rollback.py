"""How undo actions are carried out: all of them, in order, whatever happens meanwhile.

`compensation` says what is undone; this module does it. A replay runs in a task of its own, so
that no cancellation of those who wait for it can stop it half-way.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import sys
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from returns.result import Failure

from returns_pipeline.errors import CompensationFailed, StepTimeout
from returns_pipeline.outcomes import unpacked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from returns_pipeline.retry import RetryPolicy

__all__ = [
    "Action",
    "CompensationEntry",
    "CompensationReport",
    "OnFailure",
    "Order",
    "current_key",
    "replay",
    "wait_through",
]

Order: TypeAlias = Literal["reverse", "parallel"]
OnFailure: TypeAlias = Literal["continue", "stop"]

T = TypeVar("T")

# Seconds that an undo which was cut off is given for its clean-up, before it is left behind.
_GRACE = 5.0

_log = logging.getLogger("returns_pipeline")
_key: ContextVar[str] = ContextVar("returns_pipeline.current_key")
_left_behind: set[asyncio.Task[Any]] = set()  # the loop itself holds tasks weakly only


def current_key() -> str:
    """Give the idempotency key of the step that is being undone.

    It is the ``key`` that the step's own `StepContext` had, so that an undo can name the same
    request to the same service. For use inside an undo.

    Raises:
        LookupError: No undo is running here.
    """
    return _key.get()


class _NoError:
    """Stands for the error of a ``Failure(None)``, which is a failure all the same."""

    def __repr__(self) -> str:
        return "Failure(None)"


_NO_ERROR = _NoError()


@dataclass(frozen=True, slots=True)
class CompensationEntry:
    """What became of one undo action.

    Attributes:
        name: The compensation's registered name, or the function's.
        args: The positional arguments it was registered with.
        kwargs: The keyword arguments it was registered with.
        attempts: How often it was tried.
        error: Why it failed: the exception it raised, the error of the `Failure` it gave, or
            `StepTimeout`; ``None`` if it succeeded or was not run.
        scope: The path of the scope it was registered in.
    """

    name: str
    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict[str, object])
    attempts: int = 0
    error: object = None
    scope: str = ""

    def __str__(self) -> str:
        """Show it as the call it was."""
        arguments = [repr(value) for value in self.args]
        arguments += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.name}({', '.join(arguments)})"


@dataclass(frozen=True, slots=True)
class CompensationReport:
    """What a rollback did: each action is in exactly one of the three, newest first.

    Attributes:
        done: Actions that were undone.
        failures: Actions that were tried and given up.
        not_run: Actions that were never tried, because ``on_failure="stop"`` ended the rollback.
        scope: The path of the scope that was rolled back.
    """

    done: tuple[CompensationEntry, ...] = ()
    failures: tuple[CompensationEntry, ...] = ()
    not_run: tuple[CompensationEntry, ...] = ()
    scope: str = ""

    def notes(self) -> list[str]:
        """Say in a line each what is still to be undone."""
        lines = [
            f"undo {entry} failed, attempt {entry.attempts}: {entry.error!r}"
            for entry in self.failures
        ]
        return lines + [f"undo {entry} was not run" for entry in self.not_run]

    def check(self) -> None:
        """Do nothing if all was undone.

        Raises:
            CompensationFailed: An action failed or was not run.
        """
        if self.failures or self.not_run:
            raise CompensationFailed(self.scope, tuple(self.notes()))


class _Owner(Protocol):
    """The scope an action was registered in."""

    @property
    def path(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def timeout(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Action:
    """An undo action, ready to be run.

    Attributes:
        name: What it is called in reports.
        owner: The scope it was registered in.
        undo: What is called.
        args: With these.
        kwargs: And with these.
        retry: How often it is tried.
        timeout: Seconds it may take, all attempts and the waits between them included.
    """

    name: str
    owner: _Owner
    undo: Callable[..., Awaitable[object]]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    retry: RetryPolicy
    timeout: float

    def entry(self, attempts: int = 0, error: object = None) -> CompensationEntry:
        """Say what became of it."""
        return CompensationEntry(
            self.name, self.args, self.kwargs, attempts, error, self.owner.path
        )


async def replay(
    actions: Sequence[Action],
    *,
    order: Order,
    on_failure: OnFailure,
    scope: str,
    before: Sequence[asyncio.Task[Any]] = (),
) -> CompensationReport:
    """Run all actions, in the order given or all at once, and report on each.

    It begins when the replays ``before`` it, of actions that are newer, are over.
    """
    for task in before:
        _ = await _done_within(task, math.inf)
    outcomes: list[CompensationEntry] = []
    if order == "parallel":
        tasks = [asyncio.create_task(_carry_out(action)) for action in actions]
        for task in tasks:
            _ = await _done_within(task, math.inf)
            outcomes.append(task.result())
    else:
        for action in actions:
            outcomes.append(await _carry_out(action))
            if outcomes[-1].error is not None and on_failure == "stop":
                break
    report = CompensationReport(
        done=tuple(entry for entry in outcomes if entry.error is None),
        failures=tuple(entry for entry in outcomes if entry.error is not None),
        not_run=tuple(action.entry() for action in actions[len(outcomes) :]),
        scope=scope,
    )
    for note in report.notes():
        _log.error("scope %r: %s", scope, note)
    return report


async def wait_through(task: asyncio.Task[T]) -> asyncio.CancelledError | None:
    """Wait for a task to its end, and give the cancellation that came meanwhile, if one did.

    The task does not learn of it. The caller raises it, or it is lost.
    """
    cancelled: asyncio.CancelledError | None = None
    with _shielded_from_anyio():
        while not task.done():
            try:
                _ = await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
    return cancelled


def _shielded_from_anyio() -> AbstractContextManager[object]:
    """Keep a cancelled anyio scope from cancelling the wait anew in every turn of the loop.

    anyio cancels by level: a wait loop that goes on in its scope would use a whole core. Only an
    anyio scope can say that it is meant to; if anyio is not loaded, there is none around.
    """
    anyio: Any = sys.modules.get("anyio")
    shield: Callable[..., AbstractContextManager[object]] | None
    shield = getattr(anyio, "CancelScope", None)
    return contextlib.nullcontext() if shield is None else shield(shield=True)


async def _carry_out(action: Action) -> CompensationEntry:
    """Run one action within its time, in a task of its own, and report on it."""
    attempts = _Attempts(action)
    context = copy_context()
    context.run(_key.set, action.owner.key)
    task = asyncio.create_task(attempts.run(), name=f"undo {action.name}", context=context)
    if not await _done_within(task, action.timeout):
        await attempts.cut_off(task)
    elif not task.cancelled():
        task.result()  # raises what no replay survives: KeyboardInterrupt, SystemExit
    return attempts.entry()


class _Attempts:
    """The attempts of one action."""

    def __init__(self, action: Action) -> None:
        self._action = action
        self._made = 0
        self._over = False  # its time is: an attempt that fails now is the last
        self._succeeded = False
        # Until an attempt says otherwise: also the task as a whole may be cancelled.
        self._error: object = asyncio.CancelledError("cancelled before it could run")

    def entry(self) -> CompensationEntry:
        """Say what became of the action."""
        return self._action.entry(self._made, None if self._succeeded else self._error)

    async def run(self) -> None:
        """Try until it succeeds or its attempts are used up."""
        while not await self._attempt():
            if self._over or self._made >= self._action.retry.attempts:
                return
            try:
                await asyncio.sleep(self._action.retry.delay(self._made, self._error))
            except Exception as error:  # noqa: BLE001  # the policy's wait strategy failed
                self._error = error
                return

    async def _attempt(self) -> bool:
        action = self._action
        self._made += 1
        try:
            given: object = action.undo(*action.args, **action.kwargs)
            if inspect.isawaitable(given):
                given = unpacked(await given)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            # An undo that was cancelled, by us or by what it awaited, has failed like any other.
            self._error = error
        else:
            self._succeeded = not isinstance(given, Failure)
            if isinstance(given, Failure):
                self._error = _NO_ERROR if given.failure() is None else given.failure()
        return self._succeeded

    async def cut_off(self, task: asyncio.Task[None]) -> None:
        """Cancel what is still running; leave it behind if it does not heed that."""
        self._over = True
        last = self._error
        _ = task.cancel()
        stopped = await _done_within(task, _GRACE)
        if self._succeeded:
            return  # in the last moment, or while it cleaned up: it is undone
        self._error = StepTimeout(self._action.name, self._action.timeout)
        if isinstance(last, Exception):
            self._error.__cause__ = last  # why the attempt before failed
        if not stopped:
            self._error.add_note(f"it ignored its cancellation for {_GRACE:g} s: left running")
            _left_behind.add(task)
            task.add_done_callback(_forget)


def _forget(task: asyncio.Task[None]) -> None:
    _left_behind.discard(task)
    _log.warning("%s, which had been left behind at its time limit, has ended", task.get_name())


async def _done_within(task: asyncio.Task[Any], seconds: float) -> bool:
    """Wait until a task is done, at most so long. A cancellation of the replay changes nothing."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    while not task.done() and (left := due - loop.time()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            _ = await asyncio.wait({task}, timeout=None if left == math.inf else left)
    return task.done()
