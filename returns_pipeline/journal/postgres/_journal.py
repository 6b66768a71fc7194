"""`PostgresJournal`: undo actions in PostgreSQL, durable before their effects.

One connection writes. Requests that come while it is at work go into its next transaction
together, in one round trip, each checked by itself: many scopes share one flush to the disk. The
transaction's own account stands in `postgres_schema`.

Who has a saga open holds an advisory lock in the session that writes. The server lets go of it
when the session ends, and only then may another process take the saga over: no clock is involved,
and nothing of a former owner can arrive after that. Behind a transaction pooler, where there is no
session, a row with an end in the time of the server does the same.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import logging
import math
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit
from uuid import uuid4

from returns_pipeline._engine.cancellation import ShieldedFuture
from returns_pipeline.errors import (
    ArgumentsNotRecordable,
    InvalidArgument,
    JournalError,
    JournalUnavailable,
    LeaseLost,
)
from returns_pipeline.journal._arguments import encode_arguments
from returns_pipeline.journal.postgres._batch import (
    ALONE,
    ANYWAY,
    JOINED,
    MOST,
    Request,
    Step,
    as_it_is,
    refuse,
    seen,
    steps_of,
)
from returns_pipeline.journal.postgres._rows import SAGAS, brief, sagas_of, storable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet
    from types import TracebackType

    from returns_pipeline.compensation.protocol import Intent, StoredSaga

__all__ = ["Liveness", "PostgresJournal"]

T = TypeVar("T")

Liveness: TypeAlias = Literal["session", "lease"]

_log = logging.getLogger("returns_pipeline")

# Seconds, a hundred years: what the server can subtract from a time.
_LONGEST: Final = 100 * 365.25 * 86_400.0
# Seconds before the next attempt to connect: doubled each time, up to the second.
_BACK_OFF: Final = (0.01, 1.0)


@dataclass(slots=True)
class _Saga:
    """One that is open here."""

    epoch: int
    actions: int = 0  # still open, and not about to be forgotten
    leaving: int = 0  # about to be forgotten; if that fails, they are open as before
    stuck: bool = False


@dataclass(slots=True)
class _Action:
    """One that this process has on record."""

    saga: str
    place: str
    attempts: int = 0


class PostgresJournal:
    """Keeps undo actions in a PostgreSQL database, for any number of processes and machines.

    What `CompensationScope.register` has put on record survives the end of the process and of the
    server: ``synchronous_commit`` is on for the journal's transactions, whatever the default.

    The tables are made by the first who comes, in a schema of their own.

    - ``liveness="session"``: an owner lives as long as its connection. When the process ends, in
      whatever way, or the connection does, others may take over at once; a stopped process keeps
      what it has; a machine that is gone is noticed after half a minute. A connection that is lost
      is made anew at once, and what nobody has taken meanwhile goes on as if nothing had happened.
    - ``liveness="lease"``: for connections through a transaction pooler. An owner lives until
      ``lease`` seconds after its last sign of life, by the server's clock; a task of the journal's
      gives one every third of that while it has something open. A process that is stopped longer
      than that is taken for dead.

    In both ways an owner that was robbed gets `LeaseLost` for whatever it does about those sagas.

    A request whose connection is lost is carried out once, by a later connection. What cannot be
    done within ``patience`` seconds raises `JournalUnavailable`, and is not on record.

    ``async with PostgresJournal(dsn) as journal`` opens it at once and closes it; without, it is
    opened by the first request and closed with the process. It belongs to the event loop that
    opened it, until it is closed; a process made by fork may not use it.

    Args:
        dsn: As "postgresql://user@host/database".
        schema: Where the tables are: letters, digits and underscores.
        liveness: How others tell whether an owner is there, "session" or "lease".
        lease: Seconds, above 0, that a lease is good for.
        retention: Seconds that an action which was undone stays listed.
        patience: Seconds, above 0, to wait for a connection or for another process that writes.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.
        MissingExtra: At the call, if asyncpg is not installed.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "returns_pipeline",
        liveness: Liveness = "session",
        lease: float = 30.0,
        retention: float = 30 * 86_400.0,
        patience: float = 10.0,
    ) -> None:
        _check(dsn, schema, liveness)
        for name, seconds in (("lease", lease), ("patience", patience)):
            if not 0 < seconds < math.inf:
                raise InvalidArgument(f"{name} must be above 0 seconds, not {seconds!r}")
        if not retention >= 0:
            raise InvalidArgument(f"retention must be at least 0 seconds, not {retention!r}")
        # Only here: without a journal in PostgreSQL, nobody needs asyncpg.
        from returns_pipeline.journal.postgres import _session as driver  # noqa: PLC0415

        self._driver = driver
        self._name = _without_secrets(dsn)
        self._schema = f'"{schema}"'
        self._lease = lease if liveness == "lease" else 0.0
        self._retention = min(retention, _LONGEST)
        self._patience = patience
        self._session = driver.Session(
            dsn,
            self._name,
            schema=schema,
            pooled=liveness == "lease",
            patience=patience,
            on_lost=self._hold_on,
        )
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._requests: collections.deque[Request] = collections.deque()
        self._begin()

    def _begin(self) -> None:
        """Be a new owner, with nothing open."""
        self._owner = uuid4().hex
        self._batch = 0
        self._sagas: dict[str, _Saga] = {}
        self._actions: dict[str, _Action] = {}
        self._renewed = -math.inf
        self._in_doubt = False  # the last batch was sent, and no answer has come
        self._repeated = False  # it was sent before, perhaps with another connection
        # What the next batch has to clear up: actions of which nobody knows whether they are on
        # record; sagas claimed for nobody; moves that could not be made yet.
        self._doubtful: list[str] = []
        self._unheard = False
        self._kept: list[Request] = []
        self._moving: set[asyncio.Future[Any]] = set()

    def __str__(self) -> str:
        return self._name

    async def __aenter__(self) -> Self:
        try:
            await self._ask("nothing")
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Write what is waiting, let go of everything and end the connection.

        What this journal has open may from then on be recovered by others. It can be used again,
        as another owner.
        """
        if self._loop is not None or self._kept or self._doubtful:
            await self._ask("leave")

    async def flush(self) -> None:
        """Wait until every commit that has returned is durable, and every move under way made.

        Here a commit is durable when it returns.
        """
        _ = self._check_place()
        if self._moving:
            _ = await asyncio.wait(set(self._moving))

    # For scopes.

    async def record(self, intent: Intent, /) -> None:
        """Put an action on record: see `Journal`."""
        if storable(intent.undo.name) != intent.undo.name:
            raise ArgumentsNotRecordable(str(self), f"{intent.undo.name!r} cannot be stored")
        row: dict[str, object] = {
            "id": intent.id,
            "saga": intent.saga,
            "saga_name": storable(intent.saga_name),
            "place": intent.position,
            "path": storable(intent.path),
            "key": intent.key,
            "name": intent.undo.name,
            "version": intent.undo.version,
            "arguments": encode_arguments(intent),
            # Now: what is asked for later may be carried out in the same batch, but behind it.
            "known": self._counts_on(intent.saga),
        }

        def recorded(_: object) -> None:
            self._actions[intent.id] = _Action(intent.saga, intent.position)
            self._sagas.setdefault(intent.saga, _Saga(1)).actions += 1

        def unheard(_: object) -> None:
            # Whoever registers takes a cancellation for a refusal: its effect will not begin.
            if intent.id in self._actions:  # or the journal has been closed meanwhile
                self._settled(intent.id)
                self._doubtful.append(intent.id)
                self._hold_on()

        await self._ask("record", [row], recorded, unheard=unheard, saga=intent.saga)

    async def forget(self, ids: Sequence[str], /) -> None:
        """Commit: see `Journal`."""
        _ = self._check_place()  # or what is counted here would not be asked for
        rows = [self._row(action) for action in ids]
        if not rows:
            return
        known = [self._actions[action] for action in ids]
        held = [self._sagas[action.saga] for action in known]

        def count(step: int) -> None:
            for saga in held:
                saga.actions += step
                saga.leaving -= step

        def forgotten(_: object) -> None:
            for action, saga in zip(ids, held, strict=True):
                _ = self._actions.pop(action, None)
                saga.leaving -= 1
            for name in {action.saga for action in known}:
                self._drop_if_empty(name)

        # From now on nobody counts on them: a saga with no others may be gone at any time.
        count(-1)
        await self._ask("forget", rows, forgotten, lambda: count(1), saga=known[0].saga)

    def move(self, ids: Sequence[str], /, *, saga: str, name: str, prefix: str) -> None:
        """Put actions into another saga: see `Journal`."""
        _ = self._check_place()  # where it is refused, nothing has changed
        rows: list[dict[str, object]] = []
        for action in ids:
            known = self._actions.get(action)
            if known is None:
                continue  # it was taken over: the commit will say so
            if known.saga in self._sagas:
                self._sagas[known.saga].actions -= 1
                self._drop_if_empty(known.saga)
            known.saga, known.place = saga, prefix + known.place
            self._sagas.setdefault(saga, _Saga(1)).actions += 1
            rows.append({"id": action, "place": known.place})
        if rows:
            step: dict[str, object] = {"to": saga, "name": storable(name), "rows": rows}
            future = self._send("move", [step], as_it_is, saga=saga).future
            future.add_done_callback(seen)
            future.add_done_callback(self._moving.discard)
            self._moving.add(future)

    def _counts_on(self, saga: str) -> bool:
        """Say whether a saga that is open here is not to vanish by anything asked for so far."""
        held = self._sagas.get(saga)
        return held is not None and held.actions > 0

    def _drop_if_empty(self, saga: str) -> None:
        known = self._sagas.get(saga)
        if known is not None and known.actions + known.leaving <= 0 and not known.stuck:
            del self._sagas[saga]

    def mark(self, action: str, /) -> _Mark:
        """Give the record of an action."""
        return _Mark(self, action)

    # For recovery.

    async def claim(self, *, besides: AbstractSet[str]) -> StoredSaga | None:
        """Take over the newest saga of a dead owner: see `recover`.

        Cancel safety: a saga that was claimed for somebody who does not wait any more is let go.
        """
        # What was taken from this process is not taken back: a scope here may still count on it,
        # has to be told, and then nothing is left of it here.
        others = sorted(besides | self._sagas.keys())
        row: dict[str, object] = {"besides": others, "retention": self._retention}
        stored: StoredSaga | None = await self._ask(
            "claim", [row], self._claimed, unheard=self._let_go
        )
        return stored

    def _claimed(self, answer: dict[str, Any]) -> StoredSaga | None:
        if answer["found"] is None:
            return None
        stored: StoredSaga = answer["stored"]
        held = self._sagas[stored.id] = _Saga(answer["found"][1])
        held.stuck = any(action.state == "stuck" for action in stored.actions)
        for action in stored.actions:
            if action.state in {"pending", "deferred"}:
                held.actions += 1
                self._actions[action.id] = _Action(stored.id, action.position, action.attempts)
        return stored

    def _let_go(self, stored: StoredSaga | None) -> None:
        """Give back what was claimed for somebody who will not hear of it."""
        if stored is not None:
            self._dismiss(stored.id)
            self._unheard = True
            self._hold_on()

    def _dismiss(self, saga: str) -> None:
        """Forget, here alone, what this process has to do with a saga."""
        _ = self._sagas.pop(saga, None)
        for action in [id_ for id_, it in self._actions.items() if it.saga == saga]:
            del self._actions[action]

    async def release(self, saga: str) -> None:
        """Let go of a saga.

        If that cannot be written, it is with the next request that can.
        """

        def released(found: object) -> None:
            if not found and self._sagas.get(saga) is known:  # or it was asked for twice
                self._dismiss(saga)
                raise self._lost(saga)
            self._dismiss(saga)

        def failed() -> None:
            if saga in self._sagas:
                self._dismiss(saga)
                self._unheard = True  # it is let go with the next batch
                self._clear_up_soon()

        known = self._sagas.get(saga)
        if known is None:
            raise self._lost(saga)
        await self._ask("release", [{"saga": saga, "epoch": known.epoch}], released, failed)

    async def defer(self, action: str, reason: str) -> None:
        """Note that an action waits for a process that knows it."""
        await self.change(action, state="deferred", error=storable(reason))

    async def postpone(self, action: str, error: object, until: float) -> None:
        """Note that an attempt failed, and when the next may begin."""
        await self.change(action, error=brief(error), next_attempt=until)

    async def change(self, action: str, **columns: object) -> None:
        """Change a few columns of an action, if this process has it."""
        row, changed = self._change(action, columns)
        await self._ask("change", row, changed, saga=self._actions[action].saga)

    def change_whole(self, action: str, **columns: object) -> ShieldedFuture[None]:
        """Do so; who is cancelled meanwhile is told when it is done."""
        whole: ShieldedFuture[None] = ShieldedFuture()
        try:
            row, changed = self._change(action, columns)
            saga = self._actions[action].saga
            _ = self._send("change", row, changed, saga=saga, future=whole.future)
        except JournalError as error:
            whole.future.set_exception(error)
        return whole

    def _change(
        self, action: str, columns: dict[str, object]
    ) -> tuple[list[dict[str, object]], Callable[[object], None]]:
        row = self._row(action)
        saga = cast("str", row["saga"])
        known = self._actions[action]

        def changed(outcome: object) -> None:
            if self._actions.get(action) is not known:
                pass  # it was settled meanwhile
            elif not outcome:
                self._settled(action)  # somebody else sees to it
            elif columns.get("state") in {"done", "stuck"}:
                self._settled(action, stuck=columns["state"] == "stuck")
            else:
                known.attempts = cast("int", columns.get("attempts", known.attempts))
            if not outcome:
                raise self._lost(saga)

        return [row | columns], changed

    def _settled(self, action: str, *, stuck: bool = False) -> None:
        """Note that this process has nothing more to do with an action."""
        saga = self._actions.pop(action).saga
        held = self._sagas.get(saga)
        if held is not None:
            held.actions -= 1
            held.stuck = held.stuck or stuck
            self._drop_if_empty(saga)

    def attempts(self, action: str) -> int:
        """Say how often an action was begun."""
        return self._actions[action].attempts if action in self._actions else 0

    def _row(self, action: str) -> dict[str, object]:
        known = self._actions.get(action)
        held = None if known is None else self._sagas.get(known.saga)
        if known is None or held is None:
            raise LeaseLost(str(self), "actions are gone: another process took them over")
        return {"id": action, "saga": known.saga, "epoch": held.epoch}

    # For people.

    async def sagas(self) -> list[StoredSaga]:
        """List what is on record, the newest first. It takes no lock and changes nothing.

        It has a connection of its own, and waits for no other process.

        Raises:
            JournalUnavailable: The server cannot be reached or does not let us in, or there are no
                tables of a journal.
        """
        await self.flush()
        query = SAGAS.format(schema=self._schema) + "ORDER BY s.number DESC, s.id, a.place DESC"
        try:
            rows = await self._persist(lambda: self._session.look(query))
        except self._driver.FAILURES as error:
            raise self._driver.explain(error, self._name) from error
        return sagas_of(rows)

    async def retry(self, saga: str) -> int:
        """Let actions of a saga that are stuck or deferred be tried again; give how many.

        The next `recover` takes them, also while their owner lives, which has given up those that
        are stuck: they become a saga of their own then. What a living owner has pending or
        deferred is its own business, and is left alone.
        """
        return int(await self._ask("retry", [{"saga": storable(saga)}]))

    async def discard(self, saga: str, reason: str) -> int:
        """Give up the actions of a saga that are stuck or deferred; give how many.

        They stay listed as done, with the reason.
        """
        row: dict[str, object] = {"saga": storable(saga), "error": storable(f"discarded: {reason}")}
        return int(await self._ask("discard", [row]))

    # Requests, and the task that carries them out.

    def _check_place(self) -> asyncio.AbstractEventLoop:
        if os.getpid() != self._process:
            raise JournalError(str(self), "it belongs to the process that this one was forked from")
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise JournalError(str(self), "it was opened in another event loop: close it there")
        return loop

    # Any: what a request gives is known to who makes it.

    async def _ask(
        self,
        do: str,
        rows: Iterable[dict[str, object]] = (),
        done: Callable[[Any], Any] = as_it_is,
        failed: Callable[[], None] = lambda: None,
        *,
        unheard: Callable[[Any], None] = lambda _: None,
        saga: str = "",
    ) -> Any:
        request = self._send(do, rows, done, failed, saga=saga)
        request.unheard = unheard
        future = request.future
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                unheard(future.result())
            raise

    def _send(
        self,
        do: str,
        rows: Iterable[dict[str, object]],
        done: Callable[[Any], Any],
        failed: Callable[[], None] = lambda: None,
        *,
        saga: str = "",
        future: asyncio.Future[Any] | None = None,
    ) -> Request:
        self._loop = self._check_place()
        future = self._loop.create_future() if future is None else future
        request = Request(do, list(rows), future, done, failed, saga=saga)
        self._requests.append(request)
        self._start()
        return request

    def _start(self) -> None:
        if self._worker is None and self._requests:
            # In a context of its own: it works for all who ask.
            self._worker = asyncio.create_task(
                self._run(), name=f"journal {self._name}", context=contextvars.Context()
            )
            self._worker.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        # It goes on through cancellations from its first step on. One may have come before.
        if self._worker is task:
            self._worker = None
        if task.cancelled() or task.exception() is None:
            self._start()

    def _hold_on(self) -> None:
        """The connection has ended: make it anew, before somebody takes over what is open."""
        if (self._sagas or self._unheard or self._doubtful) and self._loop is not None:
            self._send("hold on", (), as_it_is).future.add_done_callback(seen)

    def _clear_up_soon(self) -> None:
        """Have a batch that clears up, if the server is there; where it is not, others may."""
        if self._session.is_open:
            self._hold_on()

    async def _run(self) -> None:
        """Carry out requests until there are none, as many in a transaction as there are."""
        while batch := self._next_batch():
            if batch[0].do == "leave":
                await self._leave(batch[0])
            else:
                await self._carry_out(batch)
        if not self._session.is_open and not self._sagas:
            self._loop = None  # nothing binds it to this loop
        self._worker = None

    def _next_batch(self) -> list[Request]:
        batch: list[Request] = []
        while self._requests and len(batch) < MOST:
            if self._requests[0].future.cancelled() and self._requests[0].do not in ANYWAY:
                self._requests.popleft().failed()  # nobody wants it any more
            elif self._requests[0].do not in ALONE:
                batch.append(self._requests.popleft())
            elif batch:
                break
            else:
                return [self._requests.popleft()]
        kept, self._kept = self._kept, []
        if not batch:
            self._kept = kept  # until there is something else to do
            return []
        return kept + batch

    async def _carry_out(self, batch: list[Request]) -> None:
        try:
            outcomes = await self._commit(batch)
            while batch[0].do == "claim" and not await self._read_claimed(outcomes[0]):
                outcomes = await self._commit(batch)
        except Exception as error:  # noqa: BLE001  # who waits is told, whatever it is
            if not isinstance(error, self._driver.FAILURES):
                self._session.drop()
            # In doubt it may all be on record: it is not carried out a second time.
            if len(batch) > 1 and not self._in_doubt and self._driver.spares_others(error):
                for request in batch:
                    await self._carry_out([request])
            else:
                self._fail(batch, error)
            return
        self._settle(batch, outcomes)
        if self._lease and self._sagas and (self._renewal is None or self._renewal.done()):
            self._renewal = asyncio.create_task(
                self._renew(), name=f"lease of {self._name}", context=contextvars.Context()
            )

    async def _commit(self, batch: list[Request]) -> list[Any]:
        """Have requests carried out, and give the answer to each: for most, whether it was done."""
        doubtful, unheard, self._doubtful, self._unheard = self._doubtful, self._unheard, [], False
        cleaning: list[Step] = []
        if doubtful:
            cleaning.append(({"do": "drop", "ids": doubtful}, []))
        if unheard:
            cleaning.append(({"do": "disown", "held": list(self._sagas)}, []))
        try:
            outcomes = await self._answers(cleaning + steps_of(batch, self._counts_on), len(batch))
        except BaseException:
            # Callers that were cancelled meanwhile have brought more.
            self._doubtful, self._unheard = doubtful + self._doubtful, unheard or self._unheard
            raise
        await self._confirm(batch, outcomes)
        return outcomes

    async def _confirm(self, batch: list[Request], outcomes: list[Any]) -> None:
        """Look whether what was granted is so still, where others may have taken over meanwhile.

        They may while an answer is late for the lease. They also may when the connection has ended
        before the answer came: what the next connection brings is the answer of then.
        """
        places = [
            place
            for place, request in enumerate(batch)
            if outcomes[place] is True and request.do in {"record", "change"}
        ]
        rows: dict[object, dict[str, object]] = {}  # a statement changes each action once
        for n in places:
            row = _only(batch[n].rows[0], "id", "saga", "epoch")
            _ = rows.setdefault(row["id"], {"n": n, "epoch": 1} | row)
        step: dict[str, object] = {"do": "change", "rows": list(rows.values())}
        due = asyncio.get_running_loop().time() + self._patience
        while places and (
            self._repeated or (self._lease and _clock() - self._renewed >= self._lease)
        ):
            try:
                if asyncio.get_running_loop().time() > due:
                    late = "answers come too late: the lease has ended before"
                    raise JournalUnavailable(self._name, late)  # noqa: TRY301
                again = await self._answers([(step, places)], len(batch))
            except BaseException:
                self._in_doubt = True  # it is on record, and will not be known to be
                raise
            for place in places:
                outcomes[place] = again[cast("int", rows[batch[place].rows[0]["id"]]["n"])]

    async def _answers(self, steps: list[Step], n: int) -> list[Any]:
        self._batch += 1
        number, self._in_doubt = self._batch, False
        bodies: list[object] = [body for body, _ in steps]

        async def attempt() -> list[Any]:
            await self._session.open(self._owner)
            begun = _clock()
            self._repeated, self._in_doubt = self._in_doubt, True
            try:
                answers = await self._session.apply(self._owner, number, self._lease, bodies)
            except self._driver.FAILURES as error:
                if not self._driver.ends(error):
                    # It is an answer, but not to what was sent before.
                    self._in_doubt = self._repeated
                raise
            self._in_doubt = False
            self._renewed = begun
            return answers

        outcomes: list[Any] = [None] * n
        for (body, places), answer in zip(steps, await self._surely(attempt), strict=True):
            for place in places:
                outcomes[place] = place not in answer if body["do"] in JOINED else answer
        return outcomes

    def _settle(self, batch: list[Request], outcomes: list[Any]) -> None:
        for request, outcome in zip(batch, outcomes, strict=True):
            try:
                if request.do in {"record", "forget"} and not outcome:
                    raise self._lost(request.saga)
                result = request.done(outcome)
            except JournalError as error:
                request.failed()
                refuse(request, error)
            else:
                if not request.future.done():
                    request.future.set_result(result)
                else:
                    request.unheard(result)

    def _fail(self, batch: list[Request], error: Exception) -> None:
        if isinstance(error, (*self._driver.FAILURES, JournalError)):
            error = self._driver.explain(error, self._name)
        for request in batch:
            if self._in_doubt and request.do == "record":
                self._doubtful += [cast("str", row["id"]) for row in request.rows]
                self._clear_up_soon()
            if self._in_doubt and request.do == "claim":
                self._unheard = True
                self._clear_up_soon()
            if request.do == "move" and isinstance(error, JournalUnavailable):
                # It is made with the next batch; who waits for it now does so no longer.
                refuse(request, error)
                request.future = request.future.get_loop().create_future()
                request.future.add_done_callback(seen)
                self._kept.append(request)
                continue
            request.failed()
            refuse(request, error)

    def _lost(self, saga: str) -> LeaseLost:
        return LeaseLost(str(self), f"saga {saga} was taken over by another process")

    async def _read_claimed(self, answer: dict[str, Any]) -> bool:
        """Add what was claimed to the answer; say whether it is this owner's still.

        Another may have it already, if the connection ended before the answer came, or since.
        """
        for saga in answer["dropped"]:
            _ = self._sagas.pop(saga, None)
        if answer["found"] is None:
            return True
        query = SAGAS.format(schema=self._schema) + "WHERE s.id = $1 ORDER BY a.place DESC"

        async def attempt() -> list[StoredSaga]:
            await self._session.open(self._owner)
            return sagas_of(await self._session.read(query, answer["found"][0]))

        try:
            found = await self._surely(attempt)
        except BaseException:
            self._unheard = True
            self._clear_up_soon()
            raise
        if not found or found[0].owner != self._owner:
            return False
        answer["stored"] = found[0]
        return True

    async def _surely(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it is done, also through cancellations of this task."""

        async def once() -> T:
            try:
                return await attempt()
            except self._driver.FAILURES as error:
                if self._driver.ends(error):
                    self._session.drop()  # it may be broken, and not know it
                raise

        while True:
            try:
                return await self._persist(once)
            except asyncio.CancelledError:
                # In the middle of a statement: what it did is found out with another connection.
                self._session.drop()

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it is done or the patience is at an end."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._patience
        delay, longest = _BACK_OFF
        while True:
            try:
                return await attempt()
            except self._driver.FAILURES as error:
                if not self._driver.passes(error) or loop.time() + delay > due:
                    raise
            await asyncio.sleep(delay)
            delay = min(2 * delay, longest)

    async def _leave(self, request: Request) -> None:
        """Let go of everything, as far as the server can be told."""
        await self._clear_up()
        if self._renewal is not None:
            _ = self._renewal.cancel()
        self._batch += 1

        async def leave() -> None:
            if self._lease:  # or others would have to wait for its end
                await self._session.open(self._owner)
            if self._session.is_open:
                steps: list[object] = [{"do": "leave"}]
                _ = await self._session.apply(self._owner, self._batch, self._lease, steps)

        with contextlib.suppress(*self._driver.FAILURES, JournalError):
            if self._session.is_open or self._renewed > -math.inf:
                await self._surely(leave)
        with contextlib.suppress(asyncio.CancelledError):
            await self._session.close()
        self._session.drop()
        self._begin()
        for waiting in self._requests:
            if waiting.do == "hold on":  # there is nothing to hold any more
                _ = waiting.future.cancel()
        if not request.future.done():
            request.future.set_result(None)

    async def _clear_up(self) -> None:
        """Do what the next batch would have done, behind which nothing else comes."""
        if self._kept or self._doubtful:
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            future.add_done_callback(seen)
            kept, self._kept = self._kept, []
            await self._carry_out([*kept, Request("nothing", [], future)])

    async def _renew(self) -> None:
        """Give a sign of life in time, as long as something is open."""
        while self._sagas:
            await asyncio.sleep(self._lease / 3)
            # The lease runs on the server's time: a loop on virtual time asks too often.
            if _clock() - self._renewed >= self._lease / 4:
                with contextlib.suppress(JournalError):
                    await self._ask("nothing")


class _Mark:
    """The record of one action, for a rollback."""

    __slots__ = ("_action", "_journal")

    def __init__(self, journal: PostgresJournal, action: str) -> None:
        self._journal = journal
        self._action = action

    async def begin(self) -> None:
        """Count the attempt; if it cannot be, it does not begin."""
        attempts = self._journal.attempts(self._action) + 1
        await self._journal.change(self._action, attempts=attempts)

    def done(self) -> Awaitable[None]:
        """Note that it is undone."""
        return self._journal.change_whole(self._action, state="done")

    async def give_up(self, error: object) -> None:
        """Park it until somebody says otherwise."""
        await self._journal.change(self._action, state="stuck", error=brief(error))


def _only(row: dict[str, object], *names: str) -> dict[str, object]:
    return {name: row[name] for name in names if name in row}


def _check(dsn: str, schema: str, liveness: str) -> None:
    if not dsn.startswith(("postgresql://", "postgres://")):
        raise InvalidArgument("dsn must begin with postgresql://")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", schema):
        raise InvalidArgument(f"schema must be letters, digits and underscores, not {schema!r}")
    if liveness not in {"session", "lease"}:
        raise InvalidArgument(f"liveness must be 'session' or 'lease', not {liveness!r}")


def _without_secrets(dsn: str) -> str:
    """Give the address alone: no password, and no options, which may hold one too."""
    try:
        parts = urlsplit(dsn)
    except ValueError as error:
        raise InvalidArgument(f"dsn is no address: {error}") from error
    user, at, hosts = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user.partition(':')[0]}{at}{hosts}{parts.path}"


def _clock() -> float:
    """Give real seconds, those in which the machine was suspended included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
