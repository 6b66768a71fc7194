"""The kinds of steps of a `ResultStream` that need no task, each with the code that it becomes.

Between steps an item is its bare value, and a failure is a `Failed`: a `returns` container is made
only where a reader sees it, because making one costs three times as much as a slotted object.

Values change their type from step to step, so the engine does not know it (hence ``Any``). The
methods of `ResultStream`, which add the steps, are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from returns.primitives.container import BaseContainer
from returns.result import Failure, Result, Success

__all__ = ["Count", "Failed", "Kind", "Step", "error_of", "packed", "split", "tuple_or_failed"]

E_co = TypeVar("E_co", covariant=True)


class Failed(Generic[E_co]):
    """A failure between two steps, where a bare item is a success."""

    __slots__ = ("error",)

    def __init__(self, error: E_co) -> None:
        self.error: E_co = error


@dataclass(slots=True, eq=False, repr=False)
class Kind:
    """A kind of step: its code as a template, from which `compiler` makes that of a whole chain.

    In a template ``value`` and ``error`` are the item, ``func`` and ``extra`` are those of the
    `Step`. A line ``FAIL`` makes the item a failure with that ``error`` and continues after
    the step; ``DROP`` continues with the next item. Other names are in `compiler.NAMES`.

    Attributes:
        name: In capitals, the name of the constant below.
        on_value: The code for a value; without any, values pass.
        on_error: The code for the error of a failure; without any, failures pass.
        keeps_result: Whether a value is still in ``result``, inside the `Success` it came in.
    """

    name: str
    on_value: str = ""
    on_error: str = ""
    keeps_result: bool = False

    @property
    def awaits(self) -> bool:
        """Whether the step may wait for something."""
        return "await" in self.on_value + self.on_error

    def __reduce__(self) -> str:
        return repr(self)  # pickled and copied as the one that is there

    def __repr__(self) -> str:
        return self.name.upper()


class Count(Protocol):
    """What a step `COUNT` counts with, and what is told when the part of the chain is read.

    Attributes:
        count: How many items have passed.
    """

    count: int

    def open(self) -> None:
        """Begin: the source is about to be opened."""

    def close(self) -> None:
        """End: the source is closed."""


Step: TypeAlias = "tuple[Kind, Callable[[Any], Any], Any]"  # the kind; func; extra

_OF_RESULT: Final = """\
if result.__class__ is Success:
    value = result._inner_value
else:
    error = error_of(result, extra)
    FAIL
"""
_OF_AWAITED_RESULT: Final = _OF_RESULT.replace(
    "result.__class__ is Success",
    "result.__class__ is Success or (result := unpacked(result)).__class__ is Success",
)
_OF_ATTEMPT: Final = """\
error = None
try:
    value = func(value)
except extra as raised:
    error = raised
if error is not None:
    FAIL
"""
# What Success(value) does, without the calls of two __init__, which are two thirds of its cost.
PACKED: Final = "made = new(Success)\nset_value(made, value)\nvalue = made\n"
_KEPT: Final = "kept = func(value)\nif kept is not True and not truth(kept, func):\n"
_LASHED: Final = """\
if result.__class__ is Success:
    value, failed = result._inner_value, False
else:
    error = error_of(result, extra)
"""

# With a value; failures pass.
MAP: Final = Kind("map", "value = func(value)")
FILTER: Final = Kind("filter", f"{_KEPT}    DROP")
BIND: Final = Kind("bind", f"result = func(value)\n{_OF_RESULT}", keeps_result=True)
TAP: Final = Kind(
    "tap",
    "if (given := func(value)) is not None and given.__class__ in LOST:\n"
    '    refuse_lost(given, extra, "tap_result() or tap_async()")',
)
ENSURE: Final = Kind("ensure", f"{_KEPT}    error = extra(value)\n    FAIL")
ATTEMPT: Final = Kind("attempt", _OF_ATTEMPT)
MAP_ASYNC: Final = Kind("map_async", "value = await func(value)")
BIND_ASYNC: Final = Kind(
    "bind_async", f"result = await func(value)\n{_OF_AWAITED_RESULT}", keeps_result=True
)
TAP_ASYNC: Final = Kind(
    "tap_async",
    "if (given := await func(value)) is not None:\n"
    '    refuse_lost(given, extra, "tap_result_async()")',
)
ATTEMPT_ASYNC: Final = Kind("attempt_async", _OF_ATTEMPT.replace("func", "await func"))
UNPACK: Final = Kind("unpack", f"result = value\n{_OF_RESULT}", keeps_result=True)  # a Result
SPLIT: Final = Kind(  # an item of a segment
    "split", "if value.__class__ is Failed:\n    error = value.error\n    FAIL"
)
# With either.
BIMAP: Final = Kind("bimap", "value = func(value)", "error = extra(error)")
PACK: Final = Kind("pack", PACKED, "value, failed = Failure(error), False")  # into a Result
COUNT: Final = Kind("count", "func.count += 1", "func.count += 1")  # `Count`; both pass
# With an error; values pass.
ALT: Final = Kind("alt", on_error="error = func(error)")
TAP_FAILURE: Final = Kind(
    "tap_failure",
    on_error="if (given := func(error)) is not None:\n"
    '    refuse_lost(given, extra, "lash() or tap_failure_async()")',
)
TAP_FAILURE_ASYNC: Final = Kind(
    "tap_failure_async",
    on_error="if (given := await func(error)) is not None:\n"
    '    refuse_lost(given, extra, "lash_async()")',
)
LASH: Final = Kind("lash", on_error=f"result = func(error)\n{_LASHED}")
LASH_ASYNC: Final = Kind("lash_async", on_error=f"result = unpacked(await func(error))\n{_LASHED}")


def split(result: Result[Any, Any], place: Any = None) -> Any:
    """Turn a Result into a bare value or a `Failed`; ``place`` is that of the step it is from."""
    if isinstance(result, Success):
        return result.unwrap()
    return Failed(error_of(result, place))


def packed(item: Any) -> Result[Any, Any]:
    """Turn a bare value or a `Failed` into a Result, as the end ``RESULTS`` does."""
    if item.__class__ is Failed:
        return Failure(item.error)
    made: Result[Any, Any] = _new(Success)
    _set_value(made, item)
    return made


# What Success(value) does, without the calls of two __init__, which are two thirds of its cost.
_new: Final[Any] = Success.__new__
_set_value: Final[Any] = vars(BaseContainer)["_inner_value"].__set__


def error_of(result: object, place: Any = None) -> Any:
    """Return the error of a Failure; in a well-typed program it can be nothing else."""
    if isinstance(result, Failure):
        return result.failure()  # pyright: ignore[reportUnknownVariableType]
    if place is not None:  # of the step that returned it
        raise place.wrong(result)
    raise TypeError(
        f"expected a Success or a Failure, not {result!r}: "
        "ResultStream.of() makes Results of values"
    )


def tuple_or_failed(items: list[Any]) -> Any:
    """Put items of the same number into a tuple; a failed one takes its place."""
    for item in items:
        if item.__class__ is Failed:
            return item
    return tuple(items)
