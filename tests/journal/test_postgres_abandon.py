"""What a scope leaves to `recover` in PostgreSQL while its own process lives on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")


from scoping import detached  # noqa: E402
from undoing import note, poison, registry, undone  # noqa: E402

from returns_pipeline.compensation import CompensationScope  # noqa: E402
from returns_pipeline.errors import JournalUnavailable, LeaseLost  # noqa: E402
from returns_pipeline.journal import PostgresJournal, recover  # noqa: E402

if TYPE_CHECKING:
    from tests.journal.conftest import Place, Wire


async def ids_by_name(journal: PostgresJournal) -> dict[str, str]:
    """Return the ids of all actions on record, by what they note."""
    sagas = await journal.sagas()
    return {action.arguments[-3]: action.id for saga in sagas for action in saga.actions}


def forget_quietly(*scopes: CompensationScope) -> None:
    for scope in scopes:
        scope._records = []  # otherwise it warns when it is collected


def test_abandoned_actions_are_anybodys_and_the_rest_of_their_saga_is_not(make: Place) -> None:
    async def main() -> None:
        async with make() as journal, make() as other:
            scope = CompensationScope("a", journal=journal)
            for name in "1234":
                await scope.register(note, name)
            ids = await ids_by_name(journal)
            journal.abandon([ids["2"], ids["4"], "no such action"])
            await journal.flush()
            (report,) = await recover(other, registry)
            assert report.name == "a"
            assert undone == ["4", "2"]  # in their order
            states = [(s.alive, [a.state for a in s.actions]) for s in await journal.sagas()]
            assert states == [(True, ["done"] * 2), (True, ["pending"] * 2)]
            assert await recover(other, registry) == []
            with pytest.raises(LeaseLost):
                await scope.commit()  # two of its actions are not its own any more
            forget_quietly(scope)

    asyncio.run(main())


def test_an_owner_recovers_what_it_has_abandoned_itself(make: Place) -> None:
    async def main() -> None:
        async with make() as journal:
            scope = CompensationScope("a", journal=journal)
            for name in "12":
                await scope.register(note, name)
            journal.abandon(list((await ids_by_name(journal)).values()))
            assert len(await recover(journal, registry)) == 1
            assert undone == ["2", "1"]
            forget_quietly(scope)

    asyncio.run(main())


def test_what_is_undone_or_another_owners_is_passed_over(make: Place) -> None:
    async def main() -> None:
        async with make() as journal, make() as other:
            scope, lost = (CompensationScope(name, journal=journal) for name in ("a", "lost"))
            await scope.register(note, "1")
            await scope.register(note, "2")
            await lost.register(note, "3")
            ids = await ids_by_name(journal)
            # As after answers that never came: the tables know more than this process.
            await make.execute(
                f"UPDATE {{schema}}.action SET state = 'stuck' WHERE id = '{ids['2']}'"
            )
            await make.execute(
                "UPDATE {schema}.saga SET owner = '', epoch = epoch + 1 WHERE name = 'lost'"
            )
            stored = await other.claim(besides=frozenset())
            assert stored is not None
            journal.abandon(list(ids.values()))
            await journal.flush()
            (report,) = await recover(other, registry, concurrency=1)
            assert (report.name, undone) == ("a", ["1"])
            assert await make.states(journal) == {
                "a": [('{"name": "1"}', "done", 1), ('{"name": "2"}', "stuck", 0)],
                "lost": [('{"name": "3"}', "pending", 0)],
            }
            await other.release(stored.id)  # it is its own still
            forget_quietly(scope, lost)

    asyncio.run(main())


def test_what_is_abandoned_while_the_tables_are_locked_is_the_first_thing_written(
    make: Place,
) -> None:
    async def main() -> None:
        async with make(patience=0.3) as journal, make.database() as database:
            outer = CompensationScope("outer", journal=journal)
            await outer.register(note, "1")
            inner = detached(outer, "inner")
            await inner.register(note, "2")
            await outer.register(note, "3")
            ids = await ids_by_name(journal)
            await database.execute(f"BEGIN; LOCK TABLE {make.schema}.action IN EXCLUSIVE MODE")
            outer.absorb(inner)  # a move, which has to be made before
            journal.abandon(list(ids.values()))
            await journal.flush()
            with pytest.raises(JournalUnavailable):
                await recover(journal, registry)
            assert undone == []
            await database.execute("ROLLBACK")
            (report,) = await recover(journal, registry)  # by this process itself
            assert report.name == "outer"
            assert undone == ["3", "2", "1"]
            forget_quietly(outer)

    asyncio.run(main())


def test_what_is_abandoned_while_the_tables_are_locked_is_written_without_another_request(
    make: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("returns_pipeline.journal.postgres._writer._PAUSE", 0.05)

    async def main() -> None:
        async with make(patience=0.1) as journal, make() as other, make.database() as database:
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "1")
            (action,) = (await ids_by_name(journal)).values()
            await database.execute(f"BEGIN; LOCK TABLE {make.schema}.action IN EXCLUSIVE MODE")
            journal.abandon([action])
            await asyncio.sleep(0.5)  # more than one attempt fails
            await database.execute("ROLLBACK")

            async def is_recovered() -> bool:
                return bool(await recover(other, registry))

            await make.until(is_recovered)
            assert undone == ["1"]
            forget_quietly(scope)

    asyncio.run(main())


def test_what_is_abandoned_without_a_connection_is_written_although_nothing_else_is_open(
    place: Place, wire: type[Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a lease, so that the owner counts as alive although it is cut off."""
    monkeypatch.setattr("returns_pipeline.journal.postgres._writer._PAUSE", 0.05)

    async def main() -> None:
        async with (
            wire(place.dsn) as cable,
            place(dsn=cable.dsn, liveness="lease", lease=300.0, patience=0.2) as journal,
            place(liveness="lease") as other,
        ):
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "1")
            (action,) = (await ids_by_name(journal)).values()
            cable.closes = True
            cable.cut()
            journal.abandon([action])
            await journal.flush()  # it has failed, and is kept
            assert await recover(other, registry) == []
            cable.closed = cable.closes = False

            async def is_recovered() -> bool:
                return bool(await recover(other, registry))

            await place.until(is_recovered)
            assert undone == ["1"]
            forget_quietly(scope)

    asyncio.run(main())


def test_an_undo_that_the_journal_kept_from_running_is_left_to_any_process(make: Place) -> None:
    async def main() -> None:
        async with make(patience=0.3) as journal, make() as other:
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "1")
            connection: Any = journal._writer.delivery.connection
            apply = connection.apply

            async def refuse(*_: object) -> Any:
                raise asyncpg.DiskFullError("no space")

            connection.apply = refuse
            report = await scope.compensate()
            assert len(report.failures) == 1
            await journal.flush()
            assert await recover(other, registry) == []  # it could not be written yet
            connection.apply = apply

            async def is_recovered() -> bool:
                return bool(await recover(other, registry))

            await make.until(is_recovered)
            assert undone == ["1"]

    asyncio.run(main())


def test_abandoning_in_another_loop_is_logged_and_changes_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with place() as journal:
            scope = CompensationScope("a", journal=journal)
            await scope.register(note, "1")
            (action,) = (await ids_by_name(journal)).values()

            async def elsewhere() -> None:
                journal.abandon([action])

            await asyncio.to_thread(asyncio.run, elsewhere())
            assert "another event loop" in caplog.text
            await scope.commit()
            assert await journal.sagas() == []

    asyncio.run(main())


@pytest.mark.parametrize("then", ["dies", "moves", "abandons", "retries"])
def test_a_saga_whose_scope_stops_at_a_failure_is_left_from_there_on_after_a_crash(
    make: Place, then: str
) -> None:
    async def main() -> None:
        async with make() as other:
            async with make() as journal:
                scope = CompensationScope("a", journal=journal, on_failure="stop")
                for name in "123":
                    await scope.register(note, name)
                ids = await ids_by_name(journal)
                if then == "moves":
                    journal.move(list(ids.values()), saga="another", name="a", prefix="")
                elif then == "abandons":
                    journal.abandon(list(ids.values()))
                elif then == "retries":  # while its owner lives
                    await make.execute("UPDATE {schema}.action SET state = 'stuck'")
                    (saga,) = await journal.sagas()
                    assert await journal.retry(saga.id) == 3
                assert [saga.on_failure for saga in await journal.sagas()] == ["stop"]
                forget_quietly(scope)
            poison.add("2")
            (report,) = await recover(other, registry)
            assert [entry.args for entry in report.done] == [("3",)]
            assert [entry.error for entry in report.stuck][1] == "not run"
            assert undone == ["3", "2", "2"]
            assert await recover(other, registry) == []

    asyncio.run(main())
