"""A log in PostgreSQL: messages that are written in your own transactions, and read in order.

Needs the extra ``postgres``, and PostgreSQL 13 or later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from returns_pipeline._engine import checks
from returns_pipeline.compensation.protocol import Positions
from returns_pipeline.connectors._driver import Driver
from returns_pipeline.connectors._postgres_driver import LogDriver, lock_key
from returns_pipeline.connectors._postgres_sender import CONNECT_TIMEOUT, LogSender
from returns_pipeline.connectors._postgres_sink import TransactionalSink
from returns_pipeline.connectors._sender import Outgoing, Sender
from returns_pipeline.errors import InvalidArgument, MissingExtra

try:
    import asyncpg
except ImportError as _error:
    raise MissingExtra("postgres", "asyncpg") from _error

__all__ = ["PostgresLog", "SqlConnection", "TransactionalSink"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS {name}_partitions (
    partition int PRIMARY KEY,
    -- What tells it from a partition of the same name in another database.
    id uuid NOT NULL DEFAULT gen_random_uuid()
);
CREATE TABLE IF NOT EXISTS {name} (
    partition int NOT NULL REFERENCES {name}_partitions,
    -- Rows of a transaction become visible when it commits, which may be after rows with a greater
    -- id were read. With the transaction's own number a reader knows what may still come.
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    key bytea,
    value bytea NOT NULL,
    headers jsonb NOT NULL DEFAULT '{{}}',
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partition, xid, id)
);
CREATE TABLE IF NOT EXISTS {name}_groups (
    name text,
    partition int REFERENCES {name}_partitions,
    -- Up to here everything is acknowledged.
    xid xid8 NOT NULL DEFAULT '0',
    id bigint NOT NULL DEFAULT 0,
    -- Who reads it, or has read it last, and how often that was another process than before.
    owner uuid,
    epoch bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (name, partition)
);
-- What the owner has noted of it: see `Driver.note`.
ALTER TABLE {name}_groups ADD COLUMN IF NOT EXISTS note text NOT NULL DEFAULT '';
CREATE OR REPLACE FUNCTION {name}_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{name}', '');
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER {name}_notify AFTER INSERT ON {name}
    FOR EACH STATEMENT EXECUTE FUNCTION {name}_notify();
CREATE OR REPLACE FUNCTION {name}_append(
    value bytea, key bytea DEFAULT NULL, headers jsonb DEFAULT '{{}}'
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO {name} (partition, key, value, headers)
    SELECT all_of_them[1 + CASE
               WHEN key IS NULL THEN floor(random() * cardinality(all_of_them))::int
               ELSE abs(hashtext(encode(key, 'hex')) % cardinality(all_of_them))
           END],
           key, value, headers
    FROM (SELECT array_agg(partition ORDER BY partition) AS all_of_them FROM {name}_partitions) p
$$;
"""

_APPEND: Final = """
INSERT INTO {name} (partition, key, value, headers)
SELECT coalesce(m.partition, numbers[1 + CASE
           WHEN m.key IS NULL THEN floor(random() * cardinality(numbers))::int
           ELSE abs(hashtext(encode(m.key, 'hex')) % cardinality(numbers))
       END]),
       m.key, m.value, m.headers::jsonb
FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::int[]) WITH ORDINALITY
         AS m (value, key, headers, partition, number),
     (SELECT array_agg(partition ORDER BY partition) AS numbers FROM {name}_partitions) p
ORDER BY m.number
"""


class SqlConnection(Protocol):
    """A connection of asyncpg, or of its pool.

    >>> import inspect
    >>> inspect.iscoroutinefunction(SqlConnection.execute)
    True
    """

    async def execute(self, query: str, /, *arguments: object) -> object:
        """Carry out a statement."""
        ...


class PostgresLog:
    """A log in PostgreSQL: a table of messages in partitions, which groups of processes read.

    A message is written in a transaction of yours, together with the rows that it tells of. So
    there is a message exactly if the transaction has committed: the *transactional outbox*. The
    function ``NAME_append(value, key, headers)`` of the database does the same from any language.

    Reading it: ``Source(log.driver("billing"))``. The members of a group share the partitions
    evenly. Each partition is read by one member, in the order of the transactions that wrote it,
    and a position is acknowledged by one UPDATE that is refused if another member owns the
    partition. Ownership is a session's advisory lock: no clock decides it, and a process that is
    killed loses its partitions at once. One that is stopped, or hangs, keeps them as long as its
    connection lasts.

    A message is read when every transaction that began before its own has ended. So no message is
    passed over whose transaction commits late; and a transaction that is left open anywhere in
    the database delays all messages that are written after it.

    Messages are never deleted; delete rows that every group has read, when you like.

    Args:
        dsn: The address, ``"postgresql://user@host/database"``. A pooler that changes sessions
            between transactions cannot be used.
        name: The name of the table, in lower case, at most 40 characters.

    Raises:
        InvalidArgument: At the call, if the name cannot be that of a table.

    >>> log = PostgresLog("postgresql://localhost/shop", "orders")
    >>> log.driver("billing").name
    'postgres orders/billing'
    """

    def __init__(self, dsn: str, name: str) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,39}", name):
            raise InvalidArgument(f"a log's name is lower case letters, digits and _, not {name!r}")
        self._dsn = dsn
        self._name = name

    async def create(self, partitions: int = 8) -> None:
        """Create the tables and functions that are not there yet.

        Args:
            partitions: How many partitions it has, at least 1: as many processes of a group can
                read it at once. Partitions are added if there are fewer, and never removed. The
                messages of a key may go to another partition afterwards.

        Raises:
            InvalidArgument: At the call, if ``partitions`` is out of range.
            Exception: An error of asyncpg, or `OSError`.
        """
        count = checks.count("partitions", partitions)
        connection = await asyncpg.connect(self._dsn, timeout=CONNECT_TIMEOUT)
        try:
            async with connection.transaction():
                # Two programs that create at the same time would fail.
                _ = await connection.execute(
                    "SELECT pg_advisory_xact_lock($1)", lock_key(f"create {self._name}")[0]
                )
                _ = await connection.execute(_SCHEMA.format(name=self._name))
                _ = await connection.execute(
                    f"INSERT INTO {self._name}_partitions (partition)"  # the name was checked
                    " SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING",
                    count,
                )
        finally:
            await connection.close()

    async def append(
        self,
        connection: SqlConnection,
        value: bytes,
        *,
        key: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Add a message, in the transaction of a connection; it is read after its commit.

        Args:
            connection: A connection of asyncpg, or of its pool.
            value: The payload.
            key: Messages with equal keys are in one partition, and so in order. Without one, any
                partition is taken.
            headers: Whatever its readers should know.
        """
        _ = await connection.execute(
            f"SELECT {self._name}_append($1, $2, $3::text::jsonb)",  # see above
            value,
            key,
            json.dumps(dict(headers or {})),
        )

    async def append_all(
        self, connection: SqlConnection, messages: Sequence[Outgoing[bytes]]
    ) -> None:
        """Add messages by one statement, in the transaction of a connection, in their order.

        Args:
            connection: A connection of asyncpg, or of its pool.
            messages: Their ``destination`` and ``id`` are not kept.
        """
        _ = await connection.execute(
            _APPEND.format(name=self._name),
            [message.value for message in messages],
            [message.key for message in messages],
            [json.dumps(dict(message.headers)) for message in messages],
            [message.partition for message in messages],
        )

    def sender(self) -> Sender:
        """Return a sender for a `Publisher`, which has a connection of its own.

        Each window is a transaction, and is confirmed when that has committed. If the connection is
        lost meanwhile, the next one asks the server whether it has committed: so nothing is there
        twice. For messages that tell of rows of yours, use `append` or `append_all`.

        >>> PostgresLog("postgresql://localhost/shop", "orders").sender().name
        'postgres orders'
        """
        return LogSender(self._dsn, self._name, self.append_all)

    def driver(self, group: str, *, positions: Positions | None = None) -> Driver:
        """Return the driver of a new member of a group, for one `Source`.

        Args:
            group: The name of the group.
            positions: A journal, or a `TransactionalSink`, that stores the positions together with
                their effects. Reading continues after what is stored there.
        """
        return LogDriver(self._dsn, self._name, group, positions)
