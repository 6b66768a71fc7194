"""How a tree of scopes is bound to a journal, or to none."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from returns_pipeline._engine.cancellation import shielded
from returns_pipeline._engine.logs import facts
from returns_pipeline._engine.observing import Observed
from returns_pipeline.compensation._records import Holder, Record, Registered, single
from returns_pipeline.compensation._registry import Compensation
from returns_pipeline.compensation._undo import OnFailure, Order
from returns_pipeline.compensation._unique import unique
from returns_pipeline.compensation.protocol import (
    ActionRecord,
    HandledPositions,
    Intent,
    Journal,
)
from returns_pipeline.errors import JournalError, LeaseLost, UnregisteredCompensation

__all__ = ["Handled", "JournalBinding", "NoJournal", "Settings", "position"]

Handled: TypeAlias = Sequence[HandledPositions]

_log = logging.getLogger("returns_pipeline.compensation")


class NoJournal:
    """The binding of scopes that exist in memory only.

    Each request returns ``None``: nothing has to be waited for.
    """

    __slots__ = ()

    @property
    def journal(self) -> Journal | None:
        """The journal, if there is one."""
        return None

    @property
    def open_saga(self) -> str:
        """The id of the saga that its open actions are in; empty if there is none."""
        return ""

    def forget(
        self,
        _: list[Registered],
        /,
        positions: Handled = (),  # noqa: ARG002
    ) -> Awaitable[None] | None:
        """Request to commit actions, and to store positions with that."""
        return None

    def forget_later(self, _: list[Registered], __: Exception, ___: Holder, /) -> bool:
        """Commit actions as soon as possible; return whether the journal will try."""
        return True

    def loss(self, _: Callable[[Any], bool], /) -> JournalError | None:
        """Return the error of a late commit that was lost in some scopes, once."""
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

    __slots__ = (
        "_before",
        "_is_late",
        "_journal",
        "_lost",
        "_name",
        "_on_failure",
        "_open",
        "_saga",
    )

    def __init__(self, journal: Journal, name: str, on_failure: OnFailure) -> None:
        self._journal = journal
        self._name = name
        self._on_failure: OnFailure = on_failure
        self._saga = ""
        self._is_late = False
        self._open = 0  # actions on record, or on their way there
        # The late commits that `flush` must raise, each with its scope. Any thread appends.
        self._lost: list[tuple[Holder, JournalError]] = []
        # Of scopes that were absorbed, with commits that may be lost from now on.
        self._before: list[JournalBinding] = []

    @property
    def open_saga(self) -> str:
        return self._saga

    @property
    def journal(self) -> Journal:
        """The journal."""
        return self._journal

    @property
    def saga(self) -> str:
        """The id of the saga that the next action belongs to."""
        if not self._saga:
            self._saga = unique()
        return self._saga

    def record(self, record: Registered, scope: Holder, /) -> Awaitable[None]:
        """Request to put an action on record; the awaitable waits until it is durable.

        The action counts as open from now on, so the caller calls `ended` if it is refused.

        Raises:
            UnregisteredCompensation: No other process could find its undo.
            JournalError: It is not on record.
        """
        self._open += 1
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
        return self._journal.record(intent)

    def forget(self, records: list[Registered], /, positions: Handled = ()) -> Awaitable[None]:
        """Request to commit actions. The caller calls `ended` once the journal has done so.

        Raises:
            JournalError: Nothing was committed; the awaitable raises it, too.
        """
        ids = [record.id for record in records]
        return self._journal.forget(ids, positions) if positions else self._journal.forget(ids)

    def forget_later(self, records: list[Registered], refused: Exception, scope: Holder, /) -> bool:
        """Commit actions as soon as possible; return whether the journal will try.

        ``refused`` is why that was not possible now. If some are lost already, the caller raises
        it; if they are lost from now on, `loss` returns that.
        """
        self.ended(len(records))
        self._is_late = True

        def keep(error: JournalError) -> None:
            self._lost.append((scope, error))

        on_lost = bool if isinstance(refused, LeaseLost) else keep
        try:
            self._journal.forget_later([record.id for record in records], on_lost)
        except Exception as error:  # noqa: BLE001  # a point of no return was passed: never raise
            _log.error(
                "%r, and that cannot be committed later: %r",
                self._name,
                error,
                extra=facts(scope=self._name),
            )
            return False
        return True

    async def flush(self) -> asyncio.CancelledError | None:
        """Wait until all commits are durable; return a cancellation that came meanwhile.

        Afterwards the caller asks for its own `loss`.

        Raises:
            JournalError: A commit is not durable.
        """
        _, cancelled = await shielded(self._journal.flush())
        return cancelled

    def loss(self, is_inside: Callable[[Any], bool], /) -> JournalError | None:
        """Return the error of a late commit that was lost in some scopes, once.

        The other scopes of the tree, whose steps run at the same time, are not concerned.
        """
        found: list[JournalError] = []
        for binding in self._with_those_before():
            lost = [entry for entry in binding._lost if is_inside(entry[0])]
            for entry in lost:
                binding._lost.remove(entry)
                found.append(entry[1])
        return found[0] if found else None

    @property
    def is_late(self) -> bool:
        """Whether a commit was refused, and left to the journal."""
        return any(binding._is_late for binding in self._with_those_before())

    def _with_those_before(self) -> list[JournalBinding]:
        bindings: list[JournalBinding] = [self]
        for binding in bindings:  # the list grows meanwhile
            bindings += [each for each in binding._before if each not in bindings]
        return bindings

    def take_over(self, records: list[Record], before: NoJournal, /, *, prefix: str) -> None:
        """Take the actions of another binding, or move this one's own to other positions.

        The losses of the other binding's late commits are found by `loss` from now on.

        Raises:
            JournalError: The journal refuses; nothing has changed.
        """
        if records and (before is not self or prefix):
            ids = [record.id for record in single(records)]
            self._journal.move(ids, saga=self.saga, name=self._name, prefix=prefix)
            self._open += len(ids)  # before `ended`, which begins a new saga when nothing is open
            before.ended(len(ids))
        if not isinstance(before, JournalBinding) or before is self or before in self._before:
            return
        if before._is_late or before._open or before._before:  # open: in steps in flight
            self._before.append(before)

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
    observed: Observed | None = None


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
    return f"{time.time_ns() // 1_000_000:012x}{unique()[12:]}"
