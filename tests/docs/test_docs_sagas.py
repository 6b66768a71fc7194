"""What docs/sagas.md shows is true: its programs, its session, its picture and its SQL."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typed import shown_by

from draw_sagas import BACKWARD, FORWARD, HERE, Point, killed, main, picture, see

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sagas.md").read_text()
FENCED = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
PROGRAMS = [
    (code, FENCED[i + 1][1]) for i, (language, code) in enumerate(FENCED) if language == "python"
]
SESSION = "".join(text for language, text in FENCED if language == "console")
SAGA = "9f3c61d2"  # what the page calls it


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("code", "printed"), PROGRAMS)
def test_a_program_of_the_page_prints_what_stands_below_it(
    code: str, printed: str, tmp_path: Path
) -> None:
    assert run(sys.executable, "-W", "error", "-c", code, cwd=tmp_path) == printed


def test_the_programs_of_the_page_are_well_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    for i, (code, _) in enumerate(PROGRAMS):
        (tmp_path / f"block_{i}.py").write_text(code)
    config = ROOT / "mypy.ini"
    run(sys.executable, "-m", "mypy", "--config-file", config, tmp_path, cwd=tmp_path)


# The session.


def session(text: str) -> list[tuple[str, str]]:
    """Return the commands, each with its output."""
    return [
        (command, said)
        for command, said in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, flags=re.MULTILINE)
    ]


def masked(text: str) -> str:
    """Hide what is different each time, and leave its width."""
    text = re.sub(r"[0-9a-f]{32}", "#" * 32, text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z", "<time>", text)


def carry_out(text: str, place: Path) -> str:
    """Type the commands of a session, and return it with what they say today."""
    (place / "shop.py").write_text(PROGRAMS[0][0])
    saga = ""
    made = ""
    for command, _ in session(text):
        typed = command.replace(SAGA[:4], saga[:4]) if saga else command
        said, was_killed = shown_by(typed, place)
        if was_killed:
            with closing(sqlite3.connect(place / "shop.db")) as db:
                ((saga,),) = db.execute("SELECT id FROM saga").fetchall()
                db.execute("UPDATE saga SET began = began - 450")
                db.commit()
        made += f"$ {command}\n{said.replace(saga[:8], SAGA) if saga else said}"
    return made


def test_the_session_of_the_page_is_what_the_command_says(tmp_path: Path) -> None:
    assert masked(carry_out(SESSION, tmp_path)) == masked(SESSION)


# The picture.


def test_the_picture_is_the_one_that_killed_processes_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [path.name for path in HERE.iterdir()] == ["window.svg"]
    assert (HERE / "window.svg").read_text() == picture(), "run docs/draw_sagas.py"
    assert re.findall(r"!\[.{20,}\]\(sagas/(.+)\)", PAGE) == ["window.svg"]
    monkeypatch.setattr("draw_sagas.HERE", tmp_path)
    main()
    assert (tmp_path / "window.svg").read_text() == picture()


@pytest.mark.parametrize("point", FORWARD + BACKWARD, ids=str)
def test_at_each_point_of_the_picture_the_effect_is_whole_or_not_at_all(point: Point) -> None:
    seen = see(point)
    committed = point in FORWARD[3:]
    assert seen.effect == committed
    assert not seen.open
    assert not (seen.acknowledged and not seen.effect)
    assert seen.undos[1] <= 1  # one recovery calls it once
    assert sum(seen.undos) <= 2
    assert not (committed and any(seen.undos))


def test_a_process_that_does_not_die_draws_nothing() -> None:
    with pytest.raises(AssertionError, match="lived on"):
        killed(lambda: None)


# The SQL.

SQL: dict[str, list[str]] = {}
for language, text in FENCED:
    if language == "sql":
        for title, statements in re.findall(r"^-- (.*)\n((?:(?!-- ).*\n)*)", text, re.MULTILINE):
            SQL[title] = [part.strip() for part in statements.split(";") if part.strip()]
TABLES = SQL["tables"]
(WIN,) = SQL["effect"]
(ITEM,) = SQL["effect, if that has inserted a row; once for each item"]
(BURY,) = SQL["undo"]
(DELETE,) = SQL["undo, then"]


def in_sqlite(db: sqlite3.Connection, statement: str, *values: object) -> int:
    named = {str(n): value for n, value in enumerate(values, 1)}
    return db.execute(statement, named).rowcount


def effect_in_sqlite(db: sqlite3.Connection, key: str) -> bool:
    """Write a batch of two; say whether it was the first to come."""
    if not in_sqlite(db, WIN, key):
        return False
    for position in range(2):
        in_sqlite(db, ITEM, key, position, "x")
    return True


def undo_in_sqlite(db: sqlite3.Connection, key: str) -> None:
    in_sqlite(db, BURY, key)
    in_sqlite(db, DELETE, key)


def left_in_sqlite(db: sqlite3.Connection) -> tuple[list[Any], int]:
    (items,) = db.execute("SELECT count(*) FROM batch_item").fetchone()
    return db.execute("SELECT key, state FROM effect").fetchall(), items


@pytest.fixture
def sink(tmp_path: Path) -> Callable[[], sqlite3.Connection]:
    def connect() -> sqlite3.Connection:
        db = sqlite3.connect(
            tmp_path / "sink.db", timeout=10, isolation_level=None, check_same_thread=False
        )
        db.execute("PRAGMA foreign_keys = ON")
        return db

    with closing(connect()) as db:
        for statement in TABLES:
            db.execute(statement)
    return connect


def test_in_sqlite_a_late_effect_is_refused_and_both_may_be_repeated(
    sink: Callable[[], sqlite3.Connection],
) -> None:
    with closing(sink()) as db:
        assert effect_in_sqlite(db, "a")
        assert not effect_in_sqlite(db, "a")  # a repeat: it is done
        assert left_in_sqlite(db) == ([("a", "done")], 2)
        for _ in range(2):
            undo_in_sqlite(db, "a")
            assert left_in_sqlite(db) == ([("a", "undone")], 0)
        assert not effect_in_sqlite(db, "a")  # late
        db.execute("DELETE FROM effect")
        undo_in_sqlite(db, "b")  # its effect has not come yet
        assert not effect_in_sqlite(db, "b")
        assert left_in_sqlite(db) == ([("b", "undone")], 0)


@pytest.mark.parametrize("first", ["effect", "undo"])
@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_in_sqlite_an_effect_and_its_undo_at_the_same_time_leave_nothing(
    sink: Callable[[], sqlite3.Connection], first: str, ending: str
) -> None:
    with closing(sink()) as one, closing(sink()) as two:
        work: dict[str, Callable[[sqlite3.Connection, str], object]]
        work = {"effect": effect_in_sqlite, "undo": undo_in_sqlite}

        def second() -> None:
            two.execute("BEGIN IMMEDIATE")  # waits for the first
            work["undo" if first == "effect" else "effect"](two, "a")
            two.execute("COMMIT")

        one.execute("BEGIN IMMEDIATE")
        work[first](one, "a")
        thread = threading.Thread(target=second)
        thread.start()
        one.execute(ending)
        thread.join()
        if first == "undo" and ending == "ROLLBACK":  # as if it had never been called
            assert left_in_sqlite(one) == ([("a", "done")], 2)
        else:
            assert left_in_sqlite(one) == ([("a", "undone")], 0)


async def effect_in_postgres(db: Any, key: str) -> bool:
    if await db.execute(WIN, key) == "INSERT 0 0":
        return False
    for position in range(2):
        await db.execute(ITEM, key, position, "x")
    return True


async def undo_in_postgres(db: Any, key: str) -> None:
    await db.execute(BURY, key)
    await db.execute(DELETE, key)


async def left_in_postgres(db: Any) -> tuple[list[Any], int]:
    rows = [tuple(row) for row in await db.fetch("SELECT key, state FROM effect")]
    return rows, await db.fetchval("SELECT count(*) FROM batch_item")


async def until_it_waits(db: Any, process: int) -> None:
    """Return when a session waits for the lock of another."""
    while not await db.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", process):
        pass


async def with_tables(dsn: str, count: int, work: Callable[..., Coroutine[Any, Any, None]]) -> None:
    asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")
    connections = [await asyncpg.connect(dsn) for _ in range(count)]
    try:
        for statement in TABLES:
            await connections[0].execute(statement)
        await work(*connections)
    finally:
        for connection in connections:
            await connection.close()


def test_in_postgres_a_late_effect_is_refused_and_both_may_be_repeated(postgres_dsn: str) -> None:
    async def work(db: Any) -> None:
        assert await effect_in_postgres(db, "a")
        assert not await effect_in_postgres(db, "a")  # a repeat: it is done
        assert await left_in_postgres(db) == ([("a", "done")], 2)
        for _ in range(2):
            await undo_in_postgres(db, "a")
            assert await left_in_postgres(db) == ([("a", "undone")], 0)
        assert not await effect_in_postgres(db, "a")  # late
        await db.execute("DELETE FROM effect")
        await undo_in_postgres(db, "b")  # its effect has not come yet
        assert not await effect_in_postgres(db, "b")
        assert await left_in_postgres(db) == ([("b", "undone")], 0)

    asyncio.run(with_tables(postgres_dsn, 1, work))


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
@pytest.mark.parametrize("first", ["effect", "undo"])
@pytest.mark.parametrize("commits", [True, False])
def test_in_postgres_an_effect_and_its_undo_at_the_same_time_leave_nothing(
    postgres_dsn: str, isolation: str, first: str, *, commits: bool
) -> None:
    asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")

    async def main(one: Any, two: Any, watcher: Any) -> None:
        work: dict[str, Callable[[Any, str], Coroutine[Any, Any, object]]]
        work = {"effect": effect_in_postgres, "undo": undo_in_postgres}

        async def second() -> None:
            await two.execute("SELECT 1")
            try:
                async with two.transaction(isolation=isolation):
                    await two.fetch("SELECT * FROM effect")  # takes its snapshot
                    await work["undo" if first == "effect" else "effect"](two, "a")
            except asyncpg.SerializationError:
                assert isolation != "read_committed"
                await second()  # as the page says

        transaction = one.transaction(isolation=isolation)
        await transaction.start()
        await work[first](one, "a")
        waiting = asyncio.create_task(second())
        await until_it_waits(watcher, two.get_server_pid())
        await (transaction.commit() if commits else transaction.rollback())
        await waiting
        if first == "undo" and not commits:  # as if it had never been called
            assert await left_in_postgres(one) == ([("a", "done")], 2)
        else:
            assert await left_in_postgres(one) == ([("a", "undone")], 0)

    asyncio.run(with_tables(postgres_dsn, 3, main))


def test_in_postgres_what_the_page_warns_of_leaves_the_effect_behind(postgres_dsn: str) -> None:
    async def main(one: Any, two: Any) -> None:
        for table in ("tombstone", "item"):
            await one.execute(f"CREATE TABLE {table} (key TEXT)")
        async with one.transaction():
            await one.execute("DELETE FROM item WHERE key = 'a'")
            await one.execute("INSERT INTO tombstone VALUES ('a')")
            await two.execute(
                "INSERT INTO item SELECT 'a' WHERE NOT EXISTS "
                "(SELECT 1 FROM tombstone WHERE key = 'a')"
            )
        assert await one.fetchval("SELECT count(*) FROM item") == 1

    asyncio.run(with_tables(postgres_dsn, 2, main))


# What it links to.


def test_the_page_is_led_to() -> None:
    assert "](docs/sagas.md)" in (ROOT / "README.md").read_text()
