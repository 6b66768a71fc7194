"""`CompensationScope`: what has to be undone, unless it is committed."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeAlias, cast

from typing_extensions import ParamSpec

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import add_note, shielded
from returns_pipeline.compensation._registry import ONCE, Compensation
from returns_pipeline.compensation._report import CompensationReport
from returns_pipeline.compensation._rollback import Action, OnFailure, Order, Replay
from returns_pipeline.compensation.protocol import Intent, Journal
from returns_pipeline.errors import InvalidArgument, ScopeClosed, UnregisteredCompensation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from types import TracebackType

__all__ = ["CompensationScope"]

P = ParamSpec("P")


_EMPTY: Final = CompensationReport()
_COMMITTED: Final = "committed"
_ROLLED_BACK: Final = "rolled back"
_ABSORBED: Final = "absorbed"
_next_order = itertools.count().__next__  # registrations of all scopes, in the order they came


class _Registered:
    """An undo action on record."""

    __slots__ = ("args", "id", "kwargs", "order", "owner", "undo")

    id: str

    def __init__(
        self,
        order: int,
        undo: Callable[..., Awaitable[object]],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        self.order = order
        self.undo = undo
        self.args = args
        self.kwargs = kwargs
        # Set when another scope takes it over. No reference to the scope that holds it: a scope
        # that is dropped shall say so at once, and not when cycles are collected.
        self.owner: CompensationScope | None = None
        # And `id`, its name in the journal, if there is one.

    def action(self, holder: CompensationScope) -> Action:
        owner = self.owner or holder
        name, retry, timeout = "", ONCE, owner.timeout
        known = _unwrapped(self.undo)
        if isinstance(known, Compensation):
            name, retry = known.name, known.retry
            if known.timeout is not None:
                timeout = known.timeout
        else:
            named: object = getattr(known, "__qualname__", None)
            name = named if isinstance(named, str) else type(known).__qualname__
        mark = holder.journal.mark(self.id) if holder.journal is not None else None
        return Action(name, owner, self.undo, self.args, self.kwargs, retry, timeout, mark)


class _Block:
    """The records of a scope that was absorbed as one: they stand in its place, side by side."""

    __slots__ = ("order", "owner", "records")

    def __init__(self, order: int, records: list[_Record]) -> None:
        self.order = order
        self.records = records  # each has its owner
        self.owner: CompensationScope | None = None


_Record: TypeAlias = "_Registered | _Block"
_NONE: Final[list[_Record]] = []  # what a scope holds that takes nothing more


class _Manner(NamedTuple):
    """How the actions of a scope and those inside it are undone."""

    order: Order
    timeout: float
    on_failure: OnFailure
    journal: Journal | None


class CompensationScope:
    """What has to be undone, unless it is committed.

    ``async with scope:`` commits on a normal exit. An exception or a cancellation rolls back, and
    the *same* exception goes on when all is undone; what could not be undone is noted on it
    (``__notes__``), logged, and kept on `report`. A commit that the journal refuses is such an
    exception.

    A rollback

    1. undoes the last registered action first, over all open children, at any depth;
    2. goes on when an undo raises, gives a `Failure` or outlasts its time (see ``on_failure``);
    3. runs each action once, also when several tasks ask for it;
    4. is finished before any exception or cancellation goes on, however often those who wait for
       it are cancelled. It is bounded: each undo has its ``timeout``.

    A scope that is dropped with actions neither committed nor undone gives a `ResourceWarning`.

    Args:
        name: For reports and warnings.
        order: "reverse" for last in, first out; "parallel" to undo all at the same time.
        timeout: Seconds that an undo may take, its retries included, above 0; one that has a time
            of its own keeps it. It is then cancelled, and five seconds later left behind; both
            stand in the report.
        on_failure: What a failed undo means for the rest: "continue" with it, or "stop" and leave
            it in `CompensationReport.not_run`.
        journal: Keeps the actions on disk or in a database, so that a crash does not forget them:
            an action is there before `register` returns, and gone before `commit` returns; if the
            journal has lazy commits, when `flush` or ``async with`` returns. What that promises,
            and what a crash can hit, is in ``docs/sagas.md``.

    Raises:
        InvalidArgument: At the call, if an argument is out of range.
    """

    __slots__ = (
        "__weakref__",
        "_children",
        "_key",
        "_manner",
        "_records",
        "_reopens",
        "_replay",
        "_saga",
        "_settled",
        "_started",
        "busy",
        "name",
        "parent",
        "report",
    )

    def __init__(
        self,
        name: str = "",
        *,
        order: Order = "reverse",
        timeout: float = 30.0,
        on_failure: OnFailure = "continue",
        journal: Journal | None = None,
    ) -> None:
        self._records: list[_Record] = _NONE
        if order not in {"reverse", "parallel"}:
            raise InvalidArgument(f"order must be 'reverse' or 'parallel', not {order!r}")
        if on_failure not in {"continue", "stop"}:
            raise InvalidArgument(f"on_failure must be 'continue' or 'stop', not {on_failure!r}")
        if order == "parallel" and on_failure == "stop":
            raise InvalidArgument("on_failure='stop' needs order='reverse'")
        checks.seconds("timeout", timeout)
        self._begin(name, None, _Manner(order, timeout, on_failure, journal))

    def _begin(self, name: str, parent: CompensationScope | None, manner: _Manner) -> None:
        if manner.journal is not None:
            # What is undone together has one name in the journal; "" is an open child of another.
            self._saga: str | None = None
        self.name: str = name
        self.parent: CompensationScope | None = parent
        self._manner = manner
        self.report: CompensationReport = _EMPTY
        self._started = _next_order()
        self._records = []
        self._children: dict[CompensationScope, None] | None = None  # open, oldest first
        self._settled = ""  # how
        self._reopens = False  # when the rollback that is under way is over
        self._replay: Replay | None = None  # the last
        self._key: str | None = None
        self.busy: bool = False  # a context runs a step whose actions come here

    @property
    def journal(self) -> Journal | None:
        """Where its actions are kept, if a crash must not forget them."""
        return self._manner.journal

    @property
    def order(self) -> Order:
        """The order in which its actions are undone."""
        return self._manner.order

    @property
    def timeout(self) -> float:
        """Seconds that an undo may take, unless it has a time of its own."""
        return self._manner.timeout

    @property
    def on_failure(self) -> OnFailure:
        """What a failed undo means for the rest."""
        return self._manner.on_failure

    @property
    def path(self) -> str:
        """The names from the outermost scope to this one, with slashes between."""
        names: list[str] = []
        at: CompensationScope | None = self
        while at is not None:
            names.append(at.name)
            at = at.parent
        return "/".join(reversed(names))

    @property
    def key(self) -> str:
        """The idempotency key: unique to this scope, the same while its actions are undone."""
        if self._key is None:
            self._key = os.urandom(16).hex()
        return self._key

    def renew_key(self, key: str | None = None) -> None:
        """Begin another step: its key is this, or not that of the one before."""
        self._key = key

    @property
    def closed(self) -> bool:
        """Whether it has been settled, and so takes no more actions."""
        return bool(self._settled)

    @property
    def how(self) -> str:
        """How it was settled: "committed", "rolled back", "absorbed"; empty while it is open."""
        return self._settled

    async def register(
        self, undo: Callable[P, Awaitable[object]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Put an undo action on record. Call it before the effect, not after.

        Args:
            undo: A `Compensation`, or any function that gives an awaitable. It fails by raising
                or by giving a `Failure`.
            args: What it is to be called with. They are kept, not copied.
            kwargs: And by name.

        Raises:
            ScopeClosed: The scope is settled. The action is not accepted: do not begin its effect.
            TypeError: ``undo`` cannot be called.
        """
        if self._settled:
            raise ScopeClosed(self.path, self._settled)
        if not callable(undo):
            raise TypeError(f"expected a function, not {undo!r}")
        record = _Registered(_next_order(), undo, args, kwargs)
        if self._manner.journal is not None:
            await self._record(self._manner.journal, record)
        self._records.append(record)

    async def _record(self, journal: Journal, record: _Registered) -> None:
        """Put an action into the journal, to the end whatever happens meanwhile."""
        undo, args, kwargs = _whole_call(record.undo, record.args, record.kwargs)
        record.id = _action_id()
        if not isinstance(undo, Compensation):
            raise UnregisteredCompensation(
                str(journal), f"{record.action(self).name} is not a compensation of a registry"
            )
        known: Compensation[...] = undo
        intent = Intent(
            record.id,
            self.saga,
            self._root().path,
            _position(record.order),
            self.path,
            self.key,
            known,
            args,
            kwargs,
        )
        _, cancelled = await shielded(journal.record(intent))
        if self._settled:  # meanwhile: its effect must not begin, and nothing need be undone
            try:
                _, late = await shielded(journal.forget([record.id]))
                cancelled = cancelled or late
            finally:
                if cancelled is not None:
                    raise cancelled
            raise ScopeClosed(self.path, self._settled)
        if cancelled is not None:
            self._records.append(record)  # it is on record, so it is undone like the others
            raise cancelled

    def _root(self) -> CompensationScope:
        """Give the outermost of the scopes that are undone together with this one."""
        scope = self
        while scope._saga == "" and scope.parent is not None:
            scope = scope.parent
        return scope

    @property
    def saga(self) -> str:
        """What the scopes that are undone together have in common in a journal."""
        root = self._root()
        if root._saga is None:
            root._saga = os.urandom(16).hex()
        return root._saga

    def child(self, name: str = "") -> CompensationScope:
        """Open a scope inside this one, with the same order, timeout and handling of failures.

        It can be committed or rolled back on its own. While it is open, its actions are undone
        or committed together with this scope's.

        Raises:
            ScopeClosed: This scope is settled.
        """
        made = self.detached(name)
        if self._manner.journal is not None:
            made._saga = ""
        self._adopt(made)
        return made

    def _adopt(self, child: CompensationScope) -> None:
        if self._children is None:
            self._children = {child: None}
        else:
            self._children[child] = None

    def detached(self, name: str = "") -> CompensationScope:
        """Do as `child`, but leave the settling to whoever asked for it.

        Its actions belong to this scope only when it is absorbed: a step that is still running
        must not be rolled back under its feet.

        Raises:
            ScopeClosed: This scope is settled.
        """
        if self._settled:
            raise ScopeClosed(self.path, self._settled)
        made = CompensationScope.__new__(CompensationScope)
        made._begin(name, self, self._manner)
        return made

    def absorb(self, child: CompensationScope, *, as_one: bool = False) -> None:
        """Take over the actions of another scope, which is closed by it.

        They keep their order: each is undone in its place by the order of registration. Open
        children of the other become children of this one. With ``as_one`` all actions inside,
        those of open children included, stay together, in the place where the other was opened;
        the children are closed.

        Raises:
            ScopeClosed: One of the two is settled.
            InvalidArgument: It is this scope itself, or one that this scope is inside of.
            JournalError: The journal refuses; nothing has changed.
        """
        self._check_absorb(child)
        taken, kept = [child], list(child._children or ())
        if as_one and kept:
            inside = child._family()[1:]
            taken += [scope for scope in inside if not scope._settled]
            kept = [scope for scope in inside if scope._settled]
        records = [record for scope in taken for record in scope._records]
        if self._manner.journal is not None and records:
            # First: if the journal refuses, nothing has changed, and the other is rolled back.
            prefix = f"{_position(child._started)}." if as_one else ""
            root = self._root()
            self._manner.journal.move(_ids(records), saga=root.saga, name=root.path, prefix=prefix)
        for scope in kept:
            scope.parent = self
            scope._reopens = scope._reopens and not as_one
            self._adopt(scope)
        for scope in taken:
            for record in scope._records:
                record.owner = record.owner or scope
            scope._close(_ABSORBED)
        if as_one and records:
            self._records.append(_Block(child._started, records))
        else:
            self._records += records

    def _check_absorb(self, child: CompensationScope) -> None:
        for scope in (self, child):
            if scope._settled:
                raise ScopeClosed(scope.path, scope._settled)
        if self.journal is not child.journal:
            raise InvalidArgument(
                f"scopes {self.path!r} and {child.path!r} do not have the same journal"
            )
        at: CompensationScope | None = self
        while at is not None:
            if at is child:
                raise InvalidArgument(f"scope {self.path!r} cannot absorb {child.path!r}")
            at = at.parent

    async def commit(self) -> None:
        """Settle all actions, those of open children included: they will not be undone.

        The scope and those children are closed. Doing it again changes nothing.

        Raises:
            ScopeClosed: The scope was rolled back or absorbed.
        """
        if self._settled:
            if self._settled != _COMMITTED:
                raise ScopeClosed(self.path, self._settled)
        elif self._manner.journal is not None:
            await self._commit_in(self._manner.journal, close=True)
        elif self._children is None:  # the usual case
            self._close(_COMMITTED)
        else:
            self._close_inside(_COMMITTED)
            self._close(_COMMITTED)

    async def _commit_in(self, journal: Journal, *, close: bool) -> None:
        """Commit in the journal first. Until that is done, nothing is accepted."""
        inside = self._family()
        family = [scope for scope in inside if not scope._settled]
        ids = [id_ for scope in family for id_ in _ids(scope._records)]
        cancelled = None
        if ids:
            for scope in family:
                scope._settled = _COMMITTED
            try:
                _, cancelled = await shielded(journal.forget(ids))
            except BaseException:
                for scope in family:
                    scope._settled = ""
                raise
        for scope in inside:
            scope._reopens = False  # one that is being rolled back does not outlive this
        for scope in family[1:]:
            scope._close(_COMMITTED)
        self._settled = ""
        self._records = []
        if close:
            self._close(_COMMITTED)
        if cancelled is not None:
            raise cancelled

    async def flush(self) -> None:
        """Return when all commits of its journal are durable; without a journal, at once.

        Raises:
            JournalError: They are not. If they may still be, they count as commits: what they
                cover is not undone here, but by `recover` if this process ends before.
        """
        if self._manner.journal is None:
            return
        _, cancelled = await shielded(self._manner.journal.flush())
        if cancelled is not None:
            raise cancelled

    async def compensate(self) -> CompensationReport:
        """Undo all actions, those of open children included; close the scope.

        Asking again, also from another task, gives the same report; so does asking a scope that
        was rolled back together with one around it. A scope that was committed or absorbed has
        nothing to undo.

        Cancel safety: a cancellation is raised when all is undone.
        """
        return await self._end_of(self._roll_back(close=True))

    async def settle(self, *, keep: bool) -> CompensationReport:
        """Commit (``keep``) or undo what is registered so far, and stay open for more.

        Open children are closed by it. While it undoes, nothing is accepted.

        Raises:
            ScopeClosed: The scope is settled, or is being rolled back.
        """
        if self._settled:
            raise ScopeClosed(self.path, self._settled)
        self.report = _EMPTY
        if not keep:
            return await self._end_of(self._roll_back(close=False))
        if self._manner.journal is not None:
            await self._commit_in(self._manner.journal, close=False)
            return _EMPTY
        if self._children is not None:
            self._close_inside(_COMMITTED)
        self._records = []
        return _EMPTY

    def __len__(self) -> int:
        """Count the actions on record: neither committed, nor undone or about to be."""
        return sum(1 for _ in self._newest_first(self._family()))

    def __bool__(self) -> bool:
        """Be true also when empty: a scope is not a container."""
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            await self.roll_back_after(error, close=True)
            return
        if self._settled == _ROLLED_BACK:
            _ = await self._end_of(self._replay)  # another task's, which may be under way
        if not self._settled:
            try:
                await self.commit()
            except BaseException as refused:
                # It is not committed, and nobody else will see to it while this process lives.
                await self.roll_back_after(refused, close=True)
                raise
        if self._manner.journal is not None:
            await self.flush()  # who leaves it may tell the source

    async def roll_back_after(self, error: BaseException, *, close: bool) -> None:
        """Undo all, because of an exception, and note on it what could not be undone.

        The caller raises it. A cancellation that came meanwhile is raised here, unless the
        exception is one itself.
        """
        replay = self._roll_back(close=close)
        if replay is None:
            return
        cancelled = await replay.wait()
        for note in replay.report.notes():
            add_note(error, note)
        if cancelled is not None and not isinstance(error, asyncio.CancelledError):
            raise cancelled

    def _family(self) -> list[CompensationScope]:
        """Give this scope and all that are open, or being rolled back, inside it."""
        family: list[CompensationScope] = [self]
        for scope in family:  # which grows: a loop, so that any depth will do
            if scope._children:
                family.extend(scope._children)
        return family

    def _close(self, how: str) -> None:
        self._settled = how
        self._records = _NONE
        self._children = None
        parent = self.parent
        if parent is not None and parent._children is not None:
            parent._children.pop(self, None)

    def _close_inside(self, how: str) -> None:
        for scope in self._family():
            scope._reopens = False
            if scope is not self and not scope._settled:
                scope._close(how)

    def _roll_back(self, *, close: bool) -> Replay | None:
        """Start to undo all records of the family, and give what is to be waited for.

        It begins behind any rollback that is under way inside. Until it is over the scope takes
        nothing, also when it stays open: who comes late shall not begin the effect.
        """
        if self._settled:
            self._reopens = self._reopens and not close
            return self._replay if self._settled == _ROLLED_BACK else None
        family = self._family()
        actions = [record.action(holder) for record, holder in self._newest_first(family)]
        before = [scope._replay for scope in family if scope._replay and not scope._replay.over]
        replay: Replay | None = None
        if actions or before:
            replay = Replay(
                actions,
                order=self.order,
                on_failure=self.on_failure,
                scope=self.path,
                before=before,
                when_done=self._rolled_back,
            )
        for scope in family:
            scope._reopens = False
            if scope is not self and not scope._settled:
                scope._close(_ROLLED_BACK)
                scope._replay = replay
        self._replay = replay
        self._records = []
        if replay is not None:
            # A scope around it finds it among its children until it is over, and waits for it.
            self._settled, self._reopens = _ROLLED_BACK, not close
            replay.start()
        elif close:
            self._close(_ROLLED_BACK)
        return replay

    def _rolled_back(self, report: CompensationReport) -> None:
        self.report = report
        if self._reopens:
            self._settled = ""
        else:
            self._close(_ROLLED_BACK)

    async def _end_of(self, replay: Replay | None) -> CompensationReport:
        if replay is None:
            return _EMPTY
        cancelled = await replay.wait()
        if cancelled is not None:
            raise cancelled
        return replay.report

    def __repr__(self) -> str:
        state = self._settled or f"{len(self)} to undo"
        return f"<CompensationScope {self.path!r}: {state}>"

    @staticmethod
    def _newest_first(
        scopes: list[CompensationScope],
    ) -> Iterator[tuple[_Registered, CompensationScope]]:
        """Give the actions in the order in which they are undone, and the scope that holds each."""
        todo: list[tuple[_Record, CompensationScope]]
        todo = [(record, scope) for scope in scopes for record in scope._records]
        todo.sort(key=_by_order)
        while todo:  # a loop, so that any depth will do
            record, holder = todo.pop()
            if isinstance(record, _Block):
                todo.extend(sorted(((inner, holder) for inner in record.records), key=_by_order))
            else:
                yield record, holder

    def __del__(self) -> None:
        if self._records:
            waiting = [str(record.action(self).entry()) for record, _ in self._newest_first([self])]
            warnings.warn(
                f"scope {self.path!r} was dropped with {len(waiting)} action(s) neither "
                f"committed nor undone: {', '.join(waiting)}",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )


def _action_id() -> str:
    """Give an action a name that no other has.

    It begins with the time, as a UUID of version 7 does (RFC 9562): what is recorded together
    stands together in an index, and a transaction writes a few pages of it, not one for each. The
    names of sagas do not: people tell them apart by how they begin.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def _position(order: int) -> str:
    return f"{order:016d}"


def _ids(records: list[_Record]) -> list[str]:
    """Give the actions' names in the journal, those in blocks included."""
    ids: list[str] = []
    todo = list(records)
    while todo:
        record = todo.pop()
        if isinstance(record, _Block):
            todo.extend(record.records)
        else:
            ids.append(record.id)
    return ids


def _by_order(held: tuple[_Record, CompensationScope]) -> int:
    return held[0].order


def _unwrapped(undo: object) -> object:
    return _whole_call(undo, (), {})[0]


def _whole_call(
    undo: object, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[object, tuple[object, ...], dict[str, object]]:
    """Give what a call of partials comes to: the function inside, and all its arguments."""
    while isinstance(undo, functools.partial):
        part = cast("functools.partial[object]", undo)
        undo, args, kwargs = part.func, (*part.args, *args), {**part.keywords, **kwargs}
    return undo, args, kwargs
