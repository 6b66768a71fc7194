"""The records of a scope: single actions, and blocks of actions that stay together."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeAlias, cast

from returns_pipeline.compensation._registry import ONCE, Compensation, hidden
from returns_pipeline.compensation._undo import Action
from returns_pipeline.compensation.protocol import ActionRecord

__all__ = [
    "NOTHING",
    "Block",
    "Held",
    "Holder",
    "Record",
    "Registered",
    "newest_first",
    "next_order",
    "single",
]

# One sequence for the registrations and openings of all scopes.
next_order: Final = itertools.count().__next__


class Holder(Protocol):
    """What records need to know of the scope that has them."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def timeout(self) -> float: ...


class Registered:
    """An undo action on record."""

    __slots__ = ("args", "id", "kwargs", "order", "owner", "undo")

    id: str  # its name in the journal; unset if there is none

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
        # The scope it was registered in, once another scope has absorbed it. Until then None: a
        # reference to the scope that has this record would be a cycle, and a dropped scope would
        # emit its warning late.
        self.owner: Holder | None = None

    @property
    def name(self) -> str:
        """The registered name of its compensation, or that of its function."""
        known = self.whole_call()[0]
        if isinstance(known, Compensation):
            return known.name
        named: object = getattr(known, "__qualname__", None)
        return named if isinstance(named, str) else type(known).__qualname__

    def action(self, holder: Holder, record: ActionRecord | None = None) -> Action:
        """Return the action to be run."""
        owner = self.owner or holder
        retry, timeout = ONCE, owner.timeout
        known, args, _ = self.whole_call()
        sensitive: frozenset[int | str] = frozenset()
        if isinstance(known, Compensation):
            undo: Compensation[..., Any] = cast("Compensation[..., Any]", known)
            retry = undo.retry
            before = len(args) - len(self.args)
            sensitive = hidden(undo, len(self.args), self.kwargs, before=before)
            if undo.timeout is not None:
                timeout = undo.timeout
        return Action(
            self.name, owner, self.undo, self.args, self.kwargs, retry, timeout, record, sensitive
        )

    def whole_call(self) -> tuple[object, tuple[object, ...], dict[str, object]]:
        """Return the function inside all partials, and all its arguments."""
        undo: object = self.undo
        args, kwargs = self.args, self.kwargs
        while isinstance(undo, functools.partial):
            part = cast("functools.partial[object]", undo)
            undo, args, kwargs = part.func, (*part.args, *args), {**part.keywords, **kwargs}
        return undo, args, kwargs


class Block:
    """The records of a scope that was absorbed as one: they stay together, in its position."""

    __slots__ = ("order", "owner", "records")

    def __init__(self, order: int, records: list[Record]) -> None:
        self.order = order
        self.records = records
        self.owner: Holder | None = None  # set, but never read: each record inside has its own


Record: TypeAlias = Registered | Block
Held: TypeAlias = tuple[Record, Holder]  # and the scope that has it
NOTHING: Final[list[Record]] = []  # shared by all closed scopes: never append to it


def newest_first(held: Iterable[Held]) -> Iterator[tuple[Registered, Holder]]:
    """Iterate over single actions in the order in which they are undone."""
    todo = sorted(held, key=_by_order)
    while todo:  # not recursive: blocks may be nested to any depth
        record, holder = todo.pop()
        if isinstance(record, Block):
            todo.extend(sorted(((inner, holder) for inner in record.records), key=_by_order))
        else:
            yield record, holder


def single(records: Sequence[Record]) -> list[Registered]:
    """Return all single actions, in no particular order."""
    found = [record for record in records if isinstance(record, Registered)]
    if len(found) == len(records):  # the usual case
        return found
    found.clear()
    todo = [*records]
    while todo:
        record = todo.pop()
        if isinstance(record, Block):
            todo.extend(record.records)
        else:
            found.append(record)
    return found


def _by_order(held: Held) -> int:
    return held[0].order
