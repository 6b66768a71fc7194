"""How sagas are read from the tables of a `PostgresJournal`: see the view ``stored``."""

from __future__ import annotations

import json
from typing import Any, Final

from returns_pipeline.compensation.protocol import StoredAction, StoredSaga

__all__ = ["LISTED", "saga_of", "sagas_listed"]

# All sagas, the newest first.
LISTED: Final = """
SELECT s.saga, l.id IS NOT NULL AS alive
FROM {schema}.stored AS s LEFT JOIN {schema}.living AS l ON l.id = s.owner
ORDER BY s.number DESC, s.id
"""


def sagas_listed(rows: list[Any]) -> list[StoredSaga]:
    """Return the sagas in the rows of the statement `LISTED`."""
    return [saga_of(json.loads(saga), alive=alive) for saga, alive in rows]


def saga_of(found: dict[str, Any], *, alive: bool) -> StoredSaga:
    """Return a saga from a row of the view ``stored``."""
    actions = (StoredAction(*columns) for columns in found["actions"])
    return StoredSaga(
        found["id"],
        found["name"],
        found["began"],
        found["owner"],
        alive,
        tuple(actions),
        found["on_failure"],
    )
