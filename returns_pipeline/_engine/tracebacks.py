"""What users see of an exception: the step in which it was raised, and few of our frames."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, TypeVar, cast

import aiostream
import returns
from typing_extensions import ParamSpec

from returns_pipeline._engine.cancellation import add_note

__all__ = ["CHAIN_FILE", "note_step", "shorten", "shortened"]

P = ParamSpec("P")
T = TypeVar("T")

# The files of compiled chains, which are in `linecache` alone.
CHAIN_FILE: Final = "<chain "
_OURS: Final = (
    CHAIN_FILE,
    __file__.rpartition("_engine")[0],
    *[path for package in (aiostream, returns) for path in package.__path__],
)


def note_step(error: BaseException, note: Callable[[], str]) -> None:
    """Note in which step an exception was raised, unless a step inside it has done so.

    A cancellation comes from outside of the step, and gets no note.
    """
    if isinstance(error, Exception):
        notes: object = getattr(error, "__notes__", ())
        if not (isinstance(notes, list) and any(map(_names_a_step, cast("list[object]", notes)))):
            add_note(error, note())


def _names_a_step(note: object) -> bool:
    return isinstance(note, str) and note.startswith("in step ")


def shorten(error: BaseException) -> None:
    """Drop this package's frames between the caller's frame and the user's last one.

    Before a frame of the user's, one of a compiled chain is kept: its line shows which step called.
    Frames after the user's last one are kept: the exception is raised in this package then.
    """
    if not isinstance(error, Exception):
        return
    at = error.__traceback__
    while at is not None:
        users: TracebackType | None = at.tb_next
        step: TracebackType | None = None
        while users is not None and (file := users.tb_frame.f_code.co_filename).startswith(_OURS):
            if file.startswith(CHAIN_FILE):
                step = users
            users = users.tb_next
        if users is not None:
            if step is not None:
                at.tb_next, at = step, step
            at.tb_next = users
        at = users


def shortened(
    work: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorate a coroutine function: it shortens the tracebacks of its exceptions."""

    @functools.wraps(work)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await work(*args, **kwargs)
        except Exception as error:
            shorten(error)
            raise

    return call
