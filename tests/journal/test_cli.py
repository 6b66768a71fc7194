"""What the person on call types, on files that killed processes have left."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from undoing import leave_open, note
from undoing import registry as notes

from returns_pipeline import journal
from returns_pipeline.compensation import CompensationRegistry, CompensationScope
from returns_pipeline.errors import InvalidArgument, JournalUnavailable, MissingExtra
from returns_pipeline.journal import SqliteJournal, StoredAction, StoredSaga, recover
from returns_pipeline.journal import _cli as command
from returns_pipeline.journal import _display as display
from returns_pipeline.journal._addresses import hide_passwords, open_journal
from returns_pipeline.journal._cli import main

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

pytestmark = pytest.mark.slow

registry = CompensationRegistry()
SHOP = Path(__file__).with_name("shop.py")
REGISTRY = ["--registry", "shop:registry"]
# What may do something to a terminal; a line end is the only one that is wanted.
ESCAPES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


def python(*arguments: str | Path, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
        **more,
    )


def command_line(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return python("-m", "returns_pipeline.journal", *arguments, cwd=cwd)


def killed(what: str, place: Path, *database: str) -> None:
    done = python("shop.py", what, *database, cwd=place)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stuck and a deferred saga, one that is pending, and one that is done."""
    place = tmp_path_factory.mktemp("shop")
    shutil.copy(SHOP, place)
    killed("old", place)
    (place / "forbidden").touch()
    recovered = command_line("recover", "journal.db", *REGISTRY, cwd=place)
    assert recovered.returncode == 1
    (place / "recovered").write_text(recovered.stdout)
    killed("new", place)
    with closing(sqlite3.connect(place / "journal.db")) as db:
        for number, ago in enumerate([200_000, 100_000, 9_000, 150], 1):
            db.execute("UPDATE saga SET began = ? WHERE number = ?", (time.time() - ago, number))
        db.commit()
    return place


@pytest.fixture
def place(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working directory."""
    copied = tmp_path / "shop"
    shutil.copytree(original, copied)
    monkeypatch.chdir(copied)
    monkeypatch.setenv("COLUMNS", "100")
    return copied


def ids(place: Path) -> list[str]:
    """Return the ids, the oldest saga first."""
    with closing(sqlite3.connect(place / "journal.db")) as db:
        return [saga for (saga,) in db.execute("SELECT id FROM saga ORDER BY number")]


def states(place: Path) -> list[list[str]]:
    """Return the states of the actions of each saga, in the order of undoing, oldest saga first."""
    with closing(sqlite3.connect(place / "journal.db")) as db:
        rows = db.execute(
            "SELECT group_concat(state) FROM (SELECT number, state FROM action JOIN saga ON "
            "saga.id = saga ORDER BY number, position DESC) GROUP BY number ORDER BY number"
        )
        return [text.split(",") for (text,) in rows]


def plain(text: str, sagas: list[str]) -> str:
    """Replace the ids of sagas by letters, other ids and times by signs of the same length."""
    for letter, saga in zip("ABCDEFG", sagas, strict=False):
        text = text.replace(saga, letter * 32).replace(saga[:8], letter * 8)
    text = re.sub(r"[0-9a-f]{32}", "#" * 32, text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z", "<time>", text)


@registry.compensation("leave")
async def leave(name: str) -> None:
    """Leave it as it is."""
    raise OSError(name)


def test_list_is_a_table_of_what_is_open_the_newest_first(place: Path) -> None:
    done = command_line("list", "journal.db", cwd=place)
    assert done.returncode == 0
    assert done.stderr == ""
    assert plain(done.stdout, ids(place)) == (
        """\
SAGA      NAME      AGE    OWNER  PENDING  STUCK  DEFERRED  DONE
DDDDDDDD  batcher   2 min  dead         1      0         0     0
BBBBBBBB  batcher   1 d    none         0      1         0     2
          delete-batch(batch_id="b2"): OSError('the store is down\\n\\x1b[31mred')
AAAAAAAA  payments  2 d    none         1      0         1     0
          refund(order=4711, amount=2.5, note="für Öre...): unknown name

Waiting for you: 1 stuck and 1 deferred. See show, then retry or discard.
1 saga has no living owner. See recover.
"""
    )


def test_list_can_be_narrowed_and_the_status_of_check_says_whether_a_person_is_needed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(*arguments: str) -> tuple[int, str]:
        status = main(["list", "journal.db", "--json", "--check", *arguments])
        found = json.loads(capsys.readouterr().out)["sagas"]
        letters = {saga: letter for letter, saga in zip("ABCD", ids(place), strict=True)}
        return status, "".join(letters[saga["id"]] for saga in found)

    assert listed() == (1, "DBA")
    assert listed("--all") == (1, "DCBA")
    assert listed("--state", "stuck") == (1, "B")
    assert listed("--state", "stuck", "--state", "deferred") == (1, "BA")
    assert listed("--state", "done") == (1, "CB")
    assert main(["discard", "journal.db", ids(place)[1], "--reason", "r"]) == 0
    capsys.readouterr()
    assert listed("--state", "deferred") == (1, "A")  # nothing there is stuck
    assert listed("--state", "done") == (0, "CB")
    assert listed("--state", "stuck") == (0, "")
    assert main(["list", "journal.db", "--state", "stuck"]) == 0
    assert capsys.readouterr().out == "No saga to show.\n"


def test_list_fits_into_the_width_there_is(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect("journal.db")) as db:
        db.execute("UPDATE saga SET name = ? WHERE number = 2", ("n" * 200,))
        db.execute("UPDATE saga SET name = ? WHERE number = 1", ("\u8868" * 100,))
        db.commit()
    for width in (70, 80, 100, 160):
        monkeypatch.setenv("COLUMNS", str(width))
        main(["list", "journal.db"])
        head, *rows = capsys.readouterr().out.splitlines()[:6]
        assert len(head) <= width
        assert len(rows[1]) == width == len(head)  # the long name takes all there is
        columns = display._columns  # pyright: ignore[reportPrivateUsage]
        assert {columns(row) for row in rows if row[:1] != " "} == {width}
        assert "nnn..." in rows[1]
        assert "\u8868..." in rows[3]
        assert all(columns(row) <= width for row in rows)


def test_list_as_json_has_documented_fields(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "sqlite:journal.db", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"journal", "sagas"}
    assert document["journal"] == "sqlite:journal.db"
    newest, stuck, _ = document["sagas"]
    owner = newest["owner_id"]
    assert re.fullmatch("[0-9a-f]{32}", owner)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", newest["began"])
    assert newest == {
        "id": ids(place)[3],
        "name": "batcher",
        "began": newest["began"],
        "owner": "dead",
        "owner_id": owner,
        "counts": {"pending": 1, "stuck": 0, "deferred": 0, "done": 0},
        "last_error": None,
    }
    assert (stuck["owner"], stuck["owner_id"]) == ("none", None)
    assert stuck["last_error"] == r"OSError('the store is down\n\x1b[31mred')"


def test_show_tells_all_of_a_saga_in_the_order_of_undoing(place: Path) -> None:
    saga = ids(place)[0]
    done = command_line("show", "journal.db", saga[:6], cwd=place)
    assert done.returncode == 0, done.stderr
    assert plain(done.stdout, ids(place)) == (
        f"""\
saga        {"A" * 32}
name        payments
began       <time> (2 d ago)
owner       none
actions     1 pending, 1 deferred; the last registered first, as they are undone

1.          refund v3
arguments   order=4711, amount=2.5, note="für Öre, danke schön"
state       deferred, 0 attempts
path        payments/charge
key         {"#" * 32}
id          {"#" * 32}
error       unknown name

2.          delete-batch v1
arguments   batch_id="b0"
state       pending, 0 attempts
path        payments
key         {"#" * 32}
id          {"#" * 32}
"""
    )


def test_show_as_json_has_documented_fields(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect("journal.db")) as db:
        db.execute(
            "UPDATE action SET arguments = '{\"batch_id\": NaN}', next_attempt = 1e9, "
            "attempts = 2 WHERE name = 'delete-batch' AND saga = ?",
            (ids(place)[0],),
        )
        db.commit()
    assert main(["show", "journal.db", ids(place)[0], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"journal", "saga"}
    saga = document["saga"]
    first, second = saga.pop("actions")
    assert saga["id"] == ids(place)[0]
    assert saga["counts"] == {"pending": 1, "stuck": 0, "deferred": 1, "done": 0}
    assert {name: first.pop(name) for name in ("id", "key")}.keys() == {"id", "key"}
    assert first == {
        "order": 1,
        "name": "refund",
        "version": 3,
        "arguments": {"order": 4711, "amount": 2.5, "note": "für Öre, danke schön"},
        "arguments_text": (
            '{"order": 4711, "amount": 2.5, "note": "f\\u00fcr \\u00d6re, danke sch\\u00f6n"}'
        ),
        "path": "payments/charge",
        "state": "deferred",
        "attempts": 0,
        "next_attempt": None,
        "error": "unknown name",
    }
    assert second["order"] == 2
    assert second["arguments"] is None  # strict JSON knows no NaN
    assert second["arguments_text"] == '{"batch_id": NaN}'
    assert second["next_attempt"] == "2001-09-09T01:46:40.000Z"
    assert second["attempts"] == 2


def test_show_says_when_the_next_attempt_is_and_wraps_what_is_long(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect("journal.db")) as db:
        text = json.dumps({"batch_id": "x" * 250})
        db.execute("UPDATE action SET arguments = ?, next_attempt = 4e9, attempts = 1", (text,))
        db.execute("UPDATE saga SET began = 1e300")  # no time at all
        db.commit()
    assert main(["show", "journal.db", ids(place)[3]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "began       ? (0 s ago)" in lines
    assert "state       pending, 1 attempt, the next at 2096-10-02T07:06:40.000Z" in lines
    begin = lines.index('arguments   batch_id="' + "x" * 78)
    assert lines[begin + 1 : begin + 3] == [" " * 12 + "x" * 88, " " * 12 + "x" * 84 + '"']
    assert main(["show", "journal.db", ids(place)[3], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["saga"]["began"] is None


def test_arguments_that_cannot_be_parsed_are_shown_as_they_are(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saga = ids(place)[3]
    for text, shown in {
        '["b4"]': '["b4"]',
        "garbage": "garbage",
        "[" * 60_000: "[" * 88,
        '{"n": ' + "9" * 5_000 + "}": '{"n": ' + "9" * 82,
    }.items():
        with closing(sqlite3.connect("journal.db")) as db:
            db.execute(
                "UPDATE action SET arguments = ?, next_attempt = 5 WHERE saga = ?", (text, saga)
            )
            db.commit()
        assert main(["list", "journal.db"]) == 0
        capsys.readouterr()
        assert main(["show", "journal.db", saga]) == 0
        said = capsys.readouterr().out.splitlines()
        assert f"arguments   {shown}" in said
        assert "state       pending, 0 attempts" in said  # it is due: no time is shown
        assert main(["show", "journal.db", saga, "--json"]) == 0
        (action,) = json.loads(capsys.readouterr().out)["saga"]["actions"]
        assert (action["arguments"], action["arguments_text"]) == (None, text)


def test_recover_undoes_and_reports(original: Path, place: Path) -> None:
    assert plain((original / "recovered").read_text(), ids(place)) == (
        f"""\
{"B" * 32} batcher: 2 undone, 1 stuck
  undone    delete-batch('b3')
  undone    delete-batch('b1')
  stuck     delete-batch('b2'): OSError('the store is down\\n\\x1b[31mred')
{"A" * 32} payments: 2 deferred
  deferred  refund('{{"order": 4711, "amount": 2.5, "note": "f\\\\u00fcr...: unknown name
  deferred  delete-batch('{{"batch_id": "b0"}}'): unknown name

Waiting for you: see show, then retry or discard.
"""
    )
    done = command_line("recover", "journal.db", *REGISTRY, "--registry", "shop:others", cwd=place)
    assert done.returncode == 0
    assert done.stderr == "deleting b4\ndeleting b0\n"  # what the program prints is not an answer
    assert (place / "undone").read_text().split("\n") == [
        *["b3", "b1", "n1"],  # before
        *["b4", "refund 4711", "b0", ""],
    ]
    again = command_line("recover", "journal.db", *REGISTRY, cwd=place)
    assert (again.returncode, again.stdout) == (
        0,
        "Nothing to recover: no dead process left anything behind.\n",
    )


def test_recover_works_on_as_many_sagas_at_a_time_as_requested(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def recovered(*_: object, concurrency: int) -> list[object]:
        asked.append(concurrency)
        return []

    monkeypatch.syspath_prepend(place)  # pyright: ignore[reportUnknownMemberType]
    with monkeypatch.context() as patched:
        patched.setattr(command, "recover", recovered)
        assert main(["recover", "journal.db", *REGISTRY]) == 0
        assert main(["recover", "journal.db", *REGISTRY, "--concurrency", "16"]) == 0
    assert asked == [1, 16]
    assert main(["recover", "journal.db", *REGISTRY, "--concurrency", "4"]) == 1
    capsys.readouterr()
    for wrong in ("0", "-1", "x"):
        with suppress(SystemExit):
            assert main(["recover", "journal.db", *REGISTRY, "--concurrency", wrong]) == 2
        assert "concurrency" in capsys.readouterr().err
    assert states(place)[3] == ["done"]


def test_recover_as_json_is_one_document_with_documented_fields(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(place)  # pyright: ignore[reportUnknownMemberType]
    assert main(["recover", "journal.db", *REGISTRY, "--json"]) == 1
    out, err = capsys.readouterr()
    assert err == "deleting b4\n"
    document = json.loads(out)
    assert set(document) == {"journal", "reports"}
    newest, deferred = document["reports"]
    assert newest == {
        "saga": ids(place)[3],
        "name": "batcher",
        "done": [
            {"name": "delete-batch", "call": "delete-batch('b4')", "path": "batcher", "error": None}
        ],
        "stuck": [],
        "deferred": [],
        "error": None,
    }
    assert [entry["error"] for entry in deferred["deferred"]] == ["unknown name"] * 2
    assert deferred["error"] is None
    assert states(place)[3] == ["done"]


def test_a_saga_that_the_journal_kept_from_being_finished_is_not_a_success(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> list[object]:
        error = JournalUnavailable("j.db", "disk full\x1b")
        report = SimpleNamespace(
            saga="a" * 32, name="job", done=(), stuck=(), deferred=(), error=error
        )
        return [report]

    monkeypatch.syspath_prepend(place)  # pyright: ignore[reportUnknownMemberType]
    monkeypatch.setattr(command, "recover", fails)
    assert main(["recover", "journal.db", *REGISTRY]) == 2
    assert capsys.readouterr().out == (
        f"{'a' * 32} job: nothing undone\n  not finished: journal j.db: disk full\\x1b\n"
    )
    assert main(["recover", "journal.db", *REGISTRY, "--json"]) == 2
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert report["error"] == "journal j.db: disk full\x1b"


def test_recover_drops_nothing_that_the_program_may_want_to_keep(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(place)  # pyright: ignore[reportUnknownMemberType]
    with closing(sqlite3.connect("journal.db")) as db:
        db.execute("UPDATE action SET ended = 1 WHERE state = 'done'")
        db.commit()
    main(["recover", "journal.db", *REGISTRY])
    assert states(place)[1:3] == [["done", "stuck", "done"], ["done"]]


def test_retry_and_discard_decide_what_becomes_of_a_saga(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(place)  # pyright: ignore[reportUnknownMemberType]
    deferred, stuck, *_ = ids(place)
    assert main(["retry", "journal.db", stuck[:9]]) == 0
    assert capsys.readouterr().out == (
        f"Saga {stuck}: 1 action to be tried again by the next recover.\n"
    )
    assert states(place)[1] == ["done", "pending", "done"]
    assert main(["retry", "journal.db", stuck]) == 1
    assert capsys.readouterr().out == f"Nothing in saga {stuck} is stuck or deferred.\n"
    (place / "forbidden").unlink()
    assert main(["recover", "journal.db", *REGISTRY]) == 1  # one is deferred
    assert states(place)[1] == ["done", "done", "done"]
    assert (place / "undone").read_text().split()[-1] == "b2"
    capsys.readouterr()

    assert main(["discard", "journal.db", deferred, "--reason", "paid by hand", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "journal": "journal.db",
        "saga": deferred,
        "discarded": 1,
        "reason": "paid by hand",
    }
    assert states(place)[0] == ["done", "pending"]
    for options in [], ["--json"]:
        assert main(["retry", "journal.db", deferred, *options]) == 1
    out, _ = capsys.readouterr()
    assert out.startswith(f"Nothing in saga {deferred} is stuck or deferred.\n{{")
    assert '"retried": 0' in out
    assert main(["show", "journal.db", deferred]) == 0
    assert "error       discarded: paid by hand" in capsys.readouterr().out
    with closing(sqlite3.connect("journal.db")) as db:
        db.execute("UPDATE action SET state = 'stuck' WHERE saga = ?", (stuck,))
        db.commit()
    assert main(["discard", "journal.db", stuck, "--reason", "all"]) == 0
    assert capsys.readouterr().out == (
        f"Saga {stuck}: 3 actions discarded, and listed with the reason.\n"
    )
    assert main(["discard", "journal.db", deferred, "--reason", "again"]) == 1
    assert main(["discard", "journal.db", deferred, "--reason", " "]) == 2
    assert "must say why" in capsys.readouterr().err
    assert main(["recover", "journal.db", *REGISTRY]) == 0  # what was registered before it
    assert states(place)[0] == ["done", "done"]


def test_a_living_owner_is_shown_as_alive_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "journal.db"

    def say(*arguments: str) -> Coroutine[object, object, subprocess.CompletedProcess[str]]:
        return asyncio.to_thread(command_line, *arguments, cwd=tmp_path)

    async def work() -> None:
        shutil.copy(SHOP, tmp_path)
        async with SqliteJournal(path) as owner:
            scope = CompensationScope("job", journal=owner)
            await scope.register(leave, "x")
            (saga,) = await owner.sagas()
            listed = await say("list", str(path))
            assert re.search(rf"^{saga.id[:8]}  job +\d+ s  alive +1 ", listed.stdout, re.MULTILINE)
            assert listed.returncode == 0
            assert "recover" not in listed.stdout
            recovered = await say("recover", str(path), *REGISTRY)
            assert recovered.stdout.startswith("Nothing to recover")
            refused = await say("retry", str(path), saga.id)
            assert refused.returncode == 1
            assert refused.stdout == (
                f"Nothing in saga {saga.id} is stuck or deferred, or its owner is alive and "
                "works on it.\n"
            )
            await scope.compensate()  # which does not succeed
            retried = await say("retry", str(path), saga.id)
            assert retried.stdout.endswith(": 1 action to be tried again by the next recover.\n")

    asyncio.run(work())
    assert main(["list", str(path), "--json"]) == 0
    (left,) = json.loads(capsys.readouterr().out)["sagas"]
    assert (left["owner"], left["counts"]["pending"]) == ("none", 1)


def test_no_character_of_a_stranger_reaches_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(SHOP, tmp_path)
    killed("hostile", tmp_path)
    (saga,) = ids(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType]
    monkeypatch.setenv("COLUMNS", "120")  # else a narrow terminal cuts the error
    with closing(sqlite3.connect("journal.db")) as db:
        db.execute("UPDATE action SET error = ?", ("a\x1b[31m\r\nb,\x9bc\x7f",))
        db.commit()
    for arguments in (
        ["list", "journal.db"],
        ["show", "journal.db", saga],
        ["list", "journal.db", "--json"],
        ["show", "journal.db", saga, "--json"],
        ["show", "journal.db", "\x1b[31m"],
        ["list", "\x1b[31m.db"],
        ["recover", "journal.db", *REGISTRY],
    ):
        main(arguments)
        out, err = capsys.readouterr()
        said = out + ("" if arguments[0] == "recover" else err)  # there, the program speaks
        assert said
        assert not ESCAPES.search(said), arguments
        if arguments == ["list", "journal.db"]:
            assert r"evil\x1b[2J\r\nname\u202e" in out
            assert r": a\x1b[31m\r\nb,\x9bc\x7f" in out
            assert len(out.splitlines()) == 5


def test_what_the_output_cannot_encode_is_escaped(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "returns_pipeline.journal", "show", "journal.db", ids(place)[0]],
        cwd=place,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert b'note="f\\xfcr \\xd6re, ' in done.stdout


def test_a_beginning_that_several_have_is_refused_with_their_ids(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect("journal.db")) as db:
        for number in range(1, 6):
            db.execute(
                "INSERT INTO saga (id, name, began, number, owner, epoch) "
                "VALUES (?, 'twin', 0, ?, '', 1)",
                (f"twin-saga{number}", 10 + number),
            )
            db.execute(
                "INSERT INTO action "
                "(id, saga, position, path, key, name, version, arguments, state) "
                "VALUES (?, ?, '', '', '', 'leave', 1, '{}', 'stuck')",
                (f"action {number}", f"twin-saga{number}"),
            )
        db.commit()
    assert main(["show", "journal.db", "twin"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("5 sagas begin with 'twin': twin-saga")
    assert error.endswith(", ...\n")
    assert error.count("twin-saga") == 4
    assert main(["show", "journal.db", "twin-saga4"]) == 0
    with closing(sqlite3.connect("journal.db")) as db:
        db.execute("DELETE FROM action WHERE saga IN ('twin-saga1', 'twin-saga2', 'twin-saga3')")
        db.execute("DELETE FROM saga WHERE id IN ('twin-saga1', 'twin-saga2', 'twin-saga3')")
        db.commit()
    capsys.readouterr()
    assert main(["show", "journal.db", "twin"]) == 2
    assert capsys.readouterr().err == ("2 sagas begin with 'twin': twin-saga5, twin-saga4\n")
    assert main(["show", "journal.db", "nobody"]) == 2
    assert main(["show", "journal.db", ""]) == 2
    assert "there is no saga ''" in capsys.readouterr().err
    main(["list", "journal.db"])
    assert "twin-saga4  twin" in capsys.readouterr().out  # as long as it takes


def test_an_id_that_others_begin_with_is_found_nevertheless(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ids(place)[3]
    with closing(sqlite3.connect("journal.db")) as db:
        db.execute(
            "INSERT INTO saga (id, name, began, number, owner, epoch) "
            "VALUES (?, 'longer', 0, 10, '', 1)",
            (f"{whole}0",),
        )
        db.execute("UPDATE action SET saga = ? WHERE saga = ?", (f"{whole}0", ids(place)[2]))
        db.commit()
    assert main(["show", "journal.db", whole, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["saga"]["name"] == "batcher"


def test_the_error_that_is_shown_first_is_one_that_waits_for_a_person() -> None:
    def action(state: str, error: str) -> StoredAction:
        return StoredAction("i", "p", "path", "k", "undo", 1, "{}", state, 1, 0.0, error)

    newest_first = [
        action("done", "discarded"),
        action("pending", "once"),
        action("deferred", "unknown"),
        action("stuck", "newer"),
        action("stuck", "older"),
        action("stuck", ""),
    ]
    for begin, error in enumerate(["newer", "newer", "newer", "newer", "older", None]):
        saga = StoredSaga("s", "n", 0.0, "", False, tuple(newest_first[begin:]))
        assert display.saga_facts(saga, actions=False)["last_error"] == error
    for end, error in enumerate(["discarded", "once", "unknown"], 1):
        saga = StoredSaga("s", "n", 0.0, "", False, tuple(newest_first[:end]))
        assert display.saga_facts(saga, actions=False)["last_error"] == error


def test_short_ids_are_long_enough_to_be_distinct() -> None:
    assert display.short_ids([]) == {}
    assert display.short_ids(["abcdef", "abcxyz", "q"], least=1) == {
        "abcdef": "abcd",
        "abcxyz": "abcx",
        "q": "q",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["show", "x"],
        ["recover", *REGISTRY],
        ["retry", "x"],
        ["discard", "x", "--reason=r"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_file_that_is_not_there_is_not_made(arguments: list[str], tmp_path: Path) -> None:
    shutil.copy(SHOP, tmp_path)
    before = set(tmp_path.iterdir())
    verb, *rest = arguments
    done = command_line(verb, "absent.db", *rest, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"journal {tmp_path / 'absent.db'}: there is no such file\n"
    assert {path for path in tmp_path.iterdir() if path.name != "__pycache__"} == before


def test_what_is_not_a_journal_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("this is not a database, but it is long enough to be looked at" * 20)
    assert main(["list", str(path)]) == 2
    error = capsys.readouterr().err
    assert "not a database" in error
    assert error.count("\n") == 1
    assert main(["list", str(tmp_path)]) == 2  # a directory
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("registries", "said"),
    [
        (["shop"], "'shop' is not of the form module:attribute"),
        (["shop:"], "'shop:' is not of the form module:attribute"),
        (["absent:registry"], "ModuleNotFoundError(\"No module named 'absent'\")\n"),
        (["shop:absent"], "there is no 'absent'"),
        (["shop:registry.absent"], "there is no 'absent'"),
        (["shop:delete_batch"], "is not a CompensationRegistry, but of type Compensation"),
        (["broken:registry"], "ZeroDivisionError('division by zero') ("),
        (["leaving:registry"], "cannot be imported: SystemExit(3)"),
        (["shop:others", "shop:registry", "shop:twice"], "shop:others and shop:twice both have a"),
    ],
)
def test_a_wrong_registry_is_refused_before_anything_is_undone(
    registries: list[str],
    said: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(place)  # pyright: ignore[reportUnknownMemberType]
    (place / "broken.py").write_text("x = 1\n1 / 0\n")
    (place / "leaving.py").write_text("import sys; sys.exit(3)\n")
    before = states(place)
    options = [option for name in registries for option in ("--registry", name)]
    assert main(["recover", "journal.db", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert "broken" not in said or "broken.py:2)" in error
    assert states(place) == before


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a b%.db"
    path.touch()
    for address in (
        "a b%.db",
        str(path),
        "sqlite:a%20b%25.db",
        f"sqlite://{tmp_path}/a%20b%25.db",
        f"sqlite:///{tmp_path}/a%20b%25.db",  # four slashes, as some have it
        f"sqlite:{tmp_path}/a%20b%25.db",
    ):
        assert str(open_journal(address)) == str(path)
    for address, said in {
        "sqlite://a.db": "three slashes",
        "sqlite://host/a.db": "three slashes",
        "sqlite:a.db?mode=ro": "no parameters",
        "mysql://root:secret@host/db": "no journal has an address of the kind mysql://",
        "sqlite:": "empty",
        "": "empty",
    }.items():
        with pytest.raises(InvalidArgument, match=re.escape(said)):
            open_journal(address)
    with pytest.raises(JournalUnavailable, match="no such file"):
        open_journal("c:d.db")


def test_a_database_is_asked_with_the_address_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, object]]] = []

    def make(dsn: str, **options: object) -> SqliteJournal:
        assert options.pop("retention") == 100 * 365 * 86_400.0
        asked.append((dsn, options))
        return SqliteJournal(tmp_path / "j.db")

    async def none(_: object, **kwargs: object) -> list[object]:
        return []

    monkeypatch.setattr(journal, "PostgresJournal", make)
    monkeypatch.setattr(SqliteJournal, "sagas", none)
    for scheme in ("postgres", "postgresql"):
        assert main(["list", f"{scheme}://u:secret@h/d?x=1", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["journal"] == f"{scheme}://u:***@h/d?x=1"
    assert main(["list", "postgres://h/d", "--schema", "mine", "--liveness", "lease"]) == 0
    assert asked == [
        ("postgres://u:secret@h/d?x=1", {"create": False}),
        ("postgresql://u:secret@h/d?x=1", {"create": False}),
        ("postgres://h/d", {"create": False, "schema": "mine", "liveness": "lease"}),
    ]
    capsys.readouterr()
    assert main(["list", "j.db", "--schema", "mine"]) == 2
    assert capsys.readouterr().err == "--schema is for journals in PostgreSQL\n"

    def lacking(dsn: str, **_: object) -> SqliteJournal:
        raise MissingExtra("postgres", "asyncpg")

    monkeypatch.setattr(journal, "PostgresJournal", lacking)
    assert main(["list", "postgresql://u:secret@h/d"]) == 2
    assert capsys.readouterr().err == (
        'asyncpg is missing: pip install "returns-pipeline[postgres]"\n'
    )


def test_what_cannot_be_reached_is_named(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: object, **kwargs: object) -> list[object]:
        raise ConnectionRefusedError(111, "Connect call failed")

    monkeypatch.setattr(SqliteJournal, "sagas", refuse)
    assert main(["list", "sqlite:journal.db"]) == 2
    assert capsys.readouterr().err == (
        "journal sqlite:journal.db: [Errno 111] Connect call failed\n"
    )


def test_a_journal_in_a_database_is_shown_and_repaired_like_one_in_a_file(
    tmp_path: Path, postgres_dsn: str
) -> None:
    (schema,) = re.findall(r"test_\w+", postgres_dsn)
    shutil.copy(SHOP, tmp_path)
    (tmp_path / "forbidden").touch()
    killed("old", tmp_path, postgres_dsn, schema)

    def say(verb: str, *arguments: str, status: int) -> Any:
        options = ("--schema", schema, "--json")
        done = command_line(verb, postgres_dsn, *arguments, *options, cwd=tmp_path)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)

    found = say("list", status=0)["sagas"]
    assert [(saga["name"], saga["owner"]) for saga in found] == [
        ("batcher", "dead"),
        ("payments", "dead"),
    ]
    say("recover", *REGISTRY, status=1)
    stuck, deferred = (saga["id"] for saga in say("list", "--check", status=1)["sagas"])
    actions = say("show", stuck[:8], status=0)["saga"]["actions"]
    assert [action["state"] for action in actions] == ["done", "stuck", "done"]
    assert say("retry", stuck, status=0)["retried"] == 1
    assert say("discard", deferred, "--reason", "by hand", status=0)["discarded"] >= 1
    (tmp_path / "forbidden").unlink()
    say("recover", *REGISTRY, status=0)
    assert say("list", status=0)["sagas"] == []
    assert set((tmp_path / "undone").read_text().split()) >= {"b1", "b2", "b3"}


def test_a_password_is_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "pa:ss/w@rd"
    addresses = [
        f"postgresql://root:{secret}@127.0.0.1:1/test",
        f"postgresql://127.0.0.1:1/test?user=root&password={secret}&sslpassword={secret}",
        f"mysql://root:{secret}@host/db",
        f"host=127.0.0.1 user=root password={secret}",
        f"host=127.0.0.1 user=root password = 'x \\' {secret}' dbname=test",
        f"password='{secret} ",
    ]
    for address in addresses:
        assert secret not in hide_passwords(address)
        for arguments in (["list", address], ["show", "j.db", "x", address], [address]):
            try:
                status: object = main(arguments)
            except SystemExit as stop:
                status = stop.code
            assert status == 2
            out, err = capsys.readouterr()
            assert "rd@" not in err
            assert secret not in out + err
    assert hide_passwords("a postgresql://u:p@h/d b") == "a postgresql://u:***@h/d b"
    assert hide_passwords("postgresql://u@h:5432/d") == "postgresql://u@h:5432/d"


def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        [],
        ["look", "j.db"],
        ["list"],
        ["list", "j.db", "--stat", "stuck"],
        ["list", "j.db", "--state", "sick"],
        ["recover", "j.db"],
        ["discard", "j.db", "x"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1, arguments
        assert "--help" in err


@pytest.mark.parametrize("verb", ["", "list", "show", "recover", "retry", "discard"])
def test_help_says_what_can_be_done_and_what_the_statuses_mean(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"] if verb else ["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "exit status:" in said
    assert '  python -m returns_pipeline.journal discard orders.db 3f2a --reason "refunded' in said
    assert "%(" not in said
    assert all(len(line) <= 100 for line in said.splitlines())
    if verb:
        assert '{"journal", ' in said


def test_a_bug_is_not_taken_for_something_stuck(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: SqliteJournal, **_kwargs: object) -> None:
        raise RuntimeError("postgresql://u:secret@h/d\x1b[31m")

    monkeypatch.setattr(SqliteJournal, "sagas", broken)
    assert main(["list", "journal.db"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):\n  File ")
    assert r"RuntimeError: postgresql://u:***@h/d\x1b[31m" in error


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_left_is_not_an_error(place: Path, unbuffered: str) -> None:
    for arguments in (["list", "journal.db", "--all", "--check"], ["--help"]):
        command = [sys.executable, "-m", "returns_pipeline.journal", *arguments]
        with subprocess.Popen(
            command,
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()  # before it has written anything
            assert process.stderr.read() == ""
        assert process.returncode == (0 if "--help" in arguments else 1)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A recovery in the middle of an undo, which ends when the gate is opened."""
    shutil.copy(SHOP, tmp_path)
    killed("slow", tmp_path)
    os.mkfifo(tmp_path / "gate")
    with subprocess.Popen(
        [sys.executable, "-m", "returns_pipeline.journal", "recover", "journal.db", *REGISTRY],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        yield process
        process.kill()


def test_ctrl_c_ends_a_recovery_after_the_undo_that_is_under_way(
    slow: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert slow.stderr is not None
    assert slow.stderr.readline() == "deleting slow\n"
    slow.send_signal(signal.SIGINT)
    with (tmp_path / "gate").open("w") as gate:
        gate.write("on")
    out, err = slow.communicate()
    assert slow.returncode == 130
    assert out == ""
    assert err == "interrupted; what was not undone is still on record\n"
    assert (tmp_path / "undone").read_text() == "slow\n"
    assert states(tmp_path) == [["done", "pending"]]
    done = command_line("list", "journal.db", "--json", cwd=tmp_path)
    (saga,) = json.loads(done.stdout)["sagas"]
    assert saga["owner"] == "none"  # another may have it
    assert command_line("recover", "journal.db", *REGISTRY, cwd=tmp_path).returncode == 0
    assert (tmp_path / "undone").read_text() == "slow\nb5\n"


def test_list_check_fails_as_long_as_something_is_pending_that_no_living_owner_works_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "journal.db"
    check = ["list", "--check", str(path)]

    async def while_it_is_open() -> None:
        async with SqliteJournal(path) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "x")
            assert await asyncio.to_thread(main, check) == 0  # its owner may yet commit
            (saga,) = await journal.sagas()
            journal.abandon([saga.actions[0].id])
            await journal.flush()
            assert await asyncio.to_thread(main, check) == 1
            scope._records.clear()  # pyright: ignore[reportPrivateUsage]

    async def recovers() -> None:
        async with SqliteJournal(path) as journal:
            await recover(journal, notes)

    asyncio.run(while_it_is_open())
    assert main(check) == 1
    assert "1 saga has no living owner. See recover." in capsys.readouterr().out
    asyncio.run(recovers())
    assert main(check) == 0


@pytest.mark.parametrize("verb", ["list", "show", "retry", "discard", "recover"])
def test_no_character_of_an_id_reaches_the_terminal_unescaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    path = tmp_path / "journal.db"
    evil = "\x1b[2J\x1b]0;owned\x07\nEVERYTHING IS FINE"
    leave_open(path, a="x")
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE action SET saga = ?", [evil])
        db.execute("UPDATE saga SET id = ?", [evil])
        db.commit()
    more = {"recover": ["--registry", "undoing:registry"], "discard": [evil, "--reason", "r"]}
    main([verb, str(path), *more.get(verb, [] if verb == "list" else [evil])])
    out, err = capsys.readouterr()
    assert r"\x1b[2J" in out
    assert not set("\x1b\x07").intersection(out + err)
    assert not any(line.startswith("EVERYTHING") for line in out.splitlines())


@pytest.mark.skipif(bool(os.getuid()), reason="needs root, to be another user")
def test_another_user_who_may_not_read_a_journal_gets_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.syspath_prepend("tests/support")  # pyright: ignore[reportUnknownMemberType]
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        path = Path(name) / "journal.db"
        leave_open(path, a="x")
        leave_open(Path(name) / "own.db", a="x")
        commands = ["list"], ["show", "a"], ["recover", "--registry", "undoing:registry"]
        for command in commands:  # here first, so that the other user has nothing to import
            _ = main([command[0], f"{name}/own.db", *command[1:]])
        _ = capfd.readouterr()
        before = sorted(Path(name).iterdir())

        def as_nobody(command: list[str]) -> None:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os._exit(main([command[0], str(path), *command[1:]]))

        for command in commands:
            if (child := os.fork()) == 0:
                try:
                    as_nobody(command)
                finally:
                    os._exit(99)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
            out, err = capfd.readouterr()
            assert out == ""
            assert re.fullmatch(rf"journal {path}: .+\n", err)
        assert sorted(Path(name).iterdir()) == before


def test_nothing_imports_the_command() -> None:
    program = (
        "import sys, returns_pipeline, returns_pipeline.journal\n"
        "ends = ('journal._cli', 'journal._display', 'journal._parser')\n"
        "print([name for name in sys.modules if name.endswith(ends)])"
    )
    assert python("-c", program, cwd=Path.cwd()).stdout == "[]\n"
