"""The values of metrics that the six questions do not ask for."""

# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("opentelemetry.sdk.metrics")
pytest.importorskip("prometheus_client")

from measured import BACK_ENDS, Measured

from returns_pipeline import CompensationScope
from returns_pipeline.testing import run


@pytest.fixture(params=BACK_ENDS)
def measured(request: pytest.FixtureRequest) -> Measured:
    return request.param()  # type: ignore[no-any-return]


async def refund(order: int) -> None:
    await asyncio.sleep(1.0)


def test_an_undo_that_hangs_is_seen(measured: Measured) -> None:
    running = "returns_pipeline.undo.running"
    seen: list[float] = []

    async def main() -> None:
        scope = CompensationScope("shop", observer=measured.observer)
        await scope.register(refund, 1)
        undoing = asyncio.ensure_future(scope.compensate())
        await asyncio.sleep(0.5)
        seen.append(measured.total(running, pipeline="shop", undo="refund"))
        await undoing
        seen.append(measured.total(running, pipeline="shop", undo="refund"))

    run(main())
    assert seen == [1, 0]
