"""`connectors.postgres`: the conformance suite, and what a log in a database must not do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")

from apart import join_while_one_is_stuck
from connecting import SOON, check_lag, within
from stuck_sink import check_stuck_sink

from returns_pipeline.connectors import Outgoing, Publisher, Source
from returns_pipeline.connectors._postgres_sender import (
    _SenderConnection,  # pyright: ignore[reportPrivateUsage]
)
from returns_pipeline.connectors.postgres import PostgresLog
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing import check_connector, check_publisher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from returns_pipeline.connectors import Driver, Sender


class Log:
    """A log of its own in a database."""

    def __init__(self, dsn: str, partitions: int = 4) -> None:
        self.dsn = dsn
        self.name = f"log_{uuid4().hex[:12]}"
        self.partitions = partitions
        self.log = PostgresLog(dsn, self.name)

    async def create(self) -> Log:
        await self.log.create(self.partitions)
        return self

    def driver(self) -> Driver:
        return self.log.driver("group")

    def sender(self) -> Sender:
        return self.log.sender()

    async def publish(self, values: Sequence[bytes], /) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            async with connection.transaction():
                for value in values:
                    await self.log.append(connection, value)
        finally:
            await connection.close()

    async def execute(self, statement: str, *arguments: object) -> Any:
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetch(statement.format(log=self.name), *arguments)
        finally:
            await connection.close()

    async def disconnect(self) -> None:
        await self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE '%{log}%'"
        )

    async def remove(self) -> None: ...


@pytest.mark.slow
def test_a_log_keeps_the_contract(postgres_dsn: str) -> None:
    async def make() -> Log:
        return await Log(postgres_dsn).create()

    asyncio.run(check_connector(make, disconnect=Log.disconnect, concurrency=10))


@pytest.mark.slow
def test_publishing_to_a_log_keeps_the_contract(postgres_dsn: str) -> None:
    async def make() -> Log:
        return await Log(postgres_dsn).create()

    asyncio.run(check_publisher(make, disconnect=Log.disconnect, quiet=0.3, concurrency=10))


def test_the_lag_is_counted_up_to_a_limit(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("returns_pipeline.connectors._postgres_driver.EVERY", 0.02)
    monkeypatch.setattr("returns_pipeline.connectors._postgres_driver._LOOK", 0.02)

    async def main() -> None:
        log = await Log(postgres_dsn, 1).create()
        await check_lag(log, f"{log.name}-0")
        monkeypatch.setattr("returns_pipeline.connectors._postgres_driver._COUNTED", 3)
        log = await Log(postgres_dsn, 2).create()
        for number in (0, 0, 0, 0, 0, 0, 1, 1):
            await log.execute("INSERT INTO {log} (partition, value) VALUES ($1, '')", number)
        async with Source(log.driver(), max_in_flight=1) as source:
            message = (await anext(source)).unwrap()
            wanted = {f"{log.name}-0": 3, f"{log.name}-1": 2}
            if message.partition == f"{log.name}-1":
                wanted[message.partition] = 1
            async with asyncio.timeout(10):
                while source.statistics().lag != wanted:
                    await asyncio.sleep(0.02)

    within(main())


def test_a_transaction_that_commits_late_is_not_passed_over(postgres_dsn: str) -> None:
    async def main() -> None:
        log = await Log(postgres_dsn, 1).create()
        slow = await asyncpg.connect(postgres_dsn)
        transaction = slow.transaction()
        await transaction.start()
        await log.log.append(slow, b"first")
        await log.publish([b"second"])
        async with Source(log.driver()) as source:
            reading = asyncio.ensure_future(anext(source))
            await asyncio.sleep(0.5)
            assert not reading.done()
            await transaction.commit()
            await slow.close()
            found = [(await reading).unwrap().value, (await anext(source)).unwrap().value]
            assert found == [b"first", b"second"]

    within(main())


def test_a_message_of_a_transaction_that_is_rolled_back_does_not_exist(postgres_dsn: str) -> None:
    async def main() -> None:
        log = await Log(postgres_dsn, 1).create()
        connection = await asyncpg.connect(postgres_dsn)
        transaction = connection.transaction()
        await transaction.start()
        await log.log.append(connection, b"never")
        await transaction.rollback()
        await connection.close()
        await log.publish([b"a"])
        async with Source(log.driver()) as source:
            assert (await anext(source)).unwrap().value == b"a"

    within(main())


def test_a_message_has_its_key_its_headers_and_its_time(postgres_dsn: str) -> None:
    async def main() -> None:
        log = await Log(postgres_dsn).create()
        connection = await asyncpg.connect(postgres_dsn)
        for number in range(8):
            value = str(number).encode()
            await log.log.append(connection, value, key=b"k", headers={"n": str(number)})
        await connection.close()
        async with Source(log.driver()) as source:
            found = [(await anext(source)).unwrap() for _ in range(8)]
        assert [message.headers["n"] for message in found] == [str(number) for number in range(8)]
        assert {message.key for message in found} == {b"k"}
        assert len({message.partition for message in found}) == 1
        (now,) = (await log.execute("SELECT extract(epoch FROM now())::float8 AS now"))[0]
        assert all(abs(now - (message.timestamp or 0)) < 60 for message in found)

    within(main())


def test_a_window_that_a_partition_refuses_is_refused_whole(postgres_dsn: str) -> None:
    async def main() -> None:
        log = await Log(postgres_dsn, 2).create()
        async with Publisher(log.sender(), encode=bytes) as publisher:
            window = [Outgoing(b"1", partition=1), Outgoing(b"2", partition=9)]
            error = (await publisher.publish_all(window)).failure()
            assert (error.refused, error.unconfirmed) == ((0, 1), ())
            assert "foreign key" in error.reason
            assert (await publisher.publish(Outgoing(b"3", destination="x"))).failure().refused
            assert (await publisher.publish(Outgoing(b"4", partition=0))).unwrap() == 1
            assert publisher.statistics().connections == 1
        rows = await log.execute("SELECT partition, value FROM {log}")
        assert [tuple(row) for row in rows] == [(0, b"4")]

    within(main())


def test_a_window_belongs_to_the_transaction_of_its_connection(postgres_dsn: str) -> None:
    async def main() -> None:
        log = await Log(postgres_dsn, 1).create()
        connection = await asyncpg.connect(postgres_dsn)
        transaction = connection.transaction()
        await transaction.start()
        await log.log.append_all(connection, [Outgoing(b"never")])
        await transaction.rollback()
        window = [Outgoing(b"%d" % n, key=b"k", headers={"n": str(n)}) for n in range(50)]
        await log.log.append_all(connection, window)
        await connection.close()
        async with Source(log.driver()) as source:
            found = [(await anext(source)).unwrap() for _ in range(50)]
        assert [(each.value, each.key, each.headers) for each in found] == [
            (each.value, each.key, each.headers) for each in window
        ]

    within(main())


def test_what_became_of_a_commit_without_an_answer_is_found_out(postgres_dsn: str) -> None:
    """The connection is lost just before, or just after, the transaction has committed."""

    async def main() -> None:
        log = await Log(postgres_dsn, 1).create()

        class Cut(_SenderConnection):
            async def _commit(self, transaction: Any) -> None:
                when, *rest = cuts
                cuts[:] = rest or [None]
                if when == "after":
                    await super()._commit(transaction)
                if when is not None:
                    await log.disconnect()
                await super()._commit(transaction)

        cuts: list[str | None] = ["before", "after", "before", None]
        sender: Any = log.sender()
        plain = sender.connect

        async def connect() -> Any:
            made = await plain()
            made.__class__ = Cut
            return made

        sender.connect = connect
        async with Publisher(sender, encode=bytes, reconnect=SOON) as publisher:
            assert (await publisher.publish_all([b"1", b"2"])).unwrap() == 2
            assert (await publisher.publish_all([b"3"])).unwrap() == 1
            assert publisher.statistics().connections == 4
        rows = await log.execute("SELECT value FROM {log} ORDER BY xid, id")
        assert [row["value"] for row in rows] == [b"1", b"2", b"3"]

    within(main())


def test_groups_do_not_see_one_another(postgres_dsn: str) -> None:
    async def main() -> None:
        log = await Log(postgres_dsn, 2).create()
        await log.publish([b"a", b"b"])
        for group in ("one", "two"):
            async with Source(log.log.driver(group)) as source:
                found = [(await anext(source)).unwrap().value for _ in range(2)]
                assert sorted(found) == [b"a", b"b"]
                source.reached(source.mark())

    within(main())


def test_what_is_in_flight_is_not_emitted_again_after_a_lost_connection(postgres_dsn: str) -> None:
    async def main() -> None:
        log = await Log(postgres_dsn, 3).create()
        await log.publish([str(number).encode() for number in range(20)])
        async with Source(log.driver(), reconnect=SOON) as source:
            found = [(await anext(source)).unwrap().value for _ in range(10)]
            for _ in range(3):
                before = source.statistics().connections
                await log.disconnect()
                async with asyncio.timeout(20):
                    while source.statistics().connections == before:
                        await asyncio.sleep(0.01)
            found += [(await anext(source)).unwrap().value for _ in range(10)]
            assert len({*found}) == 20
            source.reached(source.mark())
            await source.settled()
            assert source.statistics().acknowledged == 20
            assert source.statistics().fenced == 0

    within(main())


def test_a_member_whose_partition_has_another_owner_acknowledges_nothing(
    postgres_dsn: str,
) -> None:
    async def main() -> None:
        log = await Log(postgres_dsn, 1).create()
        await log.publish([b"a", b"b"])
        async with Source(log.driver()) as zombie:
            _ = [await anext(zombie) for _ in range(2)]
            await log.execute("UPDATE {log}_groups SET owner = $1, epoch = epoch + 1", uuid4())
            zombie.reached(2)
            await zombie.settled()
            found = zombie.statistics()
            assert (found.acknowledged, found.refused) == (0, 2)
        rows = await log.execute("SELECT id FROM {log}_groups")
        assert [row["id"] for row in rows] == [0]

    within(main())


def test_members_share_the_partitions_evenly(postgres_dsn: str) -> None:
    async def main() -> None:
        log = await Log(postgres_dsn, 7).create()
        drivers: list[Any] = [log.driver() for _ in range(3)]
        sources = [Source(driver) for driver in drivers]
        for count, source in enumerate(sources, 1):
            await source.__aenter__()
            async with asyncio.timeout(20):
                share = sorted(len(each._owned) for each in drivers[:count])
                while share[-1] - share[0] > 1 or sum(share) != 7:
                    await asyncio.sleep(0.02)
                    share = sorted(len(each._owned) for each in drivers[:count])
        for source in sources:
            await source.__aexit__(None, None, None)

    within(main())


@pytest.mark.slow
def test_partitions_are_read_apart_while_another_worker_joins(postgres_dsn: str) -> None:
    async def main() -> None:
        await join_while_one_is_stuck(await Log(postgres_dsn).create())

    within(main())


def test_a_log_is_created_once_and_partitions_may_be_added(postgres_dsn: str) -> None:
    async def main() -> None:
        log = Log(postgres_dsn, 2)
        await asyncio.gather(*[log.create() for _ in range(4)])
        await log.log.create(3)
        await log.log.create(1)
        rows = await log.execute("SELECT count(*) FROM {log}_partitions")
        assert rows[0][0] == 3
        with pytest.raises(InvalidArgument, match="partitions"):
            await log.log.create(0)

    within(main())


@pytest.mark.parametrize("name", ["", "Orders", "1st", 'a"b', "x" * 41, "a b"])
def test_a_name_that_is_not_one_of_a_table_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="name"):
        PostgresLog("postgresql://nowhere", name)


@pytest.mark.slow
def test_memory_is_flat_while_a_sink_is_stuck(postgres_dsn: str) -> None:
    async def main() -> None:
        await check_stuck_sink(await Log(postgres_dsn).create())

    within(main())
