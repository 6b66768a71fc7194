"""Compensation: what is registered and not committed is undone.

An undo is registered *before* its effect. It must be idempotent, and accept that its effect never
happened: a step may be stopped between the two. The idea is the saga of Garcia-Molina and Salem
(1987); that the absence of a commit means "undo" is the presumed abort of Mohan and Lindsay (1983).

>>> from returns_pipeline.testing import run
>>> async def main() -> None:
...     async def remove(name: str) -> None:
...         print("removed", name)
...     try:
...         async with CompensationScope("upload") as scope:
...             await scope.register(remove, "a.txt")  # then write a.txt
...             await scope.register(remove, "b.txt")  # then write b.txt
...             raise OSError("disk full")
...     except OSError as error:
...         print("failed:", error)
>>> run(main())
removed b.txt
removed a.txt
failed: disk full
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Self, TypeAlias, cast
from uuid import uuid4

from typing_extensions import ParamSpec

from returns_pipeline.errors import InvalidArgument, ScopeClosed
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.rollback import (
    Action,
    CompensationEntry,
    CompensationReport,
    OnFailure,
    Order,
    Replay,
    current_key,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import TracebackType

__all__ = [
    "Compensation",
    "CompensationEntry",
    "CompensationRegistry",
    "CompensationReport",
    "CompensationScope",
    "current_key",
]

P = ParamSpec("P")

_ONCE: Final = RetryPolicy(attempts=1)
_EMPTY: Final = CompensationReport()
_COMMITTED: Final = "committed"
_ROLLED_BACK: Final = "rolled back"
_ABSORBED: Final = "absorbed"
_next_order = itertools.count().__next__  # registrations of all scopes, in the order they came


class Compensation(Generic[P]):
    """An undo action under a name that another process knows too.

    It is made by `CompensationRegistry.compensation`. It can be called like the function it is
    made of.

    Attributes:
        name: The name it is registered under.
        retry: How often it is tried.
        timeout: Seconds it may take, retries included; ``None`` if the scope says.
    """

    def __init__(
        self,
        name: str,
        func: Callable[P, Awaitable[object]],
        retry: RetryPolicy,
        timeout: float | None,
    ) -> None:
        # First: it brings the function's own attributes along, and tenacity sets a `retry` there.
        _ = functools.update_wrapper(self, func)
        self.name = name
        self.retry = retry
        self.timeout = timeout
        self._func = func

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[object]:
        """Call the function itself, at once and without any retry."""
        return self._func(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<compensation {self.name!r}>"


class CompensationRegistry(Mapping[str, Compensation[...]]):
    """The undo actions of a program, by name.

    >>> registry = CompensationRegistry()
    >>> @registry.compensation("delete-batch", retry=RetryPolicy(attempts=5))
    ... async def delete_batch(batch_id: str) -> None: ...
    >>> registry["delete-batch"] is delete_batch
    True
    """

    def __init__(self) -> None:
        self._known: dict[str, Compensation[...]] = {}

    def compensation(
        self, name: str, *, retry: RetryPolicy | None = None, timeout: float | None = None
    ) -> Callable[[Callable[P, Awaitable[object]]], Compensation[P]]:
        """Register a function as the undo action of this name; to be used as a decorator.

        The function succeeds when it returns, and fails when it raises or gives a `Failure`.

        Args:
            name: Unique in this registry.
            retry: How often it is tried; by default once.
            timeout: Seconds it may take, retries included, above 0; by default the scope's.

        Raises:
            InvalidArgument: At the call, if the name is empty or taken, or ``timeout`` is out of
                range.
        """
        if not name:
            raise InvalidArgument("a compensation needs a name")
        if timeout is not None:
            _check_timeout(timeout)

        def register(func: Callable[P, Awaitable[object]]) -> Compensation[P]:
            if name in self._known:
                raise InvalidArgument(f"a compensation {name!r} is registered already")
            made = Compensation(name, func, retry or _ONCE, timeout)
            self._known[name] = made
            return made

        return register

    def __getitem__(self, name: str) -> Compensation[...]:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class _Registered:
    """An undo action on record."""

    __slots__ = ("args", "kwargs", "order", "owner", "undo")

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

    def action(self, holder: CompensationScope) -> Action:
        owner = self.owner or holder
        name, retry, timeout = "", _ONCE, owner.timeout
        known = _unwrapped(self.undo)
        if isinstance(known, Compensation):
            name, retry = known.name, known.retry
            if known.timeout is not None:
                timeout = known.timeout
        else:
            named: object = getattr(known, "__qualname__", None)
            name = named if isinstance(named, str) else type(known).__qualname__
        return Action(name, owner, self.undo, self.args, self.kwargs, retry, timeout)


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


class CompensationScope:
    """What has to be undone, unless it is committed.

    ``async with scope:`` commits on a normal exit. An exception or a cancellation rolls back, and
    the *same* exception goes on when all is undone; what could not be undone is noted on it
    (``__notes__``), logged, and kept on `report`.

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
    ) -> None:
        self._records: list[_Record] = _NONE
        if order not in {"reverse", "parallel"}:
            raise InvalidArgument(f"order must be 'reverse' or 'parallel', not {order!r}")
        if on_failure not in {"continue", "stop"}:
            raise InvalidArgument(f"on_failure must be 'continue' or 'stop', not {on_failure!r}")
        if order == "parallel" and on_failure == "stop":
            raise InvalidArgument("on_failure='stop' needs order='reverse'")
        _check_timeout(timeout)
        self._begin(name, None, _Manner(order, timeout, on_failure))

    def _begin(self, name: str, parent: CompensationScope | None, manner: _Manner) -> None:
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
            self._key = uuid4().hex
        return self._key

    def renew_key(self) -> None:
        """Begin another step: its key is not that of the one before."""
        self._key = None

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
        self._records.append(_Registered(_next_order(), undo, args, kwargs))

    def child(self, name: str = "") -> CompensationScope:
        """Open a scope inside this one, with the same order, timeout and handling of failures.

        It can be committed or rolled back on its own. While it is open, its actions are undone
        or committed together with this scope's.

        Raises:
            ScopeClosed: This scope is settled.
        """
        made = self.detached(name)
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
        """
        for scope in (self, child):
            if scope._settled:
                raise ScopeClosed(scope.path, scope._settled)
        at: CompensationScope | None = self
        while at is not None:
            if at is child:
                raise InvalidArgument(f"scope {self.path!r} cannot absorb {child.path!r}")
            at = at.parent
        taken, kept = [child], list(child._children or ())
        if as_one and kept:
            inside = child._family()[1:]
            taken += [scope for scope in inside if not scope._settled]
            kept = [scope for scope in inside if scope._settled]
        for scope in kept:
            scope.parent = self
            scope._reopens = scope._reopens and not as_one
            self._adopt(scope)
        records: list[_Record] = []
        for scope in taken:
            for record in scope._records:
                record.owner = record.owner or scope
            records += scope._records
            scope._close(_ABSORBED)
        if as_one and records:
            self._records.append(_Block(child._started, records))
        else:
            self._records += records

    async def commit(self) -> None:
        """Settle all actions, those of open children included: they will not be undone.

        The scope and those children are closed. Doing it again changes nothing.

        Raises:
            ScopeClosed: The scope was rolled back or absorbed.
        """
        if self._settled:
            if self._settled != _COMMITTED:
                raise ScopeClosed(self.path, self._settled)
        elif self._children is None:  # the usual case
            self._close(_COMMITTED)
        else:
            self._close_inside(_COMMITTED)
            self._close(_COMMITTED)

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
        if self._children is not None:
            self._close_inside(_COMMITTED)
        self._records = []
        return _EMPTY

    def __len__(self) -> int:
        """Count the actions that are neither committed nor undone."""
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
            await self.commit()

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
            error.add_note(note)
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


def _by_order(held: tuple[_Record, CompensationScope]) -> int:
    return held[0].order


def _unwrapped(undo: object) -> object:
    while isinstance(undo, functools.partial):
        undo = cast("functools.partial[object]", undo).func
    return undo


def _check_timeout(timeout: float) -> None:
    if not timeout > 0:
        raise InvalidArgument(f"timeout must be above 0 seconds, not {timeout!r}")
