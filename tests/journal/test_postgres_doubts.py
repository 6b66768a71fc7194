"""Answers of a `PostgresJournal` that are lost, come late, or are refused between others."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")


from returns.result import Failure, Result  # noqa: E402
from scoping import detached, saga_of  # noqa: E402

from returns_pipeline import to_result  # noqa: E402
from returns_pipeline.compensation import CompensationRegistry, CompensationScope, Intent  # noqa: E402
from returns_pipeline.context import StepContext  # noqa: E402
from returns_pipeline.errors import JournalError, JournalUnavailable, LeaseLost  # noqa: E402
from returns_pipeline.journal import recover  # noqa: E402
from returns_pipeline.retry import RetryPolicy  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from returns_pipeline.journal import PostgresJournal
    from tests.journal.conftest import Place, Wire

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


def intent_of(scope: CompensationScope, name: str) -> Intent:
    """Return what `scope` would record."""
    saga = saga_of(scope)
    return Intent(f"id of {name}", saga, scope.path, "9", "", scope.key, undo, (name,), {})


def refuses(error: Exception) -> Callable[..., Awaitable[Any]]:
    """Return a function that raises instead of asking the server."""

    async def refuse(*_: object) -> Any:
        raise error

    return refuse


async def names_in(place: Place, state: str = "pending") -> list[str]:
    """Return what is on record, of all owners."""
    async with place.database() as database:
        rows = await database.fetch(
            f"SELECT arguments::jsonb ->> 'name' FROM {place.schema}.action "
            f"WHERE state = '{state}' ORDER BY 1"
        )
    return [row[0] for row in rows]


async def release_all(place: Place, journal: PostgresJournal) -> None:
    """Release all that a journal has, as another process may after its connection ended."""
    owner = journal._writer.delivery.owner
    await place.execute(
        f"UPDATE {{schema}}.saga SET owner = '', epoch = epoch + 1 WHERE owner = '{owner}'"
    )


def forget_quietly(*scopes: CompensationScope) -> None:
    for scope in scopes:
        scope._records = []  # otherwise it warns when it is collected


def test_a_record_before_a_move_into_its_saga_is_not_refused(make: Place) -> None:
    """Both go in one batch, and the saga is made by the record."""

    async def main() -> None:
        async with make() as journal:
            outer = CompensationScope("outer", journal=journal)
            inner = detached(outer, "inner")
            await inner.register(undo, "1")
            registering = asyncio.create_task(outer.register(undo, "2"))
            for _ in range(9):
                if not journal._writer._requests:
                    await asyncio.sleep(0)
            outer.absorb(inner)
            await registering
            assert {name: len(it) for name, it in (await make.states(journal)).items()} == {
                "outer": 2
            }
            await outer.commit()
            assert await journal.sagas() == []
            assert not journal._ledger.sagas
            assert not journal._ledger.actions

    asyncio.run(main())


def test_what_is_in_doubt_while_a_batch_fails_is_not_forgotten(make: Place) -> None:
    """The caller of `record` is cancelled when the next batch is on its way already."""

    async def main() -> None:
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            session: Any = journal._writer.delivery.connection
            apply = session.apply
            task = asyncio.create_task(journal.record(intent_of(scope, "y")))
            release = asyncio.Event()

            async def fails(*_: Any) -> Any:
                await release.wait()
                raise asyncpg.LockNotAvailableError("no")

            async def carries_out(*args: Any) -> Any:
                answers = await apply(*args)
                session.apply = fails
                journal._writer.send("nothing").future.add_done_callback(lambda it: it.exception())
                return answers

            journal_: Any = journal
            settle = journal._writer._settle

            def settles(batch: Any, outcomes: Any) -> None:
                settle(batch, outcomes)
                task.cancel()

            session.apply = carries_out
            journal_._writer._settle = settles
            with pytest.raises(asyncio.CancelledError):
                await task
            journal_._writer._settle = settle
            release.set()
            for _ in range(5):
                await asyncio.sleep(0)
            session.apply = apply
            await scope.register(undo, "z")
            assert await names_in(make) == ["x", "z"]
            await scope.commit()

    asyncio.run(main())


@pytest.mark.parametrize("where", ["open", "apply", "look"])
def test_an_error_of_a_later_attempt_does_not_answer_the_first(
    make: Place, wire: type[Wire], where: str
) -> None:
    async def main() -> None:
        async with wire(make.dsn) as way, make(dsn=way.dsn) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            session: Any = journal._writer.delivery.connection
            kind = type(session)
            sent = False
            error = asyncpg.InsufficientPrivilegeError("not you")

            async def apply(*args: Any) -> Any:
                nonlocal sent
                if sent and where == "apply":
                    raise error
                answers = await kind.apply(session, *args)
                if not sent:
                    sent = True
                    raise ConnectionError("lost")
                return answers

            async def open_(owner: str) -> None:
                if sent and where == "open":
                    raise error
                if sent and where == "look":
                    session.look = refuses(error)
                    with pytest.raises(JournalUnavailable):
                        await journal.sagas()
                    raise ConnectionError("lost")
                await kind.open(session, owner)

            session.apply, session.open = apply, open_
            journal._writer.delivery.patience = 0.1
            with pytest.raises(JournalUnavailable):
                await scope.register(undo, "y")
            del session.apply, session.open
            session.__dict__.pop("look", None)
            journal._writer.delivery.patience = 10.0
            await scope.register(undo, "z")
            assert await names_in(make) == ["x", "z"]
            await scope.commit()

    asyncio.run(main())


@pytest.mark.parametrize("purged", [False, True])
def test_a_claim_answered_after_another_process_claimed_the_saga_takes_the_next(
    make: Place, purged: bool
) -> None:
    async def main() -> None:
        async with make() as dead:
            await make.left_open(dead, "a", undo, "x")
            await make.left_open(dead, "b", undo, "y")
        async with make() as journal, make(retention=0.0) as other:
            session: Any = journal._writer.delivery.connection

            async def apply(*args: Any) -> Any:
                answers = await type(session).apply(session, *args)
                if args[3][-1]["do"] == "claim":
                    del session.apply
                    await release_all(make, journal)
                    stored = await other.claim(besides=frozenset())
                    assert stored is not None
                    assert stored.name == "b"
                    (action,) = stored.actions
                    if purged:
                        await other.mark(action.id).done()
                        other._claims.retention = 0.0
                        taken = await other.claim(besides=frozenset())
                        assert taken is not None
                        await other.release(taken.id)
                    raise ConnectionError("lost")
                return answers

            session.apply = apply
            reports = await recover(journal, registry)
            assert [(it.name, it.error) for it in reports] == [("a", None)]
            assert undone == ["x"]
            assert not journal._ledger.sagas
            assert not journal._ledger.actions

    asyncio.run(main())


def test_a_commit_that_fails_leaves_its_actions_to_be_undone(make: Place) -> None:
    """Another part of the saga has been settled meanwhile."""

    async def main() -> None:
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            first, second = scope.child("first"), scope.child("second")
            await first.register(undo, "x")
            await second.register(undo, "y")
            session: Any = journal._writer.delivery.connection
            apply = session.apply

            async def apply_(*args: Any) -> Any:
                if any(step["do"] == "forget" for step in args[3]):
                    raise asyncpg.LockNotAvailableError("no")
                if any(row.get("state") for step in args[3] for row in step.get("rows", [])):
                    committing.append(asyncio.create_task(first.commit()))
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                return await apply(*args)

            committing: list[asyncio.Task[None]] = []
            session.apply = apply_
            await second.compensate()
            with pytest.raises(JournalUnavailable):
                await committing[0]
            session.apply = apply
            report = await first.compensate()
            assert report.failures == ()
            assert undone == ["y", "x"]
            assert not journal._ledger.sagas
            assert not journal._ledger.actions

    asyncio.run(main())


@pytest.mark.parametrize("taken_over", [False, True])
@pytest.mark.parametrize("carried_out", [False, True])
def test_a_commit_without_an_answer_can_be_repeated_if_it_was_carried_out_or_still_may_be(
    make: Place, wire: type[Wire], carried_out: bool, taken_over: bool
) -> None:
    """Also if another process has undone the rest of the saga since, and forgotten it."""
    make.options["retention"] = 0.0

    async def main() -> None:
        async with wire(make.dsn) as way, make() as other, make(dsn=way.dsn) as journal:
            scope = CompensationScope("a", journal=journal)
            inner, alone = scope.child("b"), CompensationScope("c", journal=journal)
            for each, name in [(scope, "rest"), (inner, "x"), (alone, "z")]:
                await each.register(undo, name)
            # The request; behind a pooler, the statement is sent each time.
            way.left = 3 if make.options["liveness"] == "lease" and carried_out else 1
            way.delivers, way.closes = carried_out, True
            journal._writer.delivery.patience = 0.06
            refused = await asyncio.gather(inner.commit(), alone.commit(), return_exceptions=True)
            assert [type(error) for error in refused] == [JournalUnavailable] * 2
            assert await names_in(make) == (["rest"] if carried_out else ["rest", "x", "z"])
            if taken_over:
                await release_all(make, journal)
                for _ in range(2):
                    await recover(other, registry)
            way.closed, journal._writer.delivery.patience = False, 10.0
            if taken_over and not carried_out:
                for each in (inner, alone):
                    with pytest.raises(LeaseLost):
                        await each.commit()
            elif taken_over:
                await asyncio.gather(inner.commit(), alone.commit())
            else:
                await inner.register(undo, "y")  # they are committed together
                await asyncio.gather(inner.commit(), alone.commit())
                assert await names_in(make) == ["rest"]
                await scope.commit()
            assert sorted(undone) == (["rest"] + ["x", "z"] * (not carried_out)) * taken_over
            forget_quietly(scope, inner, alone)

    asyncio.run(main())


@pytest.mark.parametrize("then", ["commit", "compensate"])
@pytest.mark.parametrize("expired", [False, True])
def test_a_commit_that_was_refused_without_an_answer_is_refused_when_it_is_repeated(
    make: Place, wire: type[Wire], then: str, *, expired: bool
) -> None:
    """Also if what the other process has done is no longer on record."""
    if expired:
        make.options["retention"] = 0.0

    async def main() -> None:
        async with wire(make.dsn) as way, make() as other, make(dsn=way.dsn) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            await release_all(make, journal)
            for _ in range(2):
                await recover(other, registry)
            way.left = 3 if make.options["liveness"] == "lease" else 1
            way.delivers = way.closes = True
            journal._writer.delivery.patience = 0.06
            with pytest.raises(JournalUnavailable):
                await scope.commit()
            way.closed, journal._writer.delivery.patience = False, 10.0
            if then == "commit":
                with pytest.raises(LeaseLost):
                    await scope.commit()
            report = await scope.compensate()
            assert [type(it.error) for it in report.failures] == [LeaseLost]
            assert scope.state == "lost"
            assert undone == ["x"]

    asyncio.run(main())


@pytest.mark.parametrize("then", ["commit", "compensate"])
def test_a_commit_that_was_not_carried_out_before_another_batch_without_an_answer_is_refused(
    make: Place, wire: type[Wire], then: str
) -> None:
    make.options["retention"] = 0.0

    async def main() -> None:
        async with wire(make.dsn) as way, make() as other, make(dsn=way.dsn) as journal:
            scope, later = (CompensationScope(name, journal=journal) for name in "ab")
            await scope.register(undo, "x")
            way.left, way.closes = 1, True
            journal._writer.delivery.patience = 0.06
            with pytest.raises(JournalUnavailable):
                await scope.commit()
            way.closed, way.closes = False, False
            session: Any = journal._writer.delivery.connection

            async def open_(owner: str) -> None:
                if carried_out:
                    raise asyncpg.CannotConnectNowError("no")
                await type(session).open(session, owner)

            carried_out: list[Any] = []

            async def apply_once(*args: Any) -> Any:
                carried_out.append(await type(session).apply(session, *args))
                raise ConnectionError("lost")

            session.apply, session.open = apply_once, open_
            with pytest.raises(JournalUnavailable):
                await later.register(undo, "y")
            assert carried_out
            del session.apply, session.open
            journal._writer.delivery.patience = 10.0
            await release_all(make, journal)
            for _ in range(2):
                await recover(other, registry)
            assert "x" in undone
            if then == "commit":
                with pytest.raises(LeaseLost):
                    await scope.commit()
            report = await scope.compensate()
            assert [type(it.error) for it in report.failures] == [LeaseLost]
            assert undone.count("x") == 1

    asyncio.run(main())


@pytest.mark.parametrize("then", ["compensate", "run", "register"])
@pytest.mark.parametrize("unheard", [1, 3])
def test_a_commit_that_was_carried_out_without_an_answer_is_known_to_a_rollback(
    make: Place, wire: type[Wire], then: str, unheard: int
) -> None:
    """Also if the answers to the next batches are lost."""
    make.options["retention"] = 0.0

    async def main() -> None:
        async with wire(make.dsn) as way, make() as other, make(dsn=way.dsn) as journal:
            ctx = StepContext("shop", journal=journal)
            scope = ctx.scope
            session: Any = journal._writer.delivery.connection
            lost = 0

            async def apply(*args: Any) -> Any:
                nonlocal lost
                answers = await type(session).apply(session, *args)
                if lost < unheard:
                    lost += 1
                    way.cut()
                    session.open = refuses(asyncpg.CannotConnectNowError("away"))
                    raise ConnectionError("lost")
                return answers

            async def lose_answers() -> None:
                session.apply = apply
                journal._writer.delivery.patience = 0.03
                for _ in range(unheard):
                    session.__dict__.pop("open", None)
                    with pytest.raises(JournalUnavailable):
                        await scope.commit()
                session.__dict__.pop("open", None)
                assert lost == unheard
                journal._writer.delivery.patience = 10.0

            async def step() -> Result[str, str]:
                await ctx.register(undo, "x")
                await lose_answers()
                return Failure("no")

            if then == "run":
                assert await to_result(ctx.run(step())) == Failure("no")
                assert (ctx.outcome, scope.state) == ("committed", "open")
                assert [it.args for it in ctx.report.committed] == [("x",)]
            else:
                await scope.register(undo, "x")
                await lose_answers()
            assert await names_in(make) == []
            if then == "register":
                await scope.register(undo, "y")
                assert await names_in(make) == ["y"]
            report = await scope.compensate()
            if then == "compensate":
                assert report.all_committed
                assert scope.state == "committed"
            assert report.failures == ()
            assert undone == ["y"] * (then == "register")
            assert not journal._ledger.sagas
            assert not journal._ledger.actions
            await journal.close()
            assert await recover(other, registry) == []

    asyncio.run(main())


@pytest.mark.parametrize("then", ["commit", "compensate"])
def test_a_commit_that_never_reached_the_server_is_undone_or_carried_out(
    make: Place, wire: type[Wire], then: str
) -> None:
    async def main() -> None:
        async with wire(make.dsn) as way, make(dsn=way.dsn) as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            way.left, way.closes = 1, True
            journal._writer.delivery.patience = 0.06
            with pytest.raises(JournalUnavailable):
                await scope.commit()
            way.closed, journal._writer.delivery.patience = False, 10.0
            if then == "commit":
                await scope.commit()
            report = await scope.compensate()
            assert (len(report.done), report.committed) == (int(then == "compensate"), ())
            assert undone == ["x"] * (then == "compensate")
            assert await names_in(make) == []

    asyncio.run(main())


@pytest.mark.parametrize("then", ["commit", "compensate"])
def test_a_fenced_owner_gets_nothing_back_by_recovering(make: Place, then: str) -> None:
    async def main() -> None:
        async with make() as journal, make() as other:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            await scope.register(undo, "y")
            await release_all(make, journal)
            stored = await other.claim(besides=frozenset())
            assert stored is not None
            mark = other.mark(stored.actions[0].id)
            await mark.begin()
            await mark.done()
            await other.release(stored.id)
            claimed = await journal.claim(besides=frozenset())
            if then == "commit":
                with pytest.raises(LeaseLost):
                    await scope.commit()
            report = await scope.compensate()
            assert [type(it.error) for it in report.failures] == [LeaseLost, LeaseLost]
            assert undone == []
            assert claimed is None
            reports = await recover(journal, registry)  # it has forgotten the saga by now
            assert [len(it.done) for it in reports] == [1]
            assert undone == ["x"]
            assert not journal._ledger.sagas
            assert not journal._ledger.actions

    asyncio.run(main())


def test_a_fenced_owner_keeps_nothing_of_the_saga_in_memory(make: Place) -> None:
    async def main() -> None:
        async with make() as journal, make() as dead:
            scope = CompensationScope("a", journal=journal)
            for name in "xyz":
                await scope.register(undo, name)
            await release_all(make, journal)
            with pytest.raises(LeaseLost):
                await scope.register(undo, "late")
            with pytest.raises(LeaseLost):
                await scope.commit()
            _ = await scope.compensate()
            assert not journal._ledger.actions
            assert not journal._ledger.sagas
            await make.left_open(dead, "dead", undo, "1", "2")
            await release_all(make, dead)
            await make.execute("DELETE FROM {schema}.action WHERE saga = '" + saga_of(scope) + "'")
            stored = await journal.claim(besides=frozenset())
            assert stored is not None
            await release_all(make, journal)
            with pytest.raises(LeaseLost):
                await journal.mark(stored.actions[0].id).begin()
            with pytest.raises(LeaseLost):
                await journal.release(stored.id)
            assert not journal._ledger.actions
            assert not journal._ledger.sagas

    asyncio.run(main())


@pytest.mark.parametrize("how", ["refused", "cancelled"])
def test_a_saga_that_could_not_be_released_is_released_with_the_next_request(
    make: Place, how: str
) -> None:
    async def main() -> None:
        async with make() as dead:
            await make.left_open(dead, "a", undo, "x")
        async with make() as journal, make() as other:
            stored = await journal.claim(besides=frozenset())
            assert stored is not None
            if how == "refused":
                session: Any = journal._writer.delivery.connection
                apply = session.apply
                error = asyncpg.LockNotAvailableError("no")
                session.apply = refuses(error)
                with pytest.raises(JournalUnavailable):
                    await journal.release(stored.id)
                session.apply = apply
            else:
                task = asyncio.create_task(journal.release(stored.id))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            async with CompensationScope("b", journal=journal) as scope:
                await scope.register(undo, "y")
                assert len(await recover(other, registry)) == 1
            assert undone == ["x"]
            assert not journal._ledger.sagas
            assert not journal._ledger.actions

    asyncio.run(main())


def test_closing_makes_the_moves_that_could_not_be_made(make: Place) -> None:
    async def main() -> None:
        async with make(patience=0.3) as journal, make.database() as database:
            outer = CompensationScope("outer", journal=journal)
            await outer.register(undo, "1")
            inner = detached(outer, "inner")
            await inner.register(undo, "2")
            await outer.register(undo, "3")
            await database.execute(f"BEGIN; LOCK TABLE {make.schema}.action IN EXCLUSIVE MODE")
            outer.absorb(inner)
            await journal.flush()
            await database.execute("ROLLBACK")
            await journal.close()
            forget_quietly(outer)
            assert len(await recover(journal, registry)) == 1
            assert undone == ["3", "2", "1"]

    asyncio.run(main())


def test_closing_removes_what_is_in_doubt(make: Place, wire: type[Wire]) -> None:
    async def main() -> None:
        async with wire(make.dsn) as way, make(dsn=way.dsn) as journal:
            scope = CompensationScope("a", journal=journal)
            session: Any = journal._writer.delivery.connection

            async def lost(*args: Any) -> Any:
                await type(session).apply(session, *args)
                way.closed = True
                raise ConnectionError("lost")

            session.apply = lost
            journal._writer.delivery.patience = 0.1
            with pytest.raises(JournalUnavailable):
                await scope.register(undo, "x")
            del session.apply
            way.closed, journal._writer.delivery.patience = False, 10.0
            assert await names_in(make) == ["x"]
            await journal.close()
            assert await names_in(make) == []

    asyncio.run(main())


def test_a_connection_that_ends_during_close_is_not_made_again(place: Place) -> None:
    async def main() -> None:
        journal = place()
        scope = CompensationScope("a", journal=journal)
        await scope.register(undo, "x")
        session: Any = journal._writer.delivery.connection

        async def apply(*args: Any) -> Any:
            ended = asyncio.Event()
            lost = session._on_lost

            def is_lost() -> None:
                lost()
                ended.set()

            session._on_lost = is_lost
            await place.execute(
                "SELECT pg_terminate_backend(pid) FROM {schema}.locks "
                f"WHERE key = {{schema}}.lock_key('{journal._writer.delivery.owner}')"
            )
            await ended.wait()
            return await type(session).apply(session, *args)

        session.apply = apply
        await journal.close()
        del session.apply

        async def idle() -> bool:
            return journal._writer._task is None

        await place.until(idle)
        assert not session.is_open
        assert journal._writer._loop is None
        forget_quietly(scope)

    asyncio.run(main())


def test_a_conflict_of_transactions_does_not_end_the_session(place: Place) -> None:
    """The lock of the session shows that its owner lives. Trying again must keep it."""

    async def main() -> None:
        place.dsn += "%20-cdefault_transaction_isolation%3Dserializable"
        async with place() as journal, place() as other, place.database() as database:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            connection = journal._writer.delivery.connection._connection
            await database.execute(f"BEGIN; UPDATE {place.schema}.owner SET seen = now()")
            task = asyncio.create_task(scope.register(undo, "y"))

            async def waits() -> bool:
                return bool(await place.value("SELECT count(*) FROM pg_locks WHERE NOT granted"))

            await place.until(waits)
            await database.execute("COMMIT")
            await task
            assert journal._writer.delivery.connection._connection is connection
            assert await recover(other, registry) == []
            await scope.commit()

    asyncio.run(main())


def test_an_undo_whose_time_ends_while_it_is_noted_as_done_is_not_run_again(make: Place) -> None:
    retried = CompensationRegistry()

    @retried.compensation("undo", retry=RetryPolicy(attempts=3, wait=0.0), timeout=0.3)
    async def _undo(name: str) -> None:
        undone.append(name)

    async def main() -> None:
        async with make() as dead:
            await make.left_open(dead, "a", undo, "x")
        async with make() as journal:
            session: Any = journal._writer.delivery.connection
            apply = session.apply
            waited = False

            async def slow(*args: Any) -> Any:
                nonlocal waited
                if undone and not waited:
                    waited = True
                    await asyncio.sleep(0.6)
                return await apply(*args)

            session.apply = slow
            # Something else is under way when it is marked.
            mark = journal.mark

            def marks(action: str) -> Any:
                made = mark(action)

                class Mark:
                    begin, give_up = made.begin, made.give_up

                    async def done(self) -> None:
                        busy = asyncio.create_task(journal._writer.ask("nothing"))
                        await asyncio.sleep(0)
                        await asyncio.sleep(0)
                        await made.done()
                        await busy

                return Mark()

            journal_: Any = journal
            journal_.mark = marks
            (report,) = await recover(journal, retried)
            assert undone == ["x"]
            assert report.error is None
            assert [it.attempts for it in report.done] == [1]

    asyncio.run(main())


def test_a_batch_that_could_not_be_confirmed_is_not_carried_out_again(
    make: Place,
) -> None:
    async def main() -> None:
        async with make() as journal:
            scopes = [CompensationScope(name, journal=journal) for name in "abc"]
            for scope in scopes[:2]:
                await scope.register(undo, scope.name)
            session: Any = journal._writer.delivery.connection
            calls = 0

            async def apply(*args: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == 3:
                    raise asyncpg.InternalServerError("who knows")
                answers = await type(session).apply(session, *args)
                if calls == 1:
                    raise ConnectionError("lost")
                return answers

            session.apply = apply
            asked = await asyncio.gather(
                scopes[2].register(undo, "c"), scopes[0].commit(), return_exceptions=True
            )
            del session.apply
            assert [type(it) for it in asked] == [JournalUnavailable] * 2
            await scopes[1].register(undo, "d")
            assert await names_in(make) == ["b", "d"]
            await scopes[1].commit()
            report = await scopes[0].compensate()
            assert report.all_committed
            assert undone == []
            assert not journal._ledger.sagas
            assert not journal._ledger.actions

    asyncio.run(main())


def test_two_changes_of_one_action_are_both_confirmed(make: Place) -> None:
    async def main() -> None:
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            ((action, _),) = journal._ledger.actions.items()
            session: Any = journal._writer.delivery.connection
            lost = False

            async def apply(*args: Any) -> Any:
                nonlocal lost
                answers = await type(session).apply(session, *args)
                if not lost:
                    lost = True
                    raise ConnectionError("lost")
                return answers

            session.apply = apply
            await asyncio.gather(*(journal.mark(action).begin() for _ in range(2)))
            del session.apply
            await scope.commit()

    asyncio.run(main())


def test_a_saga_whose_claim_is_in_doubt_is_released_at_once(make: Place) -> None:
    async def main() -> None:
        async with make() as dead:
            await make.left_open(dead, "a", undo, "x")
        async with make() as journal, make() as other:
            session: Any = journal._writer.delivery.connection

            async def apply(*args: Any) -> Any:
                await type(session).apply(session, *args)
                session.apply = refuse
                raise ConnectionError("lost")

            async def refuse(*_: object) -> Any:
                del session.apply
                raise asyncpg.QueryCanceledError("by a person")

            session.apply = apply
            with pytest.raises(JournalUnavailable, match="by a person"):
                await journal.claim(besides=frozenset())

            async def free() -> bool:
                return bool(await recover(other, registry))

            await make.until(free)
            assert undone == ["x"]

    asyncio.run(main())


def test_a_retry_while_the_owner_is_away_does_not_wait_for_it(
    place: Place, wire: type[Wire]
) -> None:
    async def main() -> None:
        async with wire(place.dsn) as way, place() as other:
            way.closes = True
            async with place(dsn=way.dsn) as journal:
                scope = CompensationScope("a", journal=journal)
                await scope.register(undo, "x")
                ((action, _),) = journal._ledger.actions.items()
                await journal.mark(action).give_up("try it later")
                forget_quietly(scope)
                way.cut()

                async def away() -> bool:
                    return not (await other.sagas())[0].alive

                async def back() -> bool:
                    return journal._writer.delivery.connection.is_open

                await place.until(away)
                assert await other.retry(saga_of(scope)) == 1
                way.closed = False
                await place.until(back)
                assert len(await recover(other, registry)) == 1
                assert undone == ["x"]

    asyncio.run(main())


def test_a_refusal_in_another_loop_changes_nothing(place: Place) -> None:
    journal = place()
    outer = CompensationScope("outer", journal=journal)
    inner: list[CompensationScope] = []

    async def first() -> None:
        await outer.register(undo, "1")
        inner.append(CompensationScope("inner", journal=journal))
        await inner[0].register(undo, "2")

    async def other() -> None:
        with pytest.raises(JournalError, match="another event loop"):
            outer.absorb(inner[0])
        with pytest.raises(JournalError, match="another event loop"):
            await outer.commit()

    async def last() -> None:
        assert [len(saga.actions) for saga in journal._ledger.sagas.values()] == [1, 1]
        outer.absorb(inner[0])
        report = await outer.compensate()
        assert report.failures == ()
        assert undone == ["2", "1"]
        assert not journal._ledger.sagas
        assert not journal._ledger.actions
        await journal.close()

    with asyncio.Runner() as runner:
        runner.run(first())
        with asyncio.Runner() as another:
            another.run(other())
        runner.run(last())


def test_a_server_too_slow_for_the_lease_is_unavailable_after_the_patience(place: Place) -> None:
    async def main() -> None:
        async with place(liveness="lease", lease=0.2, patience=1.0) as journal:
            scope = CompensationScope("a", journal=journal)
            session: Any = journal._writer.delivery.connection
            apply = session.apply

            async def slow(*args: Any) -> Any:
                answers = await apply(*args)
                await asyncio.sleep(0.2)
                return answers

            session.apply = slow
            with pytest.raises(JournalUnavailable, match="lease"):
                await asyncio.wait_for(scope.register(undo, "x"), 20.0)
            session.apply = apply
            await scope.register(undo, "y")
            assert await names_in(place) == ["y"]
            await scope.commit()

    asyncio.run(main())


def test_a_saga_released_twice_is_not_lost(make: Place) -> None:
    """As by a recovery that is cancelled while it releases."""

    async def main() -> None:
        for turns in range(1, 4):
            async with make() as dead:
                await make.left_open(dead, "a", undo, "x")
            async with make() as journal, make() as other:
                stored = await journal.claim(besides=frozenset())
                assert stored is not None
                task = asyncio.create_task(journal.release(stored.id))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                with contextlib.suppress(LeaseLost):  # the first was carried out already
                    await journal.release(stored.id)
                assert len(await recover(other, registry)) == 1
                assert not journal._ledger.sagas

    asyncio.run(main())


def test_the_note_of_an_undo_outlives_the_cancellation_of_all_tasks(make: Place) -> None:
    own = CompensationRegistry()
    lock = f"BEGIN; LOCK TABLE {make.schema}.action IN EXCLUSIVE MODE"

    async def main() -> None:
        async with make() as journal, make.database() as database:

            @own.compensation("undo and hold up")
            async def undo_and_hold_up(name: str) -> None:
                undone.append(name)
                await database.execute(lock)

            scope = CompensationScope("a", journal=journal)
            await scope.register(undo_and_hold_up, "x")
            rolling_back = asyncio.create_task(scope.compensate())
            await make.until(is_noting)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:  # as asyncio.run() does
                task.cancel()
            await asyncio.sleep(0.01)
            await database.execute("ROLLBACK")
            with pytest.raises(asyncio.CancelledError):
                await rolling_back
            assert undone == ["x"]
            assert await make.states(journal) == {"a": [('{"name": "x"}', "done", 1)]}

    async def is_noting() -> bool:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass"
        async with make.database() as database:
            return bool(await database.fetchval(waiting, f"{make.schema}.action"))

    asyncio.run(main())
