"""What stands in the rows of a `PostgresJournal`: how it is read, and what can be written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from returns_pipeline.compensation.protocol import StoredAction, StoredSaga

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncpg import Record

__all__ = ["SAGAS", "brief", "sagas_of", "storable"]

SAGAS: Final = """
SELECT s.id, s.name, extract(epoch FROM s.began)::float8 AS began, s.owner,
    l.id IS NOT NULL AS alive, a.id AS action, a.place, a.path, a.key, a.name AS undo, a.version,
    a.arguments, a.state, a.attempts, a.next_attempt, a.error
FROM {schema}.saga AS s
LEFT JOIN {schema}.living AS l ON l.id = s.owner
LEFT JOIN {schema}.action AS a ON a.saga = s.id
"""


# The columns of that query which make a `StoredAction`.
_ACTION: Final = (
    *("action", "place", "path", "key", "undo", "version", "arguments"),
    *("state", "attempts", "next_attempt", "error"),
)


def sagas_of(rows: Iterable[Record]) -> list[StoredSaga]:
    """Make sagas of rows, one for each action, in their order."""
    sagas: dict[str, StoredSaga] = {}
    actions: dict[str, list[StoredAction]] = {}
    for row in rows:
        saga = StoredSaga(row["id"], row["name"], row["began"], row["owner"], row["alive"], ())
        _ = sagas.setdefault(saga.id, saga)
        its = actions.setdefault(saga.id, [])
        if row["action"] is not None:
            its.append(StoredAction(*(row[name] for name in _ACTION)))
    return [replace(saga, actions=tuple(actions[id_])) for id_, saga in sagas.items()]


def storable(text: str) -> str:
    """Give text that the server can store: no NUL, no half of a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def brief(error: object) -> str:
    """Show an error in so many words, whatever its own ``repr()`` does."""
    try:
        text = repr(error)
    except Exception:  # noqa: BLE001
        text = object.__repr__(error)
    return storable(text[:1000])
