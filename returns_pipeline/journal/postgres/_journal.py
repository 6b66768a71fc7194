"""`PostgresJournal`: undo actions in PostgreSQL, durable before their effects.

The journal has three parts:

- the face, in this file: what each request asks for, and what its answer means for the ledger;
- `Ledger`: what this process has on record, and which repairs it has to make;
- `Writer`: the task that sends requests over one connection, in one transaction for all that come
  together. The server's side of a transaction is in ``schema.sql``.

An owner of open sagas holds an advisory lock in the session that writes. The server releases the
lock when the session ends, and only then may another process take the sagas over. No clock is
involved, and no request of the former owner can arrive after that. Behind a transaction pooler
there is no session: a row with an expiry in the server's time (a lease) takes the place of the
lock.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from uuid import uuid4

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import ShieldedFuture
from returns_pipeline._engine.spans import Spans
from returns_pipeline.compensation.protocol import (
    HandledPositions,
    Intent,
    StoredPositions,
    StoredSaga,
    TakenPartition,
)
from returns_pipeline.errors import ArgumentsNotRecordable, InvalidArgument, JournalError
from returns_pipeline.journal._arguments import encode_arguments
from returns_pipeline.journal._face import (
    ActionChange,
    JournalFace,
    committed,
    discard_reason,
    fenced,
    storable,
)
from returns_pipeline.journal._statistics import JournalStatistics
from returns_pipeline.journal.postgres._address import AddressSource, Text
from returns_pipeline.journal.postgres._ledger import ActionKey, Ledger
from returns_pipeline.journal.postgres._requests import Row
from returns_pipeline.journal.postgres._rows import (
    listed,
    positions,
    positions_listed,
    sagas_listed,
)
from returns_pipeline.telemetry import Observer

if TYPE_CHECKING:
    from returns_pipeline.journal.postgres._writer import Writer  # it needs asyncpg

__all__ = ["Liveness", "PostgresJournal"]

Liveness: TypeAlias = Literal["session", "lease"]

_log = logging.getLogger("returns_pipeline.journal")

# Seconds, a hundred years: the server can subtract no more from a time.
_LONGEST: Final = 100 * 365.25 * 86_400.0


class PostgresJournal(JournalFace):
    """Keeps undo actions in a PostgreSQL database, for any number of processes and machines.

    Actions recorded by `CompensationScope.register` survive the end of the process and of the
    server: ``synchronous_commit`` is on for the journal's transactions, whatever the default.

    The first process that needs the tables creates them, in a schema of their own.

    - ``liveness="session"``: an owner is alive as long as its connection. When the process or the
      connection ends, in any way, other processes may take over at once. A stopped process keeps
      its sagas. A machine that disappears is noticed after half a minute. A lost connection is
      replaced at once; if no other process has taken over meanwhile, work continues as if nothing
      had happened.
    - ``liveness="lease"``: for connections through a transaction pooler. An owner is alive until
      its lease expires by the server's clock. While anything is open, a task of the journal renews
      the lease every ``lease / 3`` seconds. A process that is stopped for longer than ``lease``
      seconds is taken for dead.

    With both, an owner whose saga was taken over is *fenced*: every later request about that saga
    raises `LeaseLost`.

    A request whose connection is lost is carried out exactly once, over a later connection. A
    request that takes longer than ``patience`` seconds raises `JournalUnavailable`, and changes
    nothing.

    ``async with PostgresJournal(dsn) as journal`` opens the journal at once and closes it at the
    end. Otherwise the first request opens it, and the end of the process closes it. It belongs to
    the event loop that opened it, until it is closed or that loop is. A process made by fork must
    not use it.

    Args:
        dsn: The address, "postgresql://user@host/database", with the parameters of libpq; or a
            function that returns it, also a coroutine function, which is called for each
            connection. Of several servers the first that accepts writes is used, unless
            ``target_session_attrs`` says otherwise.
        password: The password, in place of the one in ``dsn``; or a function as above, for tokens
            that expire.
        schema: The schema of the tables: letters, digits and underscores.
        create: Whether missing tables are created. If not, every request raises
            `JournalUnavailable` when there are none, so a wrong address is noticed.
        liveness: How other processes recognise a living owner, "session" or "lease".
        lease: Seconds that a lease lasts, above 0.
        retention: Seconds that an undone action stays listed.
        patience: Seconds to wait for a connection, or for another process that writes, above 0.
        observer: Gets an event for each batch of requests, besides the observers of
            `telemetry.use` where the journal is opened.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.
        MissingExtra: At the call, if asyncpg is not installed.

    >>> from returns_pipeline import CompensationScope
    >>> journal = PostgresJournal("postgresql://127.0.0.1/shop", liveness="lease")  # not opened yet
    >>> CompensationScope("order", journal=journal).path
    'order'
    """

    def __init__(
        self,
        dsn: Text,
        *,
        password: Text | None = None,
        schema: str = "returns_pipeline",
        create: bool = True,
        liveness: Liveness = "session",
        lease: checks.Seconds = 30.0,
        retention: checks.Seconds = 30 * 86_400.0,
        patience: checks.Seconds = 10.0,
        observer: Observer | None = None,
    ) -> None:
        _check(schema, liveness)
        lease = checks.seconds("lease", lease, finite=True)
        patience = checks.seconds("patience", patience, finite=True)
        retention = checks.seconds("retention", retention, zero=True)
        # Imported here: only a journal in PostgreSQL needs asyncpg.
        from returns_pipeline.journal.postgres._claims import Claims  # noqa: PLC0415
        from returns_pipeline.journal.postgres._writer import Writer  # noqa: PLC0415

        source = AddressSource(dsn, password)
        self._name = source.name
        self._schema = schema
        self._ledger = Ledger()
        self._writer = Writer(
            source,
            self._name,
            self._ledger,
            schema=schema,
            create=create,
            lease=lease if liveness == "lease" else 0.0,
            retention=min(retention, _LONGEST),
            patience=patience,
            observer=observer,
        )
        self._claims = Claims(self._name, self._ledger, self._writer, min(retention, _LONGEST))
        super().__init__(_Changes(self._name, self._ledger, self._writer))

    def __str__(self) -> str:
        return self._name

    async def _open(self) -> None:
        await self._writer.ask("nothing")

    async def close(self) -> None:
        """Carry out the waiting requests, release all sagas and end the connection.

        Other processes may then recover what this journal had open. The journal can be used again,
        as another owner.

        Raises:
            JournalError: Commits that were refused, and tried again, could not be written: their
                actions will be undone. The journal is closed nevertheless.
        """
        try:
            await self._writer.close()
        finally:
            self._claims.reset()

    def statistics(self) -> JournalStatistics:
        """Return what this object has written, and what waits. It may be called at any time.

        >>> PostgresJournal("postgresql:///test").statistics().waiting
        0
        """
        return self._writer.statistics()

    async def flush(self) -> None:
        """Wait until every commit that has returned is durable, and every move is carried out.

        In this journal a commit is durable when it returns. A move that cannot be carried out now
        is kept for later, and not waited for.

        Raises:
            JournalError: A commit that was refused, and is tried again, cannot be written now.
        """
        await self._writer.flush()

    # For scopes.

    async def record(self, intent: Intent, /) -> None:
        """Record an action. It is durable when this returns: see `Journal`.

        Cancel safety: a cancelled ``record`` counts as refused, and the effect must not begin. If
        the action is on record nevertheless, it is removed.
        """
        if storable(intent.undo.name) != intent.undo.name:
            raise ArgumentsNotRecordable(str(self), f"{intent.undo.name!r} cannot be stored")
        row: Row = {
            "id": intent.id,
            "saga": intent.saga,
            "saga_name": storable(intent.saga_name),
            "on_failure": intent.on_failure,
            "position": intent.position,
            "path": storable(intent.path),
            "key": intent.key,
            "name": intent.undo.name,
            "version": intent.undo.version,
            "arguments": encode_arguments(intent),
            # Determined now: a commit that is requested later may be part of the same batch.
            "known": self._ledger.counts_on(intent.saga),
        }

        def recorded(_: object) -> None:
            self._ledger.recorded(intent.id, intent.saga, intent.position)

        def orphaned(_: object) -> None:
            if intent.id in self._ledger.actions:  # or the journal was closed meanwhile
                self._ledger.settled(intent.id)
                self._ledger.doubt([intent.id])
                self._writer.reconnect()

        await self._writer.ask("record", [row], recorded, on_orphaned=orphaned, saga=intent.saga)

    def forget(
        self, ids: Sequence[str], /, positions: Sequence[HandledPositions] = ()
    ) -> Awaitable[None]:
        """Commit: remove actions. It is durable when this returns: see `Journal`.

        A caller that is cancelled before the commit was sent has not committed.
        """
        outcome: ShieldedFuture[None] = ShieldedFuture(lambda: self._writer.withdraw(request))
        try:
            _ = self._writer.check_loop()  # first, because a refusal must not change the ledger
            keys = [_key_of(self._name, self._ledger, action) for action in ids]
        except JournalError as error:
            outcome.future.set_exception(error)
            return outcome
        if not keys and not positions:
            outcome.future.set_result(None)
            return outcome

        def forgotten(_: object) -> None:
            for action in ids:
                self._ledger.settled(action)

        def failed() -> None:
            self._ledger.abort_commit(ids)

        self._ledger.begin_commit(ids)
        rows = [_row(key) for key in keys] + [_covered_row(each) for each in positions]
        saga = keys[0].saga if keys else ""
        future = outcome.future
        request = self._writer.send("forget", rows, forgotten, failed, saga=saga, future=future)
        return outcome

    def forget_later(
        self, ids: Sequence[str], on_lost: Callable[[JournalError], object], /
    ) -> None:
        """Commit as soon as possible: see `Journal`.

        While the server is away, it is tried again with each request and each second. `flush` and
        `close` try it, too. If `close` cannot write it, it raises the error.
        """
        _ = self._writer.check_loop()
        self._ledger.commit_late(ids, on_lost)
        self._writer.reconnect()

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        """Move actions into another saga, with ``prefix`` before their positions: see `Journal`.

        It is durable when a later request is, or when `flush` returns. While the server is away the
        move is kept, and carried out before all later requests.
        """
        _ = self._writer.check_loop()  # first, because a refusal must not change the ledger
        positions = self._ledger.move(ids, saga, prefix)
        if positions:
            rows = [{"id": action, "position": place} for action, place in positions.items()]
            self._writer.post("move", {"to": saga, "name": storable(name), "rows": rows}, saga)

    def abandon(self, ids: Sequence[str], /) -> None:
        """Leave actions to `recover`: see `Journal`.

        While the server is away the request is kept. It is carried out before all later requests,
        or by itself once the server is back.
        """
        try:
            _ = self._writer.check_loop()
        except JournalError as error:  # the caller's rollback must end in any case
            _log.error("actions cannot be recovered until this process ends: %s", error)
            return
        for key, actions in self._ledger.abandon(ids).items():
            row: Row = {"saga": key.saga, "epoch": key.epoch, "to": uuid4().hex, "ids": actions}
            self._writer.post("abandon", row, key.saga)

    # For a source.

    async def take(self, source: str, partitions: Sequence[str], /) -> Mapping[str, TakenPartition]:
        """Take partitions over: see `Positions`."""
        names = {storable(partition): partition for partition in partitions}
        row: Row = {"source": storable(source), "partitions": sorted(names)}
        found: dict[str, tuple[int, str]] = await self._writer.ask("take", [row])
        return {
            names[name]: TakenPartition(epoch, Spans.from_json(spans))
            for name, (epoch, spans) in found.items()
        }

    # For recovery.

    async def claim(
        self, *, besides: AbstractSet[str], known: Mapping[str, int] | None = None
    ) -> StoredSaga | None:
        """Take over the newest saga of a dead owner that is not in ``besides``: see `recover`.

        Sagas are taken over a few at a time. Those that are not requested within a second are
        released.

        Cancel safety: sagas that were claimed for a cancelled caller are released.
        """
        return await self._claims.next(besides, known)

    async def release(self, saga: str) -> None:
        """Allow other processes to claim a saga.

        If this fails, the next request that succeeds carries it out.
        """
        await self._claims.release(saga)

    # For people.

    async def sagas(self, *, done: bool = True) -> list[StoredSaga]:
        """Return everything on record, the newest saga first. It takes no lock, changes nothing.

        It uses a connection of its own, and waits for no other process.

        Raises:
            JournalUnavailable: The server cannot be reached or refuses the connection, or there are
                no tables of a journal.
        """
        return sagas_listed(await self._writer.look(listed(self._schema, done=done)))

    async def retry(self, saga: str) -> int:
        """Make the stuck and deferred actions of a saga pending again; return how many.

        The next `recover` tries them. If their owner is alive, only stuck actions are taken, which
        the owner has given up: they become a saga of their own. The owner keeps its pending and
        deferred actions.
        """
        return int(await self._writer.ask("retry", [{"saga": storable(saga)}]))

    async def discard(self, saga: str, reason: str) -> int:
        """Discard the stuck and deferred actions of a saga; return how many.

        They stay listed as done, with the reason. A living owner keeps its pending and deferred
        actions.
        """
        row: Row = {"saga": storable(saga), "error": discard_reason(reason)}
        return int(await self._writer.ask("discard", [row]))

    async def stored_positions(self) -> list[StoredPositions]:
        """Return which positions of sources are stored, by source and partition.

        It reads as `sagas` does, and raises what that raises.
        """
        return positions_listed(await self._writer.look(positions(self._schema)))

    async def forget_positions(
        self, source: str, partitions: Collection[str] | None = None
    ) -> list[str]:
        """Forget the positions of partitions of a source, or of all; return of which there were.

        A process that reads them is refused at its next commit. The next one reads on where the
        broker has it begin, and what it is given again is done again.
        """
        names = None if partitions is None else sorted(map(storable, partitions))
        row: Row = {"source": storable(source), "partitions": names}
        return sorted(await self._writer.ask("forget positions", [row]))


class _Changes:
    """Writes changes to the actions of one journal: see `ActionChanges`."""

    def __init__(self, name: str, ledger: Ledger, writer: Writer) -> None:
        self._name = name
        self._ledger = ledger
        self._writer = writer

    async def change(self, action: str, change: ActionChange, /) -> None:
        """Write a change."""
        key = _key_of(self._name, self._ledger, action)
        row, changed = _changed_row(key, change), self._changed(key, change)
        await self._writer.ask("change", [row], changed, saga=key.saga)

    def change_shielded(self, action: str, change: ActionChange, /) -> ShieldedFuture[None]:
        """Write a change; the cancellation of the caller is raised once it is written."""
        shielded: ShieldedFuture[None] = ShieldedFuture()
        try:
            key = _key_of(self._name, self._ledger, action)
            row, changed = _changed_row(key, change), self._changed(key, change)
            _ = self._writer.send("change", [row], changed, saga=key.saga, future=shielded.future)
        except JournalError as error:
            shielded.future.set_exception(error)
        return shielded

    def _changed(self, key: ActionKey, change: ActionChange) -> _Changed:
        return _Changed(self._name, self._ledger, key, change)


class _Changed:
    """Updates the ledger when a change is answered."""

    def __init__(self, name: str, ledger: Ledger, key: ActionKey, change: ActionChange) -> None:
        self._name = name
        self._ledger = ledger
        self._key = key
        self._state = change.state
        self._held = ledger.actions[key.id]

    def __call__(self, granted: object) -> None:
        """Take the answer; raise an error if the change was refused."""
        is_committed = self._ledger.is_committed(self._key.id)
        is_current = self._ledger.actions.get(self._key.id) is self._held  # else it was settled
        if is_current and (not granted or self._state in {"done", "stuck"}):
            self._ledger.settled(self._key.id, stuck=bool(granted) and self._state == "stuck")
        if not granted:
            raise (committed if is_committed else fenced)(self._name, self._key.saga)


def _key_of(name: str, ledger: Ledger, action: str) -> ActionKey:
    key = ledger.key(action)
    if key is None:
        raise fenced(name)
    return key


def _row(key: ActionKey) -> Row:
    return {"id": key.id, "saga": key.saga, "epoch": key.epoch}


def _covered_row(each: HandledPositions) -> Row:
    """Return the row of a commit that stores positions of a partition."""
    which: Row = {"source": storable(each.source), "partition": storable(each.partition)}
    return which | {"taken": each.epoch, "stretches": each.stretches}


def _changed_row(key: ActionKey, change: ActionChange) -> Row:
    """Return the row of a request that changes some columns."""
    columns: Row = {"state": change.state, "error": change.error}
    columns |= {"next_attempt": change.next_attempt, "begins": change.begins_attempt or None}
    return _row(key) | {name: value for name, value in columns.items() if value is not None}


def _check(schema: str, liveness: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", schema):
        raise InvalidArgument(f"schema must be letters, digits and underscores, not {schema!r}")
    if liveness not in {"session", "lease"}:
        raise InvalidArgument(f"liveness must be 'session' or 'lease', not {liveness!r}")
