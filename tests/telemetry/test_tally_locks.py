"""Whatever is added to a series, the lock of the tally is held meanwhile.

CPython 3.11 to 3.13 happen to lose no addition without it, so threads that race cannot show this.
Here each series holds a number that looks whether the lock is held when something is added to it.
"""

# pyright: basic, reportPrivateUsage=false

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from returns_pipeline import telemetry
from returns_pipeline.telemetry._tally import Number, Tally


def kinds(alias: Any = telemetry.Event) -> list[Any]:
    parts = get_args(alias)
    return [kind for part in parts for kind in kinds(part)] if parts else [alias]


def sample(hint: Any) -> Any:
    """Return a value of a type that a field of an event may have."""
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    if get_origin(hint) in {Union, UnionType}:
        return sample(get_args(hint)[0])
    if get_origin(hint) is tuple:
        return (sample(get_args(hint)[0]),)
    if get_origin(hint) is dict:
        return {}
    if hint in {object, BaseException}:
        return OSError("down")
    return {str: "x", int: 1, float: 1.0, bool: True}[hint]


def event_of(kind: Any) -> Any:
    hints = get_type_hints(kind)
    return kind(**{each.name: sample(hints[each.name]) for each in msgspec.structs.fields(kind)})


class Watched(float):
    """A number that records whether a lock is held when something is added to it."""

    lock: Any
    seen: list[bool]

    def __add__(self, other: float) -> Watched:
        self.seen.append(self.lock._is_owned())
        return self

    __sub__ = __add__


class Nowhere:
    def record(self, value: float, /) -> None:
        """Forget it."""


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_the_lock_is_held_while_something_is_added(kind: Any) -> None:
    tally: Tally[Nowhere] = Tally(lambda *_: Nowhere())
    event = event_of(kind)
    tally.on_event(event)
    numbers: list[Number] = [
        number for series in tally.numbers.values() for _, number in series.all()
    ]
    seen: list[bool] = []
    for number in numbers:
        number.value = Watched(1.0)
        number.value.lock, number.value.seen = tally._lock, seen
    tally.on_event(event)
    assert all(seen)
    changed = [number for number in numbers if not isinstance(number.value, Watched)]
    assert changed or seen or not numbers  # each series was set or added to
