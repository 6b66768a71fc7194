"""The states of a scope, and the commit that is waited for in one of them.

```
            commit()                 the journal has it
    OPEN ------------> COMMITTING ------------------------> COMMITTED
     | ^                   |     \
     | |  refused, or      |      the journal refuses, and a scope
     | +-- it stays open --+      that encloses it is rolling back
     |                             v
     +----------------------> ROLLING_BACK ---> ROLLED_BACK, LOST, COMMITTED, or OPEN again
     +-> ABSORBED
```

A rollback ends in COMMITTED if the journal had carried out a commit, and its answer was lost.

In memory a commit takes no time: only a scope whose journal has not answered yet is COMMITTING. The
outcome of COMMITTING and ROLLING_BACK is unknown, so a task that finds a scope in one of them waits
for the outcome and then checks the state again.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Any, Final

from returns_pipeline._engine.cancellation import wait_uncancelled
from returns_pipeline.compensation._report import CompensationReport
from returns_pipeline.compensation._rollback import Rollback
from returns_pipeline.errors import LeaseLost

__all__ = ["CHANGES", "Commit", "ScopeState", "state_after"]


class ScopeState(StrEnum):
    """The state of a scope and the actions in it. Each member equals its text.

    >>> ScopeState.ROLLED_BACK == "rolled back"
    True
    """

    # `Enum.__hash__` is written in Python: it would be a tenth of the cost of a scope.
    __hash__ = str.__hash__

    OPEN = "open"
    """It accepts actions."""
    COMMITTING = "committing"
    """The journal was asked to commit its actions, and has not answered."""
    COMMITTED = "committed"
    """Its actions will not be undone."""
    ROLLING_BACK = "rolling back"
    """Its actions are being undone."""
    ROLLED_BACK = "rolled back"
    """Its actions were undone or given up: see `CompensationScope.report`."""
    ABSORBED = "absorbed"
    """Its actions belong to another scope now."""
    LOST = "lost"
    """Another process has taken its actions over and undoes them."""


# For each state, the states that may follow. A state without any is final.
CHANGES: Final[dict[ScopeState, frozenset[ScopeState]]] = {
    state: frozenset() for state in ScopeState
}
CHANGES[ScopeState.OPEN] = frozenset(ScopeState) - {ScopeState.OPEN, ScopeState.LOST}
CHANGES[ScopeState.COMMITTING] = frozenset(
    {ScopeState.OPEN, ScopeState.COMMITTED, ScopeState.ROLLING_BACK}
)
CHANGES[ScopeState.ROLLING_BACK] = frozenset(
    {ScopeState.OPEN, ScopeState.ROLLED_BACK, ScopeState.LOST, ScopeState.COMMITTED}
)


def state_after(report: CompensationReport) -> ScopeState:
    """Return the state of what was rolled back together, as its report shows."""
    if any(isinstance(entry.error, LeaseLost) for entry in report.failures):
        return ScopeState.LOST
    return ScopeState.COMMITTED if report.all_committed else ScopeState.ROLLED_BACK


class Commit:
    """A commit that the journal has not answered: the data of the state COMMITTING.

    All scopes that are committed together share one object. Only the task that commits ends it, and
    it changes the states of these scopes in the same step of the loop: no other task sees one
    change without the others.

    Attributes:
        keeps_open: The scope that will be open after the commit, or ``None`` if all are closed.
        rollback: The rollback of an enclosing scope that waits for this commit, if there is one.
    """

    __slots__ = ("_answered", "_has_ended", "keeps_open", "rollback")

    def __init__(self, keeps_open: object) -> None:
        self._answered: asyncio.Future[None] | None = None  # made for the first task that waits
        self._has_ended = False
        self.keeps_open = keeps_open
        self.rollback: Rollback[Any] | None = None

    def supersede(self, rollback: Rollback[Any]) -> None:
        """Make the scopes that are open afterwards join the rollback of an enclosing scope."""
        self.rollback = rollback

    def end(self) -> None:
        """Resume all waiting tasks. The scopes must have their next state already."""
        self._has_ended = True
        if self._answered is not None:
            self._answered.set_result(None)

    async def outcome(self) -> None:
        """Wait until the scopes have their next state; a cancellation propagates at once."""
        # Not the future itself: a cancelled task would cancel it for all the others.
        if not self._has_ended:
            _ = await asyncio.wait({self._future()})

    async def wait(self) -> asyncio.CancelledError | None:
        """Wait for the outcome, whatever is cancelled; return the first cancellation.

        The caller must raise it, or it is lost.
        """
        return None if self._has_ended else await wait_uncancelled(self._future())

    def _future(self) -> asyncio.Future[None]:
        if self._answered is None:
            self._answered = asyncio.get_running_loop().create_future()
        return self._answered
