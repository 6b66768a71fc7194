"""The private functions of this room that other rooms call. They import no other file here."""
# pyright: reportPrivateUsage=false
# This file alone uses private parts of the class, and lists every method that is used.

from __future__ import annotations

import asyncio
from typing import Final

from returns_pipeline._engine.cancellation import raise_both
from returns_pipeline.compensation._binding import Handled, JournalBinding
from returns_pipeline.compensation._records import Record, Registered, next_order
from returns_pipeline.compensation._registry import hidden
from returns_pipeline.compensation._report import HIDDEN, printable
from returns_pipeline.compensation._scope import IN_MEMORY, CompensationScope
from returns_pipeline.compensation._state import Commit, ScopeState, state_after
from returns_pipeline.compensation._undo import Action, undo_once, why_failed
from returns_pipeline.compensation._unique import unique

__all__ = [
    "HIDDEN",
    "Action",
    "Record",
    "Registered",
    "ReportedRecords",
    "awaits_journal",
    "commit",
    "commit_at_once",
    "commit_covering",
    "commits_ended",
    "detached",
    "detached_earlier",
    "early_records",
    "flush",
    "hidden",
    "next_order",
    "presume_committed",
    "printable",
    "renew_key",
    "roll_back",
    "roll_back_after",
    "state_after",
    "undo_once",
    "unique",
    "until_open",
    "why_failed",
]

awaits_journal: Final = CompensationScope._awaits_journal
commit: Final = CompensationScope._commit
commit_at_once: Final = CompensationScope._commit_at_once
commits_ended: Final = CompensationScope._commits_ended
detached: Final = CompensationScope._detached
flush: Final = CompensationScope._flush
presume_committed: Final = CompensationScope._presume_committed
renew_key: Final = CompensationScope._renew_key
roll_back: Final = CompensationScope._roll_back
roll_back_after: Final = CompensationScope._roll_back_after
until_open: Final = CompensationScope._until_open

_OPEN: Final = ScopeState.OPEN  # looked up once: members of an enum are found slowly


class ReportedRecords(list[Record]):
    """Records of a scope that an observer watches: each is added by the scope, which reports it."""


def early_records(outer: CompensationScope) -> list[Record] | None:
    """Return the list for the records of a detached scope that is made when it is needed.

    That is by `detached_earlier`. It is possible if the other scope is open, and no journal must
    know of the actions in between; otherwise None is returned. An observer must know of them: if
    there is one, the list is of a class of its own, and the scope is made for the first action.
    """
    settings = outer._settings
    if outer._state is not _OPEN or settings.binding is not IN_MEMORY:
        return None
    return [] if settings.observed is None else ReportedRecords()


async def commit_covering(
    scope: CompensationScope, positions: Handled
) -> asyncio.CancelledError | None:
    """Commit and close a scope, and store positions together with that, even after a commit.

    Returns:
        A cancellation that came meanwhile. It is committed; the caller must raise it.

    Raises:
        ScopeClosed: It was rolled back, or absorbed: nothing is stored.
        JournalError: The journal refuses: the scope is open as before.
    """
    while isinstance(scope._pending, Commit):
        await scope._pending.outcome()
    binding = scope._settings.binding
    if isinstance(binding, JournalBinding) and binding.is_late:
        # A commit at a pivot comes first: else its actions could be undone after a crash, and the
        # messages that they come from be skipped.
        raise_both(*await scope._flush())
    if scope._state is ScopeState.COMMITTED:  # by the step itself
        cancelled, _ = await scope._forget([], positions, presumed=False)
        return cancelled
    return await scope._commit(keep_open=False, positions=positions)


def detached_earlier(
    outer: CompensationScope,
    name: str,
    started: int,
    records: list[Record] | None,
    key: str | None,
) -> CompensationScope:
    """Make the scope that `detached` would have made, as it would be by now.

    Args:
        outer: The scope that it belongs to when it is absorbed. It may have been closed since.
        name: Its name.
        started: The `next_order` of the time when it should have been made.
        records: The actions registered since; None if it was committed.
        key: Its key, if anything has asked for it already.
    """
    made = CompensationScope.__new__(CompensationScope)
    made._begin(name, outer, outer._settings)
    made._started = started
    made._key = key
    if records is None:
        made._change(ScopeState.COMMITTED)
    else:
        made._records = records
    return made
