"""What all tests share: the settings of Hypothesis, the hint about slow tests, PostgreSQL."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4
from weakref import WeakKeyDictionary

import hypothesis
import pytest
from servers import absent

from returns_pipeline.testing import VirtualTimeLoop

pytest_plugins = ["pytester", "everywhere"]

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

# A loaded machine makes an example slow, not wrong: no limit on the wall clock.
hypothesis.settings.register_profile("returns_pipeline", deadline=None)
hypothesis.settings.load_profile("returns_pipeline")

POSTGRES = os.environ.get("RETURNS_PIPELINE_POSTGRES", "postgresql://root@127.0.0.1:5432/test")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--eager-tasks",
        action="store_true",
        help="run the tests under asyncio.eager_task_factory (Python 3.12 and later)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Bound every test on virtual time; with ``--eager-tasks``, start all tasks eagerly."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts programs in the background so, and their children inherit it: tests that
        # interrupt one would see it end as if nothing had happened.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _refuse_to_spin()
    if not config.option.eager_tasks:
        return
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        raise pytest.UsageError("--eager-tasks needs Python 3.12 or later")
    make = asyncio.BaseEventLoop.__init__

    def eager(loop: asyncio.BaseEventLoop) -> None:
        make(loop)
        loop.set_task_factory(factory)

    asyncio.BaseEventLoop.__init__ = eager  # type: ignore[method-assign, assignment]


# So many turns of a loop at one point of virtual time are a wait that spins: the test fails.
MAX_TURNS = 100_000


def _refuse_to_spin() -> None:
    """Make a loop on virtual time fail where it would hang, because it never comes to rest."""
    one_turn: Callable[[VirtualTimeLoop], None] = vars(asyncio.BaseEventLoop)["_run_once"]
    turns: WeakKeyDictionary[VirtualTimeLoop, tuple[float, int]] = WeakKeyDictionary()

    def bounded(loop: VirtualTimeLoop) -> None:
        now = loop.time()
        before, count = turns.get(loop, (now, 0))
        turns[loop] = now, count + 1 if now == before else 0
        assert count < MAX_TURNS, f"the loop spins: {count} turns at {now:g} s"
        one_turn(loop)

    vars_of_loop: Any = VirtualTimeLoop
    vars_of_loop._run_once = bounded


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the order of tasks that do not start eagerly."""
    for item in items if config.option.eager_tasks else ():
        if item.get_closest_marker("not_eager"):
            item.add_marker(pytest.mark.skip(reason="about tasks that do not start eagerly"))


@pytest.fixture(scope="module", autouse=True)
def _spare_the_collector() -> None:
    """Keep what earlier files have left, like all of mypy's tables, out of this file's collections.

    Many tests collect garbage again and again, and a collection takes as long as what is alive.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None]:
    """Print how to run the slow tests, after a run that left them out."""
    yield
    if config.option.markexpr == "not slow":
        terminalreporter.section("the slow tests were left out")
        terminalreporter.line("only the slow ones: pytest -m slow")
        terminalreporter.line('all of them:        pytest -m "slow or not slow"')


@pytest.fixture
def postgres_dsn() -> Iterator[str]:
    """Yield a DSN whose sessions see a schema of the test's own, and nothing else.

    The server is `RETURNS_PIPELINE_POSTGRES`, a local one by default. Without one the test is
    skipped; where `CI` is set it fails.
    """
    schema = f"test_{uuid4().hex}"
    _reach(f"CREATE SCHEMA {schema}")
    try:
        parts = urlsplit(POSTGRES)
        options = f"options={quote(f'-csearch_path={schema}')}"
        query = f"{parts.query}&{options}" if parts.query else options
        yield urlunsplit(parts._replace(query=query))
    finally:
        _execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def postgres_database() -> Iterator[str]:
    """Yield the DSN of a database of the test's own."""
    name = f"test_{uuid4().hex}"
    _reach(f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(POSTGRES)._replace(path=f"/{name}"))
    finally:
        _execute(f"DROP DATABASE {name} WITH (FORCE)")


def _reach(statement: str = "SELECT 1") -> None:
    """Run a statement; without a server, skip or fail."""
    try:
        _execute(statement)
    except OSError as error:
        absent(f"PostgreSQL at {POSTGRES}: {error}")


@pytest.fixture(scope="module")
def journal_schema() -> Iterator[tuple[str, str]]:
    """Yield a DSN and the name of a schema for the journals of one file: `recover` takes all."""
    schema = f"test_{uuid4().hex}"
    _reach()
    yield POSTGRES, schema
    _execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def _execute(statement: str) -> None:
    """Run one statement, in a loop that the test's own cannot meet."""
    asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")
    failures: list[BaseException] = []

    async def execute() -> None:
        connection = await asyncpg.connect(POSTGRES, timeout=5)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def main() -> None:
        try:
            asyncio.run(execute())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
