"""The place in PostgreSQL that a test gets is its own, and gone afterwards."""

from __future__ import annotations

import asyncio

import pytest

asyncpg = pytest.importorskip("asyncpg")


async def fetch(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def test_a_table_made_there_is_in_the_schema_of_the_test(postgres_dsn: str) -> None:
    asyncio.run(fetch(postgres_dsn, "CREATE TABLE t (n int)"))
    schema = asyncio.run(
        fetch(postgres_dsn, "SELECT schemaname FROM pg_tables WHERE tablename = 't'")
    )
    assert str(schema) in postgres_dsn


def test_an_absent_server_skips_a_test_and_fails_it_in_ci(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    pytester.makeconftest((request.path.parents[1] / "conftest.py").read_text())
    pytester.makepyfile("def test_it(postgres_dsn): pass")
    options = ("-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function")
    monkeypatch.setenv("RETURNS_PIPELINE_POSTGRES", "postgresql://root@127.0.0.1:1/test")
    monkeypatch.delenv("CI", raising=False)
    pytester.runpytest_inprocess(*options).assert_outcomes(skipped=1)
    monkeypatch.setenv("CI", "true")
    pytester.runpytest_inprocess(*options).assert_outcomes(errors=1)
