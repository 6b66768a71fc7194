"""Notes on an exception that goes on, which must never take its place."""

from __future__ import annotations

import contextlib

__all__ = ["add_note"]


def add_note(error: BaseException, note: str) -> None:
    """Do as ``error.add_note(note)``, also for an exception that takes no new attributes.

    Those of a frozen dataclass or of attrs refuse the usual way with an exception of their own.
    """
    try:
        error.add_note(note)
    except Exception:  # noqa: BLE001  # whatever a class of the user's raises
        # An exception without a note is better than another one in its place.
        with contextlib.suppress(Exception):
            notes: object = getattr(error, "__notes__", None)
            before: list[object] = notes if isinstance(notes, list) else []  # pyright: ignore[reportUnknownVariableType]
            BaseException.__setattr__(error, "__notes__", [*before, note])
