"""Where `flight_worker` writes, by a rule that is right for several workers, and the accounts.

The rule is that of docs/sagas.md: the later window takes rows over from the earlier one, and an
undo deletes what no later window has taken over. A window that was undone leaves a tombstone, so
that a late request of it is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from flight_records import Flight, Rejected
from returns_pipeline.connectors import Message

SCHEMA = "flight_worker"

NEW_SCHEMA = f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA};"
TABLES = """
CREATE TABLE windows (
    key TEXT PRIMARY KEY, worker INTEGER NOT NULL, items INTEGER NOT NULL  -- 0: it was undone
);
CREATE TABLE flights (
    line BIGINT PRIMARY KEY, window_key TEXT NOT NULL, delivery INTEGER NOT NULL,
    carrier TEXT NOT NULL, flight INTEGER NOT NULL, origin TEXT NOT NULL, dest TEXT NOT NULL,
    scheduled TIMESTAMPTZ NOT NULL, delay INTEGER NOT NULL
);
CREATE TABLE dead_letters (
    line BIGINT PRIMARY KEY, window_key TEXT NOT NULL, delivery INTEGER NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, payload TEXT NOT NULL
);
CREATE INDEX ON flights (window_key);
CREATE INDEX ON dead_letters (window_key);
"""

# Kafka and the log in PostgreSQL do not count deliveries: there it is always 1, and the last one
# to write takes the row over.
_TAKE_OVER = """
ON CONFLICT (line) DO UPDATE SET window_key = excluded.window_key, delivery = excluded.delivery
WHERE {table}.delivery <= excluded.delivery
"""
_WINDOW = "INSERT INTO windows VALUES ($1, $2, $3)"  # refused if there is a tombstone
_FLIGHT = "INSERT INTO flights VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)" + _TAKE_OVER.format(
    table="flights"
)
_DEAD_LETTER = "INSERT INTO dead_letters VALUES ($1, $2, $3, $4, $5, $6)" + _TAKE_OVER.format(
    table="dead_letters"
)
_UNDO = [
    "INSERT INTO windows VALUES ($1, 0, 0) ON CONFLICT (key) DO UPDATE SET items = 0",
    "DELETE FROM flights WHERE window_key = $1",
    "DELETE FROM dead_letters WHERE window_key = $1",
]

Item: TypeAlias = Message[Flight | Rejected]
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"


async def write(connection: Connection, key: str, worker: int, window: Sequence[Item]) -> None:
    """Write the rows of a window; in a transaction, so that it is all of them or none."""
    flights: list[tuple[object, ...]] = []
    dead_letters: list[tuple[object, ...]] = []
    for message in window:
        row = message.value
        if isinstance(row, Rejected):
            line, reason, detail, payload = row
            dead_letters.append((line, key, message.deliveries, reason, detail, payload))
        else:
            what = row.carrier, row.flight, row.origin, row.dest, row.time_hour, row.dep_delay
            flights.append((row.line, key, message.deliveries, *what))
    await connection.execute(_WINDOW, key, worker, len(window))
    # In the same order everywhere, or two windows could wait for one another.
    await connection.executemany(_FLIGHT, sorted(flights))
    await connection.executemany(_DEAD_LETTER, sorted(dead_letters))


async def delete(connection: Connection, key: str) -> None:
    """Delete the rows of a window, if there are any; in a transaction."""
    for statement in _UNDO:
        await connection.execute(statement, key)


@dataclass(frozen=True, slots=True)
class Accounts:
    """What is in the tables.

    Attributes:
        flights: Rows of ``flights``.
        lost: Lines that are in neither table.
        doubled: Rows of a line beyond its first.
        orphans: Rows of windows that are not there, or were undone.
        repeated: Lines that a window has written again after another one had, which stays: they
            were delivered again because their worker, or the broker, had died between the commit
            and the acknowledgement.
        windows: Windows that stay.
        undone: Windows that were undone.
        reasons: Rows of ``dead_letters``, by their reason.
    """

    flights: int
    lost: int
    doubled: int
    orphans: int
    repeated: int
    windows: int
    undone: int
    reasons: Counter[str]

    def problems(self, expected: Counter[str | None]) -> list[str]:
        """Return what does not add up.

        Args:
            expected: How many lines were published, by the reason why each is to be rejected;
                ``None`` if it is not.
        """
        counts = {"lost": self.lost, "doubled": self.doubled, "orphans": self.orphans}
        wrong = [f"{name}: {count}" for name, count in counts.items() if count]
        stored = Counter[str | None](self.reasons) + Counter({None: self.flights})
        if stored != expected and not wrong:
            wrong.append(f"stored are {dict(stored)}, not {dict(expected)}")
        return wrong


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has done.

    Attributes:
        accounts: What is in the tables.
        expected: What should be: how many lines, by the reason why they are rejected.
        unacknowledged: Messages that the broker still delivers.
        pending: Sagas that are not undone.
        workers_killed: How often a worker was.
        broker_broken: How often the broker was, or connections to it were cut.
    """

    accounts: Accounts
    expected: Counter[str | None]
    unacknowledged: int
    pending: int
    workers_killed: int
    broker_broken: int

    def problems(self) -> list[str]:
        """Return what does not add up."""
        left = {"not acknowledged": self.unacknowledged, "not undone": self.pending}
        wrong = [f"{name}: {count}" for name, count in left.items() if count]
        return self.accounts.problems(self.expected) + wrong

    def __str__(self) -> str:
        """Return the accounts as a table."""
        found = self.accounts
        rows = {
            "published": self.expected.total(),
            "flights": found.flights,
            "dead letters": found.reasons.total(),
            **{f"  {reason}": count for reason, count in found.reasons.most_common()},
            "lost": found.lost,
            "doubled": found.doubled,
            "orphans": found.orphans,
            "not acknowledged": self.unacknowledged,
            "windows": found.windows,
            "windows undone": found.undone,
            "written again": found.repeated,
            "workers killed": self.workers_killed,
            "broker killed, or cut off": self.broker_broken,
        }
        return "\n".join(f"{name:<28}{count:>9}" for name, count in rows.items())


_COUNT = """
WITH found AS (
    SELECT line, window_key FROM flights UNION ALL SELECT line, window_key FROM dead_letters
)
SELECT
    (SELECT count(*) FROM flights) AS flights,
    (SELECT count(*) FROM generate_series($1::bigint, $2::bigint) AS published (line)
     WHERE line NOT IN (SELECT line FROM found)) AS lost,
    (SELECT count(*) - count(DISTINCT line) FROM found) AS doubled,
    (SELECT count(*) FROM found
     WHERE window_key NOT IN (SELECT key FROM windows WHERE items > 0)) AS orphans,
    (SELECT coalesce(sum(items), 0)::bigint FROM windows)
     - (SELECT count(*) FROM found) AS repeated,
    (SELECT count(*) FROM windows WHERE items > 0) AS windows,
    (SELECT count(*) FROM windows WHERE items = 0) AS undone
"""


async def accounts(connection: Connection, first: int, last: int) -> Accounts:
    """Read the accounts of the lines from ``first`` to ``last``."""
    [counts] = await connection.fetch(_COUNT, first, last)
    reasons = "SELECT reason, count(*) FROM dead_letters GROUP BY reason"
    rows = await connection.fetch(reasons)
    return Accounts(**dict(counts), reasons=Counter({row[0]: row[1] for row in rows}))


async def progress(connection: Connection) -> Counter[int]:
    """Return how many items each worker has written, by its process id."""
    statement = "SELECT worker, sum(items)::bigint FROM windows GROUP BY worker"
    return Counter({row[0]: row[1] for row in await connection.fetch(statement)})
