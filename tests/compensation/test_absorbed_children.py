"""Open children of a scope that another root absorbs belong to that root in the journal, too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from meddling import Meddler, MeddlingJournal

from returns_pipeline.compensation import CompensationRegistry, CompensationScope
from returns_pipeline.errors import JournalUnavailable
from returns_pipeline.journal import SqliteJournal
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from pathlib import Path

registry = CompensationRegistry()
undone: list[str] = []


@registry.compensation("undo")
async def undo(name: str) -> None:
    """Record the call."""
    undone.append(name)


@pytest.fixture(autouse=True)
def _clean() -> None:
    undone.clear()


async def on_record(journal: SqliteJournal) -> list[str]:
    """Return the names on record, the newest first, of each saga."""
    await journal.flush()
    sagas = await journal.sagas(done=False)
    return ["".join(it.arguments[-3] for it in saga.actions) for saga in sagas]


def test_what_is_committed_in_an_absorbed_child_leaves_the_rest_in_one_saga(tmp_path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(tmp_path / "journal.db") as journal:
            root, other = (CompensationScope(name, journal=journal) for name in ("root", "other"))
            child = other.child("child")
            await root.register(undo, "1")
            await child.register(undo, "2")
            root.absorb(other)
            await child.commit()
            await root.register(undo, "3")
            assert await on_record(journal) == ["31"]
            await root.compensate()

    run(main())
    assert undone == ["3", "1"]


@pytest.mark.parametrize("then", ["open", "rolling back"])
def test_a_commit_of_a_child_that_is_refused_after_the_absorption_belongs_to_the_root(
    tmp_path: Path, then: str
) -> None:
    async def main() -> None:
        async with SqliteJournal(tmp_path / "journal.db") as real:
            meddler = Meddler({"forget": 10.0}, refused=range(4, 5))
            journal = MeddlingJournal(real, meddler)
            root, other = (CompensationScope(name, journal=journal) for name in ("root", "other"))
            child = other.child("child")
            for name, scope in [("1", root), ("2", child), ("3", root)]:
                await scope.register(undo, name)
            committing = asyncio.create_task(child.commit())
            await asyncio.sleep(1)
            root.absorb(other)
            assert child.state == "committing"
            if then == "open":
                with pytest.raises(JournalUnavailable):
                    await committing
                assert await on_record(real) == ["321"]
                await child.commit()
                await root.register(undo, "4")
                assert await on_record(real) == ["431"]
            await root.compensate()
            assert await on_record(real) == []
            assert committing.done()
            await CompensationScope("later", journal=journal).commit()

    run(main())
    assert undone == (["4", "3", "1"] if then == "open" else ["3", "2", "1"])


def test_a_commit_of_a_child_that_is_answered_after_the_absorption_stands(tmp_path: Path) -> None:
    async def main() -> None:
        async with SqliteJournal(tmp_path / "journal.db") as real:
            journal = MeddlingJournal(real, Meddler({"forget": 10.0}))
            root, other = (CompensationScope(name, journal=journal) for name in ("root", "other"))
            child = other.child("child")
            for name, scope in [("1", root), ("2", child), ("3", root)]:
                await scope.register(undo, name)
            committing = asyncio.create_task(child.commit())
            await asyncio.sleep(15)  # it was carried out, and not answered
            root.absorb(other)
            assert child.state == "committing"
            await committing
            await root.register(undo, "4")
            assert await on_record(real) == ["431"]
            await root.compensate()

    run(main())
    assert undone == ["4", "3", "1"]
