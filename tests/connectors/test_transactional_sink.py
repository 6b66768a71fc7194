"""`connectors.postgres.TransactionalSink`: rows equal the input, once, whatever is lost or late."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")

from connecting import SOON, within

from returns_pipeline import err, ok
from returns_pipeline.connectors import Message, Source
from returns_pipeline.connectors.postgres import PostgresLog, TransactionalSink
from returns_pipeline.errors import InvalidArgument, PartitionReplaced, PartitionsLost
from returns_pipeline.testing import MemoryBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from returns.result import Result

NO_POOL: Any = SimpleNamespace(acquire=None)


class Sink:
    """A log, a table of effects, and the sinks of several processes into it."""

    def __init__(self, dsn: str, pool: Any) -> None:
        self.dsn = dsn
        self.pool = pool
        self.log = PostgresLog(dsn, f"log_{uuid4().hex[:12]}")
        self.before: Callable[[list[Message[int]]], Coroutine[Any, Any, object]] | None = None

    def sink(self, **options: Any) -> TransactionalSink[int, int, str]:
        return TransactionalSink(self.pool, "test", write=self.write, **options)

    async def write(self, connection: Any, window: list[Message[int]]) -> Result[int, str]:
        for message in window:
            if message.value < 0:
                return err("negative")
            await connection.execute("INSERT INTO effect VALUES ($1)", message.value)
        if self.before is not None:
            await self.before(window)
        return ok(len(window))

    async def publish(self, *values: int) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            for value in values:
                await self.log.append(connection, str(value).encode())

    async def effects(self) -> list[int]:
        rows = await self.pool.fetch("SELECT number FROM effect ORDER BY number")
        return [row["number"] for row in rows]

    def source(self, sink: TransactionalSink[Any, Any, Any], **options: Any) -> Source[int, Any]:
        driver = self.log.driver("g", positions=sink)
        return Source(driver, decode=int, reconnect=SOON, **options)


@contextlib.asynccontextmanager
async def opened(dsn: str, partitions: int = 2) -> AsyncIterator[Sink]:
    async with asyncpg.create_pool(dsn, min_size=0, max_size=6) as pool:
        made = Sink(dsn, pool)
        await made.log.create(partitions)
        await made.sink().create()
        await made.sink().create()
        await pool.execute("CREATE TABLE effect (number int NOT NULL)")
        yield made


async def read_all(made: Sink, sink: TransactionalSink[int, int, str], count: int) -> None:
    """Read in windows until there are so many effects, and everything is acknowledged."""
    async with made.source(sink) as source:
        windows = source.messages().chunks_or_timeout(3, 0.05).bind_async(sink, concurrency=2)
        reading = asyncio.ensure_future(windows.run_all())
        while not reading.done() and len(await made.effects()) < count:
            await asyncio.sleep(0.02)
        source.drain()
        await reading
        await source.settled()


def test_rows_and_positions_are_written_together_and_read_on_from_there(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn) as made:
            await made.publish(*range(10))
            await read_all(made, made.sink(), 10)
            assert await made.effects() == [*range(10)]
            # The broker has forgotten what was acknowledged; the sink has not.
            await made.pool.execute(f"UPDATE {made.log._name}_groups SET xid = '0', id = 0")
            await made.publish(10)
            await read_all(made, made.sink(), 11)
            assert await made.effects() == [*range(11)]

    within(main())


def test_if_the_sink_is_set_back_the_source_is_set_back_too(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            await made.publish(*range(4))
            await read_all(made, made.sink(), 4)
            kept = await made.pool.fetch("SELECT * FROM returns_pipeline_position")
            await made.publish(*range(4, 8))
            await read_all(made, made.sink(), 8)
            # As if restored from a backup.
            await made.pool.execute("DELETE FROM effect WHERE number > 3")
            await made.pool.executemany(
                "UPDATE returns_pipeline_position SET spans = $1 WHERE partition = $2",
                [(row["spans"], row["partition"]) for row in kept],
            )
            await read_all(made, made.sink(), 8)
            assert await made.effects() == [*range(8)]

    within(main())


def test_a_failure_is_rolled_back_and_what_follows_is_not_held_up(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            await made.publish(0, 1, 2, -1, 4, 5, 6)
            sink = made.sink()
            async with made.source(sink) as source:
                counts = source.messages().chunks_or_timeout(2, 0.1).bind_async(sink)
                asyncio.get_running_loop().call_later(0.5, source.drain)
                done = await counts.run_all()
                assert str(done) == "<IO: Counts(successes=3, failures=1)>"
            assert await made.effects() == [0, 1, 4, 5, 6]
            await made.publish(7)
            await read_all(made, made.sink(), 6)
            ((spans,),) = await made.pool.fetch("SELECT spans FROM returns_pipeline_position")
            assert spans.count("]") == 4  # one stretch: the failure was handled
            assert await made.effects() == [0, 1, 4, 5, 6, 7]

    within(main())


def test_an_exception_of_the_step_propagates_and_nothing_is_written(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn) as made:
            await made.publish(1, 2)

            async def fail(_: object) -> None:
                raise OSError("disk full")

            made.before = fail
            with pytest.raises(OSError, match="disk full"):
                await read_all(made, made.sink(), 2)
            assert await made.effects() == []
            made.before = None
            await read_all(made, made.sink(), 2)
            assert await made.effects() == [1, 2]

    within(main())


def test_a_commit_whose_answer_was_lost_is_not_repeated_by_a_second_attempt(
    postgres_dsn: str,
) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            await made.publish(1, 2, 3)
            sink = made.sink()
            sizes: list[int] = []

            async def note(window: list[Message[int]]) -> None:
                sizes.append(len(window))

            made.before = note
            async with made.source(sink) as source:
                window = [(await anext(source)).unwrap() for _ in range(3)]
                coverage: Any = sink._coverage
                confirm, coverage.committed = coverage.committed, lambda _: None
                assert (await sink(window[:2])).unwrap() == 2
                coverage.committed = confirm  # as if the first call had raised at its commit
                assert (await sink(window)).unwrap() == 1
                with pytest.raises(RuntimeError, match="a second time"):
                    await sink(window[2])
            assert sizes == [2, 1]
            assert await made.effects() == [1, 2, 3]

    within(main())


def test_a_transaction_that_ends_after_its_partition_was_taken_is_refused(
    postgres_dsn: str,
) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            await made.publish(1, 2)
            zombie, heir = made.sink(), made.sink(patience=0.5)
            async with made.source(zombie) as source:
                window = [(await anext(source)).unwrap() for _ in range(2)]
                coverage: Any = zombie._coverage
            zombie.attach(coverage)  # it does not know that its source was given up
            await read_all(made, heir, 2)
            assert await made.effects() == [1, 2]
            with pytest.raises(PartitionsLost, match="log_"):
                await zombie(window)
            assert await made.effects() == [1, 2]

    within(main())


def test_a_transaction_of_the_former_owner_is_ended_by_one_that_waits_for_it(
    postgres_dsn: str,
) -> None:
    """It holds a lock on a unique row: without that, the heir would wait for it forever."""

    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            await made.pool.execute("CREATE UNIQUE INDEX ON effect (number)")
            await made.publish(1, 2)
            zombie, heir = made.sink(), made.sink(patience=0.5)
            stuck = asyncio.Event()

            async def wait_forever(_: object) -> None:
                stuck.set()
                made.before = None
                await asyncio.get_running_loop().create_future()

            made.before = wait_forever
            async with made.source(zombie) as source:
                window = [(await anext(source)).unwrap() for _ in range(2)]
                writing = asyncio.ensure_future(zombie(window))
                await stuck.wait()
            await read_all(made, heir, 2)
            assert await made.effects() == [1, 2]
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, asyncpg.PostgresError):
                await writing
            assert await made.effects() == [1, 2]

    within(main())


@pytest.mark.slow
def test_a_session_that_loses_its_locks_and_partitions_doubles_nothing(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 4) as made:
            await made.publish(*range(60))
            sinks = [made.sink(patience=0.5) for _ in range(2)]

            async def pause(_: object) -> None:
                await asyncio.sleep(0.02)

            made.before = pause

            async def read(sink: TransactionalSink[int, int, str], seconds: float) -> None:
                while True:
                    source = made.source(sink, settle_timeout=0.05, drain_timeout=1)
                    with contextlib.suppress(PartitionsLost, asyncpg.PostgresError):
                        async with source:
                            loop = asyncio.get_running_loop()
                            loop.call_later(seconds, source.drain)
                            windows = source.messages().chunks_or_timeout(2, 0.05)
                            await windows.bind_async(sink, concurrency=2).run()
                            return

            async def end_sessions() -> None:
                for _ in range(8):
                    await asyncio.sleep(0.2)
                    await made.pool.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        f" WHERE application_name LIKE '%{made.log._name}%'"
                        " AND random() < 0.7"
                    )

            await asyncio.gather(read(sinks[0], 4), read(sinks[1], 2.5), end_sessions())
            await read_all(made, made.sink(), 60)
            assert await made.effects() == [*range(60)]

    within(main())


def test_positions_of_transactions_that_have_not_begun_are_refused(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            await made.publish(1)
            await read_all(made, made.sink(), 1)
            await made.pool.execute(
                "UPDATE returns_pipeline_position SET spans = '[[[], [900000000000, 1], null]]'"
            )
            with pytest.raises(PartitionReplaced, match="has not begun yet"):
                await read_all(made, made.sink(), 2)

    within(main())


def test_a_log_that_was_made_again_is_read_from_its_beginning(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            await made.publish(1, 2)
            await read_all(made, made.sink(), 2)
            name = made.log._name
            for table in (f"{name}_groups", name, f"{name}_partitions"):
                await made.pool.execute(f"DROP TABLE {table}")
            await made.log.create(1)
            await made.publish(3)
            await read_all(made, made.sink(), 3)
            assert await made.effects() == [1, 2, 3]

    within(main())


def test_a_step_that_ends_the_transaction_is_noticed(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            await made.publish(1)

            async def write(connection: Any, window: list[Message[int]]) -> Result[int, str]:
                await connection.execute("COMMIT")
                return ok(0)

            sink = TransactionalSink(made.pool, "test", write=write)
            with pytest.raises(RuntimeError, match="has ended the transaction of the sink"):
                await read_all(made, sink, 1)
            assert await made.pool.fetchval("SELECT spans FROM returns_pipeline_position") == "[]"

    within(main())


def test_an_empty_window_is_written_without_positions(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            await made.publish(1, 2)
            sink = made.sink()
            async with made.source(sink) as source:
                asyncio.get_running_loop().call_later(0.6, source.drain)
                windows = source.messages().chunks_or_timeout(9, 0.1, emit_empty=True)
                sizes = (await windows.bind_async(sink).collect()).unwrap()._inner_value
                assert sum(sizes) == 2
                assert 0 in sizes
            assert await made.effects() == [1, 2]

    within(main())


def test_a_table_that_is_missing_says_how_it_is_made(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            with pytest.raises(asyncpg.UndefinedTableError) as raised:
                await read_all(made, made.sink(table="elsewhere"), 1)
            assert raised.value.__notes__ == ["the table elsewhere is made by create() of the sink"]

    within(main())


def test_a_sink_without_its_source_or_with_two_is_refused(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            sink = made.sink()
            with pytest.raises(RuntimeError, match="pass it to the driver"):
                await sink([Message(1, "p", (1,))])
            async with made.source(sink):
                with pytest.raises(InvalidArgument, match="another source"):
                    async with made.source(sink):
                        pass
            async with made.source(sink):
                pass

    within(main())


def test_an_unreachable_database_is_tried_again(postgres_dsn: str) -> None:
    async def main() -> None:
        async with opened(postgres_dsn, 1) as made:
            await made.publish(1)
            sink = made.sink()
            pool, tries = sink._pool, 0

            class Away:
                def acquire(self) -> Any:
                    nonlocal tries
                    tries += 1
                    if tries > 1:
                        sink._pool = pool
                    raise OSError("no route")

            sink._pool = Away()  # type: ignore[assignment]
            await read_all(made, sink, 1)
            assert tries == 2
            assert await made.effects() == [1]

    within(main())


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"table": "Positions"}, {"table": "a.b.c"}, {"patience": 0}],
    ids=str,
)
def test_arguments_out_of_range_are_refused_at_the_call(wrong: dict[str, Any]) -> None:
    async def write(connection: Any, window: list[Message[int]]) -> Result[int, str]:
        return ok(0)

    arguments: dict[str, Any] = {"name": "s", "write": write, **wrong}
    with pytest.raises(InvalidArgument):
        TransactionalSink(NO_POOL, **arguments)


def test_arguments_of_another_kind_are_refused_at_the_call() -> None:
    dsn: Any = "postgresql://localhost/shop"
    nothing: Any = None
    with pytest.raises(TypeError, match="a sink takes a pool of asyncpg, not 'postgresql:"):
        TransactionalSink(dsn, "s", write=nothing)
    with pytest.raises(TypeError, match=r"write\(\) takes a function, not None"):
        TransactionalSink(NO_POOL, "s", write=nothing)
    with pytest.raises(TypeError, match="positions= takes a journal or a sink, not "):
        Source(MemoryBroker().driver("g", positions=NO_POOL))


def test_shared_partitions_are_refused_at_run_time_as_well() -> None:
    async def write(connection: Any, window: list[Message[int]]) -> Result[int, str]:
        return ok(0)

    sink = TransactionalSink(NO_POOL, "s", write=write)
    with pytest.raises(InvalidArgument, match="shares its partitions"):
        MemoryBroker(shared=True).driver("g", positions=sink)
