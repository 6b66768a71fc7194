"""Where a suspended coroutine waits: the chain of awaits, from its outermost frame inwards."""

from __future__ import annotations

import asyncio
import gc
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["AwaitPoint", "await_chain", "describe_tasks", "is_asyncio", "is_task_or_gather"]

_ASYNCIO = str(Path(asyncio.__file__).parent)
# Our own wrappers, which only pass a coroutine's steps through.
_WRAPPERS = {str(Path(__file__).with_name(name)) for name in ("_faults.py", "_runner.py")}


@dataclass(frozen=True, slots=True)
class AwaitPoint:
    """A line at which a coroutine, or an async generator, is suspended.

    Attributes:
        name: The function's qualified name.
        file: The file that contains the function.
        line: The line number, from 1.
    """

    name: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.name} ({self.file}:{self.line})"


def is_asyncio(point: AwaitPoint) -> bool:
    """Whether the line belongs to asyncio itself."""
    return point.file.startswith(_ASYNCIO)


def is_task_or_gather(awaited: object) -> bool:
    """Whether this is a task, or the future of `asyncio.gather()`: the loop completes both."""
    return isinstance(awaited, asyncio.Task) or type(awaited).__name__ == "_GatheringFuture"


def await_chain(awaited: object) -> list[AwaitPoint]:
    """Return the lines from the outermost await to the innermost one.

    The frames of `run` and `FaultInjector` are left out.
    """
    points: list[AwaitPoint] = []
    inner = awaited
    while inner is not None:
        frame, name, inner = _unwrap(inner)
        if frame is not None and frame.f_code.co_filename not in _WRAPPERS:
            points.append(AwaitPoint(name, frame.f_code.co_filename, frame.f_lineno))
    return points


# Any: coroutines, generators and wrappers of them have no common type.
def _unwrap(awaited: Any) -> tuple[types.FrameType | None, str, object]:
    """Return the frame of an awaited object, its name, and what it awaits in turn."""
    frame: types.FrameType | None = None
    inner: object = None
    if hasattr(awaited, "cr_frame"):  # a coroutine
        frame, inner = awaited.cr_frame, awaited.cr_await
    elif hasattr(awaited, "ag_frame"):  # an async generator
        frame, inner = awaited.ag_frame, awaited.ag_await
    elif hasattr(awaited, "gi_frame"):  # the generator of an object's __await__()
        frame, inner = awaited.gi_frame, awaited.gi_yieldfrom
    elif not asyncio.isfuture(awaited):
        # A step of an async generator, a wrapper of a coroutine, or a driver's own class around
        # one. None has an attribute for the object it wraps, but the collector knows it.
        held = [*gc.get_referents(awaited), *getattr(awaited, "__dict__", {}).values()]
        inner = next(
            (it for it in held if hasattr(it, "cr_frame") or hasattr(it, "ag_frame")), None
        )
    return frame, getattr(awaited, "__qualname__", ""), inner


def describe_tasks(heading: str, tasks: set[asyncio.Task[Any]]) -> str:
    """Return the heading and, for each task, its name and where it waits, innermost line first."""
    lines = [heading]
    for task in sorted(tasks, key=lambda task: task.get_name()):
        points = await_chain(task.get_coro())
        lines.append(f"  {task.get_name()}" + (":" if points else ": not started or not in Python"))
        lines += [f"    at {point}" for point in reversed(points)]
    return "\n".join(lines)
