"""What must be used, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from mypy.errorcodes import ErrorCode
from mypy.messages import format_type
from mypy.nodes import (
    AssertTypeExpr,
    AssignmentExpr,
    AwaitExpr,
    CallExpr,
    ConditionalExpr,
    Expression,
    MemberExpr,
    NameExpr,
    OpExpr,
    RefExpr,
    RevealExpr,
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

__all__ = ["MUST_USE", "NO_OUTCOME", "is_always_true", "message", "must_use", "values_of"]

MUST_USE: Final = ErrorCode(
    "must-use", "Check that no value is dropped that holds a failure or has not run yet", "General"
)

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
