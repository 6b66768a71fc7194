"""Requests to a `PostgresJournal`, and how they are put together for one transaction.

A batch is a list of requests in the order in which they were made. The server reads it as a list of
*steps* (``carry_out`` in ``schema.sql``): requests of one kind that touch single actions make one
step together, so that a hundred registrations are one statement. Their order among themselves may
change then, and only then: see `JOINED`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

__all__ = [
    "ALONE",
    "FREEING",
    "JOINED",
    "KEPT",
    "MOST_REQUESTS",
    "WITHOUT_CALLER",
    "Kind",
    "Request",
    "Row",
    "Step",
    "log_failure",
    "refuse",
    "steps_of",
    "unchanged",
]

# What a request says, as the server reads it: JSON.
Row: TypeAlias = dict[str, object]

# "nothing" and "reconnect" ask the server for nothing. A caller of the first wants an open
# connection and a renewed lease; the second is made by the journal itself when a connection ended.
Kind: TypeAlias = Literal[
    "nothing",
    "reconnect",
    "record",
    "change",
    "forget",
    "move",
    "abandon",
    "claim",
    "release",
    "retry",
    "discard",
    "leave",
]

_log = logging.getLogger("returns_pipeline")

# Requests in a transaction: with the longest arguments, 16 MiB.
MOST_REQUESTS: Final = 256
# Requests of these kinds that follow one another make one step for each kind, and the steps are
# carried out in this order. That is safe because of what can be asked for at the same time: no
# caller changes or forgets an action before its record was answered, and one that is forgotten is
# not changed any more.
JOINED: Final = ("record", "change", "forget")
# Each of these has a transaction of its own, but for what is kept: a claim must not keep others
# waiting for the sagas it locks, and after "leave" this owner is gone.
ALONE: Final = ("claim", "leave")
# These are carried out even if their caller was cancelled meanwhile.
WITHOUT_CALLER: Final = ("leave", "release")
# These free what nobody here has any more: whatever they fail for, they are tried again.
FREEING: Final = ("abandon", "release")
# If these fail because the server is away, they are carried out before everything that is asked for
# later: others must find a scope's actions in one saga, and what nobody here has any more free.
KEPT: Final = ("move", *FREEING)
_EMPTY: Final = ("nothing", "reconnect")


class Step(NamedTuple):
    """One step of a batch.

    Attributes:
        body: As the server reads it.
        places: The indexes in the batch of the requests that it carries out.
    """

    body: Row
    places: list[int]


def unchanged(answer: Any) -> Any:
    """Return the server's answer to the caller as it is."""
    return answer


@dataclass(slots=True, eq=False)
class Request:
    """Something to be done by the server, and what it means in this process once it is done.

    Exactly one of the three callbacks is called, in the writer's task, before the caller continues.

    Attributes:
        kind: What is to be done.
        rows: With what; of the joined kinds, one row for each action.
        future: What the caller waits for.
        on_done: Makes the caller's result of the server's answer. It may raise a `JournalError`.
        on_failed: Called when the request was not carried out, or it is not known whether it was.
        on_orphaned: Called after ``on_done`` with its result if the caller was cancelled meanwhile.
        saga: Which saga it is about, for errors.
        kept: Whether it failed before, and is tried again without a caller.
    """

    kind: Kind
    rows: list[Row]
    future: asyncio.Future[Any]
    on_done: Callable[[Any], Any] = unchanged
    on_failed: Callable[[], None] = field(default=lambda: None)
    on_orphaned: Callable[[Any], None] = lambda _: None
    saga: str = ""
    kept: bool = False


def steps_of(batch: list[Request], counts_on: Callable[[str], bool]) -> list[Step]:
    """Put the requests of a batch together into steps.

    ``counts_on`` says whether a saga has actions that nothing asked for so far removes.
    """
    steps: list[Step] = []
    joined: dict[str, Step] = {}
    changed: set[object] = set()
    for n, request in enumerate(batch):
        if request.kind not in JOINED:
            steps += _in_order(joined)
            joined, changed = {}, set()
            if request.kind not in _EMPTY:
                steps.append(Step({"do": request.kind} | request.rows[0], [n]))
            continue
        if request.kind == "change":
            if request.rows[0]["id"] in changed:  # one UPDATE changes each row only once
                steps += _in_order(joined)
                joined, changed = {}, set()
            changed.add(request.rows[0]["id"])
        body, places = joined.setdefault(request.kind, Step({"do": request.kind, "rows": []}, []))
        rows = cast("list[Row]", body["rows"])
        for row in request.rows:
            rows.append(row | {"n": n})
            if request.kind == "record":
                # Both then and now: what was asked for in between may empty the saga.
                rows[-1]["known"] = row["known"] and counts_on(request.saga)
        places.append(n)
    return steps + _in_order(joined)


def _in_order(joined: dict[str, Step]) -> list[Step]:
    return [joined[kind] for kind in JOINED if kind in joined]


def refuse(request: Request, error: Exception) -> None:
    """Raise an error at the caller of a request, if it still waits."""
    if not request.future.done():
        request.future.set_exception(error)


def log_failure(future: asyncio.Future[Any]) -> None:
    """Log why a request failed that no caller waits for."""
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.error("%s", error)
