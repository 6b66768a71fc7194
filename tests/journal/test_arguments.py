"""Arguments come back from a journal equal, or are refused before they get there."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv6Network
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from returns_pipeline.compensation import Compensation, CompensationRegistry
from returns_pipeline.errors import ArgumentsNotRecordable, JournalCorrupt
from returns_pipeline.journal._arguments import MAX_SIZE, decode, encode

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


class Order(pydantic.BaseModel):
    number: int
    when: datetime
    lines: list[Line]


class Line(pydantic.BaseModel):
    price: Decimal


@registry.compensation("more")
async def more(
    path: Path = Path(),
    pure: PurePosixPath | None = None,
    address: IPv4Address | None = None,
    network: IPv6Network | None = None,
    interface: IPv4Interface | None = None,
    order: Order | None = None,
    all_paths: dict[str, list[Path]] | None = None,
) -> None:
    """Take types that JSON has no form for."""


@pytest.mark.parametrize(
    "kwargs",
    [
        {"path": Path("/tmp/é x"), "pure": PurePosixPath("a/../b")},
        {"address": IPv4Address("10.0.0.1"), "network": IPv6Network("fe80::/64")},
        {"interface": IPv4Interface("10.0.0.1/8"), "all_paths": {"a": [Path("b"), Path("c")]}},
        {"order": Order(number=1, when=datetime(2026, 1, 1, tzinfo=UTC), lines=[])},
        {
            "order": Order(
                number=1,
                when=datetime(2026, 1, 1, tzinfo=UTC),
                lines=[Line(price=Decimal("1.10"))],
            )
        },
    ],
)
def test_paths_addresses_and_models_come_back_equal(kwargs: dict[str, Any]) -> None:
    args, back = decode(more, 1, encode(more, (), kwargs))
    bound = inspect.signature(more.func).bind_partial(*args, **back).arguments
    assert {name: bound[name] for name in kwargs} == kwargs
    assert all(type(bound[name]) is type(value) for name, value in kwargs.items())


def test_types_of_ones_own_come_back_by_the_functions_of_the_registry() -> None:
    def to_json(value: object) -> object:
        if isinstance(value, complex):
            return [value.real, value.imag]
        if isinstance(value, Path):
            return {"mine": str(value)}
        raise NotImplementedError

    def of_json(type_: type, value: Any) -> object:
        if type_ is complex:
            return complex(*value)
        if type_ is Path:
            return Path(value["mine"])
        raise NotImplementedError

    known, unknown = CompensationRegistry(encode=to_json, decode=of_json), CompensationRegistry()

    async def undo(number: complex, path: Path, address: IPv4Address) -> None: ...

    values = (1 + 2j, Path("a"), IPv4Address("10.0.0.1"))
    made = known.compensation("undo")(undo)
    text = encode(made, values, {})
    assert '{"mine": "a"}' in text  # the program's own comes first
    assert decode(made, 1, text) == (values, {})
    with pytest.raises(ArgumentsNotRecordable, match="cannot be recorded"):
        encode(unknown.compensation("undo")(undo), values, {})


def test_a_decoder_that_fails_makes_the_record_corrupt_and_calls_nothing() -> None:
    async def undo(path: Path) -> None: ...

    made = CompensationRegistry().compensation("undo")(undo)
    for text in ('{"path": 1}', '{"path": null}', '{"path": {"a": 1}}'):
        with pytest.raises(JournalCorrupt):
            decode(made, 1, text)


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
        """An undo that has a parameter without a type."""

    @registry.compensation("wrong")
    async def wrong(a: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
        """An undo that has a type which does not exist."""

    @registry.compensation("named")
    async def named(*, a: int) -> None:
        """An undo that has a keyword-only parameter."""

    assert encode(named, (), {"a": 1}) == '{"a": 1}'
    for undo, args, why in (
        (named, (), "missing a required"),
        (named, (1,), "too many positional"),
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


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Pair(NamedTuple):
    left: int
    right: str


NO_ID = UUID(int=0)
NO_PAIR = Pair(0, "")
registry_of_all = CompensationRegistry()


@registry_of_all.compensation("all-kinds")
async def all_kinds(
    *,
    flag: bool = False,
    number: float = 0.0,
    big: int = 0,
    text: str = "",
    data: bytes = b"",
    when: datetime | None = None,
    day: date = date(2026, 1, 1),
    span: timedelta = timedelta(0),
    price: Decimal = Decimal(0),
    uid: UUID = NO_ID,
    colour: Colour = Colour.RED,
    level: Level = Level.LOW,
    point: Point | None = None,
    place: Place | None = None,
    pair: Pair = NO_PAIR,
    names: frozenset[str] = frozenset(),
    numbers: set[int] | None = None,
    row: tuple[int, ...] = (),
    either: int | str | list[float] = 0,
    mode: Literal["a", "b", 3] = "a",
    nested: dict[str, list[tuple[int, Decimal | None]]] | None = None,
) -> None:
    """Take one of each kind."""


text = st.text(st.characters(), max_size=20)  # half pairs of surrogates included
points = st.builds(Point, st.integers(), st.floats(allow_nan=False))
zones = st.timezones() | st.just(UTC)
KINDS: dict[str, st.SearchStrategy[object]] = {
    "flag": st.booleans(),
    "number": st.floats(allow_nan=False),
    "big": st.integers(-(10**300), 10**300),
    "text": text,
    "data": st.binary(max_size=40),
    "when": st.none() | st.datetimes(timezones=st.just(UTC)),
    "day": st.dates(),
    "span": st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
    "price": st.decimals(allow_nan=False),
    "uid": st.uuids(),
    "colour": st.sampled_from(Colour),
    "level": st.sampled_from(Level),
    "point": st.none() | points,
    "place": st.none() | st.builds(Place, text, st.lists(points, max_size=3)),
    "pair": st.builds(Pair, st.integers(), text),
    "names": st.frozensets(text, max_size=4),
    "numbers": st.none() | st.sets(st.integers(), max_size=4),
    "row": st.lists(st.integers(), max_size=4).map(tuple),
    "either": st.integers() | text | st.lists(st.floats(allow_nan=False), max_size=3),
    "mode": st.sampled_from(["a", "b", 3]),
    "nested": st.dictionaries(
        text,
        st.lists(st.tuples(st.integers(), st.none() | st.decimals(allow_nan=False)), max_size=3),
        max_size=3,
    ),
}


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=KINDS))
def test_a_value_of_each_kind_is_read_back_equal_and_of_its_type(kwargs: dict[str, Any]) -> None:
    back_args, back = decode(all_kinds, 1, encode(all_kinds, (), kwargs))
    assert back_args == ()
    assert back == kwargs
    for name, value in kwargs.items():
        assert type(back[name]) is type(value)
        assert repr(back[name]) == repr(value) or isinstance(value, set | frozenset | datetime)


@settings(deadline=None)
@given(st.datetimes(timezones=zones))
def test_an_aware_datetime_comes_back_as_the_same_instant_or_is_refused(when: datetime) -> None:
    try:
        encoded = encode(all_kinds, (), {"when": when})
    except ArgumentsNotRecordable:
        # A zone whose offset has seconds, or an hour that comes twice, which equals no other.
        return
    _, back = decode(all_kinds, 1, encoded)
    assert back["when"] == when


@settings(deadline=None, max_examples=40)
@given(st.recursive(st.none() | st.floats() | text | st.binary(), lambda inner: st.lists(inner)))
def test_whatever_is_given_it_is_equal_or_a_typed_error(value: Any) -> None:
    for name in KINDS:
        try:
            encoded = encode(all_kinds, (), {name: value})
        except ArgumentsNotRecordable:
            continue
        _, back = decode(all_kinds, 1, encoded)
        assert back[name] == value or "nan" in repr(value)


class Unequal:
    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("big", 10**5000, id="too-many-digits"),
        ("big", Unequal()),
        pytest.param("text", "x" * 10_000_000, id="too-long"),
        ("row", (Unequal(),)),
        ("price", "1"),
        ("uid", "no"),
        ("mode", "c"),
    ],
)
def test_what_misbehaves_is_refused_and_shown_in_few_words(name: str, value: object) -> None:
    with pytest.raises(ArgumentsNotRecordable) as caught:
        encode(all_kinds, (), {name: value})
    assert len(str(caught.value)) < 1000


def test_not_a_number_of_any_kind_comes_back() -> None:
    for text in ("NaN", "sNaN", "-NaN123"):
        _, back = decode(all_kinds, 1, encode(all_kinds, (), {"price": Decimal(text)}))
        assert str(back["price"]) == text


def test_zero_keeps_its_sign() -> None:
    _, back = decode(all_kinds, 1, encode(all_kinds, (), {"number": -0.0}))
    assert math.copysign(1.0, back["number"]) == -1.0  # type: ignore[arg-type]


def test_a_bound_method_can_be_a_compensation_and_one_without_its_self_cannot() -> None:
    class Store:
        def __init__(self) -> None:
            self.gone: list[str] = []

        async def drop(self, name: str) -> None:
            self.gone.append(name)

    store = Store()
    bound = CompensationRegistry().compensation("drop")(store.drop)
    assert decode(bound, 1, encode(bound, ("x",), {})) == (("x",), {})
    loose = CompensationRegistry().compensation("drop")(Store.drop)
    with pytest.raises(ArgumentsNotRecordable, match="'self' has no type hint"):
        encode(loose, (store, "x"), {})
