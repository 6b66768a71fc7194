"""What `PostgresJournal` promises, beside what holds of every journal."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")


from scoping import commit_or_roll_back, detached, saga_of  # noqa: E402

from returns_pipeline._engine.future_results import to_result  # noqa: E402
from returns_pipeline.compensation import CompensationRegistry, CompensationScope, current_key  # noqa: E402
from returns_pipeline.context import StepContext  # noqa: E402
from returns_pipeline.errors import (  # noqa: E402
    ArgumentsNotRecordable,
    InvalidArgument,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    LeaseLost,
    ScopeClosed,
    UnregisteredCompensation,
)
from returns_pipeline.journal import PostgresJournal, RecoveryReport, recover  # noqa: E402
from returns_pipeline.retry import RetryPolicy  # noqa: E402
from returns_pipeline.saga import Saga  # noqa: E402
from returns_pipeline.testing import run  # noqa: E402

if TYPE_CHECKING:
    from tests.journal.conftest import Child, Place, PostgresCluster

registry = CompensationRegistry()
undone: list[str] = []
poison: set[str] = set()
keys: list[str] = []


@registry.compensation("undo", retry=RetryPolicy(attempts=2, wait=0.0))
async def undo(name: str) -> None:
    """Record the call, or fail."""
    undone.append(name)
    if name in poison:
        raise OSError(name)


@registry.compensation("note-key")
async def note_key(name: str) -> None:
    """Record the key as well."""
    undone.append(name)
    keys.append(current_key())


@pytest.fixture(autouse=True)
def _clean() -> None:
    undone.clear()
    poison.clear()
    keys.clear()


# What holds of every journal.


def test_an_action_is_there_before_register_returns_and_gone_when_committed(make: Place) -> None:
    async def main() -> None:
        async with make() as journal:
            async with CompensationScope("a", journal=journal) as scope:
                await scope.register(undo, "x")
                assert await make.states(journal) == {"a": [('{"name": "x"}', "pending", 0)]}
            assert await make.states(journal) == {}

    asyncio.run(main())


def test_the_journal_works_on_virtual_time_and_leaves_no_task_running(make: Place) -> None:
    async def main() -> float:
        async with make() as journal, CompensationScope("a", journal=journal) as scope:
            await scope.register(undo, "x")
            await asyncio.sleep(60.0)
            await scope.register(undo, "y")
        return asyncio.get_running_loop().time()

    assert run(main()) == 60.0


def test_a_rollback_notes_each_action_and_the_scope_can_be_used_again(make: Place) -> None:
    async def main() -> None:
        poison.add("y")
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            for name in "xyz":
                await scope.register(undo, name)
            report = await commit_or_roll_back(scope, keep=False)
            assert [entry.args for entry in report.failures] == [("y",)]
            assert undone == ["z", "y", "y", "x"]
            done = [
                ('{"name": "z"}', "done", 1),
                ('{"name": "y"}', "stuck", 2),
                ('{"name": "x"}', "done", 1),
            ]
            assert await make.states(journal) == {"a": done}
            await scope.register(undo, "w")
            assert await make.states(journal) == {"a": [('{"name": "w"}', "pending", 0), *done]}
            await commit_or_roll_back(scope, keep=True)
            await scope.register(undo, "v")
            await scope.commit()
            assert await make.states(journal) == {"a": done}

    asyncio.run(main())


def test_children_steps_and_sagas_are_on_record_too(make: Place) -> None:
    async def main() -> None:
        async with make() as journal, StepContext("job", journal=journal) as ctx:

            async def body() -> Result[int, str]:
                child = ctx.child("part")
                await child.register(undo, "child")
                saga = Saga("ship").step("reserve", reserve, undo=undo)
                assert await to_result(saga.run("r", ctx)) == Success("r")
                found = await make.states(journal)
                assert [argument for argument, _, _ in found["job"]] == [
                    '{"name": "r"}',
                    '{"name": "child"}',
                ]
                assert list(found) == ["job"]
                return Failure("no")

            await ctx.run(body())
            assert undone == ["r", "child"]
            assert {state for _, state, _ in (await make.states(journal))["job"]} == {"done"}

    async def reserve(name: str) -> Result[str, str]:
        return Success(name)

    asyncio.run(main())


def test_a_scope_that_is_absorbed_as_one_keeps_its_place_in_the_order(make: Place) -> None:
    async def dead(_: Child) -> None:
        outer = CompensationScope("outer", journal=make())
        await outer.register(undo, "1")
        inner = detached(outer, "inner")
        child = outer.child("child")
        await outer.register(undo, "2")
        await inner.register(undo, "i1")
        await outer.register(undo, "3")
        await inner.register(undo, "i2")
        await child.register(undo, "c")
        outer.absorb(inner, as_one=True)
        outer.absorb(child, as_one=True)
        await outer.register(undo, "4")

    async def main() -> None:
        async with make() as journal:
            (report,) = await make.recovered(journal, registry)
            assert report.name == "outer"
            assert undone == ["4", "3", "2", "c", "i2", "i1", "1"]

    make.forked(dead)
    asyncio.run(main())


def test_only_what_another_process_can_find_and_the_server_can_store_is_accepted(
    make: Place,
) -> None:
    async def stranger(name: str) -> None:
        """Be in no registry."""

    async def main() -> None:
        others = CompensationRegistry()
        nul = others.compensation("nul\0")(undo.func)
        async with make() as journal:
            scope = CompensationScope("a\0\ud800", journal=journal)
            with pytest.raises(UnregisteredCompensation, match="stranger"):
                await scope.register(stranger, "x")
            for bad in (scope.register(undo, 3), scope.register(nul, "x")):  # type: ignore[arg-type]
                with pytest.raises(ArgumentsNotRecordable):
                    await bad
            assert len(scope) == 0
            assert await make.states(journal) == {}
            await scope.register(undo, "a\0b\u20ac")
            poison.add("a\0b\u20ac")
            await scope.compensate()
            (saga,) = await journal.sagas()
            assert saga.name == "a\\0\\ud800"
            assert saga.actions[0].state == "stuck"

    asyncio.run(main())


def test_a_cancelled_register_is_on_record_and_undone(make: Place) -> None:
    async def main() -> None:
        async with make() as journal:

            async def work() -> None:
                async with CompensationScope("a", journal=journal) as scope:
                    await scope.register(undo, "x")

            task = asyncio.create_task(work())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert undone == ["x"]

    asyncio.run(main())


def test_a_register_that_comes_too_late_leaves_nothing_on_record(make: Place) -> None:
    async def main() -> None:
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            late = asyncio.create_task(register(scope, "x"))
            await asyncio.sleep(0)
            await scope.compensate()
            with pytest.raises(ScopeClosed):
                await late
            assert await make.states(journal) == {}
            assert undone == []

    asyncio.run(main())


async def register(scope: CompensationScope, name: str) -> None:
    await scope.register(undo, name)


def test_the_newest_saga_of_the_dead_is_undone_first_and_the_key_is_the_same(make: Place) -> None:
    told = os.pipe()

    async def dead(_: Child) -> None:
        journal = make()
        for name in "ab":
            scope = CompensationScope(name, journal=journal)
            for number in "12":
                await scope.register(note_key, name + number)
            os.write(told[1], scope.key.encode())

    async def main() -> None:
        async with make() as journal:
            reports = await make.recovered(journal, registry)
            assert [report.name for report in reports] == ["b", "a"]
            assert undone == ["b2", "b1", "a2", "a1"]
            a, b = (os.read(told[0], 32).decode() for _ in "ab")
            assert keys == [b, b, a, a]
            assert await recover(journal, registry) == []

    make.forked(dead)
    asyncio.run(main())
    for end in told:
        os.close(end)


def test_a_living_owner_keeps_its_sagas(make: Place) -> None:
    async def main() -> None:
        async with make() as mine, make() as other:
            scope = CompensationScope("a", journal=mine)
            await scope.register(undo, "x")
            assert await recover(other, registry) == []
            assert await recover(mine, registry) == []
            assert [saga.alive for saga in await other.sagas()] == [True]
            await scope.commit()
            assert await other.sagas() == []

    asyncio.run(main())


def test_what_is_open_when_a_journal_is_closed_may_be_recovered(make: Place) -> None:
    async def main() -> None:
        journal = make()
        scope = CompensationScope("a", journal=journal)
        await scope.register(undo, "x")
        await journal.close()
        async with make() as other:
            assert [saga.alive for saga in await other.sagas()] == [False]
            assert len(await recover(other, registry)) == 1
            assert undone == ["x"]
            # The first owner may do nothing more about it, should it be used again.
            with pytest.raises(LeaseLost):
                await scope.register(undo, "y")
            with pytest.raises(LeaseLost):
                await scope.commit()
            report = await scope.compensate()
            assert isinstance(report.failures[0].error, LeaseLost)
            assert undone == ["x"]
        await journal.close()
        await journal.close()

    asyncio.run(main())


def test_an_action_of_unknown_name_and_those_before_it_are_left_for_a_process_that_knows_it(
    make: Place,
) -> None:
    others = CompensationRegistry()

    @others.compensation("theirs")
    async def theirs(name: str) -> None:
        undone.append(f"theirs {name}")

    async def dead(_: Child) -> None:
        scope = CompensationScope("a", journal=make())
        await scope.register(undo, "1")
        await scope.register(theirs, "2")
        await scope.register(undo, "3")

    async def main() -> None:
        async with make() as journal:
            (report,) = await make.recovered(journal, registry)
            assert [entry.name for entry in report.deferred] == ["theirs", "undo"]
            assert undone == ["3"]
            with pytest.raises(LeaseLost):
                await journal.release(report.saga)  # it was released already
            others.compensation("undo")(undo.func)
            (report,) = await recover(journal, others)
            assert undone == ["3", "theirs 2", "1"]
            assert len(report.done) == 2

    make.forked(dead)
    asyncio.run(main())


def test_a_poison_undo_is_parked_and_its_attempts_are_counted_across_restarts(make: Place) -> None:
    async def dead(_: Child) -> None:
        scope = CompensationScope("a", journal=make())
        for name in "xyz":
            await scope.register(undo, name)

    async def dies_in_the_middle(child: Child) -> None:
        poison.add("y")
        journal = make()
        postpone = journal.postpone

        async def once(*args: Any) -> None:
            await postpone(*args)
            child.say("end")
            os.kill(os.getpid(), signal.SIGKILL)

        journal.postpone = once  # type: ignore[method-assign, assignment]
        await make.recovered(journal, registry)

    async def main() -> None:
        poison.add("y")
        async with make() as journal:
            (report,) = await make.recovered(journal, registry)
            assert undone == ["y", "x"]  # z was done, and y had one attempt of two left
            assert [entry.args for entry in report.stuck] == [("y",)]
            assert await recover(journal, registry) == []
            poison.clear()
            assert await journal.retry(report.saga) == 1
            assert len(await recover(journal, registry)) == 1
            assert undone == ["y", "x", "y"]

    make.forked(dead)
    make.forked(dies_in_the_middle)
    asyncio.run(main())


def test_what_is_discarded_is_not_undone_and_keeps_the_reason(make: Place) -> None:
    async def main() -> None:
        poison.add("x")
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            await scope.compensate()
            (saga,) = await journal.sagas()
            assert await journal.discard(saga.id, "done by hand") == 1
            assert await journal.discard(saga.id, "once more") == 0
            (saga,) = await journal.sagas()
            assert saga.actions[0].error == "discarded: done by hand"
            assert await recover(journal, registry) == []

    asyncio.run(main())


def test_what_was_undone_is_forgotten_after_its_time(make: Place) -> None:
    async def main() -> None:
        poison.add("x")
        async with make(retention=0.0) as journal:
            scopes = [CompensationScope(name, journal=journal) for name in "xy"]
            for scope in scopes:
                await scope.register(undo, scope.name)
                await commit_or_roll_back(scope, keep=False)
            assert set(await make.states(journal)) == {"x", "y"}
            await recover(journal, registry)
            assert set(await make.states(journal)) == {"x"}  # stuck stays forever
            async with make(retention=float("inf")) as other:  # as the command has it
                assert await recover(other, registry) == []
            await scopes[1].register(undo, "z")
            assert set(await make.states(journal)) == {"x", "y"}
            await scopes[1].commit()

    asyncio.run(main())


def test_several_recoverers_share_the_work_and_each_undo_runs_once(make: Place) -> None:
    together = CompensationRegistry()
    at_work: list[str] = []
    all_at_work = asyncio.Event()

    @together.compensation("together")
    async def wait_for_four(name: str) -> None:
        at_work.append(name)
        if len(at_work) == 4:  # one of each: a recoverer carries out one at a time
            all_at_work.set()
        await all_at_work.wait()
        undone.append(name)

    async def recovered(journal: PostgresJournal) -> list[RecoveryReport]:
        found: list[RecoveryReport] = []

        async def any_dead() -> bool:
            found.extend(await recover(journal, together))
            return bool(found)

        await make.until(any_dead)
        return found

    async def dead(_: Child) -> None:
        journal = make()
        for number in range(20):
            scope = CompensationScope(str(number), journal=journal)
            await scope.register(wait_for_four, str(number))

    async def main() -> None:
        await make.execute(
            "UPDATE {schema}.owner SET expires = clock_timestamp() WHERE expires IS NOT NULL"
        )
        journals = [make() for _ in range(4)]
        reports = await asyncio.gather(*(recovered(journal) for journal in journals))
        assert sum(map(len, reports)) == 20
        assert all(reports)
        assert sorted(undone, key=int) == [str(number) for number in range(20)]
        for journal in journals:
            await journal.close()

    make.forked(dead)
    asyncio.run(main())


# Transactions.


def test_many_scopes_share_a_transaction(make: Place) -> None:
    async def main() -> None:
        async with make() as journal:
            scopes = [CompensationScope(str(number), journal=journal) for number in range(32)]
            before = await make.value("SELECT batch FROM {schema}.owner")
            for _ in range(10):
                await asyncio.gather(*(scope.register(undo, "x") for scope in scopes))
            batches = await make.value("SELECT batch FROM {schema}.owner") - before
            assert batches <= 12  # of 320 registrations
            await asyncio.gather(*(scope.commit() for scope in scopes))
            assert await make.value("SELECT batch FROM {schema}.owner") - before <= 15
            assert await make.states(journal) == {}

    asyncio.run(main())


def test_a_request_that_fails_does_not_fail_the_others_of_its_batch(make: Place) -> None:
    async def main() -> None:
        async with make() as mine, make() as other:
            fenced = CompensationScope("fenced", journal=mine)
            await fenced.register(undo, "r")
            await make.execute("UPDATE {schema}.saga SET owner = 'x', epoch = 2")
            await make.execute("ALTER TABLE {schema}.action ADD CHECK (path <> 'bad')")
            scopes = [CompensationScope(str(number), journal=mine) for number in range(10)]
            scopes[5] = CompensationScope("bad", journal=mine)
            scopes[7] = fenced
            calls = [scope.register(undo, "x") for scope in scopes]
            results = await asyncio.gather(*calls, fenced.commit(), return_exceptions=True)
            assert [place for place, it in enumerate(results) if it is not None] == [5, 7, 10]
            assert isinstance(results[5], JournalUnavailable)
            assert "check constraint" in str(results[5])
            assert isinstance(results[7], LeaseLost)
            assert isinstance(results[10], LeaseLost)
            assert len(await other.sagas()) == 9
            for scope in scopes[:5]:
                await scope.commit()
            await make.execute("UPDATE {schema}.saga SET owner = ''")
            saga = saga_of(fenced)
            for scope in scopes[6:]:
                await scope.compensate()
            assert saga in str(fenced.report.failures[0].error)

    asyncio.run(main())


def test_a_commit_is_durable_even_where_the_default_says_otherwise(make: Place) -> None:
    async def main() -> None:
        async with make():
            pass
        await make.execute(
            """
            CREATE TABLE {schema}.seen (setting text);
            CREATE FUNCTION {schema}.see() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO {schema}.seen VALUES (current_setting('synchronous_commit'));
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER see AFTER INSERT OR DELETE ON {schema}.action
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {schema}.see();
            """
        )
        lax = make.dsn + "%20-csynchronous_commit%3Doff"
        async with make(dsn=lax) as journal:
            async with CompensationScope("a", journal=journal) as scope:
                await scope.register(undo, "x")
            async with type(make)(
                lax, ""
            ).database() as connection:  # which really is off otherwise
                assert await connection.fetchval("SHOW synchronous_commit") == "off"
        assert await make.value("SELECT array_agg(setting) FROM {schema}.seen") == ["on", "on"]

    asyncio.run(main())


def test_a_batch_is_carried_out_once_and_never_after_a_later_one(make: Place) -> None:
    """A pooler may deliver late what a lost connection had sent."""

    async def main() -> None:
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            owner = journal._writer.delivery.owner
            apply = "SELECT {schema}.apply('%s', %s, 0, '1s', '[{\"do\": \"leave\"}]')"
            number = await make.value("SELECT batch FROM {schema}.owner")
            assert await make.value(apply % (owner, number)) == "[[]]"  # the answer it had
            with pytest.raises(asyncpg.RaiseError, match="comes after"):
                await make.value(apply % (owner, number - 1))
            assert len(await journal.sagas()) == 1
            await scope.commit()

    asyncio.run(main())


def test_listing_waits_for_no_lock(place: Place) -> None:
    async def main() -> None:
        async with place(patience=0.5) as journal, place.database() as connection:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            async with connection.transaction():
                await connection.execute(
                    f"LOCK TABLE {place.schema}.action, {place.schema}.saga, {place.schema}.owner "
                    "IN EXCLUSIVE MODE"
                )
                with pytest.raises(JournalUnavailable, match="lock timeout"):
                    await scope.register(undo, "y")
                with pytest.raises(JournalUnavailable, match="lock timeout"):
                    await scope.commit()
                assert await place.states(journal) == {"a": [('{"name": "x"}', "pending", 0)]}
            assert len(scope) == 1
            await scope.commit()
            assert await place.states(journal) == {}

    asyncio.run(main())


# Tables.


def test_listing_where_there_is_no_journal_is_refused_and_makes_nothing(make: Place) -> None:
    async def main() -> None:
        journal = make()
        with pytest.raises(JournalUnavailable, match="no journal in schema test_"):
            await journal.sagas()
        assert await make.value("SELECT to_regclass('{schema}.version')") is None

    asyncio.run(main())


def test_processes_that_start_at_the_same_time_make_the_tables_once(
    postgres_cluster: PostgresCluster,
) -> None:
    async def main() -> None:
        place = postgres_cluster.place("first_start")
        journals = [place() for _ in range(8)]
        scopes = [CompensationScope("a", journal=journal) for journal in journals]
        await asyncio.gather(*(scope.register(undo, "x") for scope in scopes))
        assert await place.value("SELECT array_agg(number) FROM {schema}.version") == [1]
        await asyncio.gather(*(scope.commit() for scope in scopes))
        await asyncio.gather(*(journal.close() for journal in journals))

    asyncio.run(main())


def test_newer_tables_are_left_alone(make: Place) -> None:
    async def main() -> None:
        async with make():
            pass
        await make.execute("UPDATE {schema}.version SET number = 99")
        scope = CompensationScope("a", journal=make())
        for call in (scope.register(undo, "x"), make().sagas()):
            with pytest.raises(JournalError, match="version 99 is newer"):
                await call
        await make.execute("DELETE FROM {schema}.version")
        with pytest.raises(JournalCorrupt, match="version is missing"):
            await scope.register(undo, "x")
        assert len(scope) == 0

    asyncio.run(main())


def test_hand_made_damage_is_corruption_and_nothing_more_is_lost(make: Place) -> None:
    async def main() -> None:
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            await make.execute("ALTER TABLE {schema}.action RENAME TO elsewhere")
            with pytest.raises(JournalCorrupt, match="does not exist"):
                await scope.register(undo, "y")
            await make.execute("ALTER TABLE {schema}.elsewhere RENAME TO action")
            await scope.commit()
            assert await journal.sagas() == []

    asyncio.run(main())


# Servers that refuse.


def test_a_role_without_the_rights_gets_a_clear_error(postgres_cluster: PostgresCluster) -> None:
    async def main() -> None:
        owner = postgres_cluster.place("of_others")
        await owner.execute(
            "CREATE ROLE nobody LOGIN; CREATE ROLE crowd LOGIN CONNECTION LIMIT 0;"
            "CREATE ROLE reader LOGIN; ALTER ROLE reader SET default_transaction_read_only = on;"
        )
        async with owner():
            pass
        await owner.execute("GRANT ALL ON SCHEMA {schema} TO reader")
        for schema, user, reason in (
            ("new", "nobody", "permission denied for database"),
            ("of_others", "nobody", "permission denied for schema"),
            ("of_others", "reader", "the server is read-only"),
            ("new", "reader", "the server is read-only"),
            ("new", "stranger", "does not exist"),
            ("new", "crowd", "too many connections"),
        ):
            dsn = postgres_cluster.dsn.replace("postgres@", f"{user}@")
            # One connection too many, or a standby, is tried again until then; the others fail at
            # once.
            patience = 2.0 if user in {"crowd", "reader"} else 10.0
            journal = PostgresJournal(dsn, schema=schema, patience=patience)
            scope = CompensationScope("a", journal=journal)
            with pytest.raises(JournalUnavailable, match=reason):
                await scope.register(undo, "x")
            assert len(scope) == 0
        for port, database, reason in (
            (None, "none", "does not exist"),
            ("1", "postgres", "refused|Connect call"),
            ("no", "postgres", "'no'"),
            ("99999", "postgres", "port must be"),
        ):
            dsn = postgres_cluster.dsn.replace("/postgres", f"/{database}")
            if port is not None:
                dsn = re.sub(r":\d+/", f":{port}/", dsn)
            with pytest.raises(JournalUnavailable, match=reason):
                async with PostgresJournal(dsn, patience=2.0):
                    pass
            with pytest.raises(JournalUnavailable, match=reason):
                await PostgresJournal(dsn, patience=2.0).sagas()

    asyncio.run(main())


def test_a_database_that_turns_read_only_or_full_refuses_before_the_effect(make: Place) -> None:
    async def main() -> None:
        async with make():
            pass
        dsn = make.dsn + "%20-cdefault_transaction_read_only%3Don"
        async with make(dsn=dsn, patience=1.0) as _:
            raise AssertionError("not reached")

    with pytest.raises(JournalUnavailable, match="read-only"):
        asyncio.run(main())

    async def full() -> None:
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(undo, "x")
            await make.execute(
                """
                CREATE FUNCTION {schema}.no_room() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100';
                END $$;
                CREATE TRIGGER no_room BEFORE INSERT OR DELETE ON {schema}.action
                    EXECUTE FUNCTION {schema}.no_room();
                """
            )
            with pytest.raises(JournalUnavailable, match="could not extend"):
                await scope.register(undo, "y")
            with pytest.raises(JournalUnavailable, match="could not extend"):
                await scope.commit()
            assert len(scope) == 1
            assert len((await make.states(journal))["a"]) == 1
            await make.execute("DROP TRIGGER no_room ON {schema}.action")
            await scope.commit()

    asyncio.run(full())


def test_bad_arguments_are_refused_at_the_call(place: Place) -> None:
    for options in (
        {"dsn": "sqlite://"},
        {"dsn": "postgresql://[::1/db"},
        {"schema": 'a"b'},
        {"schema": ""},
        {"liveness": "clock"},
        {"lease": 0},
        {"lease": float("inf")},
        {"patience": 0},
        {"retention": -1},
    ):
        with pytest.raises(InvalidArgument):
            place(**options)


def test_the_name_of_a_journal_holds_no_secret() -> None:
    journal = PostgresJournal("postgresql://me:hidden@one:1,two:2/db?password=hidden&sslmode=off")
    assert str(journal) == "postgresql://me@one:1,two:2/db"
    assert str(PostgresJournal("postgres:///db")) == "postgres:///db"


def test_without_asyncpg_only_making_one_fails() -> None:
    program = """
import sys
import returns_pipeline.journal as journal
assert "asyncpg" not in sys.modules
sys.modules["asyncpg"] = None
from returns_pipeline.errors import MissingExtra  # noqa: E402
try:
    journal.PostgresJournal("postgresql://")
except MissingExtra as error:
    assert error == MissingExtra("postgres", "asyncpg")
else:
    sys.exit("no error")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_memory_of_sagas_that_have_ended_is_given_back(make: Place) -> None:
    async def main() -> None:
        async with make() as journal:
            for ends in ("commit", "compensate", "compensate"):
                scope = CompensationScope("a", journal=journal)
                await scope.register(undo, "x")
                await getattr(scope, ends)()
                assert (journal._ledger.sagas, journal._ledger.actions) == ({}, {})

    asyncio.run(main())
