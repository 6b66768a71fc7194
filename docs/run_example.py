"""Run code of the page "Try it", in the reader's browser."""

from __future__ import annotations

import asyncio
import linecache
import sys
import traceback
from types import ModuleType
from typing import Any

from draw_windows import drawn
from returns_pipeline import testing

NAME = "your code"


def run_example(code: str) -> tuple[bool, list[str]]:
    """Run the code, print where it fails if it does, and return the pictures that it draws.

    The first value is whether it ran to its end.

    Time is virtual, also under `asyncio.run`.
    """
    drawn.clear()
    main = sys.modules["__main__"] = ModuleType("__main__")
    linecache.cache[NAME] = (len(code), None, code.splitlines(keepends=True), NAME)
    patched: Any = asyncio
    real, patched.run = asyncio.run, testing.run
    try:
        exec(compile(code, NAME, "exec"), vars(main))
    except BaseException as error:  # noqa: BLE001  # also an exit
        print(
            "".join(shortened(traceback.TracebackException.from_exception(error)).format()), end=""
        )
        return False, [*drawn]
    finally:
        patched.run = real
    return True, [*drawn]


def shortened(error: traceback.TracebackException) -> traceback.TracebackException:
    """Leave out of a traceback what is not the reader's code, and errors before this one."""
    error.stack = traceback.StackSummary.from_list(
        [frame for frame in error.stack if frame.filename == NAME]
    )
    error.__cause__ = error.__context__ = None
    for other in error.exceptions or []:
        shortened(other)
    return error
