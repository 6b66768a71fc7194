"""What tests of journals share: undo actions that record their calls, and processes that die."""

from __future__ import annotations

import asyncio
import os
import signal
import warnings
from typing import TYPE_CHECKING

from returns_pipeline.compensation import CompensationRegistry, CompensationScope
from returns_pipeline.journal import SqliteJournal
from returns_pipeline.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

registry = CompensationRegistry()
undone: list[str] = []
poison: set[str] = set()


@registry.compensation("note", retry=RetryPolicy(attempts=2, wait=0.0))
async def note(name: str) -> None:
    """Record the call, or fail."""
    undone.append(name)
    if name in poison:
        raise OSError(name)


def in_child(work: Callable[[], Coroutine[None, None, None]], *, user: int | None = None) -> int:
    """Do work in a process that is then killed; return 0 if it got so far, 1 if it raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what a fork of threads may break
        process = os.fork()
    if process == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)  # a child that hangs fails the test
        try:
            if user is not None:
                os.setgid(user)
                os.setuid(user)
            asyncio.run(work())
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        signal.raise_signal(signal.SIGKILL)  # this process, whatever getpid() is made to say
    _, status = os.waitpid(process, 0)
    return 0 if os.waitstatus_to_exitcode(status) == -signal.SIGKILL else 1


def leave_open(path: Path, **sagas: str) -> None:
    """Leave sagas of a dead process, oldest first: their names, and their actions."""

    async def dies() -> None:
        journal = SqliteJournal(path)
        for name, actions in sagas.items():
            scope = CompensationScope(name, journal=journal)
            for action in actions:
                await scope.register(note, action)

    assert in_child(dies) == 0


async def listed(path: Path) -> dict[str, str]:
    """Return the sagas by name, each with the states of its actions, the first registered first."""
    return {
        saga.name: " ".join(action.state for action in reversed(saga.actions))
        for saga in await SqliteJournal(path).sagas()
    }
