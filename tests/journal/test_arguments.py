"""Arguments come back from a journal equal, or are refused before they get there."""

from __future__ import annotations

import dataclasses
import enum
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from returns_pipeline.compensation import Compensation, CompensationRegistry
from returns_pipeline.errors import ArgumentsNotRecordable, JournalCorrupt
from returns_pipeline.journal.arguments import MAX_SIZE, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Place(msgspec.Struct):
    name: str
    points: list[Point]


registry = CompensationRegistry()


@registry.compensation("everything")
async def everything(
    text: str = "",
    number: float = 0.0,
    *more: int,
    big: int = 0,
    when: datetime | None = None,
    price: Decimal = Decimal(0),
    data: bytes = b"",
    colour: Colour = Colour.RED,
    place: Place | None = None,
    ids: frozenset[UUID] = frozenset(),
    pairs: dict[int, tuple[str, float]] | None = None,
    **others: str,
) -> None:
    """Take all that can be recorded."""


def there_and_back(*args: Any, **kwargs: Any) -> tuple[tuple[object, ...], dict[str, object]]:
    return decode(everything, 1, encode(everything, args, kwargs))


CASES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    (("é\ud800\x00", 1.5, 1, 2, 3), {"extra": "x"}),
    ((), {"big": 10**40}),
    ((), {"when": datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=45)))}),
    ((), {"when": datetime(2026, 3, 29, 2, 30, 1, 5, tzinfo=UTC)}),
    ((), {"price": Decimal("1.10"), "data": b"\x00\xff", "colour": Colour.RED}),
    ((), {"place": Place("a", [Point(1, 2.5)])}),
    ((), {"ids": frozenset({UUID(int=1), UUID(int=2)})}),
    ((), {"pairs": {1: ("a", math.inf), -1: ("b", -0.0)}}),
]


@pytest.mark.parametrize(("args", "kwargs"), CASES)
def test_they_come_back_equal(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    back_args, back_kwargs = there_and_back(*args, **kwargs)
    signature = Compensation.__call__  # what is called is the same, by position or by name
    assert signature is not None
    bound: dict[str, Any] = {}
    for given_args, given_kwargs in ((args, kwargs), (back_args, back_kwargs)):
        names = ["text", "number"]
        shown = dict(zip(names, given_args, strict=False)) | dict(given_kwargs)
        shown["more"] = tuple(given_args[2:])
        assert shown == (bound or shown)
        bound = shown


@given(st.floats(), st.text(), st.integers(), st.binary(max_size=50))
def test_any_number_and_text_comes_back(number: float, text: str, big: int, data: bytes) -> None:
    args, kwargs = there_and_back(text, number, big=big, data=data)
    assert args[0] == text
    assert args[1] == number or (math.isnan(number) and math.isnan(args[1]))  # type: ignore[arg-type]
    assert kwargs == {"big": big, "data": data}


def test_not_a_number_comes_back_wherever_it_stands() -> None:
    _, kwargs = there_and_back(place=Place("a", [Point(1, math.nan)]), pairs={1: ("a", math.nan)})
    assert math.isnan(kwargs["place"].points[0].y)  # type: ignore[attr-defined]
    assert math.isnan(kwargs["pairs"][1][1])  # type: ignore[index]


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((1,), {}, "cannot be recorded"),
        (("a", "b"), {}, "cannot be recorded"),
        ((object(),), {}, "cannot be recorded"),
        ((), {"pairs": {1: ["a", 1.0]}}, "would come back as"),
        ((), {"place": Point(1, 2.0)}, "cannot be recorded"),
        ((), {"unknown": 3}, "cannot be recorded"),
        (("x" * MAX_SIZE,), {}, "are more than"),
    ],
)
def test_what_would_not_come_back_is_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any], why: str
) -> None:
    with pytest.raises(ArgumentsNotRecordable, match=why):
        encode(everything, args, kwargs)


def test_a_call_that_does_not_fit_and_missing_hints_are_refused() -> None:
    @registry.compensation("bare")
    async def bare(a, b: int = 0) -> None:  # type: ignore[no-untyped-def]
        """Have a parameter without a type."""

    @registry.compensation("wrong")
    async def wrong(a: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Have a type that is not there."""

    for undo, args, why in (
        (bare, (1,), "no type hint"),
        (bare, (), "missing a required"),
        (wrong, (1,), "type hints cannot be read"),
    ):
        with pytest.raises(ArgumentsNotRecordable, match=why):
            encode(undo, args, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"text": 1}',
        '{"nothing": 1}',
        '{"text": {"py/object": "os.system"}}',
        '"gASVJAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAlpZCA+IC90bXCUhZRSlC4="',
    ],
)
def test_what_a_hand_has_changed_is_not_carried_out(text: str) -> None:
    with pytest.raises(JournalCorrupt, match="everything, version 1"):
        decode(everything, 1, text)


def test_an_older_version_is_brought_up_step_by_step() -> None:
    def split(old: dict[str, Any]) -> dict[str, Any]:
        first, _, last = old["name"].partition(" ")
        return {"first": first, "last": last}

    steps: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
        1: lambda old: {"name": old["n"]},
        2: split,
    }

    @registry.compensation("names", version=3, upcast=steps)
    async def names(first: str, last: str) -> None:
        """Take two names; once it was one."""

    assert decode(names, 1, '{"n": "Ada Lovelace"}') == (("Ada", "Lovelace"), {})
    assert decode(names, 2, '{"name": "Ada Lovelace"}') == (("Ada", "Lovelace"), {})
    assert decode(names, 3, '{"first": "Ada", "last": "L"}') == (("Ada", "L"), {})
    with pytest.raises(JournalCorrupt):
        decode(names, 1, '{"m": 1}')
