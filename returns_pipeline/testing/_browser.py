"""CPython as WebAssembly, as in a browser: there are no sockets, and a loop is always running."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["IN_BROWSER", "outer_loop_set_aside"]

IN_BROWSER: Final = sys.platform == "emscripten"


@contextmanager
def outer_loop_set_aside() -> Generator[None]:
    """Set the running loop aside, so that another one can run within a step of it.

    The loop of a page is the browser's, and always running. One on virtual time ends soon.
    """
    outer = asyncio._get_running_loop()
    if outer is None:
        yield
        return
    swap: Any = getattr(asyncio.tasks, "_swap_current_task")  # noqa: B009  # from 3.12 on
    task = swap(outer, None)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        swap(outer, task)
