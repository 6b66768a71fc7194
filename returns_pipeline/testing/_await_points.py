"""Where a suspended coroutine waits: the chain of awaits from its first frame to the innermost."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import types

__all__ = ["Place", "chain", "is_asyncio", "is_of_tasks", "report"]

_ASYNCIO = str(Path(asyncio.__file__).parent)
# They only pass on the steps of what they run.
_PASSING_ON = {str(Path(__file__).with_name(name)) for name in ("_faults.py", "_runner.py")}


@dataclass(frozen=True, slots=True)
class Place:
    """A line at which a coroutine, or an async generator, is suspended.

    Attributes:
        name: The function's qualified name.
        file: The file it is in.
        line: The line, from 1.
    """

    name: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.name} ({self.file}:{self.line})"


def is_asyncio(place: Place) -> bool:
    """Say whether this is asyncio's own code."""
    return place.file.startswith(_ASYNCIO)


def is_of_tasks(awaited: object) -> bool:
    """Say whether this is a task or `asyncio.gather()` of some: the loop itself ends it."""
    return isinstance(awaited, asyncio.Task) or type(awaited).__name__ == "_GatheringFuture"


def chain(awaited: object) -> list[Place]:
    """Give the places from the outermost await to the innermost one.

    The frames of `run` and `FaultInjector` are left out.
    """
    places: list[Place] = []
    inner = awaited
    while inner is not None:
        frame, name, inner = _parts(inner)
        if frame is not None and frame.f_code.co_filename not in _PASSING_ON:
            places.append(Place(name, frame.f_code.co_filename, frame.f_lineno))
    return places


def _parts(awaited: Any) -> tuple[types.FrameType | None, str, object]:  # Any: see its kinds
    """Give the frame of an awaited object, its name, and what it awaits itself."""
    frame: types.FrameType | None = None
    inner: object = None
    if hasattr(awaited, "cr_frame"):  # a coroutine
        frame, inner = awaited.cr_frame, awaited.cr_await
    elif hasattr(awaited, "ag_frame"):  # an async generator
        frame, inner = awaited.ag_frame, awaited.ag_await
    elif hasattr(awaited, "gi_frame"):  # the generator of an object's __await__()
        frame, inner = awaited.gi_frame, awaited.gi_yieldfrom
    elif not asyncio.isfuture(awaited):
        # A step of an async generator, a wrapper of a coroutine or a driver's own class around
        # one: they do not tell what is behind them, but the collector knows.
        held = [*gc.get_referents(awaited), *getattr(awaited, "__dict__", {}).values()]
        inner = next(
            (it for it in held if hasattr(it, "cr_frame") or hasattr(it, "ag_frame")), None
        )
    return frame, getattr(awaited, "__qualname__", ""), inner


def report(what: str, tasks: set[asyncio.Task[Any]]) -> str:
    """Name each task, and where it waits: the innermost place first."""
    lines = [what]
    for task in sorted(tasks, key=lambda task: task.get_name()):
        places = chain(task.get_coro())
        lines.append(f"  {task.get_name()}" + (":" if places else ": not started or not in Python"))
        lines += [f"    at {place}" for place in reversed(places)]
    return "\n".join(lines)
