"""Reads a log in PostgreSQL, as a member of a group: see `PostgresLog`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
import zlib
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from returns_pipeline.compensation.protocol import Positions
from returns_pipeline.connectors._driver import Ownership
from returns_pipeline.connectors._lag import EVERY
from returns_pipeline.connectors._message import Message, Position
from returns_pipeline.connectors._postgres_sender import CONNECT_TIMEOUT, translated
from returns_pipeline.errors import (
    ConnectionLost,
    MissingExtra,
    PartitionReplaced,
    PartitionsLost,
)

try:
    import asyncpg
except ImportError as _error:
    raise MissingExtra("postgres", "asyncpg") from _error

if TYPE_CHECKING:
    from asyncpg import Connection, Record

__all__ = ["LogDriver", "lock_key"]

# Seconds that a fetch waits for the first message.
_WAIT: Final = 1.0
# The same, if partitions are left out that may be wanted before.
_WAIT_WITHOUT: Final = 0.05
# Seconds between two reads while a message waits for transactions that began before its own.
_BLOCKED: Final = 0.02
# Seconds between two looks at the members of the group.
_LOOK: Final = 1.0

_READ: Final = """
SELECT m.partition, m.xid::text::bigint AS xid, m.id, m.key, m.value, m.headers::text AS headers,
       extract(epoch FROM m.at)::float8 AS at
FROM unnest($1::int[], $2::text[]::xid8[], $3::bigint[]) AS p (partition, xid, id)
CROSS JOIN LATERAL (
    SELECT * FROM {name} l
    WHERE l.partition = p.partition AND (l.xid, l.id) > (p.xid, p.id)
      AND l.xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY l.xid, l.id LIMIT $4
) m
"""

_BLOCKS: Final = """
SELECT EXISTS (
    SELECT FROM unnest($1::int[], $2::text[]::xid8[], $3::bigint[]) AS p (partition, xid, id)
    JOIN {name} l ON l.partition = p.partition AND (l.xid, l.id) > (p.xid, p.id))
"""

# At most this many messages of a partition are counted: it is to cost little.
_COUNTED: Final = 10_000

_LAG: Final = """
SELECT p.partition, (
    SELECT count(*) FROM (
        SELECT FROM {name} l
        WHERE l.partition = p.partition AND (l.xid, l.id) > (p.xid, p.id) LIMIT $4
    ) m) AS lag
FROM unnest($1::int[], $2::text[]::xid8[], $3::bigint[]) AS p (partition, xid, id)
"""

_TAKE: Final = """
UPDATE {name}_groups
SET owner = $3, epoch = epoch + (owner IS DISTINCT FROM $3)::int
WHERE name = $1 AND partition = $2
RETURNING epoch, xid::text::bigint AS xid, id, note,
    (SELECT p.id::text FROM {name}_partitions p WHERE p.partition = $2) AS identity,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_xid,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS first_open_xid
"""

_PLACE: Final = """
UPDATE {name}_groups SET xid = $4::text::xid8, id = $5
WHERE name = $1 AND partition = $2 AND owner = $3
"""

_ACK: Final = """
UPDATE {name}_groups g SET xid = a.xid, id = a.id
FROM unnest($2::int[], $3::text[]::xid8[], $4::bigint[], $5::bigint[])
    AS a (partition, xid, id, epoch)
WHERE g.name = $1 AND g.partition = a.partition AND g.owner = $6 AND g.epoch = a.epoch
  AND (g.xid, g.id) <= (a.xid, a.id)
RETURNING g.partition
"""

_NOTE: Final = """
UPDATE {name}_groups g SET note = n.note
FROM unnest($2::int[], $3::text[], $4::bigint[]) AS n (partition, note, epoch)
WHERE g.name = $1 AND g.partition = n.partition AND g.owner = $5 AND g.epoch = n.epoch
RETURNING g.partition
"""

_MEMBERS: Final = """
SELECT objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND classid = $1 AND objsubid = 2 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY objid
"""


class _Owned:
    """A partition that this member reads.

    Attributes:
        epoch: How often it has changed owners.
        position: Where to read on.
    """

    __slots__ = ("epoch", "position")

    def __init__(self, epoch: int, position: Position) -> None:
        self.epoch = epoch
        self.position = position


class LogDriver:
    """Reads a log. All its queries use one connection, whose session holds the locks.

    A partition is owned from the lock on it to its release, or to the end of the session. Its row
    in the table of groups says so as well: by that a member knows, after a lost connection, that no
    other has owned the partition meanwhile, and what is in flight is still its own.
    """

    positioned: bool = True
    keep_alive: float = math.inf

    def __init__(self, dsn: str, log: str, group: str, positions: Positions | None) -> None:
        self.positions = positions
        self._dsn = dsn
        self._log = log
        self._group = group
        self._me = uuid4()
        self._connection: Connection[Record] | None = None
        self._using = asyncio.Lock()  # a connection carries out one query at a time
        self._ownership: Ownership | None = None
        self._owned: dict[int, _Owned] = {}
        self._epochs: dict[int, int] = {}  # of the partitions whose messages may be in flight
        self._read_wanted = asyncio.Event()
        self._look_wanted = asyncio.Event()
        self._turn = 0
        self._number = secrets.randbelow(2**31)  # among the members
        self._locks, _ = lock_key(f"partition {log} {group}")
        self._members, self._members_oid = lock_key(f"member {log} {group}")

    @property
    def name(self) -> str:
        return f"postgres {self._log}/{self._group}"

    async def open(self, ownership: Ownership, /) -> None:
        self._ownership = ownership
        self._using = asyncio.Lock()
        self._read_wanted = asyncio.Event()
        self._look_wanted = asyncio.Event()
        with translated(self.name):
            self._connection = await asyncpg.connect(
                self._dsn,
                timeout=CONNECT_TIMEOUT,
                server_settings={"application_name": self.name[:63]},
            )
        async with self._session() as connection:
            connection.add_termination_listener(self._on_end)
            await connection.add_listener(self._log, self._on_notify)
            _ = await connection.execute(
                f"INSERT INTO {self._log}_groups (name, partition)"  # noqa: S608  # checked
                f" SELECT $1, partition FROM {self._log}_partitions ON CONFLICT DO NOTHING",
                self._group,
            )
            _ = await connection.execute(
                "SELECT pg_advisory_lock_shared($1, $2)",
                self._members,
                self._number,
            )
            _ = await connection.execute("SELECT pg_notify($1, '')", self._log)
        await self._balance()
        # What is not owned now, without a break, may be another's.
        self._fence(self._epochs.keys() - self._owned.keys())

    async def fetch(self, room: int, /) -> Sequence[Message[bytes]]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            self._read_wanted.clear()
            assert self._ownership is not None
            paused = self._ownership.paused()
            if found := await self._read(room, paused):
                return found
            left = began + (_WAIT_WITHOUT if paused else _WAIT) - loop.time()
            if left <= 0:
                return []
            if not paused and await self._is_blocked():
                left = min(left, _BLOCKED)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    _ = await self._read_wanted.wait()

    async def _read(self, room: int, paused: Collection[str]) -> list[Message[bytes]]:
        numbers = sorted(self._owned)
        if paused:
            numbers = [number for number in numbers if self._name_of(number) not in paused]
        if not numbers:
            return []
        # If there is less room than there are partitions, they take turns.
        self._turn += 1
        first = self._turn % len(numbers)
        numbers = (numbers[first:] + numbers[:first])[:room]
        owned = {number: self._owned[number] for number in numbers}
        rows = await self._fetch_rows(_READ, *self._places(owned), max(1, room // len(numbers)))
        found: list[Message[bytes]] = []
        names = {number: self._name_of(number) for number in owned}
        for number, xid, identity, key, value, headers, at in rows:
            if self._owned.get(number) is not owned[number]:
                continue  # it was lost meanwhile
            position = owned[number].position = (xid, identity)
            # Nearly all have no headers.
            added: dict[str, str] = {} if headers == "{}" else json.loads(headers)
            found.append(Message(value, names[number], position, 1, added, key, at, number))
        return found

    async def _is_blocked(self) -> bool:
        """Return whether there are messages that must wait for earlier transactions."""
        if not self._owned:
            return False
        ((blocked,),) = await self._fetch_rows(_BLOCKS, *self._places(self._owned))
        return bool(blocked)

    def _places(self, owned: Mapping[int, _Owned]) -> tuple[list[int], list[str], list[int]]:
        positions = [each.position for each in owned.values()]
        return list(owned), [str(xid) for xid, _ in positions], [number for _, number in positions]

    async def ack(self, messages: Sequence[Message[bytes]], /) -> None:
        newest = {int(str(message.receipt)): message.position for message in messages}
        known = {number: self._epochs[number] for number in newest if number in self._epochs}
        rows = await self._fetch_rows(
            _ACK,
            self._group,
            list(known),
            [str(newest[number][0]) for number in known],
            [newest[number][1] for number in known],
            list(known.values()),
            self._me,
        )
        self._check_owned(newest, rows)

    def _check_owned(self, numbers: Collection[int], rows: Sequence[Record]) -> None:
        """Raise an error if another process owns partitions: their rows were not updated."""
        if lost := {*numbers} - {row["partition"] for row in rows}:
            for number in lost:
                _ = self._epochs.pop(number, None)
                _ = self._owned.pop(number, None)
            raise PartitionsLost(self.name, self._names(lost))

    async def note(self, notes: Mapping[str, str], /) -> None:
        numbers = {int(name.rpartition("-")[2]): note for name, note in notes.items()}
        known = {number: self._epochs[number] for number in numbers if number in self._epochs}
        rows = await self._fetch_rows(
            _NOTE,
            self._group,
            list(known),
            [numbers[number] for number in known],
            list(known.values()),
            self._me,
        )
        self._check_owned(numbers, rows)

    async def extend(self, messages: Sequence[Message[bytes]], /) -> None:
        """Do nothing: the session keeps its partitions."""

    async def nack(self, message: Message[bytes], delay: float, /) -> None:
        """Do nothing: what is not acknowledged is read again."""

    async def watch(self) -> None:
        """Take and release partitions, as members join and leave, and count what is left."""
        loop = asyncio.get_running_loop()
        counted_at = -math.inf
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    _ = await self._look_wanted.wait()
            self._look_wanted.clear()
            await self._balance()
            if loop.time() >= counted_at + EVERY:
                counted_at = loop.time()
                await self._count()

    async def _count(self) -> None:
        """Report how many messages of the partitions are left."""
        rows = await self._fetch_rows(_LAG, *self._places(self._owned), _COUNTED)
        assert self._ownership is not None
        lag = {self._name_of(number): count for number, count in rows if number in self._owned}
        self._ownership.lag(lag)

    async def _balance(self) -> None:
        """Own a fair share of the partitions: release those that are too many, take free ones."""
        members = [row["objid"] for row in await self._fetch_rows(_MEMBERS, self._members_oid)]
        rows = await self._fetch_rows("SELECT partition FROM {name}_partitions ORDER BY 1")
        numbers: list[int] = [row["partition"] for row in rows]
        share, more = divmod(len(numbers), max(1, len(members)))
        share += self._rank(members) < more
        if len(self._owned) > share:
            await self._release(sorted(self._owned)[share:])
        for number in numbers:
            if len(self._owned) >= share:
                return
            if number not in self._owned:
                await self._take(number)

    def _rank(self, members: list[int]) -> int:
        return members.index(self._number) if self._number in members else len(members)

    async def _take(self, number: int) -> None:
        async with self._session() as connection:
            if not await connection.fetchval(
                "SELECT pg_try_advisory_lock($1, $2)", self._locks, number
            ):
                return
            row = await connection.fetchrow(
                _TAKE.format(name=self._log), self._group, number, self._me
            )
        if row is None:  # the partition was added after `open`
            raise ConnectionLost(self.name, "the log has a new partition")
        if self._epochs.get(number, row["epoch"]) != row["epoch"]:
            self._fence([number])  # another member had it meanwhile
        self._epochs[number] = row["epoch"]
        position = await self._place(number, row)
        # What is not in the log yet, or not yet to be read, comes after it.
        assert self._ownership is not None
        after, end = (row["xid"], row["id"]), (row["first_open_xid"], 0)
        self._ownership.noted(self._name_of(number), row["note"], after, end)
        self._owned[number] = _Owned(row["epoch"], position)
        self._read_wanted.set()

    async def _place(self, number: int, row: Record) -> Position:
        """Return where to read on: after what is stored with the effects, or is acknowledged."""
        assert self._ownership is not None
        acknowledged: Position = (row["xid"], row["id"])
        (name,) = self._names([number])
        found = await self._ownership.positions({name: row["identity"]})
        position = found.get(name, acknowledged)
        if position[0] >= row["next_xid"]:
            reason = f"transaction {position[0]} of {name} has not begun yet, and was handled"
            raise PartitionReplaced(self.name, reason)
        if position != acknowledged:
            arguments = (self._group, number, self._me, str(position[0]), position[1])
            _ = await self._fetch_rows(_PLACE, *arguments)
        return position

    async def _release(self, numbers: Collection[int]) -> None:
        assert self._ownership is not None
        for number in numbers:
            del self._owned[number]  # nothing more of it is read
        _ = await self._ownership.settled(self._names(numbers))
        self._fence(numbers)
        async with self._session() as connection:
            for number in numbers:
                _ = await connection.fetchval(
                    "SELECT pg_advisory_unlock($1, $2)", self._locks, number
                )
            _ = await connection.execute("SELECT pg_notify($1, '')", self._log)

    def _fence(self, numbers: Collection[int]) -> None:
        assert self._ownership is not None
        names = self._names(numbers)
        for number in list(numbers):
            _ = self._epochs.pop(number, None)
        if names:
            self._ownership.fence(names)

    def _names(self, numbers: Collection[int]) -> tuple[str, ...]:
        return tuple(self._name_of(number) for number in sorted(numbers))

    def _name_of(self, number: int) -> str:
        return f"{self._log}-{number}"

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        self._owned.clear()
        if connection is None or connection.is_closed():
            return
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(_WAIT):
                _ = await connection.execute("SELECT pg_advisory_unlock_all()")
                _ = await connection.execute("SELECT pg_notify($1, '')", self._log)
                await connection.close()
        if not connection.is_closed():
            connection.terminate()

    def _on_notify(self, *_: object) -> None:
        self._read_wanted.set()
        self._look_wanted.set()

    def _on_end(self, _: object) -> None:
        self._read_wanted.set()
        self._look_wanted.set()

    async def _fetch_rows(self, query: str, *arguments: Any) -> list[Any]:
        async with self._session() as connection:
            return list(await connection.fetch(query.format(name=self._log), *arguments))

    @asynccontextmanager
    async def _session(self) -> AsyncGenerator[Connection[Record], None]:
        """Use the connection alone; its errors become `ConnectionLost`."""
        async with self._using:
            with translated(self.name):
                connection = self._connection
                if connection is None or connection.is_closed():
                    raise ConnectionLost(self.name, "the connection was closed")
                yield connection


def lock_key(text: str) -> tuple[int, int]:
    """Return a number for an advisory lock, and the same as PostgreSQL's list of locks has it."""
    unsigned = zlib.crc32(text.encode())
    return (unsigned - 2**32 if unsigned >= 2**31 else unsigned), unsigned
