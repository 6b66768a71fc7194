"""Disks that are full, files that are damaged, owners that are stopped, forked or taken for dead.

In each case: a typed error, no action executed that must not be, nothing deleted, and the other
sagas continue.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import pickle
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scoping import commit_or_roll_back, detached, saga_of
from undoing import in_child, leave_open, listed, note, registry, undone

from returns_pipeline.compensation import CompensationScope
from returns_pipeline.errors import (
    InvalidArgument,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    LeaseLost,
)
from returns_pipeline.journal import SqliteJournal, recover
from returns_pipeline.journal.sqlite import _forks as fork_safety
from returns_pipeline.journal.sqlite import _housekeeping as housekeeping
from returns_pipeline.journal.sqlite import _owner_locks as owner_locks
from returns_pipeline.journal.sqlite import _store as sqlite_store

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if os.getuid() or mount is None:
        pytest.skip("needs root, to mount a small disk")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip(f"cannot mount a small disk: {made.stderr.decode()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_on_a_full_disk_nothing_begins_and_nothing_is_lost(full_disk: Path) -> None:
    path = full_disk / "journal.db"

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            with pytest.raises(JournalUnavailable, match=r"full|I/O"):
                for _ in range(1000):
                    await scope.register(note, "x" * 1000)
            assert len(scope) > 10
            with pytest.raises(JournalUnavailable):
                await scope.commit()
            assert len(scope) == len((await listed(path))["a"].split())
            scope._records.clear()  # they are left to others, without a warning

    asyncio.run(main())
    before = asyncio.run(listed(path))
    assert set(before["a"].split()) == {"pending"}

    async def recovers() -> None:
        async with SqliteJournal(path) as journal:
            assert len(await recover(journal, registry)) == 1

    with contextlib.suppress(JournalUnavailable):  # it may not even be opened
        asyncio.run(recovers())
    subprocess.run(["mount", "-o", "remount,size=8m", full_disk], check=True)
    undone.clear()
    asyncio.run(recovers())
    assert len(undone) > 10
    assert set(asyncio.run(listed(path))["a"].split()) == {"done"}


def test_a_lazy_commit_on_a_full_disk_waits_until_there_is_room(full_disk: Path) -> None:
    path, filler = full_disk / "journal.db", full_disk / "filler"

    async def main() -> None:
        async with SqliteJournal(path, lazy_commits=True) as journal:
            scope = CompensationScope("a", journal=journal)
            for _ in range(20):
                await scope.register(note, "x" * 2000)
            fill(filler)
            await scope.commit()
            with pytest.raises(JournalUnavailable):
                await journal.flush()
            filler.unlink()
            await journal.flush()
        assert await listed(path) == {}

    asyncio.run(main())


def fill(file: Path) -> None:
    """Write until there is no room for a byte."""
    with file.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    out.write(b"\0" * size)


def as_nobody(work: object) -> int:
    """Do it without the rights of root, which ignore permissions."""
    return in_child(work, user=None if os.getuid() else NOBODY)  # type: ignore[arg-type]


@pytest.fixture
def open_place() -> Iterator[Path]:
    """Return a directory that any user can reach."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # not pytest's, which is closed to others
        place = Path(name)
        place.chmod(0o777)
        yield place
        place.chmod(0o777)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_may_only_be_read_is_shown_and_not_written(open_place: Path, what: str) -> None:
    path = open_place / "journal.db"
    leave_open(path, a="x")
    for file in open_place.iterdir():
        file.chmod(0o444)
    open_place.chmod(0o755 if what == "file" else 0o555)
    before = {file.name: file.read_bytes() for file in open_place.iterdir()}

    async def looks() -> None:
        assert await listed(path) == {"a": "pending"}
        journal = SqliteJournal(path)
        with pytest.raises(JournalUnavailable):
            await recover(journal, registry)
        with pytest.raises(JournalUnavailable):
            await CompensationScope("b", journal=journal).register(note, "y")
        await journal.close()
        assert undone == []

    assert as_nobody(looks) == 0
    after = {file.name: file.read_bytes() for file in open_place.iterdir()}
    after.pop("journal.db-shm", None)
    before.pop("journal.db-shm", None)  # SQLite's own, with its locks
    assert after == before


def test_a_journal_closed_well_is_shown_where_nothing_can_be_made(open_place: Path) -> None:
    path = open_place / "journal.db"

    async def gives_up() -> None:
        async with SqliteJournal(path) as journal:
            await CompensationScope("a", journal=journal).register(note, "x")

    async def looks() -> None:
        assert await listed(path) == {"a": "pending"}

    assert in_child(gives_up) == 0
    assert [file.name for file in open_place.iterdir()] == ["journal.db"]
    path.chmod(0o444)
    open_place.chmod(0o555)
    assert as_nobody(looks) == 0
    assert [file.name for file in open_place.iterdir()] == ["journal.db"]


def test_looking_takes_part_in_nothing(path: Path) -> None:
    """No owner, no lock, no thread, no wait for a writer; and no file where there is none."""
    leave_open(path, a="x")
    before = {file.name for file in path.parent.iterdir()}
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert asyncio.run(listed(path)) == {"a": "pending"}
        assert writer.execute("SELECT count(*) FROM owner").fetchone() == (1,)
        writer.execute("ROLLBACK")
    leftover = {"journal.db-shm", "journal.db-wal"}
    assert {file.name for file in path.parent.iterdir()} - leftover == before - leftover
    missing = path.with_name("missing.db")
    with pytest.raises(JournalUnavailable, match="no such file"):
        asyncio.run(SqliteJournal(missing).sagas())
    assert not missing.exists()
    missing.touch()  # as a process leaves it that dies right after creating it
    assert asyncio.run(listed(missing)) == {}
    assert missing.read_bytes() == b""


@pytest.mark.parametrize("patience", [0.1, 10.0])
def test_a_file_that_another_process_is_making_is_waited_for(path: Path, patience: float) -> None:
    """SQLite refuses at once to change the mode of a file that is locked, whatever its timeout."""

    async def main() -> None:
        journal = SqliteJournal(path, patience=patience)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            recovering = asyncio.create_task(recover(journal, registry))
            done, _ = await asyncio.wait({recovering}, timeout=0.3)
            other.execute("COMMIT")
        if patience == 0.1:
            assert done
            with pytest.raises(JournalUnavailable, match="locked"):
                await recovering
        assert await recover(journal, registry) == []
        if patience == 10.0:
            assert not done
            assert await recovering == []
        await journal.close()

    asyncio.run(main())


def test_a_file_locked_for_longer_than_patience_is_said_to_be(path: Path) -> None:
    leave_open(path, a="x")

    async def main() -> None:
        journal = SqliteJournal(path, patience=0.05)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalUnavailable, match="locked"):
                await recover(journal, registry)
            assert undone == []
            other.execute("ROLLBACK")
        assert len(await recover(journal, registry)) == 1
        await journal.close()

    asyncio.run(main())


def damage(path: Path) -> set[str]:
    """Flip the head of a page with actions; return the first two letters of those on it."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM")  # or pages hold remains of others
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = db.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    leaf = 0x0A  # of a table without row ids
    on_it = {
        start: re.findall(rb'"name": "(\d\d)x', content[start : start + size])
        for start in range(size, len(content), size)
        if content[start] == leaf
    }
    start, names = next((start, names) for start, names in on_it.items() if names)
    for place in range(start, start + 100):
        content[place] ^= 0xFF
    path.write_bytes(content)
    return {name.decode() for name in names}


def test_a_corrupt_page_blocks_only_what_stands_on_it(path: Path) -> None:
    """Twenty sagas over several pages, of which one is damaged."""

    async def dies() -> None:
        journal = SqliteJournal(path)
        for number in range(20):
            scope = CompensationScope(str(number), journal=journal)
            await scope.register(note, f"{number:02}" + "x" * 700)

    assert in_child(dies) == 0
    damaged = damage(path)
    all_names = {f"{number:02}" for number in range(20)}
    assert 0 < len(damaged) < 10
    size = path.stat().st_size

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            with pytest.raises(JournalCorrupt, match="cannot be read"):
                await recover(journal, registry)

    asyncio.run(main())
    names = [name[:2] for name in undone]
    assert len(names) == len(set(names))
    assert not damaged & set(names)
    # A mark may have to move things between pages, of which one is damaged: it is not undone then.
    assert len(all_names - damaged - set(names)) <= 2
    assert path.stat().st_size >= size
    with pytest.raises(JournalCorrupt):
        asyncio.run(listed(path))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"SQLite format 3\0" + b"\xff" * 5000, "not a database|malformed"),
        (b"nothing of the kind " * 500, "not a database"),
    ],
)
def test_what_is_not_a_database_is_left_alone(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)

    async def main() -> None:
        journal = SqliteJournal(path)
        for _ in range(2):
            with pytest.raises(JournalCorrupt, match=why):
                await CompensationScope("a", journal=journal).register(note, "x")
            with pytest.raises(JournalCorrupt, match=why):
                await journal.sagas()
        await journal.close()
        with pytest.raises(JournalCorrupt, match=why):
            async with journal:
                pytest.fail("it was opened")  # and it leaves no thread: see `_afresh`

    asyncio.run(main())
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["journal.db"]


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE invoice (id TEXT)")
        db.commit()

    async def main() -> None:
        journal = SqliteJournal(path)
        for attempt in (journal.sagas(), journal.claim(besides=set())):
            with pytest.raises(JournalCorrupt, match="another program"):
                await attempt
        await journal.close()

    asyncio.run(main())
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("invoice",)]


def test_tables_that_are_missing_are_not_made_again(path: Path) -> None:
    leave_open(path, a="x")
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE action")

    async def main() -> None:
        journal = SqliteJournal(path)
        for attempt in (journal.sagas(), journal.claim(besides=set())):
            with pytest.raises(JournalCorrupt, match="tables are missing"):
                await attempt
        await journal.close()

    asyncio.run(main())


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_log_costs_no_more_than_what_was_cut_off(path: Path, keep: float) -> None:
    """What is left is whole: each saga has all its actions, or is not there."""
    leave_open(path, **dict.fromkeys("abcdefgh", "12"))
    log = path.with_name("journal.db-wal")
    assert log.stat().st_size
    with log.open("r+b") as file:
        file.truncate(int(log.stat().st_size * keep))
    path.with_name("journal.db-shm").unlink()

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            reports = await recover(journal, registry)
            assert undone == [name for report in reports for name in "21"[-len(report.done) :]]
            scope = CompensationScope("new", journal=journal)
            await scope.register(note, "x")
            await scope.commit()

    asyncio.run(main())


def test_a_newer_version_is_neither_shown_nor_written(path: Path) -> None:
    leave_open(path, a="x")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")

    async def main() -> None:
        journal = SqliteJournal(path)
        for attempt in (journal.sagas(), recover(journal, registry)):
            with pytest.raises(JournalError, match="version 99 is newer"):
                await attempt
        await journal.close()

    asyncio.run(main())
    assert undone == []


class Bomb:
    """What leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch {BOOM}",))


BOOM = Path("/nonexistent")


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "{",
        "null",
        "[]",
        '["x"]',
        "{}",
        '{"name": 7}',
        '{"name": null}',
        '{"name": "x", "more": 1}',
        '{"nom": "x"}',
        '{"name": {"py/reduce": ["os.system", "true"]}}',
        "[" * 100_000,
        "pickle",
    ],
)
def test_a_payload_changed_by_hand_is_stuck_and_the_rest_is_undone(
    path: Path, arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "BOOM", path.with_name("boom"))
    if arguments == "pickle":
        arguments = pickle.dumps(Bomb(), protocol=0).decode("ascii")
    leave_open(path, older="1", damaged="abc")
    with closing(sqlite3.connect(path)) as db:
        changed = db.execute(
            "UPDATE action SET arguments = ? WHERE arguments LIKE '%b%'", (arguments,)
        )
        assert changed.rowcount == 1
        db.commit()

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            damaged, older = await recover(journal, registry)
            assert isinstance(damaged.stuck[0].error, JournalCorrupt)
            assert undone == ["c", "a", "1"]
            assert len(older.done) == 1
            kept = {a.arguments for saga in await journal.sagas() for a in saga.actions}
            assert arguments in kept  # as the person has left it

    asyncio.run(main())
    assert not BOOM.exists()


def test_bytes_that_are_not_text_are_read_nevertheless(path: Path) -> None:
    leave_open(path, a="x", b="y")
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE action SET name = CAST(x'ff6e6f' AS TEXT) WHERE arguments LIKE '%y%'")
        db.commit()

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            b, _ = await recover(journal, registry)
            assert b.deferred[0].name == "�no"
            assert undone == ["x"]

    asyncio.run(main())


def test_text_that_cannot_be_written_is_shown_escaped(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a surrogate pair in a name, an argument, an error and a reason."""
    # Workers of pytest-xdist cannot send a log with such text to the process that reports it.
    caplog.set_level(logging.CRITICAL, "returns_pipeline")

    @registry.compensation("odd")
    async def odd(name: str) -> None:
        raise OddError

    class OddError(Exception):
        def __repr__(self) -> str:
            return "\ud800"

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a\ud800", journal=journal)
            await scope.register(odd, "x\udc00")
            await scope.compensate()
            (saga,) = await journal.sagas()
            (action,) = saga.actions
            assert saga.name == action.path == "a\\ud800"
            assert (action.arguments, action.error) == ('{"name": "x\\udc00"}', "\\ud800")
            assert await journal.discard(saga.id, "\ud800") == 1

    asyncio.run(main())


def test_a_request_that_fails_in_an_unforeseen_way_fails_alone(path: Path) -> None:
    def broken(_: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            first, second = await asyncio.gather(
                journal._do(broken), scope.register(note, "x"), return_exceptions=True
            )
            assert isinstance(first, JournalError)
            assert second is None
            assert await listed(path) == {"a": "pending"}
            await scope.commit()

    asyncio.run(main())


def test_times_out_of_range_are_refused(path: Path) -> None:
    nan = float("nan")
    for options in ({"retention": -1.0}, {"retention": nan}, {"patience": -1.0}, {"patience": nan}):
        with pytest.raises(InvalidArgument):
            SqliteJournal(path, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        SqliteJournal(path, patience=float("inf"))


# Owners.


def test_a_stopped_owner_keeps_its_saga_and_a_killed_one_loses_it_at_once(path: Path) -> None:
    program = (
        "import asyncio\n"
        "from undoing import note\n"
        "from returns_pipeline.compensation import CompensationScope\n"
        "from returns_pipeline.journal import SqliteJournal\n"
        "async def main():\n"
        f"    scope = CompensationScope('a', journal=SqliteJournal({str(path)!r}))\n"
        "    await scope.register(note, 'x')\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGSTOP)

            async def recovers() -> int:
                async with SqliteJournal(path) as journal:
                    return len(await recover(journal, registry))

            assert asyncio.run(recovers()) == 0
            process.kill()
            process.wait()
            assert asyncio.run(recovers()) == 1
            assert undone == ["x"]
        finally:
            process.kill()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_has_lost_its_name_accepts_nothing_and_what_it_has_is_undone(
    path: Path, *, replaced: bool
) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "x")
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
            if replaced:
                async with SqliteJournal(path):
                    pass
            with pytest.raises(JournalUnavailable, match="removed or replaced"):
                await scope.register(note, "y")
            assert len((await scope.compensate()).done) == 1
            assert undone == ["x"]
        async with SqliteJournal(path):
            pass

    asyncio.run(main())


@pytest.mark.parametrize("link", ["file", "directory"])
def test_a_file_opened_by_a_link_has_the_same_owners(path: Path, link: str) -> None:
    """Owners are known by files beside the file itself, not beside the name it was opened by."""
    place = path.parent / "real"
    place.mkdir()
    real, linked = place / "journal.db", path.parent / "links" / "journal.db"
    if link == "file":
        linked.parent.mkdir()
        linked.symlink_to(real)
    else:
        linked.parent.symlink_to(place)

    async def main() -> None:
        async with SqliteJournal(real) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "x")
            async with SqliteJournal(linked) as other:
                (saga,) = await other.sagas()
                assert saga.alive
                assert await recover(other, registry) == []
            await scope.register(note, "y")
            await scope.commit()

    asyncio.run(main())
    assert undone == []
    assert [file.name for file in place.iterdir()] == ["journal.db"]


def test_a_file_that_was_moved_has_the_same_owners(path: Path) -> None:
    place, moved = path.parent / "place", path.parent / "moved"
    place.mkdir()

    async def main() -> None:
        async with SqliteJournal(place / "journal.db") as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "x")
            place.rename(moved)
            async with SqliteJournal(moved / "journal.db") as other:
                assert await recover(other, registry) == []
            spawned(moved / "journal.db", "assert await recover(journal, registry) == []")
            await scope.commit()

    asyncio.run(main())
    assert undone == []


@pytest.mark.parametrize("when", ["at once", "waiting"])
def test_a_file_that_is_replaced_while_it_is_opened_takes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    class Waiting(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE" and path.exists() and not old.exists():
                path.rename(old)
                path.touch()
            return super().execute(sql, *parameters)

    old = path.with_name("old.db")
    connect = sqlite3.connect

    def waiting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        made = connect(*arguments, **options, factory=Waiting)
        if when == "at once":
            path.unlink()
        return made

    async def main() -> None:
        journal = SqliteJournal(path)
        with pytest.raises(JournalUnavailable, match=r"removed or replaced|I/O"):
            await CompensationScope("a", journal=journal).register(note, "x")
        await journal.close()

    monkeypatch.setattr(sqlite3, "connect", waiting)
    asyncio.run(main())


def test_a_number_that_is_given_again_means_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with the number of the dead owner lives; so does a child with its parent's."""
    leave_open(path, a="x")
    monkeypatch.setattr(os, "getpid", lambda: 4711)

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            assert len(await recover(journal, registry)) == 1

            async def child() -> None:
                with pytest.raises(JournalError, match="forked"):
                    await CompensationScope("b", journal=journal).register(note, "y")

            assert await asyncio.to_thread(in_child, child) == 0

    asyncio.run(main())


def test_a_forked_child_does_not_keep_its_parents_sagas(path: Path) -> None:
    """The parent dies, its child lives: the lock is gone with the parent."""
    read, write = os.pipe()

    async def parent() -> None:
        journal = SqliteJournal(path)
        await CompensationScope("a", journal=journal).register(note, "x")
        if os.fork() == 0:
            os.close(write)
            os.read(read, 1)  # until the test ends
            os._exit(0)

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            assert len(await recover(journal, registry)) == 1

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONWARNINGS", "ignore")
            assert in_child(parent) == 0
        asyncio.run(main())
    finally:
        os.close(write)
        os.close(read)
    assert undone == ["x"]


@pytest.mark.parametrize("lazy", [True, False])
def test_an_owner_that_was_taken_for_dead_does_nothing_more(path: Path, lazy: bool) -> None:
    """Its lock is lost, as when a person removes the file; another process takes its saga."""

    async def main() -> None:
        journal = SqliteJournal(path, lazy_commits=lazy)
        scope = CompensationScope("a", journal=journal)
        await scope.register(note, "x")
        child, held = scope.child("child"), detached(scope, "held")
        await held.register(note, "held")
        for lock in path.parent.glob("journal.db-owner-*"):
            lock.unlink()
        taken = "[len(report.done) for report in await recover(journal, registry)]"
        await asyncio.to_thread(spawned, path, f"assert {taken} == [2]")
        undone.clear()
        with pytest.raises(LeaseLost):
            await scope.register(note, "y")
        with pytest.raises(LeaseLost):
            await child.register(note, "y")
        with pytest.raises(LeaseLost):  # nor anything that has nothing to do with it
            await CompensationScope("new", journal=journal).register(note, "y")
        with contextlib.suppress(LeaseLost):
            scope.absorb(held)
            await scope.commit()
        with pytest.raises(LeaseLost):
            await journal.flush() if lazy else await scope.commit()
        report = await scope.compensate()
        if not lazy:
            assert isinstance(report.failures[0].error, LeaseLost)
        assert undone == []
        with contextlib.suppress(LeaseLost):
            await journal.close()
        again = CompensationScope("again", journal=journal)  # and then it is a new one
        await again.register(note, "z")
        await again.commit()
        await journal.close()
        held._records.clear()

    asyncio.run(main())


def test_a_move_of_what_was_taken_over_is_reported_at_the_commit(path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(path)
        scope = CompensationScope("a", journal=journal)
        await scope.register(note, "x")
        held = CompensationScope("held", journal=journal)
        await held.register(note, "y")
        with closing(sqlite3.connect(path)) as db:
            db.execute("UPDATE saga SET owner = 'other', epoch = 2 WHERE name = 'held'")
            db.commit()
        scope.absorb(held)
        with pytest.raises(LeaseLost):
            await scope.commit()
        assert set((await listed(path)).values()) == {"pending"}
        with pytest.raises(LeaseLost):
            await journal.flush()
        report = await scope.compensate()
        assert {type(entry.error) for entry in report.failures} == {LeaseLost}
        assert undone == []
        await journal.close()

    asyncio.run(main())


def spawned(path: Path, work: str) -> None:
    """Do this in a process that was not forked, between opening and closing the journal."""
    program = (
        "import asyncio\n"
        "from undoing import *\n"
        "from returns_pipeline.journal import SqliteJournal, recover\n"
        "async def main():\n"
        f"    async with SqliteJournal({str(path)!r}) as journal:\n"
        f"        {work}\n"
        "asyncio.run(main())\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


forks = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of its dangers


@forks
def test_a_file_that_was_open_at_the_fork_is_refused_in_the_child_at_once(path: Path) -> None:
    """Its SQLite believes that it holds the parent's locks, and would hold none of its own."""

    async def child() -> None:
        for _ in range(2):
            journal = SqliteJournal(path)  # again
            with pytest.raises(JournalUnavailable, match=r"forked from.*'spawn'"):
                await CompensationScope("a", journal=journal).register(note, "x")
            with pytest.raises(JournalUnavailable, match="forked from"):
                await journal.sagas()
            await journal.close()
        with pytest.raises(JournalUnavailable, match=r"forked from.*'spawn'"):
            await CompensationScope("a", journal=opened).register(note, "x")
        async with SqliteJournal(path.with_name("another.db")) as another:
            other = CompensationScope("c", journal=another)
            await other.register(note, "y")
            await other.commit()

    opened = SqliteJournal(path)

    async def parent() -> None:
        async with opened as journal, CompensationScope("b", journal=journal) as scope:
            await scope.register(note, "z")
            assert await asyncio.to_thread(in_child, child) == 0
            assert len(await journal.sagas()) == 1

    asyncio.run(parent())


@forks
@pytest.mark.parametrize("when", ["never opened", "closed before"])
def test_a_journal_that_is_not_open_at_the_fork_works_in_the_child(path: Path, when: str) -> None:
    """As with gunicorn's preload, or Celery's pool: made by the import of the program."""
    journal = SqliteJournal(path, lazy_commits=True)

    async def child() -> None:
        async with CompensationScope("window", journal=journal) as scope:
            await scope.register(note, "x")
        await journal.close()
        assert await journal.sagas() == []

    async def parent() -> None:
        async with CompensationScope("before", journal=journal) as scope:
            await scope.register(note, "y")
        await journal.close()

    if when == "closed before":
        asyncio.run(parent())
    for _ in range(2):
        assert in_child(child) == 0
    asyncio.run(parent())


@forks
def test_a_fork_waits_until_the_journals_thread_is_outside_of_sqlite(path: Path) -> None:
    """Otherwise the child has a mutex that stays locked, or a transaction of a missing thread.

    The child uses SQLite, for another file: a mutex of the whole library would stop it.
    """
    inside, forked = threading.Event(), threading.Event()
    seen: list[bool] = []

    def work(_: sqlite3.Connection) -> None:
        inside.set()
        seen.append(forked.wait(0.2))

    async def child() -> None:
        async with SqliteJournal(path.with_name("another.db")):
            pass

    def fork() -> int:
        inside.wait()
        result = in_child(child)
        forked.set()
        return result

    async def parent() -> None:
        async with SqliteJournal(path) as journal:
            forking = asyncio.create_task(asyncio.to_thread(fork))
            await journal._do(work)
            assert await forking == 0

    asyncio.run(parent())
    assert seen == [False]


@forks
def test_several_threads_may_fork_while_others_are_inside_of_sqlite() -> None:
    gate, end = fork_safety._Gate(), time.monotonic() + 0.5
    inside = 0
    found: list[int] = []

    def works() -> None:
        nonlocal inside
        while time.monotonic() < end:
            gate.enter()
            inside += 1
            time.sleep(0.0001)
            inside -= 1
            gate.leave()

    def forks_often() -> None:
        while time.monotonic() < end:
            gate.close()
            found.append(inside)
            gate.open()
            time.sleep(0.0002)

    threads = [threading.Thread(target=work, daemon=True) for work in (works, *[forks_often] * 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert set(found) == {0}


def test_a_fork_does_not_wait_while_the_journal_waits_for_another_process(path: Path) -> None:
    async def child() -> None:
        pass

    async def parent() -> None:
        async with SqliteJournal(path, patience=60.0) as journal:
            scope = CompensationScope("a", journal=journal)
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                registering = asyncio.create_task(scope.register(note, "x"))
                async with asyncio.timeout(30):
                    assert await asyncio.to_thread(in_child, child) == 0
                assert not registering.done()
                other.execute("ROLLBACK")
            await registering
            await scope.commit()

    asyncio.run(parent())


def test_looking_at_what_this_process_has_open_releases_none_of_its_locks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite cannot open it a second time, for lack of descriptors say: a copy does not help."""
    connect = sqlite3.connect

    def refuses(*arguments: Any, **options: Any) -> sqlite3.Connection:
        if f"{path}?" in str(arguments[0]):
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        made: sqlite3.Connection = connect(*arguments, **options)
        return made

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "x")
            monkeypatch.setattr(sqlite3, "connect", refuses)
            with pytest.raises(JournalUnavailable, match="unable to open"):
                await journal.sagas()
            monkeypatch.undo()
            spawned(path, "pass")
            assert path.with_name("journal.db-wal").exists()  # no process took itself for the last
            await scope.commit()

    asyncio.run(main())


def test_the_lock_of_another_user_counts_as_held(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path):
            (lock,) = path.parent.glob("journal.db-owner-*")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "open", refuse)
                assert owner_locks.is_alive(lock)
            assert stat.S_IMODE(lock.stat().st_mode) == 0o600

    def refuse(*_: object) -> int:
        raise PermissionError

    asyncio.run(main())


# Housekeeping.


async def tidy_soon(journal: SqliteJournal) -> None:
    """Make the thread tidy up after this request; called from here, it may do so twice."""

    def be_due(_: sqlite3.Connection) -> None:
        journal._store._housekeeping._next = 0.0

    await journal._do(be_due)


def test_what_is_old_is_tidied_away_by_a_process_that_never_recovers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bounded part at a time, beside other work; what is stuck stays."""
    monkeypatch.setattr(housekeeping, "AT_ONCE", 3)
    sizes: list[int] = []

    async def main() -> None:
        async with SqliteJournal(path, retention=3600.0) as journal:
            for name in "abcdefgh":
                scope = CompensationScope(name, journal=journal)
                await scope.register(note, name)
                await scope.compensate()
            with closing(sqlite3.connect(path)) as db:
                db.execute("UPDATE action SET ended = ended - 7200")
                db.execute("UPDATE action SET state = 'stuck', ended = NULL WHERE path = 'a'")
                db.execute("UPDATE action SET ended = ended + 7200 WHERE path = 'b'")
                db.commit()
            scope = CompensationScope("now", journal=journal)
            await scope.register(note, "x")
            assert len(await listed(path)) == 9  # it has searched a moment ago
            await tidy_soon(journal)
            for _ in range(4):
                await journal._do(lambda db: sizes.append(count(db)))
                await scope.register(note, "x")
            assert set(await listed(path)) == {"a", "b", "now"}
            await scope.commit()

    def count(db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT count(*) FROM saga").fetchone()[0])

    asyncio.run(main())
    assert sizes == [6, 3, 3, 3]  # not all at once


def test_owners_that_left_nothing_are_forgotten_with_their_locks(path: Path) -> None:
    async def dies() -> None:
        scope = CompensationScope("a", journal=SqliteJournal(path))
        await scope.register(note, "x")
        await scope.commit()

    assert in_child(dies) == 0
    assert len(list(path.parent.glob("journal.db-owner-*"))) == 1

    async def main() -> None:
        async with SqliteJournal(path) as journal, CompensationScope("b", journal=journal) as scope:
            await scope.register(note, "y")

    asyncio.run(main())
    assert list(path.parent.glob("journal.db-owner-*")) == []
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM owner").fetchone() == (0,)


def test_an_owner_whose_saga_is_claimed_is_removed_with_its_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an owner that was taken for dead, and is not, would notice only when it writes."""
    leave_open(path, a="x")
    (dead,) = path.parent.glob("journal.db-owner-*")
    # Housekeeping would remove it, too, but later.
    monkeypatch.setattr(housekeeping.Housekeeping, "is_due", lambda *_: False)

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            assert await journal.claim(besides=set()) is not None
            assert not dead.exists()
            (owners,) = await journal._do(lambda db: db.execute("SELECT count(*) FROM owner"))
            assert owners == (1,)

    asyncio.run(main())


def test_a_lease_that_was_rolled_back_to_a_savepoint_is_not_kept_in_memory(path: Path) -> None:
    """The saga is opened by a request that fails. The next one must open it again."""

    async def main() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            insert = journal._store.ledger.insert

            def fails_at_the_end(*arguments: Any) -> None:
                insert(*arguments)
                raise ZeroDivisionError

            journal._store.ledger.insert = fails_at_the_end  # type: ignore[method-assign, assignment]
            other = journal._do(lambda _: None)  # so that there is a second turn, with savepoints
            failed, _ = await asyncio.gather(
                scope.register(note, "x"), other, return_exceptions=True
            )
            assert isinstance(failed, JournalError)
            journal._store.ledger.insert = insert  # type: ignore[method-assign]
            assert journal._store.leases._epochs == {}
            await scope.register(note, "y")
            assert await listed(path) == {"a": "pending"}
            await scope.commit()

    asyncio.run(main())


def test_the_memory_of_rolled_back_sagas_is_given_back(path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(path) as journal:
            for _ in range(5):
                scope = CompensationScope("a", journal=journal)
                await scope.register(note, "x")
                await commit_or_roll_back(scope, keep=False)
                assert journal._store.leases._epochs == {}
                await scope.register(note, "y")  # into the same saga
                await scope.commit()
            assert len(await listed(path)) == 1

    asyncio.run(main())


def test_housekeeping_that_fails_disturbs_no_request(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> bool:
        raise sqlite3.OperationalError("malformed")

    monkeypatch.setattr(sqlite_store.SqliteStore, "is_untidy", fails)

    async def main() -> None:
        async with SqliteJournal(path) as journal, CompensationScope("a", journal=journal) as scope:
            await scope.register(note, "x")

    asyncio.run(main())
    assert "housekeeping failed: journal" in caplog.text


def test_what_a_living_owner_leaves_empty_does_not_hide_what_others_do(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "AT_ONCE", 3)

    async def main() -> None:
        async with SqliteJournal(path) as idle, SqliteJournal(path) as journal:
            for owner, names in (idle, "abcd"), (journal, "ef"):
                for name in names:
                    scope = CompensationScope(name, journal=owner)
                    await scope.register(note, name)
                    await scope.compensate()
            with closing(sqlite3.connect(path)) as db:
                db.execute("DELETE FROM action")  # as a third process does, when it is old
                db.commit()
                for _ in range(2):  # a part of the round each time
                    await tidy_soon(journal)
                    await journal._do(lambda _: None)  # the thread has tidied up before
                left = db.execute("SELECT name FROM saga ORDER BY number").fetchall()
            assert "".join(name for (name,) in left) == "abcd"

    asyncio.run(main())


# The thread.


def test_a_thread_that_cannot_be_started_is_reported_and_started_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        journal = SqliteJournal(path, lazy_commits=True)
        scope = CompensationScope("a", journal=journal)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fails)
            with pytest.raises(JournalError, match="can't start"):
                async with asyncio.timeout(5):
                    await journal._do(lambda _: None)
            with pytest.raises(JournalError, match="can't start"):
                await journal.forget(["x"])
            await journal.close()
        await scope.register(note, "x")
        await scope.commit()
        await journal.close()
        assert await listed(path) == {}

    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    asyncio.run(main())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_an_owner_whose_lock_is_not_given_leaves_nothing_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    async def main() -> None:
        journal = SqliteJournal(path)
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", refuses)
            before = 0
            for _ in range(3):
                with pytest.raises(JournalUnavailable, match="No locks"):
                    await journal.claim(besides=set())
                before = before or descriptors()
            assert descriptors() == before
            assert list(path.parent.glob("journal.db-owner-*")) == []
            await journal.close()
        assert await recover(journal, registry) == []
        await journal.close()

    asyncio.run(main())


def test_a_close_that_is_cancelled_closes_the_journal(path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(path)
        scope = CompensationScope("a", journal=journal)
        await scope.register(note, "x")
        closing_it = asyncio.create_task(journal.close())
        await asyncio.sleep(0)
        closing_it.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing_it
        assert len(await recover(journal, registry)) == 1  # it may be opened again at once
        await journal.close()
        scope._records.clear()

    asyncio.run(main())


def test_the_lock_is_waited_for_once_for_all_requests(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[object] = []
    lock = sqlite_store.SqliteStore.lock

    def counted(store: sqlite_store.SqliteStore, db: sqlite3.Connection) -> None:
        waits.append(store)
        lock(store, db)

    async def main() -> None:
        async with SqliteJournal(path, patience=0.01) as journal:
            scope = CompensationScope("a", journal=journal)
            monkeypatch.setattr(sqlite_store.SqliteStore, "lock", counted)
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                both = (scope.register(note, "x"), scope.register(note, "y"))
                errors = await asyncio.gather(*both, return_exceptions=True)
                assert {type(error) for error in errors} == {JournalUnavailable}
            assert len(waits) == 1

    asyncio.run(main())


def test_what_is_deferred_from_another_thread_while_it_ends_is_not_given_up(path: Path) -> None:
    done: list[str] = []

    class Interrupted(deque[Any]):
        def clear(self) -> None:
            threads.append(threading.Thread(target=journal._writer.defer, args=[work]))
            threads[0].start()
            threads[0].join(0.1)
            super().clear()

    def work(_: sqlite3.Connection) -> None:
        done.append("written")

    threads: list[threading.Thread] = []
    journal = SqliteJournal(path)

    async def main() -> None:
        await journal._do(lambda _: None)
        journal._writer._deferred = Interrupted()
        await journal.close()
        threads[0].join()
        journal._writer._deferred = deque(journal._writer._deferred)
        await journal.flush()
        assert done == ["written"]
        await journal.close()

    asyncio.run(main())


def test_a_journal_that_is_opened_again_and_again_keeps_only_what_was_left_open(path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(path)
        kept = CompensationScope("kept", journal=journal)
        await kept.register(note, "kept")
        await journal.close()
        scopes = [CompensationScope(name, journal=journal) for name in "abc"]
        for scope in scopes:
            async with journal:
                await scope.register(note, scope.name)
                await commit_or_roll_back(scope, keep=False)
        assert set(journal._store.leases._epochs) == {saga_of(kept)}
        async with SqliteJournal(path) as other:
            assert len(await recover(other, registry)) == 1
        async with journal:
            with pytest.raises(LeaseLost):
                await kept.register(note, "again")
            for scope in scopes:  # which have settled all: nothing was taken from them
                await scope.register(note, "again")
                await scope.commit()
        kept._records.clear()

    asyncio.run(main())


@pytest.mark.parametrize("when", ["opens", "closes"])
def test_the_lock_of_an_owner_killed_while_it_opens_or_closes_is_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It is not on record: no process would ever check whether it is alive."""

    async def dies() -> None:
        journal = SqliteJournal(path)
        await journal.claim(besides=set())
        monkeypatch.setattr(owner_locks.OwnerLock, "release", killed)
        await journal.close()

    def killed(*_: object) -> None:
        signal.raise_signal(signal.SIGKILL)

    take = owner_locks.OwnerLock

    def takes_and_dies(journal: Path, owner: str) -> None:
        take(journal, owner)
        killed()

    async def main() -> None:
        async with SqliteJournal(path) as first, SqliteJournal(path):
            assert len(locks()) == 2
            await first.sagas()
        assert locks() == []

    def locks() -> list[Path]:
        return list(path.parent.glob("journal.db-owner-*"))

    with monkeypatch.context() as patch:
        if when == "opens":
            patch.setattr(sqlite_store, "OwnerLock", takes_and_dies)
        assert in_child(dies) == 0
    assert len(locks()) == 1
    asyncio.run(main())
