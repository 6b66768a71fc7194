"""How a `PostgresJournal` connects, what its session needs, and what it shows of its address."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import subprocess
import time
import warnings
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from servers import absent

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")

from returns_pipeline.compensation import CompensationRegistry, CompensationScope  # noqa: E402
from returns_pipeline.errors import (  # noqa: E402
    ArgumentsNotRecordable,
    InvalidArgument,
    JournalUnavailable,
    LeaseLost,
)
from returns_pipeline.journal import PostgresJournal, recover  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from tests.journal.conftest import Place, Pooler, PostgresCluster

registry = CompensationRegistry()
undone: list[str] = []


@registry.compensation("undo")
async def undo(name: str) -> None:
    """Record the call."""
    undone.append(name)
    if name.startswith("bad"):
        raise OSError("нет такого файла: é")


@pytest.fixture(autouse=True)
def _clean() -> None:
    undone.clear()


def role_of(cluster: PostgresCluster, role: str) -> str:
    return cluster.dsn.replace("postgres@", f"{role}@")


# Addresses.


@pytest.mark.parametrize(
    "rest",
    [
        *("hush#x@host:1/db", "hush/x@host:1/db", "hush?x@host:1/db", "hush@x@host/db"),
        *("hush?a=b@host/db", "123#hush@host/db", "123/hush@host/db", "123?a=hush@host/db"),
    ],
)
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(rest: str) -> None:
    with pytest.raises(InvalidArgument, match="percent-encoded") as caught:
        PostgresJournal(f"postgresql://app:{rest}")
    assert "hush" not in str(caught.value)
    assert "123" not in str(caught.value)


@pytest.mark.parametrize("place", ["user", "parameter", "argument"])
def test_no_error_shows_a_password(place: str) -> None:
    """Asyncpg quotes what it cannot read."""
    options: dict[str, Any] = {"patience": 0.2}
    dsn = "postgresql://app:h%C3%BCsh@127.0.0.1:no/db"
    if place != "user":
        dsn = "postgresql://app@127.0.0.1:no/db"
    if place == "parameter":
        dsn += "?password=h%C3%BCsh&sslmode=h%C3%BCsh"
    if place == "argument":
        options["password"] = "hüsh"

    async def main() -> None:
        journal = PostgresJournal(dsn, **options)
        with pytest.raises(JournalUnavailable) as caught:
            await journal.sagas()
        for text in ("hüsh", "h%C3%BCsh"):
            assert text not in str(caught.value) + str(journal) + repr(caught.value.__cause__)

    asyncio.run(main())


def test_parameters_of_libpq_that_concern_the_client_are_taken(place: Place) -> None:
    async def main() -> None:
        dsn = (
            f"{place.dsn}&connect_timeout=5&channel_binding=prefer&gssencmode=disable&keepalives=1"
            "&keepalives_idle=33&keepalives_count=4&client_encoding=utf8&sslsni=1"
            "&target_session_attrs=read-write&fallback_application_name=fallback"
        )
        async with place(dsn=dsn) as journal:
            connection: Any = journal._writer.delivery.connection._connection
            its = connection._transport.get_extra_info("socket")
            assert its.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 33
            assert its.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
            assert await connection.fetchval("SHOW application_name") == "fallback"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ("channel_binding=require", "cannot do channel_binding=require"),
        ("connect_timeout=soon", "connect_timeout must be a whole number"),
        ("target_session_attrs=standby", "a journal writes"),
    ],
)
def test_what_the_driver_cannot_do_is_refused_at_the_call(parameter: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        PostgresJournal(f"postgresql://host/db?{parameter}")


def test_connect_timeout_ends_an_attempt_before_the_patience_does() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with await loop.create_server(asyncio.Protocol, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            dsn = f"postgresql://postgres@127.0.0.1:{port}/x?connect_timeout=1"
            begun = time.monotonic()
            with pytest.raises(JournalUnavailable):
                await PostgresJournal(dsn, patience=1.2).sagas()
            assert time.monotonic() - begun < 5

    asyncio.run(main())


def test_address_and_password_come_from_functions_for_each_connection(place: Place) -> None:
    asked: list[str] = []

    def dsn() -> str:
        asked.append("dsn")
        return place.dsn

    async def password() -> str:
        asked.append("password")
        return f"token {len(asked)}"

    async def main() -> None:
        async with place(dsn=dsn, password=password) as journal:
            assert asked == ["dsn", "password"]
            journal._writer.delivery.connection.drop()
            async with CompensationScope("a", journal=journal) as scope:
                await scope.register(undo, "x")
            assert asked == ["dsn", "password"] * 2
            assert await journal.sagas() == []
            assert asked == ["dsn", "password"] * 3
            assert place.dsn not in str(journal)

    asyncio.run(main())


def test_a_function_that_fails_makes_the_journal_unavailable(place: Place) -> None:
    def broken() -> str:
        raise LookupError("no token")

    async def main() -> None:
        for options in ({"password": broken}, {"dsn": broken}, {"dsn": lambda: "http://"}):
            with pytest.raises(JournalUnavailable, match=r"no token|must begin with"):
                await place(**options).sagas()

    asyncio.run(main())


# Servers that do not take writes.


def test_a_session_that_turned_out_read_only_is_left_for_another(
    postgres_cluster: PostgresCluster,
) -> None:
    """As after a failover: the name leads to another server now."""

    async def main() -> None:
        admin = postgres_cluster.place("failover")
        await admin.execute(
            "CREATE ROLE failing_over LOGIN; CREATE SCHEMA failover AUTHORIZATION failing_over"
        )
        dsn = role_of(postgres_cluster, "failing_over")
        async with admin(dsn=dsn, patience=1.0) as journal:
            connection: Any = journal._writer.delivery.connection._connection
            await connection.execute("SET default_transaction_read_only = on")
            async with CompensationScope("a", journal=journal) as scope:
                await scope.register(undo, "x")
            read_only = "ALTER ROLE failing_over SET default_transaction_read_only = "
            await admin.execute(f"{read_only} on")
            journal._writer.delivery.connection.drop()
            scope = CompensationScope("b", journal=journal)
            with pytest.raises(JournalUnavailable, match="read-only"):
                await scope.register(undo, "x")
            assert await journal.sagas() == []  # reading the list is not a write
            await admin.execute(f"{read_only} off")
            await scope.register(undo, "y")
            await scope.commit()

    asyncio.run(main())


# Sessions.


def test_an_idle_owner_keeps_its_session_whatever_the_server_s_timeouts_are(
    postgres_cluster: PostgresCluster,
) -> None:
    async def main() -> None:
        place = postgres_cluster.place("idle")
        await place.execute(
            "CREATE ROLE idle LOGIN; CREATE SCHEMA idle AUTHORIZATION idle;"
            "ALTER ROLE idle SET idle_session_timeout = '50ms';"
            "ALTER ROLE idle SET statement_timeout = '50ms';"
        )
        async with place(dsn=role_of(postgres_cluster, "idle")) as journal, place() as other:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            backend = f"SELECT pid FROM idle.locks WHERE key = idle.lock_key('{owner_of(journal)}')"
            process = await place.value(backend)
            await place.value("SELECT pg_sleep(0.2)")
            assert await recover(other, registry) == []
            async with place.database() as database:
                await database.execute("BEGIN; LOCK TABLE idle.action IN EXCLUSIVE MODE")
                waiting = asyncio.create_task(scope.register(undo, "y"))
                await database.execute("SELECT pg_sleep(0.2)")
                await database.execute("ROLLBACK")
                await waiting
            assert await place.value(backend) == process
            await scope.commit()

    asyncio.run(main())


def owner_of(journal: PostgresJournal) -> str:
    return journal._writer.delivery.owner


def test_a_pooler_that_changes_sessions_is_refused_at_open(
    place: Place, pooler: type[Pooler]
) -> None:
    async def main() -> None:
        async with pooler(place.dsn) as pooled, place():
            with pytest.raises(JournalUnavailable, match="use liveness='lease'"):
                async with place(dsn=pooled.dsn):
                    pass

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_pgbouncer_is_noticed_if_it_pools_transactions(
    place: Place, tmp_path: Path, mode: str
) -> None:
    """Alone with it, a client meets the same session each time: that proves nothing."""
    if shutil.which("pgbouncer") is None:
        absent("pgbouncer")
    parts = urlsplit(place.dsn)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "users").write_text(f'"{parts.username}" ""\n')
    (tmp_path / "ini").write_text(
        f"[databases]\n* = host={parts.hostname} port={parts.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = trust\n"
        f"auth_file = {tmp_path}/users\npool_mode = {mode}\nunix_socket_dir =\n"
        "ignore_startup_parameters = options\n"
    )
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    command = ["pgbouncer", "-u", "nobody", str(tmp_path / "ini")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def main() -> None:
        dsn = f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"

        async def is_up() -> bool:
            with socket.socket() as its:
                return its.connect_ex(("127.0.0.1", port)) == 0

        await place.until(is_up)
        async with place():
            pass
        if mode == "session":
            async with place(dsn=dsn) as journal, CompensationScope("a", journal=journal) as scope:
                await scope.register(undo, "x")
        else:
            with pytest.raises(JournalUnavailable, match="use liveness='lease'"):
                async with place(dsn=dsn):
                    pass
            leased = place(dsn=dsn, liveness="lease")
            async with leased, CompensationScope("a", journal=leased) as scope:
                await scope.register(undo, "x")

    try:
        asyncio.run(main())
    finally:
        process.kill()
        _ = process.wait()


def test_a_batch_that_meets_another_session_is_refused(place: Place) -> None:
    """There is no lock in it: others would take the owner for dead."""

    async def main() -> None:
        async with place() as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            connection: Any = journal._writer.delivery.connection._connection
            await connection.execute("RESET ALL")
            with pytest.raises(JournalUnavailable, match="use liveness='lease'"):
                await scope.register(undo, "y")
            await connection.execute(
                f"SELECT set_config('returns_pipeline.owner', '{owner_of(journal)}', false)"
            )
            await scope.commit()

    asyncio.run(main())


# Loops.


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_journal_whose_loop_has_ended_can_be_closed_and_used_again(place: Place) -> None:
    async def leaves_open(journal: PostgresJournal) -> CompensationScope:
        scope = CompensationScope("a", journal=journal)
        await scope.register(undo, "x")
        return scope

    async def uses(journal: PostgresJournal, scope: CompensationScope) -> None:
        with pytest.raises(LeaseLost):
            await scope.register(undo, "y")
        scope._records = []  # otherwise it warns when it is collected

        async def free() -> bool:
            return bool(await recover(journal, registry))

        await place.until(free)
        assert undone == ["x"]
        await journal.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        journal = place()
        scope = asyncio.run(leaves_open(journal))
        asyncio.run(uses(journal, scope))
        asyncio.run(leaves_open(journal))._records = []
        asyncio.run(journal.close())
        asyncio.run(journal.close())
        _ = gc.collect()  # asyncio warns of connections that were not closed


# Encodings.


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_texts_that_the_database_has_no_characters_for_are_escaped(
    postgres_cluster: PostgresCluster, encoding: str
) -> None:
    others = CompensationRegistry()
    named = others.compensation("нет")(undo.func)

    async def main() -> None:
        name = f"in_{encoding.lower()}"
        admin = postgres_cluster.place("any")
        await admin.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 "
            "LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        dsn = postgres_cluster.dsn.removesuffix("postgres") + name
        async with PostgresJournal(dsn) as journal:
            scope = CompensationScope("шаг", journal=journal)
            for argument in ("bad", "цена €5 \U0001f600 é"):
                await scope.register(undo, argument)
            with pytest.raises(ArgumentsNotRecordable):
                await scope.register(named, "x")
            await scope.compensate()
            (saga,) = await journal.sagas()
            assert saga.name == r"\u0448\u0430\u0433"
            assert [action.state for action in saga.actions] == ["done", "stuck"]
            assert r"\u043d\u0435\u0442" in saga.actions[1].error
        async with PostgresJournal(dsn) as dead:
            scope = CompensationScope("b", journal=dead)
            await scope.register(undo, "цена €5 \U0001f600 é")
        scope._records = []  # it was left open
        async with PostgresJournal(dsn) as journal:
            undone.clear()
            assert len(await recover(journal, registry)) == 1
            assert undone == ["цена €5 \U0001f600 é"]

    asyncio.run(main())


# Tables.


def test_a_journal_that_may_not_create_its_tables_makes_nothing(place: Place) -> None:
    async def main() -> None:
        with pytest.raises(JournalUnavailable, match="no journal in schema test_"):
            async with place(create=False):
                pass
        assert await place.value("SELECT to_regclass('{schema}.version')") is None
        async with place(), place(create=False) as journal:
            assert await recover(journal, registry) == []

    asyncio.run(main())
