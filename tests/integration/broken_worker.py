"""The example, with workers that write wrongly on purpose. Run as a process by its tests.

The first argument is what is wrong: ``accounts``, where a line is lost and another is doubled, or
``disk``, which is full.
"""

from __future__ import annotations

import sys
from typing import Any

import flight_worker
from flight_accounts import write

fault = sys.argv[1]
LOST, DOUBLED = 10, 11  # flights


async def write_wrongly(connection: Any, key: str, worker: int, window: Any) -> None:
    """Write a window as the example does, but for two lines."""
    if fault == "disk":
        raise OSError("the disk is full")
    await write(connection, key, worker, [item for item in window if item.value.line != LOST])
    if any(item.value.line == DOUBLED for item in window):
        letter = "INSERT INTO dead_letters VALUES ($1, $2, 1, 'doubled', '', '')"
        await connection.execute(letter, DOUBLED, key)


vars(flight_worker)["write"] = write_wrongly
sys.exit(flight_worker.main(sys.argv[2:]))
