"""What must be used, and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from mypy.errorcodes import ErrorCode
from mypy.maptype import map_instance_to_supertype
from mypy.messages import format_type
from mypy.nodes import (
    AssertTypeExpr,
    AssignmentExpr,
    AwaitExpr,
    CallExpr,
    ConditionalExpr,
    DictionaryComprehension,
    Expression,
    GeneratorExpr,
    ListComprehension,
    MemberExpr,
    NameExpr,
    OpExpr,
    RefExpr,
    RevealExpr,
    SetComprehension,
    UnaryExpr,
)
from mypy.options import Options
from mypy.types import (
    Instance,
    TupleType,
    Type,
    TypeVarType,
    UnionType,
    get_proper_type,
)

__all__ = [
    "MUST_USE",
    "NO_OUTCOME",
    "asked_for_truth",
    "is_always_true",
    "is_never_equal",
    "item_of",
    "message",
    "must_use",
    "read_as_items",
    "values_of",
    "why_no_items",
]

MUST_USE: Final = ErrorCode(
    "must-use", "Check that no value is dropped that holds a failure or has not run yet", "General"
)
"""The code of the errors of this plugin, for ``disable_error_code`` and ``type: ignore``."""

_UNSEEN: Final = "a failure in it would go unnoticed; handle it"
_UNRUN: Final = "it never runs; await it and handle its result"
_UNREAD: Final = "nothing reads it; iterate over it, or await one of its terminals"
_UNCALLED: Final = "it never runs; call it with what it requires"
NO_OUTCOME: Final = "a stream is not an outcome; end it in collect(), run(), for_each(), ..."

# Why each class must be used. A class with several bases is judged by the first one listed here.
_DROPPED: Final = {
    "returns.result.Result": _UNSEEN,
    "returns.io.IOResult": _UNSEEN,
    "returns.maybe.Maybe": "an empty one would go unnoticed; handle it",
    "returns.future.FutureResult": _UNRUN,
    "returns.future.Future": _UNRUN,
    "returns.context.requires_context.RequiresContext": _UNCALLED,
    "returns.context.requires_context_result.RequiresContextResult": _UNCALLED,
    "returns.context.requires_context_ioresult.RequiresContextIOResult": _UNCALLED,
    "returns.context.requires_context_future_result.RequiresContextFutureResult": _UNCALLED,
    "aiostream.core.BaseStream": _UNREAD,
    "returns_pipeline.saga.Saga": "it does nothing until it is run; run it",
}

# Classes that hold values, with the index of the type argument that is the value's type: the first,
# or for a mapping the last. Dropping an instance drops its values.
_HOLDERS: Final = {
    "_asyncio.Future": 0,
    "_asyncio.Task": 0,
    "_collections_abc.dict_values": -1,
    "builtins.dict": -1,
    "builtins.enumerate": 0,
    "builtins.filter": 0,
    "builtins.frozenset": 0,
    "builtins.list": 0,
    "builtins.map": 0,
    "builtins.reversed": 0,
    "builtins.set": 0,
    "builtins.tuple": 0,
    "builtins.zip": 0,
    "collections.abc.Set": 0,
    "collections.deque": 0,
    "concurrent.futures._base.Future": 0,
    "returns.io.IO": 0,
    "typing.AsyncGenerator": 0,
    "typing.AsyncIterable": 0,
    "typing.AsyncIterator": 0,
    "typing.Collection": 0,
    "typing.Generator": 0,
    "typing.Iterable": 0,
    "typing.Iterator": 0,
    "typing.Mapping": -1,
    "typing.MutableMapping": -1,
    "typing.MutableSequence": 0,
    "typing.Sequence": 0,
    "typing.ValuesView": 0,
}

# Containers that can be iterated over, to their one value, for do-notation: by a generator alone.
_ONE_VALUE: Final = {
    "returns.result.Result": "a value or a failure: use match cases(...)",
    "returns.io.IOResult": "a value or a failure: use match cases(...)",
    "returns.io.IO": "one value: use unsafe_perform_io(...)",
    "returns.maybe.Maybe": "one value or none: use match",
    "returns.future.FutureResult": "a value or a failure: use match cases(await ...)",
    "returns.future.Future": "one value: use unsafe_perform_io(await ...)",
}

# Functions of Python that iterate over their arguments.
_READING: Final = frozenset(
    f"builtins.{name}"
    for name in ("enumerate", "frozenset", "list", "map", "set", "sorted", "sum", "tuple", "zip")
)

# Values that are equal to no container.
_OWN_VALUES: Final = frozenset(
    f"builtins.{name}"
    for name in ("bool", "bytes", "dict", "float", "int", "list", "set", "str", "tuple")
)


def values_of(expression: Expression) -> Iterator[Expression]:
    """Yield the expressions that may be this one's value, except those that are kept elsewhere."""
    match expression:
        case ConditionalExpr():
            yield from values_of(expression.if_expr)
            yield from values_of(expression.else_expr)
        case OpExpr(op="and" | "or"):
            yield from values_of(expression.left)
            yield from values_of(expression.right)
        case NameExpr() | AssignmentExpr() | CallExpr(callee=MemberExpr(name="setdefault")):
            return
        case AwaitExpr(expr=CallExpr(callee=RefExpr(fullname="asyncio.tasks.wait"))):
            return  # it returns the tasks that were passed to it
        case CallExpr(analyzed=AssertTypeExpr() | RevealExpr()):  # these return their argument
            return
        case _:
            yield expression


def must_use(type_: Type) -> Instance | None:
    """Return the part of a type that must not be dropped, if there is one."""
    match get_proper_type(type_):
        case Instance() as instance:
            if any(base.fullname in _DROPPED for base in instance.type.mro):
                return instance
            if instance.type.fullname in _HOLDERS and instance.args:
                return must_use(instance.args[_HOLDERS[instance.type.fullname]])
        case UnionType(items=items) | TupleType(items=items):
            return _first_must_use(items)
        case TypeVarType(upper_bound=bound):
            return must_use(bound)
        case _:
            pass
    return None


def item_of(type_: Type) -> Type | None:
    """Return the type of the items of an iterable."""
    instance = get_proper_type(type_)
    if isinstance(instance, Instance):
        for base in instance.type.mro:
            if base.fullname == "typing.Iterable":
                return map_instance_to_supertype(instance, base).args[0]
    return None


def asked_for_truth(expression: Expression) -> Iterator[Expression]:
    """Yield the parts of an expression of which only the truth counts."""
    match expression:
        case UnaryExpr(op="not", expr=asked) | OpExpr(op="and" | "or", left=asked):
            yield asked
        case ConditionalExpr(cond=asked):
            yield asked
        case ListComprehension(generator=made) | SetComprehension(generator=made):
            yield from itertools.chain(*made.condlists)
        case GeneratorExpr(condlists=lists) | DictionaryComprehension(condlists=lists):
            yield from itertools.chain(*lists)
        case _:
            pass


def read_as_items(expression: Expression) -> Iterator[Expression]:
    """Yield what an expression iterates over. Generators do so for do-notation, too."""
    match expression:
        case CallExpr(callee=RefExpr(fullname=str(name)), args=arguments) if name in _READING:
            yield from arguments
        case ListComprehension(generator=made) | SetComprehension(generator=made):
            yield from made.sequences
        case DictionaryComprehension(sequences=sequences):
            yield from sequences
        case _:
            pass


def why_no_items(type_: Type, options: Options) -> str | None:
    """Return why a value cannot be read as a collection, if it is a container of one value."""
    match get_proper_type(type_):
        case Instance(type=info) as instance:
            for base in info.mro:
                if base.fullname in _ONE_VALUE:
                    return f"{format_type(instance, options)} holds {_ONE_VALUE[base.fullname]}"
        case _:
            pass
    return None


def is_never_equal(*sides: Type) -> bool:
    """Whether one of two values is a container, and the other one of Python's own values."""
    types = [get_proper_type(side) for side in sides]
    for container, other in itertools.permutations(types, 2):
        if isinstance(container, Instance) and any(
            base.fullname in _DROPPED for base in container.type.mro
        ):
            own = other.partial_fallback if isinstance(other, TupleType) else other
            return isinstance(own, Instance) and own.type.fullname in _OWN_VALUES
    return False


def is_always_true(type_: Type) -> bool:
    """Whether a value of this type must be used, and is true as a condition whatever it holds."""
    match get_proper_type(type_):
        case Instance(type=info):
            judged = next((base.fullname for base in info.mro if base.fullname in _DROPPED), None)
            return judged is not None and not any(
                base.names.keys() & {"__bool__", "__len__"} for base in info.mro[:-1]
            )
        case _:
            return False


def _first_must_use(types: Sequence[Type]) -> Instance | None:
    return next(filter(None, map(must_use, types)), None)


def message(dropped: Type, value: Instance, options: Options) -> str:
    """Return a message: what is dropped, and why that must not be."""
    why = next(_DROPPED[base.fullname] for base in value.type.mro if base.fullname in _DROPPED)
    name = format_type(value, options)
    inside = "" if get_proper_type(dropped) == value else f" in {format_type(dropped, options)}"
    return f'{name}{inside} is dropped: {why}, or assign it to "_"'
