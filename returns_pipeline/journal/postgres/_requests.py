"""Requests to a `PostgresJournal`, and how they are combined into one transaction.

A batch is a list of requests in the order in which they were made. The server reads it as a list of
*steps* (``carry_out`` in ``schema.sql``). Requests about single actions are joined: all of one kind
make one step, so a hundred registrations are one statement. Joining is the only thing that changes
the order of requests: see `JOINED`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

from returns_pipeline.journal.postgres._ledger import Doubt

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
    "doubts_of",
    "log_failure",
    "refuse",
    "steps_of",
    "unchanged",
]

# The contents of a request, which the server reads as JSON.
Row: TypeAlias = dict[str, object]

# "nothing" and "reconnect" change nothing on the server. The first opens the connection and renews
# the lease. The second is made by the journal itself when a connection ended.
Kind: TypeAlias = Literal[
    "nothing",
    "reconnect",
    "record",
    "change",
    "forget",
    "move",
    "abandon",
    "take",
    "forget positions",
    "claim",
    "release",
    "retry",
    "discard",
    "leave",
]

_log = logging.getLogger("returns_pipeline.journal")

# The most requests in a transaction. With the longest arguments they are 16 MiB.
MOST_REQUESTS: Final = 256
# Consecutive requests of these kinds are joined into one step for each kind, and the steps are
# carried out in this order. This is safe because a caller changes or forgets an action only after
# its record was answered, and does not change it after it was forgotten. So two requests about the
# same action that depend on each other are never joined in the wrong order.
JOINED: Final = ("record", "change", "forget")
# Each of these has a transaction of its own, apart from kept requests. A claim locks sagas, and
# other requests must not hold these locks longer. After "leave" this owner no longer exists.
ALONE: Final = ("claim", "leave")
# These are carried out even if their caller was cancelled before they were sent.
WITHOUT_CALLER: Final = ("leave", "release")
# These free sagas that no task here uses any more. They are tried again, whatever error they get.
FREEING: Final = ("abandon", "release")
# If these fail because the server is away, they are carried out before all later requests: other
# processes must find a scope's actions in one saga, and must find free what this process has freed.
KEPT: Final = ("move", *FREEING)
_EMPTY: Final = ("nothing", "reconnect")


class Step(NamedTuple):
    """One step of a batch.

    Attributes:
        body: The step, as the server reads it.
        places: The indexes in the batch of the requests that it carries out.
    """

    body: Row
    places: list[int]


def unchanged(answer: Any) -> Any:
    """Return the server's answer to the caller as it is."""
    return answer


@dataclass(slots=True, eq=False)
class Request:
    """A request to the server, and what its answer means in this process.

    The callbacks are called in the writer's task, before the caller continues: ``on_done`` if the
    request was carried out, then ``on_orphaned`` if the caller was cancelled meanwhile;
    ``on_failed`` otherwise, and also if ``on_done`` raised.

    Attributes:
        kind: What is to be done.
        rows: Its contents; for the joined kinds, one row for each action.
        future: The caller waits for this.
        on_done: Turns the server's answer into the caller's result. It may raise a `JournalError`.
        on_failed: The request was not carried out, or it is unknown whether it was.
        on_orphaned: Takes the result that the cancelled caller will not see.
        saga: The id of the saga that it is about, for errors.
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


def steps_of(
    batch: list[Request],
    counts_on: Callable[[str], bool],
    is_committed: Callable[[str], bool],
) -> list[Step]:
    """Combine the requests of a batch into steps.

    ``counts_on`` returns whether a saga has actions that no request so far removes, and
    ``is_committed`` whether an action is committed already: see `Ledger`.
    """
    steps: list[Step] = []
    joined: dict[str, Step] = {}
    changed: set[object] = set()
    for n, request in enumerate(batch):
        if request.kind not in JOINED:
            # It is a barrier: requests before it are never joined with requests after it.
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
            if request.kind == "forget" and "id" in row and is_committed(str(row["id"])):
                continue  # a request without any row is granted
            rows.append(row | {"n": n})
            if request.kind == "record":
                # True both when the request was made and now: a request in between may have
                # removed the last action of the saga.
                rows[-1]["known"] = row["known"] and counts_on(request.saga)
        places.append(n)
    return steps + _in_order(joined)


def doubts_of(steps: list[Step], batch: int) -> dict[str, Doubt]:
    """Return the actions that a batch commits, and where its answer will say if they were."""
    doubts: dict[str, Doubt] = {}
    for n, step in enumerate(steps):
        rows = cast("list[Row]", step.body.get("rows", []))
        if step.body["do"] == "forget":
            doubts |= {str(row["id"]): Doubt(batch, n, row["n"]) for row in rows if "id" in row}
        elif step.body["do"] == "drop":  # only late commits matter: see `doubt_commits`
            ids = cast("list[str]", step.body["ids"])
            doubts |= {action: Doubt(batch, n, action) for action in ids}
    return doubts


def _in_order(joined: dict[str, Step]) -> list[Step]:
    return [joined[kind] for kind in JOINED if kind in joined]


def refuse(request: Request, error: Exception) -> None:
    """Raise an error in the caller of a request, if it still waits."""
    if not request.future.done():
        request.future.set_exception(error)


def log_failure(future: asyncio.Future[Any]) -> None:
    """Log the error of a request that no caller waits for."""
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.error("%s", error)
