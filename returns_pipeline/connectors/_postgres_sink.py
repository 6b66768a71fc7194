"""`TransactionalSink`: rows, and the positions of their messages, in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from returns.result import Failure, Result

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.checks import Seconds
from returns_pipeline._engine.future_results import AsyncResult, awaitable_of, result_of
from returns_pipeline._engine.spans import Spans
from returns_pipeline.compensation.protocol import Coverage, HandledPositions, TakenPartition
from returns_pipeline.connectors._message import Message
from returns_pipeline.errors import ConnectionLost, InvalidArgument, MissingExtra, PartitionsLost

try:
    import asyncpg
except ImportError as _error:
    raise MissingExtra("postgres", "asyncpg") from _error

if TYPE_CHECKING:
    _Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    _Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
else:  # the annotations can be read
    _Pool, _Connection = asyncpg.Pool, asyncpg.Connection

__all__ = ["TransactionalSink"]

T = TypeVar("T")
U = TypeVar("U")
E = TypeVar("E")

# The connection is lost, or none is to be had.
_LOST: Final = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS {table} (
    sink text,
    source text,
    partition text,
    -- How often it was taken by a process: what an earlier one commits is refused.
    epoch bigint NOT NULL,
    -- Which positions were handled, as JSON: stretches, each with the position before its first,
    -- its last, and the time of that one.
    spans text NOT NULL,
    PRIMARY KEY (sink, source, partition)
)
"""

_TAKE: Final = """
INSERT INTO {table} AS t (sink, source, partition, epoch, spans) VALUES ($1, $2, $3, 1, '[]')
ON CONFLICT (sink, source, partition) DO UPDATE SET epoch = t.epoch + 1
RETURNING epoch, spans
"""

# A transaction that writes messages of a partition holds the lock of the partition with others. One
# that takes the partition holds it alone: so it waits for those of the former owner, which may hold
# locks on rows of the effects as well, and those that begin later see the new epoch.
_LOCK_SHARED: Final = """
SELECT count(pg_advisory_xact_lock_shared(
    hashtextextended(concat_ws(' ', $1::text, $2::text, p), 0)
)) FROM (SELECT p FROM unnest($3::text[]) AS p ORDER BY p) AS sorted
"""
_LOCK: Final = """
SELECT pg_advisory_xact_lock(hashtextextended(concat_ws(' ', $1::text, $2::text, $3::text), 0))
"""

_END_BLOCKERS: Final = "SELECT pg_terminate_backend(pid) FROM unnest(pg_blocking_pids($1)) AS pid"

_READ: Final = """
SELECT partition, epoch, spans FROM {table}
WHERE sink = $1 AND source = $2 AND partition = ANY ($3::text[]) ORDER BY partition
"""

_WRITE: Final = """
UPDATE {table} AS t SET spans = n.spans FROM unnest($3::text[], $4::text[]) AS n (partition, spans)
WHERE t.sink = $1 AND t.source = $2 AND t.partition = n.partition
"""


class TransactionalSink(Generic[T, U, E]):
    """A step that writes windows of messages into PostgreSQL, each exactly once.

    One transaction has the rows of a window and the positions of its messages. So after a crash,
    at any point, either both are there or neither. The source is told where to read on by the
    positions, not by what the broker believes: pass the sink to its driver.

    .. code-block:: python

        sink = TransactionalSink(pool, "billing", write=write)
        driver = log.driver("billing", positions=sink)  # or that of a Kafka topic
        async with Source(driver, decode=Order) as source:
            await source.messages().chunks_or_timeout(500, 2.0).bind_async(sink).run()

    It is for sources whose partitions have one owner each: only those have positions to go by. For
    the others, see ``docs/connectors.md``: a unique key for each message.

    1. **The step.** The value is a message, or a window of them. ``write`` gets a connection, in a
       transaction, and a list of those that are not written yet: all of them, unless an earlier
       attempt was committed and its answer lost. It must use this connection, and not end the
       transaction. A `Failure` rolls it back, and is emitted; an exception rolls it back and
       propagates.
    2. **Order.** Any: windows may be written at the same time, filtered, or fail. What is stored is
       a high-water mark for each partition, and for as long as something before it is unfinished,
       the stretches after it. It is bounded by what is in flight.
    3. **Zombies.** Each process that takes a partition raises its *epoch*. A transaction of an
       earlier one is refused when it ends, with `PartitionsLost`, however late that is: a process
       that was stopped, or whose connection was lost. It ends the stream. `run_worker` then reads
       on with the partitions that are still owned. A transaction that the new owner has to wait
       for is ended after ``patience`` seconds.
    4. **The last effect.** A message whose position is stored is not delivered again. So what a
       pipeline does with it after this step is not repeated after a crash, and each message must
       come to the sink once. `flat_map`, `sliding`, `scan` and `broadcast` are refused on the
       stream of such a source.

    Messages that are filtered out, or whose failure is handled, are covered by the next window.

    Args:
        pool: A pool of asyncpg, of at least two connections. They may be those of your own tables.
        name: Tells the positions of this sink from those of others in the table.
        write: Writes the rows of a window.
        table: The name of the table with the positions, perhaps after that of its schema.
        patience: Seconds, above 0: see above.

    Raises:
        InvalidArgument: At the call, if a name cannot be used or ``patience`` is out of range.
        TypeError: At the call, if an argument is of another kind.

    >>> import asyncpg
    >>> from returns_pipeline import ok
    >>> from returns_pipeline.connectors.postgres import PostgresLog
    >>> from returns_pipeline.testing import run
    >>> async def write(
    ...     connection: asyncpg.Connection, orders: list[Message[str]]
    ... ) -> Result[int, str]:
    ...     await connection.executemany("INSERT INTO ...", [(each.value,) for each in orders])
    ...     return ok(len(orders))
    >>> async def main() -> None:
    ...     pool = asyncpg.create_pool("postgresql://localhost/shop")  # not connected yet
    ...     sink = TransactionalSink(pool, "billing", write=write)
    ...     log = PostgresLog("postgresql://localhost/shop", "orders")
    ...     print(log.driver("billing", positions=sink).name)
    >>> run(main())
    postgres orders/billing
    """

    def __init__(
        self,
        pool: _Pool,
        name: str,
        *,
        write: Callable[[_Connection, list[Message[T]]], AsyncResult[U, E]],
        table: str = "returns_pipeline_position",
        patience: Seconds = 5.0,
    ) -> None:
        if not name:
            raise InvalidArgument("the sink must have a name")
        if not re.fullmatch(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?", table):
            raise InvalidArgument(f"a table's name is lower case letters, digits and _: {table!r}")
        if not hasattr(pool, "acquire"):
            raise TypeError(f"a sink takes a pool of asyncpg, not {pool!r}")
        checks.async_function("write", write)
        self._pool = pool
        self._name = name
        self._write = write
        self._table = table
        self._patience = checks.seconds("patience", patience, finite=True)
        self._coverage: Coverage | None = None

    async def create(self) -> None:
        """Create the table of the positions, if it is not there yet.

        Raises:
            Exception: An error of asyncpg, or `OSError`.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            # Two programs that create it at the same time would fail.
            lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
            _ = await connection.execute(lock, f"create {self._table}")
            _ = await connection.execute(_SCHEMA.format(table=self._table))

    # The step.

    async def __call__(self, value: Message[T] | Sequence[Message[T]], /) -> Result[U, E]:
        """Write a window, unless that was done, and store the positions of its messages.

        Raises:
            PartitionsLost: Another process owns some of their partitions: nothing was written.
            RuntimeError: No source has this sink as its ``positions``; or a message came before, or
                the value has none; or ``write`` has ended the transaction.
            Exception: What ``write`` raised, or an error of asyncpg: nothing was written, unless
                the connection was lost during the commit.
        """
        window = [value] if isinstance(value, Message) else list(value)
        if self._coverage is None:
            raise RuntimeError(
                "the sink does not know its source: pass it to the driver as positions=, and enter"
                " the source"
            )
        coverage = self._coverage
        async with self._pool.acquire() as connection:
            # Not `async with`: if the connection is lost, that would replace a cancellation.
            transaction = connection.transaction(isolation="read_committed")
            await transaction.start()
            try:
                written = await self._write_in(connection, window, coverage)
                if not isinstance(written, Failure):
                    await transaction.commit()
            except BaseException:
                await self._roll_back(transaction)
                raise
            if isinstance(written, Failure):
                await self._roll_back(transaction)
                return written
        coverage.committed(window)
        return written

    async def _write_in(
        self, connection: Any, window: list[Message[T]], coverage: Coverage
    ) -> Result[U, E]:
        """Write a window and its positions, in a transaction."""
        handled = coverage.covered(window)
        if not handled:  # an empty window
            return result_of(await awaitable_of(self._write(connection, [])))
        partitions = [each.partition for each in handled]
        _ = await connection.fetch(_LOCK_SHARED, self._name, handled[0].source, partitions)
        stored = await self._read(connection, handled, "")
        fresh = _not_in(stored, window)
        written = result_of(await awaitable_of(self._write(connection, fresh)))
        if isinstance(written, Failure):
            return written
        if not connection.is_in_transaction():
            raise RuntimeError(
                "write() has ended the transaction of the sink: its rows may be there, and their"
                " positions are not"
            )
        # Again: more may have been acknowledged, or a partition lost.
        handled = coverage.covered(window)
        stored = await self._read(connection, handled, "FOR NO KEY UPDATE")
        if len(_not_in(stored, fresh)) < len(fresh):
            raise RuntimeError("another transaction has written the same messages meanwhile")
        spans = [stored[each.name].with_all(each.stretches).to_json() for each in handled]
        query = _WRITE.format(table=self._table)
        _ = await connection.execute(query, self._name, handled[0].source, partitions, spans)
        return written

    async def _read(
        self, connection: Any, handled: Sequence[HandledPositions], lock: str
    ) -> dict[str, Spans]:
        """Return what is stored of the partitions, by their names in messages.

        Raises:
            PartitionsLost: Another process has taken some of them.
        """
        rows = await connection.fetch(
            _READ.format(table=self._table) + lock,
            self._name,
            handled[0].source,
            [each.partition for each in handled],
        )
        found = {row["partition"]: (row["epoch"], row["spans"]) for row in rows}
        stored: dict[str, Spans] = {}
        for each in handled:
            epoch, spans = found.get(each.partition, (0, "[]"))
            if epoch == each.epoch:
                stored[each.name] = Spans.from_json(spans)
        if lost := tuple(sorted({each.name for each in handled} - stored.keys())):
            raise PartitionsLost(handled[0].source, lost)
        return stored

    async def _roll_back(self, transaction: Any) -> None:
        with contextlib.suppress(*_LOST):  # the server does it
            await transaction.rollback()

    # For the source.

    def attach(self, coverage: Coverage, /) -> None:
        """Serve a source: see `Positions`."""
        if self._coverage is not None:
            raise InvalidArgument("another source uses this sink: make one for each")
        self._coverage = coverage

    def detach(self) -> None:
        """Forget the source."""
        self._coverage = None

    async def take(self, source: str, partitions: Sequence[str], /) -> Mapping[str, TakenPartition]:
        """Take partitions over: see `Positions`."""
        taken: dict[str, TakenPartition] = {}
        async with self._translated(source), self._pool.acquire() as connection:
            for partition in sorted(partitions):  # one by one: no transaction holds two locks
                row = await self._take(connection, source, partition)
                taken[partition] = TakenPartition(row["epoch"], Spans.from_json(row["spans"]))
        return taken

    async def _take(self, connection: Any, source: str, partition: str) -> Any:
        which = (self._name, source, partition)
        async with connection.transaction(isolation="read_committed"):
            locking = asyncio.ensure_future(connection.execute(_LOCK, *which))
            try:
                _ = await asyncio.wait({locking}, timeout=self._patience)
                if not locking.done():
                    async with self._pool.acquire() as other:
                        _ = await other.execute(_END_BLOCKERS, connection.get_server_pid())
                _ = await locking
            finally:
                if not locking.done():
                    _ = locking.cancel()
                    _ = await asyncio.wait({locking})
            return await connection.fetchrow(_TAKE.format(table=self._table), *which)

    @asynccontextmanager
    async def _translated(self, source: str) -> AsyncGenerator[None, None]:
        """Make errors of the connection a `ConnectionLost`."""
        try:
            yield
        except asyncpg.UndefinedTableError as error:
            add_note(error, f"the table {self._table} is made by create() of the sink")
            raise
        except _LOST as error:
            reason = f"its positions cannot be read: {str(error) or repr(error)}"
            raise ConnectionLost(source, reason) from error

    def __repr__(self) -> str:
        return f"<TransactionalSink {self._name}>"


def _not_in(stored: Mapping[str, Spans], window: Sequence[Message[T]]) -> list[Message[T]]:
    return [each for each in window if each.position not in stored[each.partition]]
