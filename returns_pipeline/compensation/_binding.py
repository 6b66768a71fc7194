"""How a tree of scopes is bound to a journal, or to none."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine, Iterable
from typing import Any, NamedTuple, cast

from returns_pipeline._engine.cancellation import shielded
from returns_pipeline.compensation._records import Holder, Record, Registered, single
from returns_pipeline.compensation._registry import Compensation
from returns_pipeline.compensation._undo import OnFailure, Order
from returns_pipeline.compensation.protocol import ActionRecord, Intent, Journal
from returns_pipeline.errors import UnregisteredCompensation

__all__ = ["JournalBinding", "NoJournal", "Settings", "position"]


class NoJournal:
    """The binding of scopes that exist in memory only.

    Each request returns ``None``: nothing has to be waited for.
    """

    __slots__ = ()

    @property
    def journal(self) -> Journal | None:
        """The journal, if there is one."""
        return None

    def forget(
        self, _: Iterable[Record], /
    ) -> Coroutine[Any, Any, asyncio.CancelledError | None] | None:
        """Commit actions."""
        return None

    def flush(self) -> Coroutine[Any, Any, asyncio.CancelledError | None] | None:
        """Wait until all commits are durable."""
        return None

    def take_over(self, records: list[Record], before: NoJournal, /, *, prefix: str) -> None:
        """Take the actions of another binding, or move this one's own to other positions."""

    def action_record(self, _: Registered, /) -> ActionRecord | None:
        """Return the durable record of an action, for its undo."""
        return None

    def abandon(self, records: Iterable[Registered], /) -> None:
        """Leave actions to `recover`."""

    def ended(self, count: int, /) -> None:
        """Record that this number of actions is no longer open."""


class JournalBinding(NoJournal):
    """The binding of a tree of scopes to a journal. All scopes of the tree share it.

    All actions of the tree that are open at the same time are one *saga* of the journal: after a
    crash they are undone together, the last registered one first. That includes the actions of
    steps in flight, which no enclosing scope has absorbed yet.

    When no action is open any more, the next one begins a new saga. It needs no order relative to
    what was undone before, and a process that took over the old saga has no claim to it. Until
    then, the journal refuses to add to a saga that was taken over. So a process that was taken for
    dead begins no further effect in it.

    Args:
        journal: Where the actions are kept.
        name: The path of the outermost scope, which names the saga for people.
        on_failure: What a failed undo means for the rest, also after a crash.
    """

    __slots__ = ("_journal", "_name", "_on_failure", "_open", "_saga")

    def __init__(self, journal: Journal, name: str, on_failure: OnFailure) -> None:
        self._journal = journal
        self._name = name
        self._on_failure: OnFailure = on_failure
        self._saga = ""
        self._open = 0  # actions on record, or on their way there

    @property
    def journal(self) -> Journal:
        """The journal."""
        return self._journal

    @property
    def saga(self) -> str:
        """The id of the saga that the next action belongs to."""
        if not self._saga:
            self._saga = os.urandom(16).hex()
        return self._saga

    async def record(self, record: Registered, scope: Holder, /) -> asyncio.CancelledError | None:
        """Put an action on record. It is durable when this returns, even if it was cancelled.

        Returns:
            A cancellation that came meanwhile; the caller must raise it.

        Raises:
            UnregisteredCompensation: No other process could find its undo.
            JournalError: It is not on record.
        """
        undo, args, kwargs = record.whole_call()
        record.id = _action_id()
        if not isinstance(undo, Compensation):
            reason = f"{record.action(scope).name} is not a compensation of a registry"
            raise UnregisteredCompensation(str(self._journal), reason)
        known = cast("Compensation[...]", undo)  # isinstance cannot tell its types
        intent = Intent(
            record.id,
            self.saga,
            self._name,
            position(record.order),
            scope.path,
            scope.key,
            known,
            args,
            kwargs,
            self._on_failure,
        )
        self._open += 1
        try:
            _, cancelled = await shielded(self._journal.record(intent))
        except BaseException:
            self.ended(1)
            raise
        return cancelled

    async def forget(self, records: Iterable[Record], /) -> asyncio.CancelledError | None:
        """Commit actions; return a cancellation that came meanwhile.

        Raises:
            JournalError: Nothing was committed.
        """
        ids = [record.id for record in single(records)]
        _, cancelled = await shielded(self._journal.forget(ids))
        self.ended(len(ids))
        return cancelled

    async def flush(self) -> asyncio.CancelledError | None:
        """Wait until all commits are durable; return a cancellation that came meanwhile.

        Raises:
            JournalError: A commit is not durable.
        """
        _, cancelled = await shielded(self._journal.flush())
        return cancelled

    def take_over(self, records: list[Record], before: NoJournal, /, *, prefix: str) -> None:
        """Take the actions of another binding, or move this one's own to other positions.

        Raises:
            JournalError: The journal refuses; nothing has changed.
        """
        if not records or (before is self and not prefix):
            return
        ids = [record.id for record in single(records)]
        self._journal.move(ids, saga=self.saga, name=self._name, prefix=prefix)
        self._open += len(ids)  # before `ended`, which begins a new saga when nothing is open
        before.ended(len(ids))

    def action_record(self, record: Registered, /) -> ActionRecord:
        """Return the durable record of an action, for its undo."""
        return self._journal.mark(record.id)

    def abandon(self, records: Iterable[Registered], /) -> None:
        """Leave actions to `recover`, of this process or another: they have no owner any more."""
        self._journal.abandon([record.id for record in records])

    def ended(self, count: int, /) -> None:
        """Record that this number of actions is no longer open."""
        self._open -= count
        if not self._open:
            self._saga = ""


class Settings(NamedTuple):
    """The settings that a scope shares with all scopes inside it."""

    order: Order
    timeout: float
    on_failure: OnFailure
    binding: NoJournal


def position(order: int) -> str:
    """Return a number as text that sorts in the order of the numbers."""
    return f"{order:016d}"


def _action_id() -> str:
    """Return an id that no other action has.

    It begins with the time, as a UUID of version 7 does (RFC 9562). So actions that are recorded
    together are neighbours in an index, and a transaction writes a few pages of the index, not one
    page for each action. The ids of sagas are random, because people tell sagas apart by the first
    characters.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
