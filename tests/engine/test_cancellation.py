"""A note never takes the place of the exception it is put on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from returns_pipeline._engine.cancellation import add_note


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class NotesTakenError(Exception):
    __notes__ = "of another kind"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class RefusingError(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        raise KeyError("no notes here")


@pytest.mark.parametrize("error", [ValueError(), FrozenError(3), NotesTakenError()], ids=repr)
def test_notes_come_in_order_on_any_exception(error: BaseException) -> None:
    add_note(error, "first")
    add_note(error, "second")
    assert error.__notes__ == ["first", "second"]


def test_an_exception_that_takes_no_note_at_all_stays_as_it_is() -> None:
    add_note(RefusingError(), "lost")
