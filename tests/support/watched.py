"""A source that logs what happens to it, with a clean-up that takes its time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Watched:
    """Items a millisecond apart, then a clean-up of a second, which a cancellation would cut."""

    def __init__(self) -> None:
        self.log: list[str] = []

    async def __aiter__(self) -> AsyncGenerator[int, None]:
        try:
            self.log.append("opened")
            n = 0
            while True:
                yield n
                n += 1
                await asyncio.sleep(0.001)
        finally:
            self.log.append("clean-up begun")
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                self.log.append("cut")
                raise
            self.log.append("clean-up done")

    def assert_clean(self) -> None:
        """It was opened once, and cleaned up once and to the end."""
        assert self.log == ["opened", "clean-up begun", "clean-up done"]
