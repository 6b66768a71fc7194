"""The states of a scope, and the commit that is waited for in one of them.

```
            commit()                 the journal has it
    OPEN ------------> COMMITTING ------------------------> COMMITTED
     | ^                   |     \
     | |  refused, or      |      the journal refuses, and a scope
     | +-- it stays open --+      around it is rolling back
     |                             v
     +----------------------> ROLLING_BACK ---> ROLLED_BACK, LOST, or OPEN again
     +-> ABSORBED
```

In memory a commit takes no time: COMMITTING is the state of a scope whose journal has not answered
yet. Neither COMMITTING nor ROLLING_BACK says how it will end, so a task that meets one of them
waits for its outcome and then looks again.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Any, Final

from returns_pipeline._engine.cancellation import wait_uncancelled
from returns_pipeline.compensation._rollback import Rollback

__all__ = ["CHANGES", "Commit", "ScopeState"]


class ScopeState(StrEnum):
    """What has become of a scope and the actions in it. Each member equals its text.

    >>> ScopeState.ROLLED_BACK == "rolled back"
    True
    """

    # That of `Enum` is written in Python, and looking one up here is a tenth of a scope's cost.
    __hash__ = str.__hash__

    OPEN = "open"
    """It takes actions."""
    COMMITTING = "committing"
    """The journal was asked to commit its actions, and has not answered."""
    COMMITTED = "committed"
    """Its actions will not be undone."""
    ROLLING_BACK = "rolling back"
    """Its actions are being undone."""
    ROLLED_BACK = "rolled back"
    """Its actions were undone, or given up: see `CompensationScope.report`."""
    ABSORBED = "absorbed"
    """Another scope has its actions."""
    LOST = "lost"
    """Another process has taken its actions over, and undoes them."""


# From each state, those that may follow. The others are final.
CHANGES: Final[dict[ScopeState, frozenset[ScopeState]]] = {
    state: frozenset() for state in ScopeState
}
CHANGES[ScopeState.OPEN] = frozenset(ScopeState) - {ScopeState.OPEN, ScopeState.LOST}
CHANGES[ScopeState.COMMITTING] = frozenset(
    {ScopeState.OPEN, ScopeState.COMMITTED, ScopeState.ROLLING_BACK}
)
CHANGES[ScopeState.ROLLING_BACK] = frozenset(
    {ScopeState.OPEN, ScopeState.ROLLED_BACK, ScopeState.LOST}
)


class Commit:
    """A commit that the journal has not answered: the data of the state COMMITTING.

    All scopes that are committed together share one. Its task alone ends it, and changes the
    states of these scopes in the same step, so that no other task sees one without the other.

    Attributes:
        keeps_open: The scope that will be open after it, or ``None`` if it closes all.
        rollback: Of a scope around them, which waits for this commit, if there is one.
    """

    __slots__ = ("_answered", "keeps_open", "rollback")

    def __init__(self, keeps_open: object) -> None:
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.keeps_open = keeps_open
        self.rollback: Rollback[Any] | None = None

    def supersede(self, rollback: Rollback[Any]) -> None:
        """Have the scopes that are open afterwards join the rollback of a scope around them."""
        self.rollback = rollback

    def end(self) -> None:
        """Resume all that wait. The scopes have their next state already."""
        self._answered.set_result(None)

    async def outcome(self) -> None:
        """Wait until the scopes have their next state; a cancellation propagates at once."""
        # Not the future itself: cancelled with one that waits, it would be lost to the others.
        _ = await asyncio.wait({self._answered})

    async def wait(self) -> asyncio.CancelledError | None:
        """Do so through cancellations; return the first, which the caller raises."""
        return await wait_uncancelled(self._answered)
