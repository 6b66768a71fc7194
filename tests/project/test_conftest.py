"""What tests share does what it says: places in PostgreSQL, the choice of tests, Hypothesis."""

from __future__ import annotations

import asyncio
import json
import tomllib

import hypothesis
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


def test_slow_tests_are_left_out_unless_asked_for_and_the_end_says_how_to_ask(
    pytester: pytest.Pytester, request: pytest.FixtureRequest
) -> None:
    root = request.path.parents[2]
    tools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["pytest"]
    ini = "\n".join(
        f"{name} = {json.dumps(tools[name])}" for name in ("strict", "addopts", "markers")
    )
    pytester.makefile(
        ".toml",
        pyproject=f'[tool.pytest]\nasyncio_default_fixture_loop_scope = "function"\n{ini}\n',
    )
    pytester.makeconftest((request.path.parents[1] / "conftest.py").read_text())
    pytester.makepyfile(
        """
        import pytest

        def test_quick(): pass

        @pytest.mark.slow
        def test_slow(): pass

        @pytest.mark.skip(reason="the moon is full")
        def test_skipped(): pass
        """
    )
    usual = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    usual.assert_outcomes(passed=1, skipped=1, deselected=1)
    usual.stdout.fnmatch_lines(["*the moon is full", "*pytest -m slow", '*-m "slow or not slow"'])
    slow = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-m", "slow")
    slow.assert_outcomes(passed=1, deselected=2)
    assert "left out" not in slow.stdout.str()
    everything = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-m", "slow or not slow")
    everything.assert_outcomes(passed=2, skipped=1)


def test_hypothesis_has_no_limit_on_the_wall_clock() -> None:
    assert hypothesis.settings().deadline is None
