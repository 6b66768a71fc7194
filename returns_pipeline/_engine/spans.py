"""`Spans`: which positions of a partition were handled, as stretches of it.

A stretch goes from a position that is not in it, the one that was emitted before, to its last. So
two stretches are known to touch by their ends alone, whatever numbers the broker left out between
two messages, and the union of stretches never covers a message that none of them covers.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["BEGINNING", "Place", "Spans", "Stretch"]

Place: TypeAlias = tuple[int, ...]
"""A position in a partition."""

BEGINNING: Final[Place] = ()
"""Before every position."""


class Stretch(NamedTuple):
    """The positions after one, up to and including another.

    Attributes:
        after: The position before its first; `BEGINNING` if there is none.
        last: Its last position.
        stamp: The time of the message there, if the broker says so: by that a partition is told
            from one that was made again, and has the same positions.
    """

    after: Place
    last: Place
    stamp: float | None = None


class Spans:
    """A set of positions of one partition. It does not change.

    The stretches are disjoint, do not touch, and are in order. In the usual case there is one, from
    the beginning to the *high-water mark*. There are more while later messages are handled and
    earlier ones are not.
    """

    __slots__ = ("_stretches",)

    def __init__(self, stretches: tuple[Stretch, ...] = ()) -> None:
        self._stretches = stretches

    def __iter__(self) -> Iterator[Stretch]:
        return iter(self._stretches)

    def __len__(self) -> int:
        return len(self._stretches)

    def __contains__(self, place: Place) -> bool:
        stretches = self._stretches
        if not stretches or place > stretches[-1].last:
            return False  # as usual: it is new
        return stretches[bisect_left(stretches, place, key=_last)].after < place

    @property
    def mark(self) -> Stretch | None:
        """The stretch from the beginning to the high-water mark, if there is one."""
        if self._stretches and self._stretches[0].after == BEGINNING:
            return self._stretches[0]
        return None

    def with_all(self, added: Iterable[Stretch]) -> Spans:
        """Return the union with more stretches."""
        merged: list[Stretch] = []
        for each in sorted([*self._stretches, *added], key=_bounds):
            before = merged[-1] if merged else None
            if before is None or each.after > before.last:
                merged.append(each)
            elif each.last > before.last:
                merged[-1] = Stretch(before.after, each.last, each.stamp)
        return Spans(tuple(merged))

    def to_json(self) -> str:
        """Return a text that `from_json` reads."""
        return json.dumps(self._stretches)

    @staticmethod
    def from_json(text: str) -> Spans:
        """Return what `to_json` has written."""
        found: list[Any] = json.loads(text)
        return Spans(
            tuple(Stretch(tuple(after), tuple(last), stamp) for after, last, stamp in found)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and self._stretches == other._stretches

    def __hash__(self) -> int:
        return hash(self._stretches)

    def __repr__(self) -> str:
        return f"Spans({self._stretches!r})"


def _last(stretch: Stretch) -> Place:
    return stretch.last


def _bounds(stretch: Stretch) -> tuple[Place, Place]:
    return stretch.after, stretch.last
