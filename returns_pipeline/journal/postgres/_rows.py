"""How the tables of a `PostgresJournal` are read: sagas, by the view ``stored``, and positions."""

from __future__ import annotations

import json
from typing import Any, Final

from returns_pipeline._engine.spans import Spans
from returns_pipeline.compensation.protocol import StoredAction, StoredPositions, StoredSaga

__all__ = ["listed", "positions", "positions_listed", "saga_of", "sagas_listed"]

_LISTED: Final = """
SELECT s.saga, l.id IS NOT NULL AS alive
FROM {schema}.stored AS s LEFT JOIN {schema}.living AS l ON l.id = s.owner
"""
# By two partial indexes. It is an array for the reason that ``schema.sql`` gives.
_NOT_DONE: Final = """
WHERE s.id = ANY(ARRAY(
    SELECT id FROM {schema}.saga WHERE is_open
    UNION SELECT saga FROM {schema}.action WHERE state = 'stuck'
))
"""

_POSITIONS: Final = """
SELECT t.source, t.partition, t.epoch, (
    SELECT coalesce(jsonb_agg(jsonb_build_array(after, last, stamp) ORDER BY after), '[]')
    FROM {schema}.span AS s WHERE s.source = t.source AND s.partition = t.partition
)::text FROM {schema}.taken_partition AS t ORDER BY t.source, t.partition
"""


def listed(schema: str, *, done: bool) -> str:
    """Return the statement that reads sagas, the newest first: all, or those that are not done."""
    chosen = _LISTED if done else _LISTED + _NOT_DONE
    return f"{chosen} ORDER BY s.number DESC, s.id".replace("{schema}", f'"{schema}"')


def positions(schema: str) -> str:
    """Return the statement that reads what is stored of partitions."""
    return _POSITIONS.replace("{schema}", f'"{schema}"')


def positions_listed(rows: list[Any]) -> list[StoredPositions]:
    """Return the positions in the rows of a statement of `positions`."""
    return [
        StoredPositions(source, partition, epoch, Spans.from_json(spans))
        for source, partition, epoch, spans in rows
    ]


def sagas_listed(rows: list[Any]) -> list[StoredSaga]:
    """Return the sagas in the rows of a statement of `listed`."""
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
