"""`ScopeNode`: a scope as a place in a tree, with its records and its state."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar, cast

from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.logs import facts
from returns_pipeline.compensation._binding import NoJournal, Settings
from returns_pipeline.compensation._records import (
    NOTHING,
    Held,
    Record,
    Registered,
    newest_first,
    next_order,
)
from returns_pipeline.compensation._report import CompensationReport
from returns_pipeline.compensation._reporting import RollbackEvents, report_registered
from returns_pipeline.compensation._rollback import Rollback
from returns_pipeline.compensation._state import CHANGES, Commit, ScopeState
from returns_pipeline.compensation._undo import OnFailure, Order
from returns_pipeline.compensation._unique import unique
from returns_pipeline.compensation.protocol import Journal
from returns_pipeline.errors import InvalidArgument, JournalError, ScopeClosed

__all__ = ["EMPTY", "ScopeNode"]

S = TypeVar("S", bound="ScopeNode[Any]")  # the derived class

_log = logging.getLogger("returns_pipeline.compensation")

EMPTY: Final = CompensationReport()
_OPEN: Final = ScopeState.OPEN
_COMMITTING: Final = ScopeState.COMMITTING
_ROLLING_BACK: Final = ScopeState.ROLLING_BACK
_ABSORBED: Final = ScopeState.ABSORBED


class ScopeNode(Generic[S]):
    """A scope's place in the tree, its records, and its state.

    It waits for nothing. The operations of a scope (register, commit, roll back) are in
    `CompensationScope`, the only class that is derived from this one.
    """

    # Invariants. Only `_change` changes `_state`. The data of the state is `_pending`: the `Commit`
    # while it is committing; the `Rollback` while it is rolling back and afterwards; the scope that
    # has absorbed it, unless it was inside that one before; else None.
    # Only an open or a committing scope has records. `_children` are the children that are open,
    # committing or rolling back; a child leaves it with its final state. Everything here runs in
    # the thread of one event loop: no other task sees a change that is half done, because no method
    # awaits anything in the middle of one.

    __slots__ = (
        "__weakref__",
        "_children",
        "_key",
        "_pending",
        "_recording",
        "_records",
        "_settings",
        "_started",
        "_state",
        "name",
        "parent",
        "report",
    )

    _records: list[Record]

    def _begin(self, name: str, parent: S | None, settings: Settings) -> None:
        self.name: str = name
        self.parent: S | None = parent
        self.report: CompensationReport = EMPTY
        self._settings = settings
        self._started = next_order()
        self._state = _OPEN
        self._pending: Commit | Rollback[S] | S | None = None
        self._records = []
        self._recording = 0  # actions on their way to the journal
        self._children: dict[S, None] | None = None  # the oldest first
        self._key: str | None = None

    @property
    def journal(self) -> Journal | None:
        """The journal that stores its actions, if there is one."""
        return self._settings.binding.journal

    @property
    def order(self) -> Order:
        """The order in which its actions are undone."""
        return self._settings.order

    @property
    def timeout(self) -> float:
        """Seconds that an undo may take, unless it has a time of its own."""
        return self._settings.timeout

    @property
    def on_failure(self) -> OnFailure:
        """What a failed undo means for the rest."""
        return self._settings.on_failure

    @property
    def path(self) -> str:
        """The names from the outermost scope to this one, with slashes between."""
        at: ScopeNode[Any] | None = self.parent
        if at is None:
            return self.name
        names: list[str] = [self.name]
        while at is not None:
            names.append(at.name)
            at = at.parent
        return "/".join(reversed(names))

    @property
    def key(self) -> str:
        """The idempotency key: unique to this scope, the same while its actions are undone."""
        if self._key is None:
            self._key = unique()
        return self._key

    def _renew_key(self, key: str | None = None) -> None:
        """Begin another step, with this key or a new one."""
        self._key = key

    @property
    def state(self) -> ScopeState:
        """The state, a member of `ScopeState`."""
        return self._state

    @property
    def closed(self) -> bool:
        """Whether it is rolling back, or has a final state, and so accepts no more actions."""
        return self._state is not _OPEN and self._state is not _COMMITTING

    def _change(self, state: ScopeState, pending: Commit | Rollback[S] | S | None = None) -> None:
        """Enter another state, with its data. Nothing else changes the state."""
        assert state in CHANGES[self._state], f"{self.path!r} is {self._state}, not to be {state}"
        self._state = state
        self._pending = pending
        if state is _OPEN or state is _COMMITTING or state is _ROLLING_BACK:
            return  # the others are final
        self._records = NOTHING
        self._children = None
        parent = self.parent
        if parent is not None and parent._children is not None:
            parent._children.pop(self, None)

    def _adopt(self, child: S) -> None:
        if self._children is None:
            self._children = {child: None}
        else:
            self._children[child] = None

    def _family(self) -> list[S]:
        """Return this scope and all scopes inside it that have no final state."""
        family = [cast("S", self)]
        for scope in family:  # the list grows meanwhile; not recursive, for any depth
            if scope._children:
                family.extend(scope._children)
        return family

    def _encloses(self, scope: ScopeNode[Any] | None) -> bool:
        """Whether another scope is this one, or is inside it, or was absorbed by one that is."""
        while scope is not None and scope is not self:
            by: Any = scope._pending if scope._state is _ABSORBED else None
            scope = by or scope.parent
        return scope is not None

    def _check_takes_more(self) -> None:
        """Check that actions may be added, in a method that cannot wait.

        They may be added during a commit after which the scope stays open: they are not part of
        that commit, and if it is refused they are undone with the rest.

        Raises:
            ScopeClosed: No action may be added, or it is not known yet.
        """
        if self._state is _OPEN:
            return
        pending = self._pending
        if isinstance(pending, Commit) and pending.keeps_open is self:
            return
        raise ScopeClosed(self.path, self._state)

    @property
    def _commit_under_way(self) -> Commit | None:
        """A commit that a scope of the family waits for, if there is one."""
        if self._children is None:  # the usual case
            return self._pending if isinstance(self._pending, Commit) else None
        commits = (scope._pending for scope in self._family())
        return next((commit for commit in commits if isinstance(commit, Commit)), None)

    def _check_absorb(self, child: ScopeNode[Any]) -> None:
        self._check_takes_more()
        if child._state is not _OPEN:
            raise ScopeClosed(child.path, child._state)
        if self.journal is not child.journal:
            raise InvalidArgument(
                f"scopes {self.path!r} and {child.path!r} do not have the same journal"
            )
        at: ScopeNode[Any] | None = self
        while at is not None:
            if at is child:
                raise InvalidArgument(f"scope {self.path!r} cannot absorb {child.path!r}")
            at = at.parent

    async def _commits_ended(self) -> None:
        """Wait for a commit that is under way here, or in a scope inside."""
        if (commit := self._commit_under_way) is not None:
            await commit.outcome()

    def _report_registered(self, record: Registered) -> None:
        if (observed := self._settings.observed) is not None:
            report_registered(observed, self, record.name, self._settings.binding.open_saga)

    def _rollback_events(self) -> RollbackEvents | None:
        observed = self._settings.observed
        if observed is None:
            return None
        return RollbackEvents(observed, self, self._settings.binding.open_saga)

    def _note_committed(self, raised: BaseException | None) -> None:
        """Note on an exception that everything is committed nevertheless."""
        if raised is not None:
            add_note(raised, f"scope {self.path!r} was committed before this was raised")

    def _follow(self, records: list[Record], before: NoJournal) -> None:
        """Take records along that were on their way to the journal when this scope changed roots.

        Their request belonged to the binding ``before``.
        """
        binding = self._settings.binding
        if binding is before:
            return
        try:
            binding.take_over(records, before, prefix="")
        except JournalError as error:  # after a crash they are undone, but in a saga of their own
            _log.error(
                "scope %r: its actions cannot join another saga: %s",
                self.path,
                error,
                extra=facts(scope=self.path),
            )

    def _awaits_journal(self) -> bool:
        """Whether a request of this scope, or of one inside it, is on its way to the journal."""
        return any(
            scope._recording or isinstance(scope._pending, Commit) for scope in self._family()
        )

    @staticmethod
    def _held(scopes: Sequence[ScopeNode[Any]]) -> list[Held]:
        return [(record, scope) for scope in scopes for record in scope._records]

    def __len__(self) -> int:
        """Count the actions on record: neither committed, nor undone or about to be."""
        return sum(1 for _ in newest_first(self._held(self._family())))

    def __bool__(self) -> bool:
        """Return true, even if it is empty: a scope is not a container."""
        return True

    def __repr__(self) -> str:
        state = f"{len(self)} to undo" if self._state is _OPEN else self._state
        return f"<CompensationScope {self.path!r}: {state}>"

    def __del__(self) -> None:
        try:
            records = self._records
        except AttributeError:  # its arguments were refused
            return
        if records:
            waiting = [
                str(record.action(self).entry()) for record, _ in newest_first(self._held([self]))
            ]
            warnings.warn(
                f"scope {self.path!r} was dropped with {len(waiting)} action(s) neither "
                f"committed nor undone: {', '.join(waiting)}",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )
