"""`PostgresJournal`: undo actions in PostgreSQL, durable before their effects.

The journal has three parts:

- the face, here: what a request asks for, and what it means for the ledger once it is answered;
- `Ledger`: what this process has on record, and what it has to put right;
- `Writer`: the task that has requests carried out, over one connection, in one transaction for all
  that come together. The server's side of a transaction is in ``schema.sql``.

An owner of open sagas holds an advisory lock in the session that writes. The server releases it
when the session ends, and only then may another process take the sagas over: no clock is involved,
and nothing that a former owner sent can arrive after that. Behind a transaction pooler there is no
session; there a row with an end in the server's time (a lease) does the same.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from uuid import uuid4

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import ShieldedFuture
from returns_pipeline.compensation.protocol import Intent, StoredSaga
from returns_pipeline.errors import ArgumentsNotRecordable, InvalidArgument, JournalError
from returns_pipeline.journal._arguments import encode_arguments
from returns_pipeline.journal._face import (
    ActionChange,
    JournalFace,
    discard_reason,
    fenced,
    storable,
)
from returns_pipeline.journal.postgres._address import AddressSource, Text
from returns_pipeline.journal.postgres._ledger import ActionKey, Ledger
from returns_pipeline.journal.postgres._requests import Row
from returns_pipeline.journal.postgres._rows import LISTED, sagas_listed

if TYPE_CHECKING:
    from returns_pipeline.journal.postgres._writer import Writer  # it needs asyncpg

__all__ = ["Liveness", "PostgresJournal"]

Liveness: TypeAlias = Literal["session", "lease"]

_log = logging.getLogger("returns_pipeline")

# Seconds, a hundred years: the longest that the server can subtract from a time.
_LONGEST: Final = 100 * 365.25 * 86_400.0


class PostgresJournal(JournalFace):
    """Keeps undo actions in a PostgreSQL database, for any number of processes and machines.

    What `CompensationScope.register` has put on record survives the end of the process and of the
    server: ``synchronous_commit`` is on for the journal's transactions, whatever the default.

    The tables are made by the first process that needs them, in a schema of their own.

    - ``liveness="session"``: an owner lives as long as its connection. When the process ends, in
      whatever way, or the connection does, others may take over at once; a stopped process keeps
      what it has; a machine that is gone is noticed after half a minute. A connection that is lost
      is made anew at once. If no other process has taken over meanwhile, work continues as if
      nothing had happened.
    - ``liveness="lease"``: for connections through a transaction pooler. An owner lives until
      ``lease`` seconds after its last sign of life, by the server's clock; a task of the journal's
      gives one every third of that while something is open. A process that is stopped for longer is
      taken for dead.

    In both ways an owner whose saga was taken over is *fenced*: it gets `LeaseLost` for whatever it
    does about that saga.

    A request whose connection is lost is carried out exactly once, by a later connection. What
    cannot be done within ``patience`` seconds raises `JournalUnavailable`, and is not on record.

    ``async with PostgresJournal(dsn) as journal`` opens it at once and closes it; without, it is
    opened by the first request and closed with the process. It belongs to the event loop that
    opened it, until it is closed or that loop is; a process made by fork may not use it.

    Args:
        dsn: As "postgresql://user@host/database", with the parameters of libpq; or a function that
            returns it, also a coroutine function, which is called for each connection. Of several
            servers the first that takes writes is used, unless ``target_session_attrs`` says
            otherwise.
        password: Instead of the one in ``dsn``: the password, or a function as above, for tokens
            that expire.
        schema: Where the tables are: letters, digits and underscores.
        create: Whether the tables are made if there are none. If not, every request raises
            `JournalUnavailable` then: an address with a mistake in it is noticed.
        liveness: How others tell whether an owner lives, "session" or "lease".
        lease: Seconds, above 0, that a lease is good for.
        retention: Seconds that an action which was undone stays listed.
        patience: Seconds, above 0, to wait for a connection or for another process that writes.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.
        MissingExtra: At the call, if asyncpg is not installed.
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
        )
        self._claims = Claims(self._name, self._ledger, self._writer, min(retention, _LONGEST))
        super().__init__(_Changes(self._name, self._ledger, self._writer))

    def __str__(self) -> str:
        return self._name

    async def _open(self) -> None:
        await self._writer.ask("nothing")

    async def close(self) -> None:
        """Write what is waiting, release everything and end the connection.

        What this journal has open may then be recovered by other processes. The journal can be used
        again, as another owner.
        """
        await self._writer.close()
        self._claims.reset()

    async def flush(self) -> None:
        """Wait until every commit that has returned is durable, and every move on its way made.

        In this journal a commit is durable when it returns. What cannot be moved or abandoned now
        is kept, and not waited for.
        """
        await self._writer.flush()

    # For scopes.

    async def record(self, intent: Intent, /) -> None:
        """Put an action on record. It is durable when this returns: see `Journal`.

        Cancel safety: the caller of a cancelled ``record`` takes it for refused, and its effect
        does not begin. So the action is removed again if it is on record.
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
            # As of now: a commit that is asked for later may be in the same batch, but comes after.
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

    def forget(self, ids: Sequence[str], /) -> Awaitable[None]:
        """Commit: take actions off the record. It is durable when this returns: see `Journal`.

        A caller that is cancelled before the commit was sent has not committed.
        """
        outcome: ShieldedFuture[None] = ShieldedFuture(lambda: self._writer.withdraw(request))
        try:
            _ = self._writer.check_loop()  # a refusal must leave the ledger as it is
            keys = [_key_of(self._name, self._ledger, action) for action in ids]
        except JournalError as error:
            outcome.future.set_exception(error)
            return outcome
        if not keys:
            outcome.future.set_result(None)
            return outcome

        def forgotten(_: object) -> None:
            for action in ids:
                self._ledger.settled(action)

        def failed() -> None:
            self._ledger.abort_commit(ids)

        self._ledger.begin_commit(ids)
        rows, saga = [_row(key) for key in keys], keys[0].saga
        future = outcome.future
        request = self._writer.send("forget", rows, forgotten, failed, saga=saga, future=future)
        return outcome

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        """Put actions into another saga, with ``prefix`` before their positions: see `Journal`.

        It is durable when a later request is, or `flush` returns. While the server is away the move
        is kept, and made before everything that is asked for later.
        """
        _ = self._writer.check_loop()  # a refusal must leave the ledger as it is
        positions = self._ledger.move(ids, saga, prefix)
        if positions:
            rows = [{"id": action, "position": place} for action, place in positions.items()]
            self._writer.post("move", {"to": saga, "name": storable(name), "rows": rows}, saga)

    def abandon(self, ids: Sequence[str], /) -> None:
        """Leave actions to `recover`: see `Journal`.

        While the server is away the request is kept. It is made before everything that is asked for
        later, or by itself as soon as it can be.
        """
        try:
            _ = self._writer.check_loop()
        except JournalError as error:  # the caller's rollback has to end all the same
            _log.error("actions stay with their owner until it ends: %s", error)
            return
        for key, actions in self._ledger.abandon(ids).items():
            row: Row = {"saga": key.saga, "epoch": key.epoch, "to": uuid4().hex, "ids": actions}
            self._writer.post("abandon", row, key.saga)

    # For recovery.

    async def claim(self, *, besides: AbstractSet[str]) -> StoredSaga | None:
        """Take over the newest saga of a dead owner that is not in ``besides``: see `recover`.

        Sagas are taken over a few at a time. Those that nobody asks for within a second are
        released.

        Cancel safety: what was claimed for a caller that was cancelled is released.
        """
        return await self._claims.next(besides)

    async def release(self, saga: str) -> None:
        """Let other processes claim a saga.

        If that cannot be written, it is written with the next request that can be.
        """
        await self._claims.release(saga)

    # For people.

    async def sagas(self) -> list[StoredSaga]:
        """List what is on record, the newest saga first. This takes no lock and changes nothing.

        It has a connection of its own, and waits for no other process.

        Raises:
            JournalUnavailable: The server cannot be reached or refuses the connection, or there are
                no tables of a journal.
        """
        return sagas_listed(
            await self._writer.look(LISTED.replace("{schema}", f'"{self._schema}"'))
        )

    async def retry(self, saga: str) -> int:
        """Have the stuck and deferred actions of a saga tried again; return how many those are.

        The next `recover` takes them. If their owner lives, only stuck ones are taken, which it has
        given up: they become a saga of their own. What a living owner has pending or deferred is
        left to it.
        """
        return int(await self._writer.ask("retry", [{"saga": storable(saga)}]))

    async def discard(self, saga: str, reason: str) -> int:
        """Discard the stuck and deferred actions of a saga; return how many those are.

        They stay listed as done, with the reason. What a living owner has pending or deferred is
        left to it.
        """
        row: Row = {"saga": storable(saga), "error": discard_reason(reason)}
        return int(await self._writer.ask("discard", [row]))


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
        """Write a change; a caller that is cancelled hears of that when it is written."""
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
    """What an answered change means for the ledger."""

    def __init__(self, name: str, ledger: Ledger, key: ActionKey, change: ActionChange) -> None:
        self._name = name
        self._ledger = ledger
        self._key = key
        self._state = change.state
        self._held = ledger.actions[key.id]

    def __call__(self, granted: object) -> None:
        """Take the answer."""
        is_current = self._ledger.actions.get(self._key.id) is self._held  # or settled meanwhile
        if is_current and (not granted or self._state in {"done", "stuck"}):
            self._ledger.settled(self._key.id, stuck=bool(granted) and self._state == "stuck")
        if not granted:
            raise fenced(self._name, self._key.saga)


def _key_of(name: str, ledger: Ledger, action: str) -> ActionKey:
    key = ledger.key(action)
    if key is None:
        raise fenced(name)
    return key


def _row(key: ActionKey) -> Row:
    return {"id": key.id, "saga": key.saga, "epoch": key.epoch}


def _changed_row(key: ActionKey, change: ActionChange) -> Row:
    """Return the columns that change, and none that does not."""
    columns: Row = {"state": change.state, "error": change.error}
    columns |= {"next_attempt": change.next_attempt, "begins": change.begins_attempt or None}
    return _row(key) | {name: value for name, value in columns.items() if value is not None}


def _check(schema: str, liveness: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", schema):
        raise InvalidArgument(f"schema must be letters, digits and underscores, not {schema!r}")
    if liveness not in {"session", "lease"}:
        raise InvalidArgument(f"liveness must be 'session' or 'lease', not {liveness!r}")
