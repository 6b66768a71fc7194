"""The versions of a `PostgresJournal`'s tables, and how a program updates them to its own version.

The statements are in ``schema.sql``. A released script is never changed: a later version is one
more script.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from returns_pipeline.errors import JournalCorrupt, JournalError, JournalUnavailable

if TYPE_CHECKING:
    from asyncpg import Connection, Record

__all__ = ["VERSION", "migrate", "no_tables", "version_of"]

# Each script raises the version of a schema by one.
_SCRIPTS: Final = ("schema.sql",)
VERSION: Final = len(_SCRIPTS)

# Runs a statement with a limit of time: `ServerConnection.bounded`.
_Fetch: TypeAlias = "Callable[..., Awaitable[list[Any]]]"


async def version_of(connection: Connection[Record], fetch: _Fetch, schema: str, name: str) -> int:
    """Return the version of the tables; 0 if there are none.

    Raises:
        JournalError: They are newer than this program.
    """
    # Not to_regclass(): after a wait for another process it may still return the old answer.
    exists = (
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n "
        "ON n.oid = c.relnamespace WHERE nspname = $1 AND relname = 'version')"
    )
    ((found,),) = await fetch(connection, exists, schema)
    if not found:
        return 0
    ((version,),) = await fetch(connection, f'SELECT max(number) FROM "{schema}".version')
    if not isinstance(version, int):
        raise JournalCorrupt(name, "its version is missing")
    if version > VERSION:
        raise JournalError(name, f"version {version} is newer than this program knows ({VERSION})")
    return version


def no_tables(schema: str, name: str) -> JournalUnavailable:
    """Return the error of a schema without tables."""
    return JournalUnavailable(name, f"there is no journal in schema {schema}")


async def migrate(
    connection: Connection[Record],
    fetch: _Fetch,
    schema: str,
    name: str,
    *,
    lock_timeout: str,
    create: bool,
) -> None:
    """Update the tables to this program's version, one process at a time.

    Raises:
        JournalUnavailable: There are no tables, and ``create`` is false.
    """
    version = await version_of(connection, fetch, schema, name)
    if version == VERSION:
        return
    if version == 0 and not create:
        raise no_tables(schema, name)
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(
            f"SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '{lock_timeout}'"
        )
        lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
        _ = await fetch(connection, lock, f'returns_pipeline "{schema}" migration')
        # Again, now that the lock is held: another process may have been first.
        version = await version_of(connection, fetch, schema, name)
        if version == 0:
            # Not CREATE SCHEMA IF NOT EXISTS: that needs a right which the role may lack.
            exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)"
            ((found,),) = await fetch(connection, exists, schema)
            if not found:
                await connection.execute(f'CREATE SCHEMA "{schema}"')
        for number, script in enumerate(_SCRIPTS[version:], version + 1):
            package = files("returns_pipeline.journal.postgres")
            statements = package.joinpath(script).read_text("utf-8")
            await connection.execute(statements.replace("{schema}", f'"{schema}"'))
            table = f'"{schema}".version'
            await connection.execute(f"DELETE FROM {table}; INSERT INTO {table} VALUES ({number})")
