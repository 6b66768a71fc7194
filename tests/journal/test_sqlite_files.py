"""The files of an SQLite journal: copying, reading, removing and sharing them."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from undoing import in_child, leave_open, listed, note, registry, undone

from returns_pipeline.compensation import CompensationScope
from returns_pipeline.errors import InvalidArgument, JournalUnavailable
from returns_pipeline.journal import SqliteJournal, recover
from returns_pipeline.journal.sqlite import _connection_locks as connection_locks
from returns_pipeline.journal.sqlite import _store as sqlite_store

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs locks of the open file")


def spawned(path: Path, work: str) -> str:
    """Do this in a process that was not forked, between opening and closing the journal."""
    program = (
        "import asyncio\n"
        "from undoing import *\n"
        "from returns_pipeline.journal import SqliteJournal, recover\n"
        "async def main():\n"
        f"    async with SqliteJournal({str(path)!r}, patience=0.2) as journal:\n"
        f"        {work}\n"
        "asyncio.run(main())\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


# Copies.


@linux
@pytest.mark.parametrize(
    "what",
    [
        "the directory",
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ("the lock file", "the journal", "its index")
        ),
    ],
)
def test_a_copy_inside_the_process_does_not_make_its_owner_look_dead(
    tmp_path: Path, what: str
) -> None:
    path = tmp_path / "data" / "journal.db"
    path.parent.mkdir()

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("window", journal=journal)
            await scope.register(note, "1")
            match what:
                case "the directory":
                    shutil.copytree(path.parent, tmp_path / "backup")
                case "the lock file":
                    (lock,) = path.parent.glob("journal.db-owner-*")
                    lock.read_bytes()
                case "the journal":
                    path.read_bytes()
                case _:
                    path.with_name("journal.db-shm").read_bytes()
            assert spawned(path, "print(await recover(journal, registry))") == "[]\n"
            assert path.with_name("journal.db-wal").exists()
            await scope.register(note, "2")  # into the log that all others have
            found = "print([len(saga.actions) for saga in await journal.sagas()])"
            assert spawned(path, found) == "[2]\n"
            await scope.commit()

    asyncio.run(main())


@linux
def test_no_other_process_writes_in_the_middle_of_a_transaction_that_a_copy_goes_through(
    path: Path,
) -> None:
    """The copy releases SQLite's lock for writing. Two writers would overwrite each other's log."""
    refused: list[str] = []

    def copies(_: sqlite3.Connection) -> None:
        for file in path.parent.iterdir():
            file.read_bytes()
        refused.append(
            spawned(
                path.with_name("other.db"),
                "\n        ".join(
                    [
                        f"other = SqliteJournal({str(path)!r}, patience=0.2)",
                        "scope = CompensationScope('b', journal=other)",
                        "try: await scope.register(note, 'y')",
                        "except Exception as error: print(error)",
                        "await other.close()",
                    ]
                ),
            )
        )

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            async with CompensationScope("a", journal=journal) as scope:
                await scope.register(note, "x")
                await journal._do(copies)
            assert "database is locked" in refused[0]
            assert await journal.sagas() == []

    asyncio.run(main())
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_log_that_is_removed_is_noticed_before_register_returns(path: Path) -> None:
    log = path.with_name("journal.db-wal")

    async def main() -> None:
        journal = SqliteJournal(path)
        scope = CompensationScope("a", journal=journal)
        await scope.register(note, "before")
        log.unlink()
        with pytest.raises(JournalUnavailable, match="log, was removed"):
            await scope.register(note, "after")
        assert len(scope) == 1
        scope._records.clear()
        await journal.close()

    asyncio.run(main())


def test_a_log_that_is_removed_during_the_transaction_is_noticed_as_well(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = path.with_name("journal.db-wal")

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            insert = journal._store.ledger.insert

            def insert_and_remove(*arguments: Any) -> None:
                insert(*arguments)
                log.unlink()

            monkeypatch.setattr(journal._store.ledger, "insert", insert_and_remove)
            scope = CompensationScope("a", journal=journal)
            with pytest.raises(JournalUnavailable, match="log, was removed"):
                await scope.register(note, "x")
            assert len(scope) == 0

    asyncio.run(main())


def test_a_journal_that_is_closed_leaves_nothing_open_and_no_file(path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def main() -> None:
        before = descriptors()
        for _ in range(3):
            async with SqliteJournal(path) as one, SqliteJournal(path) as another:
                await recover(one, registry)
                await recover(another, registry)
            assert [file.name for file in path.parent.iterdir()] == ["journal.db"]
        assert descriptors() == before
        assert not connection_locks._known

    asyncio.run(main())


@linux
def test_closing_a_journal_releases_no_lock_of_a_connection_of_the_users(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path):
            pass
        with closing(sqlite3.connect(path, isolation_level=None)) as users:
            users.execute("SELECT * FROM saga").fetchall()
            async with SqliteJournal(path, patience=0.2) as journal:
                await journal.sagas()
                users.execute("BEGIN IMMEDIATE")
            refused = "try: await journal._do(lambda db: None)\n"
            refused += "        except Exception as error: print(error)"
            other = f"journal = SqliteJournal({str(path)!r}, patience=0.2)\n        {refused}"
            assert "locked" in spawned(path.with_name("other.db"), other)
            users.execute("ROLLBACK")
        async with SqliteJournal(path):  # after which nothing is kept any more
            pass
        assert not connection_locks._known

    asyncio.run(main())


# Looking.


@pytest.mark.parametrize("how", ["closed", "killed", "killed, without the index"])
def test_looking_leaves_no_file_and_changes_none(path: Path, how: str) -> None:
    async def closes() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "x")
            scope._records.clear()

    if how == "closed":
        asyncio.run(closes())
    else:
        leave_open(path, a="x")
    if how == "killed, without the index":
        path.with_name("journal.db-shm").unlink()
    before = {file.name: file.stat().st_mtime_ns for file in path.parent.iterdir()}
    for _ in range(2):
        assert asyncio.run(listed(path)) == {"a": "pending"}
    assert {file.name: file.stat().st_mtime_ns for file in path.parent.iterdir()} == before


def test_a_journal_opened_while_it_is_looked_at_is_looked_at_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_open(path, a="x")
    asyncio.run(recover_in(path))
    connect = sqlite3.connect
    opened: list[SqliteJournal] = []

    async def main() -> None:
        def connects(*arguments: object, **options: object) -> sqlite3.Connection:
            made = connect(*arguments, **options)  # type: ignore[call-overload]
            if "immutable" in str(arguments[0]):
                spawned(path, "await CompensationScope('b', journal=journal).register(note, 'y')")
            return made  # type: ignore[no-any-return]

        monkeypatch.setattr(sqlite3, "connect", connects)
        assert await listed(path) == {"a": "done", "b": "pending"}

    asyncio.run(main())
    assert opened == []


async def recover_in(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await recover(journal, registry)


# Users and groups.


@pytest.mark.parametrize(("mode", "expected"), [(None, "600"), (0o660, "660"), (0o640, "640")])
def test_all_files_have_the_mode_of_the_journal_whatever_the_umask(
    path: Path, mode: int | None, expected: str
) -> None:
    before = os.umask(0o077 if mode else 0)

    async def main() -> None:
        journal = SqliteJournal(path) if mode is None else SqliteJournal(path, mode=mode)
        async with journal:
            files = sorted(path.parent.iterdir())
            assert len(files) == 4  # the log, its index and the lock file
            assert {f"{stat.S_IMODE(file.stat().st_mode):o}" for file in files} == {expected}

    try:
        asyncio.run(main())
    finally:
        os.umask(before)


def test_all_files_have_the_group_of_a_journal_that_was_made_before(path: Path) -> None:
    if os.getuid():
        pytest.skip("needs root, to make a file of another group")
    path.touch(0o660)
    os.chown(path, -1, 12345)
    path.chmod(0o660)

    async def main() -> None:
        async with SqliteJournal(path):
            for file in path.parent.iterdir():
                found = file.stat()
                assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 0o660), file

    asyncio.run(main())


@pytest.mark.parametrize("mode", [0o400, 0o1600, -1, 1.5, "600", True])
def test_an_invalid_mode_is_refused(path: Path, mode: object) -> None:
    with pytest.raises(InvalidArgument, match="mode"):
        SqliteJournal(path, mode=mode)  # type: ignore[arg-type]


def test_a_second_user_of_the_group_recovers_what_the_first_has_left(tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("needs root, to be two users")
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(name)
        os.chown(place, -1, 12345)
        place.chmod(0o2770)
        path = place / "journal.db"

        async def dies() -> None:
            journal = SqliteJournal(path, mode=0o660)
            await CompensationScope("a", journal=journal).register(note, "x")

        async def recovers() -> None:
            async with SqliteJournal(path) as journal:
                assert len(await recover(journal, registry)) == 1
            assert undone == ["x"]

        for user, work in (1001, dies), (1002, recovers):

            async def as_user(user: int = user, work: object = work) -> None:
                os.setgroups([12345])
                os.setgid(user)
                os.setuid(user)
                await work()  # type: ignore[operator]

            assert in_child(as_user) == 0
        assert asyncio.run(listed(path)) == {"a": "done"}


# Platforms.


def test_importing_journals_needs_no_locks_of_posix_and_making_one_says_what_it_needs() -> None:
    program = (
        "import asyncio, logging, os, random, sys, tempfile, threading\n"
        "sys.modules['fcntl'] = None\n"
        "del os.register_at_fork\n"
        "import returns_pipeline.journal as journal\n"
        "try: journal.SqliteJournal('j.db')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("JournalUnavailable")
    assert "use PostgresJournal" in done.stdout


def test_without_locks_of_the_open_file_a_journal_works_nevertheless(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS. What must not be done there is in the docstring of `SqliteJournal`."""
    monkeypatch.setattr(connection_locks, "_SET", None)
    leave_open(path, a="x")
    asyncio.run(recover_in(path))
    assert undone == ["x"]


# Durability and size.


def test_every_commit_is_flushed_to_the_disk(path: Path) -> None:
    """``synchronous=FULL``, which is 2: NORMAL would lose the last commits with the machine."""
    seen: list[int] = []

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            await journal._do(lambda db: seen.extend(db.execute("PRAGMA synchronous").fetchone()))

    asyncio.run(main())
    assert seen == [2]


def test_the_log_is_cut_after_a_burst(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader keeps the log from being written back, so that it grows; then it is done."""
    monkeypatch.setattr(sqlite_store, "_LOG_SIZE", 200_000)
    log = path.with_name("journal.db-wal")

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM saga").fetchone()
                for _ in range(30):
                    async with CompensationScope("a", journal=journal) as scope:
                        await asyncio.gather(*(scope.register(note, "x" * 2000) for _ in range(50)))
                assert log.stat().st_size > 2_000_000
                reader.execute("ROLLBACK")
            for _ in range(30):
                async with CompensationScope("a", journal=journal) as scope:
                    await asyncio.gather(*(scope.register(note, "x" * 2000) for _ in range(50)))
            assert log.stat().st_size < 8_000_000

    asyncio.run(main())


def test_a_file_that_cannot_be_written_when_it_is_opened_says_why(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has ended the transaction by then: to roll it back would hide the reason."""

    def full(db: sqlite3.Connection, journal: str) -> int:
        _ = db.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite_store, "version_of", full)

    async def main() -> None:
        with pytest.raises(JournalUnavailable, match="disk I/O error"):
            await SqliteJournal(path).__aenter__()

    asyncio.run(main())


def test_a_kernel_without_room_for_locks_leaves_nothing_locked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    async def main() -> None:
        journal = SqliteJournal(path)
        with monkeypatch.context() as patch:
            patch.setattr(connection_locks, "_lock", refuses)
            with pytest.raises(JournalUnavailable, match="No locks"):
                await journal.claim(besides=set())
        await journal.close()
        async with journal:
            assert await recover(journal, registry) == []

    asyncio.run(main())
