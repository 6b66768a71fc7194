"""What recovery from a `PostgresJournal` costs: in proportion to what is open, nothing else."""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any

import pytest

_ = pytest.importorskip("asyncpg", reason="needs the package asyncpg")

from returns_pipeline.compensation import CompensationRegistry, CompensationScope  # noqa: E402
from returns_pipeline.journal import recover  # noqa: E402
from returns_pipeline.journal.postgres._rows import listed  # noqa: E402

if TYPE_CHECKING:
    from returns_pipeline.journal import PostgresJournal
    from tests.journal.conftest import Place

registry = CompensationRegistry()
undone: list[str] = []

CLAIM = '[{"do": "claim", "besides": {}, "limit": 1, "retention": 1e6}]'


@registry.compensation("undo")
async def undo(name: str) -> None:
    """Record the call."""
    undone.append(name)


@pytest.fixture(autouse=True)
def _clean() -> None:
    undone.clear()


async def fill(place: Place, kind: str, count: int) -> None:
    """Insert sagas of one action: "open" and without an owner, or "done"."""
    is_open = kind == "open"
    await place.execute(
        f"""
        INSERT INTO {{schema}}.saga (id, name, number, owner, epoch, is_open)
            SELECT '{kind} ' || i, 'w', nextval('{{schema}}.saga_number'), '', 2, {is_open}
            FROM generate_series(1, {count}) AS i;
        INSERT INTO {{schema}}.action
                (id, saga, position, path, key, name, version, arguments, state, ended)
            SELECT '{kind} ' || i, '{kind} ' || i, '1', 'w', 'k', 'undo', 1,
                '{{{{"name": "x"}}}}'::text, '{"pending" if is_open else "done"}', now()
            FROM generate_series(1, {count}) AS i;
        """.replace("{{", "{").replace("}}", "}")
    )


async def pages_of_a_claim(database: Any, schema: str) -> int:
    """Return how many pages the server looks at for a claim, which is then rolled back."""
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"
    pages = 0
    for number in (1, 2):  # plans are made in the first
        await database.execute("BEGIN")
        found = await database.fetchval(
            f"{explain} SELECT {schema}.apply('me', {number}, 5, '1s', '{CLAIM}')"
        )
        await database.execute("ROLLBACK")
        plan = json.loads(found)[0]["Plan"]
        pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return pages


async def pages_of_the_rows(database: Any, schema: str) -> int:
    """Return how many pages the rows of sagas and actions take."""
    size = await database.fetchval(
        f"SELECT pg_relation_size('{schema}.saga') + pg_relation_size('{schema}.action')"
    )
    return int(size) // 8192


def test_a_claim_does_not_read_what_was_done_before(place: Place) -> None:
    async def main() -> None:
        async with place():
            pass
        await fill(place, "open", 20)
        async with place.database() as database:
            few = await pages_of_a_claim(database, place.schema)
        await fill(place, "done", 20_000)
        async with place.database() as database:
            rows = await pages_of_the_rows(database, place.schema)
            assert await pages_of_a_claim(database, place.schema) < few + rows // 4

    asyncio.run(main())


def test_a_list_of_what_is_not_done_does_not_read_what_is(place: Place) -> None:
    async def main() -> None:
        async with place():
            pass
        await fill(place, "open", 20)
        await place.execute("UPDATE {schema}.action SET state = 'stuck' WHERE id = 'open 7'")
        await place.execute("UPDATE {schema}.saga SET is_open = false WHERE id = 'open 7'")
        pages: list[int] = []
        async with place.database() as database:
            for done in (0, 20_000):
                await fill(place, "done", done)
                await place.execute("ANALYZE {schema}.saga, {schema}.action")
                found = await database.fetchval(
                    "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + listed(place.schema, done=False)
                )
                plan = json.loads(found)[0]["Plan"]
                pages.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
            rows = await pages_of_the_rows(database, place.schema)
        assert pages[1] < pages[0] + rows // 4
        async with place() as journal:
            assert len(await journal.sagas(done=False)) == 20

    asyncio.run(main())


def test_a_recovery_reads_so_many_pages_for_each_saga_however_many_there_are(
    place: Place,
) -> None:
    async def main() -> None:
        async with place():
            pass
        await fill(place, "open", 50)
        async with place.database() as database:
            few = await pages_of_a_claim(database, place.schema)
        await place.execute("TRUNCATE {schema}.saga, {schema}.action")
        await fill(place, "open", 20_000)
        async with place.database() as database:
            rows = await pages_of_the_rows(database, place.schema)
            assert await pages_of_a_claim(database, place.schema) < few + rows // 4

    asyncio.run(main())


def test_a_claim_holds_few_locks_however_many_owners_have_died(place: Place) -> None:
    async def main() -> None:
        async with place():
            pass
        await fill(place, "open", 1)
        await place.execute(
            "INSERT INTO {schema}.owner (id, since, seen) SELECT i::text, "
            "now() - interval '2 days', now() - interval '2 days' FROM generate_series(1, 500) AS i"
        )
        async with place.database() as database:
            await database.execute("BEGIN")
            await database.execute(f"SELECT {place.schema}.apply('me', 1, 5, '1s', '{CLAIM}')")
            locks = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()"
            assert await database.fetchval(f"{locks} AND locktype = 'advisory'") <= 51
            await database.execute("COMMIT")
        left = "SELECT count(*) FROM {schema}.owner WHERE id <> 'me'"
        assert await place.value(left) == 450
        async with place() as journal:
            while await place.value(left) > 1:  # the journal's own
                assert await journal.claim(besides={"open 1"}) is None

    asyncio.run(main())


def test_expired_rows_are_deleted_by_a_process_that_never_recovers(place: Place) -> None:
    async def main() -> None:
        async with place():
            pass
        await fill(place, "done", 450)
        count = "SELECT count(*) FROM {schema}.saga"
        async with place(retention=0) as journal:
            assert await place.value(count) == 250  # a few at a time
            for _ in range(70):
                async with CompensationScope("a", journal=journal) as scope:
                    await scope.register(undo, "x")
        assert await place.value(count) == 0

    asyncio.run(main())


async def claim_in_advance(journal: PostgresJournal) -> list[str]:
    """Claim four sagas, of which the caller gets one; return the ids of the others."""
    claims: Any = journal._claims
    claims._size, claims._claimed_at = 2, math.inf  # as when two were used up just now
    first = await journal.claim(besides=frozenset())
    assert first is not None
    return [saga for saga in journal._ledger.sagas if saga != first.id]


def test_sagas_claimed_in_advance_are_released_when_nobody_asks_for_them(make: Place) -> None:
    async def main() -> None:
        async with make() as journal, make() as other:
            await fill(make, "open", 10)
            assert len(await claim_in_advance(journal)) == 3

            async def all_but_one() -> bool:
                reports.extend(await recover(other, registry))
                return len(reports) == 9

            reports: list[object] = []
            await make.until(all_but_one)
            assert len(journal._ledger.sagas) == 1

    asyncio.run(main())


def test_sagas_that_are_being_released_can_be_claimed_by_the_next_claim(place: Place) -> None:
    """Otherwise a recovery ends too early: nothing seems to be left."""

    async def main() -> None:
        async with place() as journal:
            await fill(place, "open", 4)
            assert len(await claim_in_advance(journal)) == 3
            journal._claims._release_ahead()  # as when its time has passed
            claimed = 1
            while await journal.claim(besides=frozenset()) is not None:
                claimed += 1
            assert claimed == 4

    asyncio.run(main())


def test_claims_at_the_same_time_share_what_was_claimed_in_advance(place: Place) -> None:
    async def main() -> None:
        async with place() as journal:
            await fill(place, "open", 200)
            claims = (journal.claim(besides=frozenset()) for _ in range(16))
            assert len({saga.id for saga in await asyncio.gather(*claims) if saga}) == 16
            assert len(journal._ledger.sagas) < 2 * 16

    asyncio.run(main())


def test_sagas_claimed_in_advance_are_free_when_the_journal_is_closed(make: Place) -> None:
    async def main() -> None:
        async with make() as journal:
            await fill(make, "open", 10)
            assert len(await claim_in_advance(journal)) == 3
        async with make() as other:
            assert len(await recover(other, registry)) == 10
            assert len(undone) == 10

    asyncio.run(main())


def test_a_saga_claimed_in_advance_and_lost_meanwhile_is_not_returned(make: Place) -> None:
    async def main() -> None:
        async with make() as journal:
            await fill(make, "open", 6)
            lost = await claim_in_advance(journal)
            for saga in lost:
                journal._ledger.discard(saga)  # as when the server says that another has it
            following = await journal.claim(besides=frozenset())
            assert following is not None
            assert following.id not in lost

    asyncio.run(main())


def test_a_saga_is_open_exactly_as_long_as_it_has_open_actions(make: Place) -> None:
    """What a claim relies on, after each kind of request."""

    async def main() -> None:
        async with make() as journal:

            async def check() -> None:
                assert not await make.value(
                    "SELECT count(*) FROM {schema}.saga AS s WHERE is_open <> EXISTS (SELECT FROM "
                    "{schema}.action AS a WHERE a.saga = s.id AND state IN ('pending', 'deferred'))"
                )

            outer = CompensationScope("outer", journal=journal)
            await outer.register(undo, "1")
            await check()
            await outer.compensate()
            await check()
            scope = CompensationScope("stuck", journal=journal)
            await scope.register(undo, "2")
            (action,) = journal._ledger.actions
            await journal.mark(action).give_up("no")
            await check()
            (saga,) = (it for it in await journal.sagas() if it.name == "stuck")
            assert await journal.retry(saga.id) == 1
            await check()
            claimed = await journal.claim(besides=frozenset())
            assert claimed is not None
            await journal.defer(claimed.actions[0].id, "unknown name")
            await check()
            await journal.release(claimed.id)
            await check()
            assert await journal.discard(claimed.id, "by hand") == 1
            await check()
            scope._records = []  # settled by hand

    asyncio.run(main())
