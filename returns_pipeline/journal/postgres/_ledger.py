"""`Ledger`: what one `PostgresJournal` has on record, and which repairs it still has to make.

It is state without any I/O. The face writes to it when a request is made, the writer when the
request is answered. The server has the truth; the ledger has what this process may rely on.

The life of an action in the ledger:

```
            recorded, claimed                    begin_commit
   (none) ----------------------> OPEN  ------------------------> LEAVING
      ^                            | ^                               |  |
      |   settled, fenced          | |   abort_commit                |  |
      +----------------------------+ +-------------------------------+  |
      +-----------------------------------------------------------------+
                                        committed
```
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from returns_pipeline.compensation.protocol import StoredSaga
from returns_pipeline.errors import JournalError

__all__ = [
    "ActionKey",
    "ActionState",
    "Doubt",
    "Duties",
    "HeldAction",
    "HeldSaga",
    "LateCommit",
    "Ledger",
    "SagaKey",
]


class ActionState(enum.Enum):
    """What this process may rely on about an action on record.

    Attributes:
        OPEN: It is to be undone, and stays on record until this process makes another request.
        LEAVING: Its commit was requested and not answered. The server may have deleted it already;
            if the commit fails, it is open again. Or its commit is *late*: it was refused, and is
            repeated until it is answered.
    """

    OPEN = enum.auto()
    LEAVING = enum.auto()


@dataclass(slots=True)
class HeldAction:
    """An action that this process has on record.

    Attributes:
        saga: The saga it is in.
        position: Its position there.
        state: See `ActionState`.
    """

    saga: str
    position: str
    state: ActionState = ActionState.OPEN


@dataclass(slots=True)
class HeldSaga:
    """A saga that this process has open.

    It is in the ledger as long as it has actions there, or a stuck action on the server.

    Attributes:
        epoch: Counts the changes of the owner, from 1. The server checks every write by owner and
            epoch.
        actions: The ids of its actions that are in the ledger.
        stuck: Whether it has an action that was given up, which keeps the saga on record.
    """

    epoch: int
    actions: set[str] = field(default_factory=set[str])
    stuck: bool = False


class LateCommit(NamedTuple):
    """A commit that was refused, and must be written nevertheless.

    Attributes:
        on_lost: Is called if it can never be written.
        expected: Whether this owner had the action on record. Otherwise it had ended, or its caller
            knows that it was taken over.
    """

    on_lost: Callable[[JournalError], object]
    expected: bool


class Doubt(NamedTuple):
    """Where the kept answer to a batch says whether the batch has committed an action.

    It has, if the batch was carried out and the answer to the step does not have the token.

    Attributes:
        batch: The number of the batch, which was not answered.
        step: The index of the step in it.
        token: What the answer to the step has if the commit was refused.
    """

    batch: int
    step: int
    token: object


class ActionKey(NamedTuple):
    """The key by which the server checks a write about an action: a *fencing token*."""

    id: str
    saga: str
    epoch: int


class SagaKey(NamedTuple):
    """The key by which the server checks a write about a saga."""

    saga: str
    epoch: int


class Duties(NamedTuple):
    """The repairs that the next batch makes before it does anything else.

    Attributes:
        in_doubt: Actions that may or may not be on record. Their effects will not begin, so the
            record is removed if there is one.
        late: Actions whose commit was refused, and must be written nevertheless. With each, whether
            it must still be on record: else another process has taken it over and undone it.
        orphaned: Whether this owner may have claimed sagas that are not in the ledger. They are
            released.
    """

    in_doubt: list[str]
    late: dict[str, bool]
    orphaned: bool

    def __bool__(self) -> bool:
        return bool(self.in_doubt or self.late) or self.orphaned


class Ledger:
    """What a journal has on record, and which repairs it has to make.

    All methods are called between two steps of the loop. Invariants:

    - the ids of ``sagas[s].actions`` are exactly those of the actions whose ``saga`` is ``s``;
    - an action is in the ledger only after the server has confirmed it;
    - a saga without actions here is in the ledger only if it is stuck;
    - an action with a late commit is `LEAVING`, if it is in the ledger.

    Attributes:
        sagas: The sagas that are open, by id.
        actions: Their actions, by id.
    """

    def __init__(self) -> None:
        self.sagas: dict[str, HeldSaga] = {}
        self.actions: dict[str, HeldAction] = {}
        self._in_doubt: list[str] = []
        self._late: dict[str, LateCommit] = {}
        # Actions that may have been committed by a batch that was not answered. All are of one
        # batch, because no other is sent before it is known what became of that one.
        self._doubts: dict[str, Doubt] = {}
        self._committed: set[str] = set()  # by such a batch; their scopes do not know of it
        self._orphaned = False

    def reset(self) -> None:
        """Forget everything: the journal becomes a new owner."""
        self.sagas.clear()
        self.actions.clear()
        self._in_doubt.clear()
        self._late.clear()
        self._doubts.clear()
        self._committed.clear()
        self._orphaned = False

    # Actions.

    def recorded(self, action: str, saga: str, position: str) -> None:
        """Add an action that the server has recorded."""
        self.actions[action] = HeldAction(saga, position)
        self.sagas.setdefault(saga, HeldSaga(1)).actions.add(action)

    def key(self, action: str) -> ActionKey | None:
        """Return the key of an action for a write; None if it is not this owner's any more."""
        held = self.actions.get(action)
        if held is None:
            return None
        return ActionKey(action, held.saga, self.sagas[held.saga].epoch)

    def counts_on(self, saga: str) -> bool:
        """Return whether a saga has an action that no request so far removes.

        If the server does not have such a saga, another process took it over and settled it. Then
        it must not be created again: an effect would begin in a saga that was undone.
        """
        held = self.sagas.get(saga)
        return held is not None and any(
            self.actions[action].state is ActionState.OPEN and action not in self._committed
            for action in held.actions
        )

    def begin_commit(self, ids: Iterable[str]) -> None:
        """Stop relying on actions whose commit is being requested."""
        self._put(ids, ActionState.LEAVING)

    def abort_commit(self, ids: Iterable[str]) -> None:
        """Rely again on actions whose commit failed."""
        self._put(ids, ActionState.OPEN)

    def _put(self, ids: Iterable[str], state: ActionState) -> None:
        for action in ids:
            if action in self.actions:
                self.actions[action].state = state

    def settled(self, action: str, *, stuck: bool = False) -> None:
        """Remove an action that this process has finished with.

        It was undone, committed, abandoned or taken over; or it is ``stuck``: a person decides.
        """
        held = self.actions.pop(action, None)
        _ = self._late.pop(action, None)
        self._forget_doubts(action)
        if held is not None:
            saga = self.sagas[held.saga]
            saga.actions.discard(action)
            saga.stuck |= stuck
            self._drop_if_empty(held.saga)

    def move(self, ids: Sequence[str], saga: str, prefix: str) -> dict[str, str]:
        """Move actions into another saga; return the new positions of those in the ledger.

        An action that is not in the ledger was taken over: its commit will raise `LeaseLost`.
        """
        positions: dict[str, str] = {}
        for action in ids:
            held = self.actions.get(action)
            if held is not None:
                self.sagas[held.saga].actions.discard(action)
                self._drop_if_empty(held.saga)
                held.saga, held.position = saga, prefix + held.position
                self.sagas.setdefault(saga, HeldSaga(1)).actions.add(action)
                positions[action] = held.position
        return positions

    def abandon(self, ids: Iterable[str]) -> dict[SagaKey, list[str]]:
        """Remove actions that are left to `recover`; return those that were here, by saga."""
        abandoned: dict[SagaKey, list[str]] = {}
        for action in ids:
            key = self.key(action)
            if key is not None:
                abandoned.setdefault(SagaKey(key.saga, key.epoch), []).append(action)
                self.settled(action)
        return abandoned

    # Sagas.

    def claimed(self, stored: StoredSaga, epoch: int) -> None:
        """Add a saga that this owner has taken over."""
        saga = self.sagas[stored.id] = HeldSaga(epoch)
        for action in stored.actions:
            saga.stuck |= action.state == "stuck"
            if action.state in {"pending", "deferred"}:
                saga.actions.add(action.id)
                self.actions[action.id] = HeldAction(stored.id, action.position)

    def discard(self, saga: str) -> None:
        """Remove a saga with all its actions: it was released, or another process has it."""
        held = self.sagas.pop(saga, None)
        for action in held.actions if held is not None else ():
            del self.actions[action]
            if action not in self._late:  # else the server says what became of it
                self._forget_doubts(action)

    def _drop_if_empty(self, saga: str) -> None:
        held = self.sagas[saga]
        if not held.actions and not held.stuck:
            del self.sagas[saga]

    # Repairs.

    def doubt(self, ids: Iterable[str]) -> None:
        """Remember that it is not known whether these actions are on record."""
        self._in_doubt += ids

    def orphan(self) -> None:
        """Record that this owner may have sagas on the server that are not in the ledger."""
        self._orphaned = True

    def commit_late(self, ids: Sequence[str], on_lost: Callable[[JournalError], object]) -> None:
        """Make the commit of actions a duty.

        They stay in the ledger until it is done, so that this owner keeps their saga alive. Of
        those that are not there, the server says whether they have ended or were taken over.
        ``on_lost`` is kept for `lose_late`.
        """
        self._put(ids, ActionState.LEAVING)
        known = {action for action in ids if action in self._committed}
        self._late |= {action: LateCommit(on_lost, action in self.actions) for action in ids}
        self.committed(known)  # that is settled

    def doubt_commits(self, doubts: Mapping[str, Doubt]) -> None:
        """Remember that a batch that was not answered may have committed these actions."""
        for action, doubt in doubts.items():
            if action in self.actions or action in self._late:
                self._doubts[action] = doubt

    @property
    def has_doubts(self) -> bool:
        """Whether it is unknown if a batch has committed actions."""
        return bool(self._doubts)

    def end_doubts(self, batch: int, answers: Sequence[Any]) -> None:
        """Take the last batch that was carried out, and the server's answer to each of its steps.

        No earlier batch can be carried out any more.
        """
        doubts, self._doubts = self._doubts, {}
        self.committed(
            action
            for action, doubt in doubts.items()
            if doubt.batch == batch and doubt.token not in answers[doubt.step]
        )

    def committed(self, ids: Iterable[str]) -> None:
        """Remember that actions are committed, although their callers were told otherwise."""
        for action in ids:
            if action in self._late:
                self.settled(action)
            elif action in self.actions:
                self._committed.add(action)

    def is_committed(self, action: str) -> bool:
        """Whether an action is committed, although the caller of the commit was told otherwise."""
        return action in self._committed

    def _forget_doubts(self, action: str) -> None:
        _ = self._doubts.pop(action, None)
        self._committed.discard(action)

    def lose_late(self, ids: Iterable[str], error: JournalError) -> None:
        """Report that the late commits of these actions can never be written."""
        for action in ids:
            if (late := self._late.pop(action, None)) is not None:
                self._forget_doubts(action)
                _ = late.on_lost(error)

    def lose_all_late(self, error: JournalError) -> None:
        """Report that no late commit can be written any more."""
        self.lose_late(list(self._late), error)

    @property
    def late_commits(self) -> int:
        """How many actions have a late commit that is not known to be on record."""
        return len(self._late)

    @property
    def has_duties(self) -> bool:
        """Whether there are repairs to make."""
        return bool(self._in_doubt or self._late) or self._orphaned

    def take_duties(self) -> Duties:
        """Return the repairs to make. The caller makes them, or calls `restore`.

        Late commits stay here until they are `settled`: `flush` must not overlook those on the way.
        """
        late = {action: commit.expected for action, commit in self._late.items()}
        duties = Duties(self._in_doubt, late, self._orphaned)
        self._in_doubt, self._orphaned = [], False
        return duties

    def restore(self, duties: Duties) -> None:
        """Put back repairs that could not be made; others may have been added meanwhile."""
        self._in_doubt = duties.in_doubt + self._in_doubt
        self._orphaned |= duties.orphaned
