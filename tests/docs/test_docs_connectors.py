"""The examples of docs/connectors.md run, and print what the page says."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from returns_pipeline.connectors import Message, Source
from returns_pipeline.testing import MemoryBroker

PAGE = (Path(__file__).parents[2] / "docs" / "connectors.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)
EXAMPLES = [block for block in BLOCKS if "asyncpg" not in block[0]]
WITH_SERVER = [code for code, _ in BLOCKS if "asyncpg" in code]
FORGET, KEY = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
SQL = [part.strip() for part in KEY.split(";")]


def test_the_examples_print_what_the_page_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(EXAMPLES) > 1
    module = ModuleType("example")  # one for all: each continues those before it
    monkeypatch.setitem(sys.modules, "example", module)  # dataclasses look there
    for code, printed in EXAMPLES:
        exec(compile(code, "docs/connectors.md", "exec"), vars(module))
        assert capsys.readouterr().out == printed


def test_the_sink_of_the_page_writes_each_order_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, postgres_dsn: str
) -> None:
    asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")
    module: Any = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    for code in [EXAMPLES[0][0], EXAMPLES[1][0], *WITH_SERVER]:
        exec(compile(code, "docs/connectors.md", "exec"), vars(module))
    _ = capsys.readouterr()

    async def main() -> None:
        log = module.PostgresLog(postgres_dsn, "orders")
        await log.create(2)
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute("CREATE TABLE booking (number int, seats int)")
        for number in range(6):
            await log.append(connection, b'{"number": %d, "seats": 1}' % number)
            if number % 3 == 2:
                writing = asyncio.ensure_future(module.write_orders(postgres_dsn))
                for _ in range(400):
                    if await connection.fetchval("SELECT count(*) FROM booking") > number:
                        break
                    await asyncio.sleep(0.05)
                writing.cancel()
                await asyncio.wait({writing})
        rows = await connection.fetch("SELECT number FROM booking ORDER BY 1")
        assert [row["number"] for row in rows] == [*range(6)]
        await connection.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_the_statement_of_the_page_forgets_positions_and_fences_what_reads_on(
    postgres_dsn: str,
) -> None:
    asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")
    from returns_pipeline.connectors.postgres import TransactionalSink

    async def write(*_: object) -> Any: ...

    async def main() -> None:
        async with asyncpg.create_pool(postgres_dsn) as pool:
            sink: TransactionalSink[bytes, None, str]
            sink = TransactionalSink(pool, "billing", write=write)
            await sink.create()
            which = "kafka orders/billing", ["orders-3 lk2dkPRET", "orders-4"]
            _ = await sink.take(*which)
            spans = "UPDATE returns_pipeline_position SET spans = '[[[], [41], null]]'"
            await pool.execute(spans)
            assert await pool.execute(FORGET) == "UPDATE 1"
            taken = await sink.take(*which)
            assert {name: (each.epoch, len(each.spans)) for name, each in taken.items()} == {
                "orders-3 lk2dkPRET": (3, 0),
                "orders-4": (2, 1),
            }

    asyncio.run(asyncio.wait_for(main(), 30))


def test_the_key_of_the_page_lets_each_message_of_a_shared_stream_through_once(
    postgres_dsn: str,
) -> None:
    asyncpg = pytest.importorskip("asyncpg", reason="needs the package asyncpg")

    async def main() -> None:
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute(SQL[0])
        await connection.execute("CREATE TABLE effect (value text)")
        broker = MemoryBroker(2, shared=True)
        broker.publish(*[str(number).encode() for number in range(8)])

        async def write(message: Message[bytes]) -> None:
            async with connection.transaction():
                if await connection.fetchval(SQL[1], message.partition, list(message.position)):
                    await connection.execute(
                        "INSERT INTO effect VALUES ($1)", message.value.decode()
                    )

        for _ in range(2):
            async with Source(broker.driver("g")) as source:
                asyncio.get_running_loop().call_later(0.3, source.drain)
                await source.messages().tap_async(write).run()
            broker.forget_acks("g", 3)
        rows = await connection.fetch("SELECT value FROM effect ORDER BY 1")
        assert [row["value"] for row in rows] == [str(number) for number in range(8)]
        await connection.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_the_page_names_the_options_of_a_source_that_users_choose() -> None:
    for name in ("max_in_flight", "max_bytes", "max_hold", "max_deliveries", "settle_timeout"):
        assert f"`{name}`" in PAGE
