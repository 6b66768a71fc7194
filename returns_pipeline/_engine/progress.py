"""Whether a task that other code has cancelled has read on since.

A source may use a cancellation for its own purposes, such as a time limit written by hand, and
swallow it. From outside its task looks like one that cleans up: both have been cancelled, and wait.
But the loop that reads the source is suspended at the same place for another item than before.
"""

# The types of what a coroutine awaits have no parameters.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from types import AsyncGeneratorType, CoroutineType, FrameType
from typing import Any, Final, TypeAlias

from returns_pipeline._engine.clean_ups import unwrapped
from returns_pipeline._engine.tracebacks import CHAIN_FILE

__all__ = ["Place", "has_read_on", "place_of"]

# What a frame of ours awaits, from a task's coroutine to the source, or to a step. Each entry has
# the coroutine or generator, the instruction at which it is suspended, and what it awaits there.
Place: TypeAlias = "list[tuple[object, int, object]]"

# The packages whose frames read sources. Code of the user's comes after them.
_READERS: Final = (
    "returns_pipeline._engine",
    "returns_pipeline.combine",
    "returns_pipeline.windows",
)


def place_of(suspended: object) -> Place:
    """Return where a coroutine that does not run at this moment is suspended."""
    place: Place = []
    at: Any = suspended
    while True:
        frame: FrameType | None
        awaited: Any
        if type(at) is CoroutineType:
            frame, awaited = at.cr_frame, at.cr_await
        elif type(at) is AsyncGeneratorType:
            frame, awaited = at.ag_frame, at.ag_await
        else:
            return place
        if frame is None or not frame.f_globals.get("__name__", "").startswith(_READERS):
            return place
        place.append((at, frame.f_lasti, awaited))
        at = unwrapped(awaited)


def has_read_on(before: Place, suspended: object) -> bool:
    """Return whether a loop has come to another item since a place was taken."""
    for (reader, at, awaited), (_, at_now, awaited_now) in zip(
        before, place_of(suspended), strict=False
    ):
        if awaited is not awaited_now:
            # At another instruction a coroutine may have begun to clean up. But a compiled chain
            # waits there for an item or a step, unless its owner knows that it closes its source.
            return at == at_now or _is_compiled(reader)
    return False


def _is_compiled(reader: Any) -> bool:
    code = reader.ag_code if type(reader) is AsyncGeneratorType else reader.cr_code
    is_compiled: bool = code.co_filename.startswith(CHAIN_FILE)
    return is_compiled
