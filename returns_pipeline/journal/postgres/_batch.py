"""Requests to a `PostgresJournal`, and how they are put together for one transaction."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = [
    "ALONE",
    "ANYWAY",
    "JOINED",
    "MOST",
    "Request",
    "Step",
    "as_it_is",
    "refuse",
    "seen",
    "steps_of",
]

# A step of a batch, as the server reads it, and the places of the requests in it.
Step: TypeAlias = tuple[dict[str, object], list[int]]

_log = logging.getLogger("returns_pipeline")

# Requests in a transaction: with the longest arguments, 16 MiB.
MOST: Final = 256
# Requests of these kinds are carried out together, in this order; each other by itself.
JOINED: Final = ("record", "change", "forget")
# And each of these in a transaction of its own.
ALONE: Final = ("claim", "leave")
# To let go is wanted, also by who does not wait for it.
ANYWAY: Final = ("leave", "release")
# These are for the connection: by a caller, and to keep what is open.
_EMPTY: Final = ("nothing", "hold on")


def as_it_is(answer: Any) -> Any:
    """Give the server's answer to the caller."""
    return answer


@dataclass(slots=True, eq=False)
class Request:
    """Something to be done, and what it means here when it is done."""

    do: str
    # What it says; of those carried out together, one for each action.
    rows: list[dict[str, object]]
    future: asyncio.Future[Any]
    done: Callable[[Any], Any] = as_it_is  # from the server's answer to the caller's
    failed: Callable[[], None] = field(default=lambda: None)
    unheard: Callable[[Any], None] = lambda _: None  # done, for a caller that has been cancelled
    saga: str = ""  # for errors


def steps_of(batch: list[Request], counts_on: Callable[[str], bool]) -> list[Step]:
    """Put requests together: those of one kind, between others, make one step.

    ``counts_on`` says whether a saga is not to vanish by anything asked for so far.
    """
    steps: list[Step] = []
    joined: dict[str, Step] = {}
    changed: set[object] = set()
    for n, request in enumerate(batch):
        if request.do not in JOINED:
            steps += _in_order(joined)
            joined, changed = {}, set()
            if request.do not in _EMPTY:
                steps.append(({"do": request.do} | request.rows[0], [n]))
            continue
        if request.do == "change":
            if request.rows[0]["id"] in changed:  # a statement changes each action once
                steps += _in_order(joined)
                joined, changed = {}, set()
            changed.add(request.rows[0]["id"])
        body, places = joined.setdefault(request.do, ({"do": request.do, "rows": []}, []))
        rows = cast("list[dict[str, object]]", body["rows"])
        for row in request.rows:
            rows.append(row | {"n": n})
            if request.do == "record":
                rows[-1]["known"] = row["known"] and counts_on(request.saga)
        places.append(n)
    return steps + _in_order(joined)


def _in_order(joined: dict[str, Step]) -> list[Step]:
    return [joined[kind] for kind in JOINED if kind in joined]


def refuse(request: Request, error: Exception) -> None:
    """Tell who waits for a request that it failed."""
    if not request.future.done():
        request.future.set_exception(error)


def seen(future: asyncio.Future[Any]) -> None:
    """Nobody waits for it: say at least what went wrong."""
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.error("%s", error)
