"""`report_lag`: asks a broker now and then how much is left, if it does not say so by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from returns_pipeline._engine.cancellation import raise_swallowed
from returns_pipeline.connectors._driver import Ownership

__all__ = ["EVERY", "report_lag"]

# Seconds between two questions.
EVERY: Final = 5.0


async def report_lag(ownership: Ownership, ask: Callable[[], Awaitable[Mapping[str, int]]]) -> None:
    """Report how many messages of partitions are left, until the caller is cancelled.

    Args:
        ownership: What it is reported to.
        ask: Asks the broker. It leaves out what the broker does not know.
    """
    while True:
        ownership.lag(await ask())
        raise_swallowed()
        await asyncio.sleep(EVERY)
