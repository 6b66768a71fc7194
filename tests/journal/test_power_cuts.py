"""The power fails at any moment: what was said to be on record is, and what was committed is not.

A process is traced while it writes. From the log of its writes the disk is rebuilt as it may be
after a cut: all that was synced before is there; of what was not, any part, in any order, and torn.
It looks at 120 states; with ``RETURNS_PIPELINE_LONGER=50`` at 6,000.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from servers import absent
from writing import registry

from returns_pipeline.journal import SqliteJournal, recover

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[1] / "support" / "writing.py"
STATES = 120 * int(os.environ.get("RETURNS_PIPELINE_LONGER") or 1)
SECTOR = 512
CALLS = "pwrite64,write,fsync,fdatasync,ftruncate,unlink"
LINE = re.compile(rb"(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)")
PATH = re.compile(rb"^\d+<((?:\\x..)+)>")
TEXT = re.compile(rb'"((?:\\x..)*)"')


class Event(NamedTuple):
    """Something that happened to a file, or was said.

    Attributes:
        kind: "write", "sync", "truncate", "unlink" or "told".
        file: The name of the file; of what was told, the words.
        at: The offset, or the size.
        data: What was written.
    """

    kind: str
    file: str
    at: int = 0
    data: bytes = b""


def plain(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode())


def events_of(trace: Path) -> list[Event]:
    """Return what is in a trace of strace, of the files of the journal alone."""
    found: list[Event] = []
    begun: dict[bytes, bytes] = {}
    for line in trace.read_bytes().splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        thread, call, rest = match.groups()
        resumed = b" resumed>" in line
        if rest.endswith(b"<unfinished ...>"):
            begun[thread] = rest
            if call in {b"fsync", b"fdatasync"}:
                continue  # it counts when it has ended
        elif resumed:
            if call not in {b"fsync", b"fdatasync"}:
                continue  # it counted when it began
            rest = begun.pop(thread)
        name = call.decode()
        if name == "unlink":
            path = TEXT.search(rest)
            if path is not None:
                found.append(Event("unlink", Path(plain(path[1]).decode()).name))
            continue
        where = PATH.match(rest)
        file = Path(plain(where[1]).decode(errors="replace")).name if where is not None else ""
        text = TEXT.search(rest)
        numbers = re.findall(rb", (\d+)", TEXT.sub(b"", rest))
        if name == "write" and text is not None:
            said = plain(text[1]).decode(errors="replace")
            found += [Event("told", words) for words in re.findall(r"told (.*)\n", said)]
        elif name == "pwrite64" and text is not None:
            found.append(Event("write", file, int(numbers[-1]), plain(text[1])))
        elif name == "ftruncate":
            found.append(Event("truncate", file, int(numbers[0])))
        elif name in {"fsync", "fdatasync"}:
            found.append(Event("sync", file))
    return [e for e in found if e.kind == "told" or e.file in {"j.db", "j.db-wal", "j.db-journal"}]


def apply(files: dict[str, bytearray], event: Event, size: int | None = None) -> None:
    """Do to the files what happened; of a write, only so many bytes."""
    if event.kind == "unlink":
        _ = files.pop(event.file, None)
        return
    content = files.setdefault(event.file, bytearray())
    if event.kind == "truncate":
        del content[event.at :]
        return
    data = event.data[:size]
    content.extend(bytes(max(0, event.at + len(data) - len(content))))
    content[event.at : event.at + len(data)] = data


def cut(events: list[Event], dice: random.Random) -> dict[str, bytearray]:
    """Return the files as they may be when the power fails after these events."""
    files: dict[str, bytearray] = {}
    unsynced: list[Event] = []
    for event in events:
        if event.kind == "told":
            continue
        if event.kind in {"sync", "unlink"}:  # SQLite syncs the directory, and needs no more
            for waiting in [e for e in unsynced if e.file == event.file]:
                if event.kind == "sync":
                    apply(files, waiting)
                unsynced.remove(waiting)
        if event.kind == "unlink":
            apply(files, event)
        elif event.kind != "sync":
            unsynced.append(event)
    for event in unsynced if dice.random() < 0.5 else dice.sample(unsynced, len(unsynced)):
        if dice.random() < 0.5:
            torn = dice.random() < 0.3
            apply(files, event, dice.randrange(0, len(event.data) + 1, SECTOR) if torn else None)
    return files


async def check(place: Path, told: list[str]) -> None:
    """Check that the journal has what was told, and that it can be recovered."""
    said = set(told)
    async with SqliteJournal(place / "j.db") as journal:
        states = {
            int(re.findall(r"\d+", action.arguments)[0]): action.state
            for saga in await journal.sagas()
            for action in saga.actions
        }
        for words in said:
            what, number = words.split()
            n = int(number)
            if what == "recorded" and not said & {f"commits {n}", f"undoes {n}"}:
                assert states.get(n) == "pending", words
            elif what == "committed":
                assert n not in states, words
            elif what == "undone":
                assert states.get(n) == "done", words
        assert {f"records {n}" for n in states} <= said
        left = [n for n, state in states.items() if state == "pending"]
        done = [entry.args for report in await recover(journal, registry) for entry in report.done]
        assert sorted(done) == sorted((n,) for n in left)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    strace = shutil.which("strace")
    if strace is None:
        absent("strace")
    place = tmp_path_factory.mktemp("traced")
    trace = place / "trace"
    options = ["-f", "-y", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-o", str(trace)]
    done = subprocess.run(
        [strace, *options, sys.executable, str(PROGRAM), str(place / "j.db")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])},
    )
    if "ptrace" in done.stderr:
        pytest.skip("processes may not be traced here")
    assert done.returncode == 0, done.stderr
    return events_of(trace)


def test_whenever_the_power_fails_the_journal_has_what_it_said(
    events: list[Event], tmp_path: Path
) -> None:
    kinds = [event.kind for event in events]
    assert kinds.count("told") > 50
    assert kinds.count("sync") > 20
    for number in range(STATES):
        dice = random.Random(number)
        at = dice.randrange(len(events) + 1)
        place = tmp_path / str(number)
        place.mkdir()
        for name, content in cut(events[:at], dice).items():
            (place / name).write_bytes(content)
        told = [event.file for event in events[:at] if event.kind == "told"]
        try:
            asyncio.run(check(place, told))
        except BaseException as error:
            error.add_note(f"state {number}, after {at} of {len(events)} events: {told[-6:]}")
            raise
        shutil.rmtree(place)


def test_a_journal_that_does_not_sync_would_be_found_out(
    events: list[Event], tmp_path: Path
) -> None:
    """The same cuts, had nothing been synced after the tables were made, break the promises."""
    first = next(n for n, event in enumerate(events) if event.file == "recorded 0")
    lax = [e for n, e in enumerate(events) if n < first or e.kind != "sync"]
    for number in range(STATES):
        dice = random.Random(number)
        at = dice.randrange(first, len(lax) + 1)
        place = tmp_path / str(number)
        place.mkdir()
        for name, content in cut(lax[:at], dice).items():
            (place / name).write_bytes(content)
        try:
            asyncio.run(check(place, [event.file for event in lax[:at] if event.kind == "told"]))
        except Exception:
            return
        shutil.rmtree(place)
    pytest.fail("nothing was lost")
