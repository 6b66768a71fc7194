"""`StepScope`: where the actions of a step are registered, at little cost for one that succeeds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from typing_extensions import ParamSpec

from returns_pipeline.compensation import CompensationScope, _internals
from returns_pipeline.compensation.protocol import Coverage

__all__ = ["ContextStatistics", "StepScope"]

P = ParamSpec("P")

# Looked up once: they are called for each item of a stream with `bind_step`.
_Registered: Final = _internals.Registered
_next_order: Final = _internals.next_order
_early_records: Final = _internals.early_records


@dataclass(frozen=True, slots=True)
class ContextStatistics:
    """What a `StepContext` holds. `StepContext.statistics` makes it.

    Attributes:
        actions: The undo actions on record, of the context and of what is inside: neither
            committed nor undone.
        begun: The steps that have begun inside, so far.
        running: Those that have not ended.

    >>> ContextStatistics(actions=2, begun=10, running=1).running
    1
    """

    actions: int
    begun: int
    running: int


class StepScope:
    """The scope of a context: one that exists, or one that is made when it is needed.

    Most steps of a stream register an action or two and succeed. Then the actions are dropped, and
    no scope was needed. So that of a step without a journal is made when anything but `register`
    and a commit asks for it, such as a rollback. It is then as if it had been there from the start.

    States: a scope (`_scope`); none yet, with actions (`_records`) and a position (`_started`)
    inside `_outer`; none yet, and committed (neither of the two).
    """

    __slots__ = (
        "_base",
        "_early_key",
        "_key_is_spent",
        "_number",
        "_outer",
        "_records",
        "_scope",
        "_started",
    )

    _base: str  # the name without a number
    _early_key: str | None  # that a scope which is made later will have
    _key_is_spent: bool  # whether a run with this key has ended
    _number: int | None  # of a step by this name, inside its parent
    _outer: CompensationScope
    _records: list[_internals.Record] | None
    _scope: CompensationScope | None
    _started: int

    def _detach_from(self, outer: CompensationScope) -> None:
        """Begin with a scope that belongs to another one when it is absorbed.

        Raises:
            ScopeClosed: The other one is closed.
        """
        records = _early_records(outer)
        if records is not None:
            self._outer = outer
            self._records = records
            self._early_key = None
            self._started = _next_order()
        else:
            self._scope = _internals.detached(outer, self.name)

    @property
    def name(self) -> str:
        """The name, for paths, reports and observers; that of a step has a number."""
        return self._base if self._number is None else f"{self._base}[{self._number}]"

    @property
    def scope(self) -> CompensationScope:
        """The scope in which its actions are registered."""
        return self._made_scope() if self._scope is None else self._scope

    def statistics(self) -> ContextStatistics:
        """Return what it holds at this moment.

        >>> from returns_pipeline import StepContext
        >>> from returns_pipeline.testing import run
        >>> async def main() -> None:
        ...     async with StepContext("shop") as ctx:
        ...         await ctx.register(main)
        ...         print(ctx.statistics())
        ...         await ctx.scope.commit()
        >>> run(main())
        ContextStatistics(actions=1, begun=0, running=0)
        """
        actions = len(self._records) if self._records is not None else 0
        if self._scope is not None:
            actions = len(self._scope)
        return ContextStatistics(actions, *self._steps_inside())

    @abstractmethod
    def _steps_inside(self) -> tuple[int, int]:
        """Return how many steps have begun inside, and how many of them run."""

    def _made_scope(self) -> CompensationScope:
        records, self._records = self._records, None
        self._scope = _internals.detached_earlier(
            self._outer, self.name, self._started, records, self._early_key
        )
        return self._scope

    @property
    def key(self) -> str:
        """The idempotency key of this step: unique to it, and the same while it is undone.

        An undo reads it with `returns_pipeline.compensation.current_key`. Each `run` is a step with
        a key of its own. Actions that are registered before the next `run` belong to that one.
        """
        if self._scope is not None:
            return self._scope.key
        if self._early_key is None:
            self._early_key = _internals.unique()
        return self._early_key

    def _renew_key(self) -> None:
        """Begin the next step if the last one has ended: it gets actions registered in between."""
        if self._key_is_spent:
            self._key_is_spent = False
            _internals.renew_key(self.scope)

    async def register(
        self, undo: Callable[P, Awaitable[object]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Record an undo action, before its effect: see `CompensationScope.register`."""
        records = self._records
        # If an observer must know of it, the list is of another class: the scope reports it.
        if records is not None and records.__class__ is list and callable(undo):
            records.append(_Registered(_next_order(), undo, args, kwargs))
            return
        self._renew_key()
        await self.scope.register(undo, *args, **kwargs)

    async def _accept_covering(self, *, value: object) -> None:
        """Commit after a success, and store the positions of the messages in a value with that.

        Only the last commit of a step stores them: what a step commits before it has ended may be
        all that is left of it after a crash.
        """
        scope = self.scope
        coverage: Coverage | None = getattr(scope.journal, "coverage", None)
        if coverage is None:
            raise RuntimeError(f"{self.name}: the source of its messages was left")
        cancelled = await _internals.commit_covering(scope, coverage.covered(value))
        coverage.committed(value)
        if cancelled is not None:
            raise cancelled

    def _commit_at_once(self) -> bool:
        """Commit and return true, in the usual case, which waits for nothing."""
        if self._records is None:
            return _internals.commit_at_once(self.scope)
        self._records = None
        return True
