"""The commit at a saga's pivot is presumed: a journal that refuses it writes it later."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import time
import warnings
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from returns.result import Result, Success
from undoing import in_child, note, registry, undone

from returns_pipeline import to_result
from returns_pipeline.compensation import CompensationScope
from returns_pipeline.context import StepContext
from returns_pipeline.errors import JournalError, JournalUnavailable, LeaseLost
from returns_pipeline.journal import PostgresJournal, SqliteJournal, recover
from returns_pipeline.journal.postgres import _writer as writer
from returns_pipeline.journal.postgres._connection import ServerConnection
from returns_pipeline.journal.sqlite import _group_commit as group_commit
from returns_pipeline.saga import Saga

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.journal.conftest import Child, Place, Wire

AnyJournal: TypeAlias = "SqliteJournal | PostgresJournal"


class Store:
    """A place for journals that another process can lock."""

    def __init__(self, path: Path, place: Place | None) -> None:
        self._path = path
        self._place = place

    def __call__(self, patience: float = 10.0) -> AnyJournal:
        if self._place is None:
            return SqliteJournal(self._path, patience=patience)
        return self._place(patience=patience)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Keep every journal from writing."""
        if self._place is None:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                yield
            return
        async with self._place.database() as database:
            await database.execute(f"BEGIN; LOCK TABLE {self._place.schema}.action IN SHARE MODE")
            yield

    async def orphan(self) -> None:
        """Make another owner of all sagas, as if it had recovered them."""
        statement = "UPDATE {}saga SET owner = '', epoch = epoch + 1"
        if self._place is not None:
            await self._place.execute(statement.format("{schema}."))
            return
        with closing(sqlite3.connect(self._path, isolation_level=None)) as database:
            database.execute(statement.format(""))

    async def bury(self) -> None:
        """End the leases of all owners: the dead would hold theirs for a while."""
        if self._place is not None:
            await self._place.execute(
                "UPDATE {schema}.owner SET expires = clock_timestamp() WHERE expires IS NOT NULL"
            )

    async def has_no_requests(self) -> bool:
        """Whether no request of a dead process waits in the server."""
        if self._place is None:
            return True
        await asyncio.sleep(0.5)
        return not await self.has_requests()

    async def has_requests(self) -> bool:
        """Whether a request waits in the server for the lock."""
        assert self._place is not None
        relation = f"'{self._place.schema}.action'::regclass"
        waiting = f"SELECT count(*) > 0 FROM pg_locks WHERE relation = {relation} AND NOT granted"
        return bool(await self._place.value(waiting))

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        end = time.monotonic() + 20
        while not await condition():
            assert time.monotonic() < end
            await asyncio.sleep(0.02)


@pytest.fixture(params=["sqlite", "session", "lease"])
def store(path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(group_commit, "_RETRY_DELAY", 0.05)
    monkeypatch.setattr(writer, "_PAUSE", 0.05)
    if request.param == "sqlite":
        return Store(path, None)
    place: Place = request.getfixturevalue("place")
    place.options["liveness"] = request.param
    return Store(path, place)


class Shop:
    """A saga whose commit at its pivot can be met."""

    def __init__(self, *, at_pivot: Callable[[], Awaitable[None]]) -> None:
        self.at_pivot = at_pivot
        self.mailed = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def reserve(self, _: str, own: StepContext) -> Result[str, str]:
        await own.register(note, "reserved")
        return Success("r")

    async def charge(self, _: str) -> Result[str, str]:
        await self.at_pivot()
        return Success("c")

    async def mail(self, _: str) -> Result[str, str]:
        self.mailed.set()
        await self.may_end.wait()
        return Success("m")

    async def sell(self, journal: AnyJournal) -> Result[str, str]:
        saga = Saga("sale").step("reserve", self.reserve).step("charge", self.charge).pivot()
        ctx = StepContext("shop", journal=journal)
        return await to_result(ctx.run(saga.step("mail", self.mail).run("", ctx)))


async def no_lock() -> None: ...


async def is_empty(journal: AnyJournal) -> bool:
    return await journal.sagas(done=False) == []


def test_a_refused_commit_at_a_pivot_is_written_by_itself_and_the_saga_continues(
    store: Store,
) -> None:
    async def main() -> None:
        async with store(0.4) as journal, store() as other:
            lock = store.locked()
            shop = Shop(at_pivot=lock.__aenter__)
            shop.may_end.clear()
            selling = asyncio.create_task(shop.sell(journal))
            await shop.mailed.wait()  # although the journal has refused
            with pytest.raises(JournalUnavailable):
                await journal.flush()
            assert not await is_empty(other)
            await lock.__aexit__(None, None, None)
            await store.until(partial(is_empty, other))  # without another request
            shop.may_end.set()
            assert await selling == Success("m")
            await journal.close()
            assert await recover(other, registry) == []

    asyncio.run(main())
    assert undone == []


def test_a_saga_has_not_succeeded_as_long_as_the_commit_at_its_pivot_is_not_durable(
    store: Store,
) -> None:
    async def main() -> None:
        async with store(0.4) as journal, store() as other:
            lock = store.locked()
            shop = Shop(at_pivot=lock.__aenter__)
            with pytest.raises(JournalUnavailable):
                await shop.sell(journal)
            assert shop.mailed.is_set()
            await lock.__aexit__(None, None, None)
            await journal.flush()
            assert await is_empty(other)

    asyncio.run(main())
    assert undone == []


def test_a_saga_cancelled_before_its_refused_commit_is_written_undoes_nothing(store: Store) -> None:
    async def main() -> None:
        async with store(0.4) as journal, store() as other:
            lock = store.locked()
            shop = Shop(at_pivot=lock.__aenter__)
            shop.may_end.clear()
            selling = asyncio.create_task(shop.sell(journal))
            await shop.mailed.wait()
            selling.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await selling
            assert "is past its pivot: nothing of it is undone here" in str(
                cancelled.value.__notes__
            )
            assert not await is_empty(other)
            await lock.__aexit__(None, None, None)
            await store.until(partial(is_empty, other))

    asyncio.run(main())
    assert undone == []


def test_a_process_forked_before_a_refused_commit_is_written_leaves_it_to_its_parent(
    store: Store,
) -> None:
    async def main() -> None:
        async with store(0.4) as journal, store() as other:

            async def child() -> None:
                with pytest.raises(JournalError):
                    await journal.flush()
                with pytest.raises(JournalError):
                    await Shop(at_pivot=no_lock).sell(journal)
                with suppress(JournalError):
                    await journal.close()

            lock = store.locked()
            shop = Shop(at_pivot=lock.__aenter__)
            shop.may_end.clear()
            selling = asyncio.create_task(shop.sell(journal))
            await shop.mailed.wait()
            assert in_child(child) == 0
            await lock.__aexit__(None, None, None)
            await store.until(partial(is_empty, other))
            shop.may_end.set()
            assert await selling == Success("m")

    asyncio.run(main())
    assert undone == []


def test_closing_the_journal_writes_the_commit_or_raises(store: Store) -> None:
    async def main() -> None:
        async with store() as other:
            for locked in (False, True):
                journal = store(0.4)
                lock = store.locked()
                with pytest.raises(JournalUnavailable):
                    await Shop(at_pivot=lock.__aenter__).sell(journal)
                if locked:
                    with pytest.raises(JournalUnavailable, match="were not written, and will be"):
                        await journal.close()
                await lock.__aexit__(None, None, None)
                await journal.close()
                assert len(await recover(other, registry)) == locked

    asyncio.run(main())
    assert undone == ["reserved"]


def test_what_another_process_has_taken_over_is_left_to_it(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "_RETRY_DELAY", 3600.0)
    monkeypatch.setattr(writer, "_PAUSE", 3600.0)

    async def main() -> None:
        async with store(0.4) as journal, store() as other:
            lock = store.locked()
            with pytest.raises(JournalUnavailable):
                await Shop(at_pivot=lock.__aenter__).sell(journal)
            await lock.__aexit__(None, None, None)
            await store.orphan()  # as after a lease that ended while the server was away
            assert len(await recover(other, registry)) == 1
            assert "past their pivot" not in caplog.text
            await journal.flush()
            assert "past their pivot" in caplog.text

    asyncio.run(main())
    assert undone == ["reserved"]


def test_a_saga_whose_actions_are_taken_over_after_its_pivot_ends_with_lease_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "_RETRY_DELAY", 3600.0)
    monkeypatch.setattr(writer, "_PAUSE", 3600.0)

    async def main() -> None:
        async with store(0.4) as journal, store() as other:
            lock = store.locked()
            shop = Shop(at_pivot=lock.__aenter__)
            shop.may_end.clear()
            selling = asyncio.create_task(shop.sell(journal))
            await shop.mailed.wait()
            with pytest.raises(JournalUnavailable):
                await journal.flush()  # no attempt is under way any more
            await lock.__aexit__(None, None, None)
            await store.orphan()
            assert len(await recover(other, registry)) == 1
            shop.may_end.set()
            with pytest.raises(LeaseLost):
                await selling
            # It was told: others, and later sagas, are not concerned.
            assert await Shop(at_pivot=no_lock).sell(journal) == Success("m")

    asyncio.run(main())
    assert undone == ["reserved"]


def test_a_saga_does_not_succeed_if_the_journal_was_closed_and_reopened_after_its_pivot(
    store: Store,
) -> None:
    async def main() -> None:
        async with store() as other:
            journal, lock = store(0.4), store.locked()
            shop = Shop(at_pivot=lock.__aenter__)
            shop.may_end.clear()
            selling = asyncio.create_task(shop.sell(journal))
            await shop.mailed.wait()
            with pytest.raises(JournalUnavailable):
                await journal.close()
            await lock.__aexit__(None, None, None)
            async with journal:
                shop.may_end.set()
                with pytest.raises(JournalUnavailable, match="were not written, and will be"):
                    await selling
            assert len(await recover(other, registry)) == 1

    asyncio.run(main())
    assert undone == ["reserved"]


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("what", ["flush", "close"])
def test_commits_that_are_lost_with_their_loop_are_reported(
    place: Place, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    # A log record would keep the traceback, and so the connection, beyond the test.
    caplog.set_level("CRITICAL", "returns_pipeline")
    store, journals = Store(Path(), place), []

    async def sell() -> None:
        async with store():
            pass
        journals.append(journal := store(0.4))
        lock = store.locked()
        with pytest.raises(JournalUnavailable):
            await Shop(at_pivot=lock.__aenter__).sell(journal)
        await lock.__aexit__(None, None, None)

    async def then() -> None:
        (journal,) = journals
        async with store() as other:
            with pytest.raises(JournalUnavailable, match="were not written, and will be undone"):
                await getattr(journal, what)()
            await journal.flush()  # it is reported once
            await journal.close()

            async def is_recovered() -> bool:
                return bool(await recover(other, registry))

            await store.until(is_recovered)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(sell())
        asyncio.run(then())
        journals.clear()
        gc.collect()  # asyncio warns of connections that were not closed
    assert undone == ["reserved"]


@pytest.mark.parametrize("liveness", ["session", "lease"])
def test_a_commit_is_lost_even_if_the_process_that_undid_it_has_nothing_on_record_any_more(
    place: Place, liveness: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_PAUSE", 3600.0)
    place.options |= {"liveness": liveness, "retention": 0.0}
    store = Store(Path(), place)

    async def main() -> None:
        async with store(0.4) as journal, store() as other:
            lock = store.locked()
            shop = Shop(at_pivot=lock.__aenter__)
            shop.may_end.clear()
            selling = asyncio.create_task(shop.sell(journal))
            await shop.mailed.wait()
            with pytest.raises(JournalUnavailable):
                await journal.flush()
            await lock.__aexit__(None, None, None)
            await store.orphan()
            assert len(await recover(other, registry)) == 1
            await recover(other, registry)  # this deletes what is done
            assert await place.value("SELECT count(*) FROM {schema}.action") == 0
            shop.may_end.set()
            with pytest.raises(LeaseLost):
                await selling

    asyncio.run(main())
    assert undone == ["reserved"]


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("later", [False, True])
def test_a_commit_without_an_answer_is_known_later_to_be_carried_out_or_not(
    make: Place, carried_out: bool, later: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if batches were carried out since, and it is gone because others have forgotten it."""
    monkeypatch.setattr(writer, "_PAUSE", 3600.0)
    make.options["retention"] = 0.0
    real = ServerConnection.apply

    async def apply(own: Any, *args: Any) -> list[Any]:
        if carried_out:
            await real(own, *args)
        raise ConnectionResetError

    async def main() -> None:
        async with make() as journal, make() as other:
            scope = CompensationScope("s", journal=journal)
            await scope.register(note, "1")
            journal._writer.delivery.patience = 0.05
            ids = list(journal._ledger.actions)
            scope._records = []  # otherwise it warns when it is collected
            lost: list[JournalError] = []
            with monkeypatch.context() as patch:
                patch.setattr(ServerConnection, "apply", apply)
                with pytest.raises(JournalUnavailable):
                    if later:
                        journal.forget_later(ids, lost.append)
                        await journal.flush()
                    else:
                        await journal.forget(ids)
            journal._writer.delivery.patience = 10.0
            await Store(Path(), make).orphan()
            for _ in range(2):
                await recover(other, registry)
            assert await make.value("SELECT count(*) FROM {schema}.action") == 0
            if not later:
                await journal._writer.ask("nothing")
                journal.forget_later(ids, lost.append)
            await journal.flush()
            assert len(lost) == (not carried_out)

    asyncio.run(main())
    assert undone == ["1"] * (not carried_out)


@pytest.mark.slow
@pytest.mark.parametrize(("taken_over", "retention"), [(False, 9e9), (True, 9e9), (True, 0.0)])
@pytest.mark.parametrize("delivers", [False, True])
@pytest.mark.parametrize("left", [1, 2])
@pytest.mark.parametrize("liveness", ["session", "lease"])
def test_what_a_saga_returns_is_true_wherever_the_connection_is_lost_at_its_pivot(
    liveness: str,
    left: int,
    delivers: bool,
    taken_over: bool,
    retention: float,
    place: Place,
    wire: Callable[[str], Wire],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commit may be on record although it was refused. Then it cannot be taken over."""
    monkeypatch.setattr(writer, "_PAUSE", 0.05)
    place.options |= {"liveness": liveness, "retention": retention}
    store = Store(Path(), place)

    async def main() -> bool:
        async with store() as other, wire(place.dsn) as to_server:

            async def at_pivot() -> None:
                to_server.left, to_server.delivers, to_server.closes = left, delivers, True
                journal._writer.delivery.patience = 0.3

            shop = Shop(at_pivot=at_pivot)
            shop.may_end.clear()
            async with place(dsn=to_server.dsn) as journal:
                selling = asyncio.create_task(shop.sell(journal))
                await shop.mailed.wait()
                journal._writer.delivery.patience = 10.0
                if taken_over:
                    await store.bury()
                    await asyncio.sleep(0.1)  # until the server sees that the connection has ended
                    for _ in range(2):
                        await recover(other, registry)
                to_server.closes = to_server.closed = False
                to_server.left = -1
                shop.may_end.set()
                try:
                    assert await selling == Success("m")
                except LeaseLost:
                    return True
                assert await is_empty(other)
                return False

    lost = asyncio.run(main())
    assert lost == (undone == ["reserved"])
    assert not lost or taken_over


@pytest.mark.parametrize("back", [False, True])
def test_a_process_that_is_killed_after_its_pivot_was_refused(
    store: Store, child: type[Child], back: bool
) -> None:
    """Only what is on record counts then: a pivot that could not be written did not happen."""

    async def dies(child: Child) -> None:
        async def at_pivot() -> None:
            child.say("charged")
            child.hear()

        shop = Shop(at_pivot=at_pivot)
        shop.may_end.clear()
        async with store(0.4) as journal:
            selling = asyncio.create_task(shop.sell(journal))
            await shop.mailed.wait()
            child.say("mailed")
            await selling

    async def prepare() -> None:
        async with store():  # the tables exist before the two processes meet
            pass

    async def main() -> None:
        with child(dies) as process:  # first, because an open journal cannot be used in a fork
            async with store() as other:
                assert await asyncio.to_thread(process.line) == "charged"
                async with store.locked():
                    process.tell()
                    assert await asyncio.to_thread(process.line) == "mailed"
                    if not back:
                        process.signal(9)
                        await store.until(store.has_no_requests)
                await check(other, process)

    async def check(other: AnyJournal, process: Child) -> None:
        if back:
            await store.until(partial(is_empty, other))
            process.signal(9)
        await store.bury()

        async def is_recovered() -> bool:
            return bool(await recover(other, registry)) or await is_empty(other)

        await store.until(is_recovered)

    asyncio.run(prepare())
    asyncio.run(main())
    assert undone == ([] if back else ["reserved"])


@pytest.mark.parametrize("written", [False, True])
def test_a_process_that_is_killed_in_the_transaction_that_writes_the_commit_of_its_pivot(
    path: Path, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the transaction is on disk nothing of it is on record, and after it everything."""
    monkeypatch.setattr(group_commit, "_RETRY_DELAY", 0.05)

    async def dies() -> None:
        journal, store = SqliteJournal(path, patience=0.2), Store(path, None)
        delete_rest, commit = journal._store.ledger.delete_rest, journal._store.commit

        def commit_and_die(db: sqlite3.Connection) -> None:
            if written:
                commit(db)
            os.kill(os.getpid(), signal.SIGKILL)

        def watched(*args: Any) -> None:
            delete_rest(*args)
            monkeypatch.setattr(journal._store, "commit", commit_and_die)

        monkeypatch.setattr(journal._store.ledger, "delete_rest", watched)
        lock = store.locked()
        shop = Shop(at_pivot=lock.__aenter__)
        shop.may_end.clear()
        async with journal:
            selling = asyncio.create_task(shop.sell(journal))
            await shop.mailed.wait()
            await lock.__aexit__(None, None, None)
            await asyncio.wait({selling}, timeout=20)
            raise AssertionError("it was not killed")

    async def then() -> None:
        async with SqliteJournal(path) as journal:
            await recover(journal, registry)
            assert await journal.sagas(done=False) == []

    assert in_child(dies) == 0
    asyncio.run(then())
    assert undone == ([] if written else ["reserved"])


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before it is sent", "before it is answered", "answered"])
@pytest.mark.parametrize("liveness", ["session", "lease"])
def test_a_process_that_is_killed_while_postgres_writes_the_commit_of_its_pivot(
    liveness: str,
    when: str,
    place: Place,
    child: type[Child],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server carries out what it was sent, or not: then it is undone, and never both."""
    place.options["liveness"] = liveness
    store = Store(Path(), place)

    async def dies(child: Child) -> None:
        real = ServerConnection.apply

        async def apply(own: Any, *args: Any) -> list[Any]:
            if not any(step.get("expected") for step in args[-1]):
                return await real(own, *args)
            child.say("late")
            child.hear()
            if when == "before it is sent":
                os.kill(os.getpid(), signal.SIGKILL)
            answers = await real(own, *args)
            os.kill(os.getpid(), signal.SIGKILL)
            return answers

        async def at_pivot() -> None:
            child.say("charged")
            child.hear()

        monkeypatch.setattr(ServerConnection, "apply", apply)
        async with store(0.4) as journal:
            await Shop(at_pivot=at_pivot).sell(journal)

    async def prepare() -> None:
        async with store():
            pass

    async def is_idle() -> bool:
        active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE"
        ours = f"'%{place.schema}\".apply%' AND pid <> pg_backend_pid()"
        busy: int = await place.value(f"{active} {ours}")
        return busy == 0

    async def main() -> int:
        with child(dies) as process:
            async with store() as other:
                assert await asyncio.to_thread(process.line) == "charged"
                async with store.locked():
                    process.tell()
                    assert await asyncio.to_thread(process.line) == "late"
                    if when == "before it is answered":
                        process.tell()
                        await store.until(store.has_requests)
                        process.signal(9)
                if when != "before it is answered":
                    process.tell()
                assert await asyncio.to_thread(process.line) == "dead"
                await store.until(is_idle)
                await store.bury()
                left: int = await place.value("SELECT count(*) FROM {schema}.action")

                async def is_recovered() -> bool:
                    return bool(await recover(other, registry)) or await is_empty(other)

                await store.until(is_recovered)
                return left

    asyncio.run(prepare())
    left = asyncio.run(main())
    assert left == (when == "before it is sent")
    assert undone == ["reserved"] * left
