"""Run tests of scopes in memory and on each journal: one claim, one test, everywhere.

A test module says ``pytestmark = everywhere``. Scopes that are made without a journal then get one,
and undo actions that are in no registry are put into one when they are registered. What a scope
promises is the same on a journal; a test that is about memory alone says `memory_only`, and why.
A test that takes seconds on a journal says `slow_on_journals`: there it is among the slow tests.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

from returns_pipeline.compensation import Compensation, CompensationScope
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from returns_pipeline.compensation import Journal
    from returns_pipeline.journal import PostgresJournal, SqliteJournal

T = TypeVar("T")

everywhere = pytest.mark.usefixtures("kept_in")
memory_only = pytest.mark.memory_only
slow_on_journals = pytest.mark.slow_on_journals

KINDS = ("memory", "sqlite", "postgres")
# In a browser there are no threads, files or sockets, and so no journals.
if sys.platform == "emscripten":
    KINDS = KINDS[:1]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each place that its scopes can be kept in."""
    if "kept_in" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker
    on_journals = [
        pytest.param(kind, marks=[pytest.mark.slow] if marker("slow_on_journals") else [])
        for kind in KINDS[1:]
    ]
    kinds = [KINDS[0], *(() if marker("memory_only") else on_journals)]
    metafunc.parametrize("kept_in", kinds, indirect=True)


@pytest.fixture
def kept_in(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[str]:
    """Keep the undo actions of all scopes there."""
    kind = cast("str", request.param)
    if kind == "memory":
        yield kind
        return
    # Not before, so that the tests in memory run where no journal does.
    from returns_pipeline.journal import PostgresJournal, SqliteJournal
    from returns_pipeline.journal.postgres import _journal as postgres
    from returns_pipeline.journal.sqlite import _journal as sqlite

    journal: SqliteJournal | PostgresJournal
    if kind == "sqlite":
        journal = SqliteJournal(tmp_path / "journal.db")
    else:
        dsn, schema = cast("tuple[str, str]", request.getfixturevalue("journal_schema"))
        journal = PostgresJournal(dsn, schema=schema)
    _keep_in(journal, monkeypatch)
    # Tests register whatever they like, also what only this process can hold.
    for module in sqlite, postgres:
        monkeypatch.setattr(
            module, "encode_arguments", lambda intent: json.dumps(repr(intent.args))
        )

    # Where it is used it is closed: a connection belongs to its loop, and a task is a leak.
    def run_and_close(main: Awaitable[T], /) -> T:
        async def whole() -> T:
            try:
                return await main
            finally:
                await journal.close()

        return run(whole())

    monkeypatch.setattr(request.module, "run", run_and_close)
    yield kind


def _keep_in(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    make, register = CompensationScope.__init__, CompensationScope.register

    @functools.wraps(make)
    def made(self: CompensationScope, name: str = "", **kwargs: Any) -> None:
        make(self, name, **{"journal": journal, **kwargs})

    @functools.wraps(register)
    async def registered(
        self: CompensationScope, undo: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> None:
        await register(self, _known(undo), *args, **kwargs)

    monkeypatch.setattr(CompensationScope, "__init__", made)
    monkeypatch.setattr(CompensationScope, "register", registered)


def _known(undo: Callable[..., Any]) -> Callable[..., Any]:
    """Return it as a compensation of the same name."""
    bare: object = undo
    while isinstance(bare, functools.partial):
        bare = bare.func
    if isinstance(bare, Compensation) or not callable(undo):
        return undo
    name: object = getattr(bare, "__qualname__", None)
    return Compensation(
        name if isinstance(name, str) else type(bare).__qualname__,
        undo,
        RetryPolicy(attempts=1),
        None,
    )
