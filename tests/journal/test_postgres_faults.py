"""Processes, servers and connections that end, and what becomes of a `PostgresJournal`."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

_ = pytest.importorskip("asyncpg", reason="needs the package asyncpg")


from scoping import saga_of  # noqa: E402

from returns_pipeline.compensation import CompensationRegistry, CompensationScope, Intent  # noqa: E402
from returns_pipeline.errors import JournalError, JournalUnavailable, LeaseLost  # noqa: E402
from returns_pipeline.journal import PostgresJournal, recover  # noqa: E402
from returns_pipeline.testing import run  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.journal.conftest import Child, Place, Pooler, PostgresCluster, Wire

pytestmark = pytest.mark.slow

registry = CompensationRegistry()
undone: list[str] = []


@registry.compensation("undo")
async def undo(name: str) -> None:
    """Record the call."""
    undone.append(name)


@pytest.fixture(autouse=True)
def _clean() -> None:
    undone.clear()


# Living and dead owners.


async def at_work(child: Child, place: Place) -> None:
    """Register, wait for the parent, and continue: to be run in a child."""
    scope = CompensationScope("a", journal=place())
    await scope.register(undo, "x")
    child.say("ready")
    child.hear()
    for call in (scope.register(undo, "y"), scope.commit()):
        try:
            await call
        except JournalError as error:
            child.say(type(error).__name__)
        else:
            child.say("effect")


@pytest.fixture
def at_work_in(child: type[Child]) -> Callable[[Place], Child]:
    """Return a function that starts a process, which registers in a place and waits."""

    def start(place: Place) -> Child:
        made = child(lambda its: at_work(its, place))
        assert made.line() == "ready"
        return made

    return start


def test_a_killed_process_is_recovered(make: Place, at_work_in: Callable[[Place], Child]) -> None:
    async def main(worker: Child) -> None:
        async with make() as journal:
            assert await recover(journal, registry) == []
            worker.signal(signal.SIGKILL)
            await make.recovered(journal, registry)
            assert undone == ["x"]

    with at_work_in(make) as worker:
        asyncio.run(main(worker))


def test_a_stopped_process_keeps_its_sagas_as_long_as_its_session(
    place: Place, at_work_in: Callable[[Place], Child]
) -> None:
    async def main(worker: Child) -> None:
        async with place() as journal:
            worker.signal(signal.SIGSTOP)
            assert await recover(journal, registry) == []
            assert [saga.alive for saga in await journal.sagas()] == [True]
            worker.signal(signal.SIGCONT)
            worker.tell()
            assert [worker.line(), worker.line()] == ["effect", "effect"]
            assert await journal.sagas() == []

    with at_work_in(place) as worker:
        asyncio.run(main(worker))


@pytest.mark.parametrize("liveness", ["session", "lease"])
def test_a_process_fenced_while_it_was_stopped_has_no_further_effect(
    place: Place, at_work_in: Callable[[Place], Child], liveness: str
) -> None:
    place.options |= {"liveness": liveness, "lease": 0.6}

    async def main(worker: Child) -> None:
        async with place() as journal:
            assert await recover(journal, registry) == []
            worker.signal(signal.SIGSTOP)
            if liveness == "lease":
                wait = "SELECT pg_sleep(extract(epoch FROM expires - now())) FROM {schema}.owner"
                await place.execute(f"{wait} ORDER BY expires LIMIT 1")
            else:
                owner = (await journal.sagas())[0].owner
                await place.execute(
                    "SELECT pg_terminate_backend(pid) FROM {schema}.locks "
                    f"WHERE key = {{schema}}.lock_key('{owner}')"
                )
            await place.recovered(journal, registry)
            assert undone == ["x"]
            worker.signal(signal.SIGCONT)
            worker.tell()
            assert [worker.line(), worker.line()] == ["LeaseLost", "LeaseLost"]
            assert [action.name for action in (await journal.sagas())[0].actions] == ["undo"]

    with at_work_in(place) as worker:
        asyncio.run(main(worker))


def test_an_idle_owner_whose_connection_ends_reconnects_by_itself(place: Place) -> None:
    async def main() -> None:
        async with place() as journal, place() as other:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            async with place.database() as connection:
                await connection.execute(f"BEGIN; LOCK TABLE {place.schema}.saga IN EXCLUSIVE MODE")
                terminated = await connection.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_locks "
                    "WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'"
                    f"AND pid IN (SELECT pid FROM {place.schema}.locks WHERE key = "
                    f"{place.schema}.lock_key('{journal._writer.delivery.owner}'))"
                )
                assert terminated == 1

                async def back() -> bool:
                    return (await other.sagas())[0].alive

                await place.until(back)
                await connection.execute("ROLLBACK")
            assert await recover(other, registry) == []
            await scope.register(undo, "y")
            await scope.commit()
            assert await journal.sagas() == []

    asyncio.run(main())


def test_an_owner_that_reconnects_too_late_is_fenced_at_its_next_request(place: Place) -> None:
    async def main() -> None:
        async with place() as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            fresh = CompensationScope("b", journal=journal)
            await place.execute("UPDATE {schema}.saga SET owner = '', epoch = epoch + 1")
            async with place() as other:
                assert len(await recover(other, registry)) == 1
            with pytest.raises(LeaseLost, match="taken over by another process"):
                await scope.register(undo, "y")
            report = await scope.compensate()
            assert isinstance(report.failures[0].error, LeaseLost)
            assert undone == ["x"]
            await fresh.register(undo, "z")  # the journal itself is as good as ever
            await fresh.commit()

    asyncio.run(main())


def test_a_forked_child_may_not_use_the_journal_nor_keep_its_parent_alive(
    place: Place, child: type[Child]
) -> None:
    async def parent(own: Child) -> None:
        journal = place()
        scope = CompensationScope("a", journal=journal)
        await scope.register(undo, "x")
        if os.fork() == 0:
            asyncio.run(tries(own, journal, scope))
            own.hear()  # alive, with a copy of the socket, until the test ends
            os._exit(0)
        own.say("end")
        own.hear()

    async def tries(own: Child, journal: PostgresJournal, scope: CompensationScope) -> None:
        told: list[object] = []
        for call in (scope.register(undo, "y"), journal.sagas(), scope.commit()):
            try:
                await call
            except JournalError as error:
                told.append("forked" in str(error))
        own.say(f"{os.getpid()} {told}")

    async def main(worker: Child, grandchild: int) -> None:
        async with place() as journal:
            assert await recover(journal, registry) == []
            worker.signal(signal.SIGKILL)
            await place.recovered(journal, registry)
            assert undone == ["x"]
            os.kill(grandchild, 0)  # it is still there

    with child(parent) as worker:
        said = {worker.line(), worker.line()} - {"end"}
        grandchild, _, told = said.pop().partition(" ")
        try:
            assert told == "[True, True, True]"
            asyncio.run(main(worker, int(grandchild)))
        finally:
            os.kill(int(grandchild), signal.SIGKILL)


def test_a_journal_belongs_to_the_loop_that_opened_it_until_it_is_closed(place: Place) -> None:
    journal = place()

    async def first() -> None:
        async with CompensationScope("a", journal=journal) as scope:
            await scope.register(undo, "x")

    async def other() -> None:
        scope = CompensationScope("a", journal=journal)
        for call in (scope.register(undo, "x"), journal.sagas(), journal.close()):
            with pytest.raises(JournalError, match="another event loop"):
                await call

    with asyncio.Runner() as runner:
        runner.run(first())
        with asyncio.Runner() as another:
            another.run(other())
        runner.run(journal.close())
    for _ in range(2):
        with asyncio.Runner() as runner:
            runner.run(first())
            runner.run(journal.close())


def test_a_cancellation_during_connecting_leaves_no_exception_unretrieved(place: Place) -> None:
    """The driver leaves one if it is cancelled right after it reached the server."""
    unheard: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: unheard.append(f"{context['message']}: {context.get('exception')}")
        )
        async with place() as journal:
            for turns in range(40):
                look = asyncio.create_task(journal.sagas())
                for _ in range(turns):
                    await asyncio.sleep(0)
                look.cancel()
                await asyncio.wait({look})
        gc.collect()  # a future reports an unread error when it is collected

    asyncio.run(main())
    assert unheard == []


def test_a_server_that_does_not_answer_does_not_hold_up_a_cancellation() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with await loop.create_server(asyncio.Protocol, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            journal = PostgresJournal(f"postgresql://postgres@127.0.0.1:{port}/x", patience=500.0)
            look = asyncio.create_task(journal.sagas())
            await asyncio.sleep(100)
            look.cancel()
            begun = loop.time()
            await asyncio.wait({look})
            assert look.cancelled()
            assert loop.time() - begun <= 1.0

    run(main())


def test_the_end_of_a_loop_that_cancels_all_tasks_waits_for_the_rollback(place: Place) -> None:
    async def main() -> None:
        async with place():
            pass  # the tables are there to be looked at
        journal = place()
        scopes = [CompensationScope(name, journal=journal) for name in "abc"]

        async def work(scope: CompensationScope) -> None:
            async with scope:
                await scope.register(undo, scope.name)
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(work(scope)) for scope in scopes]
        await place.until(lambda: all_there(journal))
        for scope in scopes:
            await scope.register(undo, scope.name.upper())
        late = CompensationScope("d", journal=journal)
        tasks.append(asyncio.create_task(work(late)))
        await asyncio.sleep(0)  # it is registering when it is cancelled
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:  # as asyncio.run() does
            task.cancel()
        await asyncio.wait(tasks)
        assert sorted(undone) == ["A", "B", "C", "a", "b", "c"]
        await place.until(all_there_is)  # what the last was about to register is not on record
        found = await place.states(journal)
        assert {state for saga in found.values() for _, state, _ in saga} == {"done"}
        await journal.close()

    async def all_there(journal: PostgresJournal) -> bool:
        return len(await journal.sagas()) == 3

    async def all_there_is() -> bool:
        return bool(await place.value("SELECT count(*) = 3 FROM {schema}.saga"))

    asyncio.run(main())


@pytest.mark.parametrize("where", ["queued", "sent", "carried out", "told"])
def test_a_saga_claimed_by_a_cancelled_recoverer_is_released(make: Place, where: str) -> None:
    def before(owner: Any, name: str, do: Callable[[], object]) -> None:
        inner = getattr(owner, name)
        setattr(owner, name, lambda *args: (do(), inner(*args))[1])

    async def main() -> None:
        async with make() as dead:
            await make.left_open(dead, "a", undo, "x")
        async with make() as journal, make() as other:
            task = asyncio.create_task(journal.claim(besides=frozenset()))
            if where == "queued":
                await asyncio.sleep(0)
                task.cancel()
            elif where == "told":
                settle = journal._writer._settle

                def then(batch: Any, outcomes: Any) -> None:
                    settle(batch, outcomes)
                    task.cancel()

                journal._writer._settle = then  # type: ignore[method-assign]
            elif where == "sent":
                before(journal._writer.delivery.connection, "apply", task.cancel)
            else:
                before(journal._writer, "_settle", task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task

            async def free() -> bool:
                return bool(await recover(other, registry))

            await make.until(free)
            assert undone == ["x"]

    asyncio.run(main())


@pytest.mark.parametrize("where", ["queued", "sent", "told"])
def test_an_action_whose_record_was_cancelled_is_not_on_record(make: Place, where: str) -> None:
    async def main() -> None:
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            intent = Intent("y", saga_of(scope), "a", "9", "a", scope.key, undo, ("y",), {})
            task = asyncio.create_task(journal.record(intent))
            settle, apply = journal._writer._settle, journal._writer.delivery.connection.apply

            async def sent(*args: Any) -> Any:
                task.cancel()
                return await apply(*args)

            def told(batch: Any, outcomes: Any) -> None:
                settle(batch, outcomes)
                task.cancel()

            if where == "queued":
                await asyncio.sleep(0)
                task.cancel()
            elif where == "sent":
                journal._writer.delivery.connection.apply = sent  # type: ignore[assignment, method-assign]
            else:
                journal._writer._settle = told  # type: ignore[method-assign]
            with pytest.raises(asyncio.CancelledError):
                await task
            await scope.register(undo, "z")
            assert [it[0] for it in (await make.states(journal))["a"]] == [
                '{"name": "z"}',
                '{"name": "x"}',
            ]
            with pytest.raises(LeaseLost):
                await journal.forget(["y"])
            await scope.commit()
            assert await journal.sagas() == []

    asyncio.run(main())


def test_a_journal_runs_a_task_only_while_it_needs_one(make: Place) -> None:
    async def alone() -> bool:
        return len(asyncio.all_tasks()) == 1

    async def main() -> None:
        async with make(lease=0.05) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            expires = "SELECT extract(epoch FROM expires) FROM {schema}.owner"
            first = await make.value(expires)

            async def renewed() -> bool:
                return bool(first != await make.value(expires))

            if first is not None:
                await make.until(renewed)
            await scope.commit()
            await make.until(alone)
            await make.left_open(journal, "b", undo, "x")
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_a_lease_works_through_a_transaction_pooler(place: Place, pooler: type[Pooler]) -> None:
    async def main() -> None:
        async with pooler(place.dsn) as pooled:
            place.options = {"liveness": "lease", "dsn": pooled.dsn, "lease": 5.0}
            dead = place()
            await place.left_open(dead, "dead", undo, "d")
            await dead.close()
            async with place() as journal, place() as other:
                scopes = [CompensationScope(str(number), journal=journal) for number in range(5)]
                await asyncio.gather(*(scope.register(undo, scope.name) for scope in scopes))
                assert [report.name for report in await recover(other, registry)] == ["dead"]
                await scopes[0].commit()
                for scope in scopes[1:]:
                    await scope.compensate()
                assert undone == ["d", *"1234"]
                found = await place.states(journal)
                assert {saga[0][1:] for saga in found.values()} == {("done", 1)}
            assert pooled.transactions > 20

    asyncio.run(main())


# Connections that end.


@pytest.mark.parametrize(
    ("liveness", "delivers"), [("session", False), ("session", True), ("lease", True)]
)
def test_a_connection_that_is_cut_anywhere_changes_nothing(
    place: Place, wire: type[Wire], liveness: str, delivers: bool
) -> None:
    place.options |= {"liveness": liveness}
    query = (
        f"SELECT s.name, a.state, a.attempts::int FROM {place.schema}.action AS a "
        f"JOIN {place.schema}.saga AS s ON s.id = a.saga ORDER BY s.name"
    )

    async def main() -> None:
        async with wire(place.dsn) as way, place() as dead, place.database() as database:
            way.delivers = delivers
            pieces = 1
            while way.left <= 0:
                undone.clear()
                await place.left_open(dead, "dead", undo, "d", "e")
                await database.execute(
                    f"UPDATE {place.schema}.saga SET owner = '', epoch = epoch + 1"
                )
                way.left = pieces
                async with place(dsn=way.dsn) as journal:
                    await work(journal, database)
                await database.execute(
                    f"TRUNCATE {place.schema}.saga, {place.schema}.action, {place.schema}.owner"
                )
                pieces += 1
            assert way.connections > pieces > 20

    async def work(journal: PostgresJournal, database: Any) -> None:
        async def found() -> list[tuple[object, ...]]:
            return [tuple(row) for row in await database.fetch(query)]

        dead: list[tuple[object, ...]] = [("dead", "pending", 0)] * 2
        async with CompensationScope("kept", journal=journal) as kept:
            await asyncio.gather(*(kept.register(undo, "k") for _ in range(3)))
            assert await found() == [*dead, *[("kept", "pending", 0)] * 3]
        assert await found() == dead
        scope = CompensationScope("undone", journal=journal)
        await scope.register(undo, "u")
        rollback = await scope.compensate()
        assert not rollback.failures
        assert await found() == [*dead, ("undone", "done", 1)]
        (report,) = await recover(journal, registry)
        assert [entry.attempts for entry in report.done] == [1, 1]
        assert undone == ["u", "e", "d"]
        assert await found() == [*[("dead", "done", 1)] * 2, ("undone", "done", 1)]

    asyncio.run(main())


@pytest.mark.parametrize("delivers", [False, True], ids=["lost", "delivered"])
def test_an_outcome_in_doubt_is_found_out_and_not_guessed(
    make: Place, wire: type[Wire], delivers: bool
) -> None:
    """The connection is cut during a request, and no other can be made for longer than patience."""

    async def main() -> None:
        async with wire(make.dsn) as way, make() as watcher:
            way.delivers, way.closes = delivers, True
            for pieces in range(1, 4):
                async with make(dsn=way.dsn) as journal:
                    scope = CompensationScope(str(pieces), journal=journal)
                    way.left, journal._writer.delivery.patience = pieces, 0.06
                    with pytest.raises(JournalUnavailable):
                        for _ in range(3):
                            await scope.register(undo, "x")
                    way.closed, journal._writer.delivery.patience = False, 10.0
                    await scope.register(undo, "y")
                    # What was refused is not there, or is not there any more.
                    assert len((await make.states(watcher))[scope.name]) == len(scope)
                    scopes = [CompensationScope(f"{pieces}{it}", journal=journal) for it in "abc"]
                    for scope_ in scopes:
                        await scope_.register(undo, "z")
                    way.left, journal._writer.delivery.patience = pieces, 0.06
                    with pytest.raises(JournalUnavailable):
                        for scope_ in scopes:
                            await scope_.commit()
                    way.closed, journal._writer.delivery.patience = False, 10.0
                    undone.clear()
                    there = await make.states(watcher)
                    doubted = next(it for it in scopes if not it.closed)
                    report = await doubted.compensate()
                    # It is undone if it was not committed, and only then.
                    assert undone == ["z"] * (doubted.name in there)
                    assert all(isinstance(it.error, LeaseLost) for it in report.failures)
                    for scope_ in (scope, *scopes):
                        if not scope_.closed:
                            await scope_.commit()
            assert {it[1] for saga in (await make.states(watcher)).values() for it in saga} <= {
                "done"
            }

    asyncio.run(main())


@pytest.mark.parametrize("asks", ["record", "begin"])
def test_an_answer_older_than_the_loss_of_the_saga_is_worth_nothing(
    make: Place, wire: type[Wire], asks: str
) -> None:
    """The request is carried out, its answer lost, and the owner fenced before it is back."""

    async def main() -> None:
        async with wire(make.dsn) as way, make() as other:
            way.closes = True
            async with make(dsn=way.dsn) as journal:
                scope = CompensationScope("a", journal=journal)
                await scope.register(undo, "x")
                other_scope = CompensationScope("b", journal=journal)
                await other_scope.register(undo, "y")
                await other_scope.compensate()  # each statement is known to the server by now
                undone.clear()
                # The request and the answer; behind a pooler, the statement is sent each time.
                way.left = 4 if make.options["liveness"] == "lease" else 2
                asking = asyncio.create_task(
                    register(scope, "z") if asks == "record" else roll_back(scope)
                )
                await make.until(lambda: is_closed(way))
                reports = await make.recovered(other, registry)
                assert [len(report.done) for report in reports] == [1 + (asks == "record")]
                assert [it.attempts for it in reports[0].done][-1] == 1 + (asks == "begin")
                way.closed = False
                with pytest.raises(LeaseLost):
                    await asking
                assert undone == ["z", "x"][asks == "begin" :]
                scope._records = []  # otherwise it warns when it is collected

    async def register(scope: CompensationScope, name: str) -> None:
        await scope.register(undo, name)

    async def roll_back(scope: CompensationScope) -> None:
        report = await scope.compensate()
        (error,) = (entry.error for entry in report.failures)
        assert isinstance(error, LeaseLost)
        raise error

    async def is_closed(way: Wire) -> bool:
        return way.closed

    asyncio.run(main())


@pytest.mark.parametrize("connections", [0, 1, 2])
def test_a_record_refused_after_its_answer_was_lost_is_not_on_record(
    place: Place, wire: type[Wire], connections: int
) -> None:
    """The answer is requested again, then whether it is true; before one, the connection ends."""

    async def main() -> None:
        async with wire(place.dsn) as way, place() as watcher, place(dsn=way.dsn) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            session, left = journal._writer.delivery.connection, connections

            async def open_(owner: str) -> None:
                nonlocal left
                if way.left <= 0:
                    left -= 1
                    if left < 0:
                        raise ConnectionError("no way")
                await type(session).open(session, owner)

            journal._writer.delivery.patience, session.open = 0.5, open_  # type: ignore[method-assign]
            way.left = 2  # the request, and the answer
            if connections < 2:
                with pytest.raises(JournalUnavailable, match="no way"):
                    await scope.register(undo, "y")
            else:
                await scope.register(undo, "y")
            del session.open
            assert len(scope) == 1 + (connections == 2)
            await scope.register(undo, "z")
            assert len((await place.states(watcher))["a"]) == len(scope)
            await scope.commit()

    asyncio.run(main())


def test_a_move_that_could_not_be_made_is_made_with_the_next_request(make: Place) -> None:
    async def main() -> None:
        async with make(patience=0.5) as journal, make.database() as database:
            outer = CompensationScope("outer", journal=journal)
            await outer.register(undo, "1")
            inner = CompensationScope("inner", journal=journal)
            await inner.register(undo, "2")
            await database.execute(f"BEGIN; LOCK TABLE {make.schema}.action IN EXCLUSIVE MODE")
            outer.absorb(inner)
            await journal.flush()
            assert set(await make.states(journal)) == {"inner", "outer"}
            await database.execute("ROLLBACK")
            await outer.register(undo, "3")
            (saga,) = await journal.sagas()
            assert [it.arguments for it in saga.actions] == [
                f'{{"name": "{number}"}}' for number in "321"
            ]
            await outer.commit()
            assert await journal.sagas() == []

    asyncio.run(main())


def test_a_session_that_the_server_still_believes_in_is_replaced(
    place: Place, wire: type[Wire]
) -> None:
    async def main() -> None:
        async with wire(place.dsn) as way, place() as other:
            way.half = True
            async with place(dsn=way.dsn) as journal:
                scope = CompensationScope("a", journal=journal)
                await scope.register(undo, "x")
                way.cut()
                way.half = False
                await scope.register(undo, "y")
                assert await recover(other, registry) == []
                assert len((await place.states(other))["a"]) == 2
                await scope.commit()

    asyncio.run(main())


def test_a_server_crash_loses_nothing_that_was_confirmed(
    postgres_cluster: PostgresCluster,
) -> None:
    place = postgres_cluster.place("crashes")
    promised: set[str] = set()
    settled_: set[str] = set()

    async def work(journal: PostgresJournal, number: int, stop: asyncio.Event) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            name = f"{number}-{turn}"
            scope = CompensationScope(name, journal=journal)
            await scope.register(undo, name)
            promised.add(name)
            if turn % 5:
                await scope.commit()
            elif turn % 10:
                await scope.compensate()
            else:
                scope._records = []  # left open
                continue
            settled_.add(name)

    async def main() -> None:
        stop = asyncio.Event()
        async with place(patience=20.0) as journal:
            tasks = [asyncio.create_task(work(journal, number, stop)) for number in range(8)]
            for _ in range(2):
                known = len(settled_)
                await place.until(lambda known=known: more_than(known + 50))  # type: ignore[misc]
                await asyncio.to_thread(postgres_cluster.stop, "immediate")
                await asyncio.to_thread(postgres_cluster.start)
            known = len(settled_)
            await place.until(lambda: more_than(known + 50))
            stop.set()
            await asyncio.gather(*tasks)
            open_ = promised - settled_
            listed = await place.states(journal)
            assert open_
            assert {name for name, saga in listed.items() if saga[0][1] == "pending"} == open_
            assert {saga[0][1:] for saga in listed.values()} == {("pending", 0), ("done", 1)}
        undone.clear()
        async with place() as journal:
            await recover(journal, registry)
        assert sorted(undone) == sorted(open_)

    async def more_than(count: int) -> bool:
        return len(settled_) > count

    asyncio.run(main())
