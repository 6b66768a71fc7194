"""Which types of failures come out of a chain, as far as annotations tell while a program runs.

The signatures of the operators say how error types pass through them: ``bind`` returns a
``ResultStream[U, E_co | F]``, where ``F`` is that of its function. So they are read here, in place
of a second list of rules. The functions that users pass are read by their return annotations. What
is not annotated, or cannot be read, is unknown; nothing is guessed.
"""

# Annotations have no type themselves, and what is drawn may be of any.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, TypeAlias, TypeVar, cast

import typing_extensions
from aiostream.core import BaseStream
from returns.future import FutureResult
from returns.io import IOResult
from returns.result import Result

from returns_pipeline._engine.calls import Call, call_of
from returns_pipeline._engine.future_results import ResultLike, StepAwaitable
from returns_pipeline._engine.terminals import Terminals

__all__ = ["NO_ERRORS", "UNKNOWN", "ErrorTypes", "errors_after", "errors_of"]

Annotation: TypeAlias = Any  # a type, as it is written; type checkers have no type for that


@dataclass(frozen=True, slots=True)
class ErrorTypes:
    """Types of failures.

    Attributes:
        names: Their names, in the order in which they were added.
        complete: Whether there are no others.
    """

    names: tuple[str, ...]
    complete: bool

    def __or__(self, other: ErrorTypes) -> ErrorTypes:
        names = tuple(dict.fromkeys(self.names + other.names))
        return ErrorTypes(names, self.complete and other.complete)

    def __str__(self) -> str:
        """Return them as a union; a question mark stands for those that are not known."""
        if not self.names:
            return ""
        return " | ".join(self.names if self.complete else (*self.names, "?"))


NO_ERRORS: Final = ErrorTypes((), complete=True)
UNKNOWN: Final = ErrorTypes((), complete=False)

_RESULTS: Final = (Result, IOResult, FutureResult, Terminals)
# What emits items, or is awaited to one, and which of its parameters is the item.
_ITEMS: Final[dict[Any, int]] = {
    collections.abc.Awaitable: 0,
    collections.abc.Coroutine: 2,
    collections.abc.AsyncIterable: 0,
    collections.abc.AsyncIterator: 0,
    collections.abc.AsyncGenerator: 0,
    StepAwaitable: 0,
}
_MISSING: Final = object()


class _Known:
    """What type variables stand for in a call.

    Attributes:
        as_errors: Where the variable is the type of an error.
        as_items: The errors in it, where the variable is the type of an item.
    """

    def __init__(self) -> None:
        self.as_errors: dict[Any, ErrorTypes] = {}
        self.as_items: dict[Any, ErrorTypes] = {}


def errors_after(
    call: Call, before: ErrorTypes, errors_in: Callable[[object], ErrorTypes | None]
) -> ErrorTypes:
    """Return the errors that come out of what a call has made.

    Args:
        call: The call.
        before: Those of the stream that it was called on, if it is a method.
        errors_in: Returns those of a stream among its arguments; None for anything else.
    """
    if call.errors is not None:
        return ErrorTypes(call.errors(), complete=True)
    try:
        return _by_signature(call, before, errors_in)
    except Exception:  # noqa: BLE001  # an annotation may raise anything
        return UNKNOWN


def errors_of(func: object) -> ErrorTypes:
    """Return the errors in the Results that a function returns."""
    if (exceptions := _safe_exceptions(func)) is not None:
        return _union(map(_named, exceptions))
    if (call := call_of(func)) is not None:  # a step with a policy
        return errors_after(call, UNKNOWN, lambda _: None)
    returned = _returned(func)
    return UNKNOWN if returned is _MISSING else _in_items(returned, _Known())


def _union(parts: Iterable[ErrorTypes]) -> ErrorTypes:
    return functools.reduce(ErrorTypes.__or__, parts, NO_ERRORS)


# Signatures.


def _by_signature(
    call: Call, before: ErrorTypes, errors_in: Callable[[object], ErrorTypes | None]
) -> ErrorTypes:
    func: Any = call.func
    has_self = call.is_method
    if not isinstance(func, types.FunctionType):  # an operator, or a policy that is called
        func, has_self = type(func).__call__, True
    plain = inspect.unwrap(func)
    fitting = [
        bound
        for candidate in typing.get_overloads(plain) or [plain]
        if (bound := _bound(candidate, call, has_self=has_self)) is not None
    ]
    results: set[ErrorTypes] = set()
    for hints, arguments in fitting:
        known = _Known()
        if call.is_method:
            owner: Any = plain.__globals__[plain.__qualname__.partition(".")[0]]
            known.as_errors[owner.__parameters__[1]] = before
        for name, value in arguments:
            _learn(hints.get(name), value, errors_in, known)
        returned = hints["return"]
        several = typing.get_args(returned) if _origin(returned) is tuple else [returned]
        streams = [each for each in several if each is not Ellipsis]
        results.add(_union([_in_items(each, known) for each in streams]))
    return results.pop() if len(results) == 1 else UNKNOWN  # overloads that differ in types alone


def _bound(
    candidate: Callable[..., Any], call: Call, *, has_self: bool
) -> tuple[dict[str, Any], list[tuple[str, Any]]] | None:
    """Return the annotations of an overload, and the arguments by its names; None if none fits."""
    signature, hints = _signature(candidate)
    first = (None,) if has_self else ()
    try:
        bound = signature.bind(*first, *call.args, **(call.kwargs or {}))
    except TypeError:
        return None
    arguments: list[tuple[str, Any]] = []
    for name, value in list(bound.arguments.items())[len(first) :]:
        is_several = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        values = value if is_several else (value,)
        if not all(_fits(hints.get(name), each) for each in values):
            return None
        arguments += [(name, each) for each in values]
    return hints, arguments


@functools.lru_cache(maxsize=512)
def _signature(candidate: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    return inspect.signature(candidate), typing.get_type_hints(candidate)


def _fits(hint: Annotation, value: object) -> bool:
    """Return whether an argument may be meant for a parameter: true if that cannot be told."""
    origin, args = _origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in args
    if _is_union(hint):
        return any(_fits(part, value) for part in args)
    if origin is collections.abc.Callable:
        narrows = _origin(args[-1]) is typing_extensions.TypeIs
        return callable(value) and (not narrows or _narrows(value))
    kind = origin or hint
    if not isinstance(kind, type) or kind.__module__ == "builtins":
        return True
    return getattr(kind, "_is_protocol", False) or isinstance(value, kind)


def _narrows(predicate: object) -> bool:
    return _origin(_returned(predicate)) is typing_extensions.TypeIs


def _learn(
    hint: Annotation,
    value: Any,
    errors_in: Callable[[object], ErrorTypes | None],
    known: _Known,
) -> None:
    """Add what an argument says about the type variables in its annotation."""
    origin, args = _origin(hint), typing.get_args(hint)
    if origin is tuple and type(value) is tuple:  # a priority and a stream
        for part, each in zip(args, value, strict=False):
            _learn(part, each, errors_in, known)
    elif origin is type:
        known.as_errors[args[0]] = known.as_errors.get(args[0], NO_ERRORS) | _named(value)
    elif origin is collections.abc.Callable:
        if isinstance(args[-1], TypeVar):
            returned = _returned(value)
            named = UNKNOWN if returned is _MISSING else _named(returned)
            known.as_errors[args[-1]] = known.as_errors.get(args[-1], NO_ERRORS) | named
        else:
            _match(args[-1], errors_of(value), known)
    elif (errors := errors_in(value)) is not None:
        _match(hint, errors, known)


def _match(pattern: Annotation, errors: ErrorTypes, known: _Known) -> None:
    """Record that the type variables of a pattern stand for the errors of what is passed there."""
    for variable, table in _variables(pattern, known):
        table[variable] = table.get(variable, NO_ERRORS) | errors


def _variables(pattern: Annotation, known: _Known) -> Iterator[tuple[Any, dict[Any, ErrorTypes]]]:
    """Yield each variable once, and the table for the place that it has in a pattern."""
    seen: set[Any] = set()
    waiting = [pattern]
    while waiting:
        at = waiting.pop()
        if isinstance(at, TypeVar):
            if at not in seen:
                seen.add(at)
                yield at, known.as_items
        elif _is_union(at):
            waiting.extend(typing.get_args(at))
        elif (error := _error_of_result(at)) is not None:
            if isinstance(error, TypeVar) and error not in seen:
                seen.add(error)
                yield error, known.as_errors
        elif (item := _item_of(at)) is not None:
            waiting.append(item)


# Annotations.


def _in_items(annotation: Annotation, known: _Known) -> ErrorTypes:
    """Return the errors of Results that a type has as its items, is awaited to, or is."""
    if isinstance(annotation, TypeVar):
        return known.as_items.get(annotation, UNKNOWN)
    if _is_union(annotation):
        return _union([_in_items(part, known) for part in typing.get_args(annotation)])
    if _is_never(annotation):
        return NO_ERRORS
    if (error := _error_of_result(annotation)) is not None:
        return _named(error, known)
    item = _item_of(annotation)
    return UNKNOWN if item is None else _in_items(item, known)


def _error_of_result(annotation: Annotation) -> Annotation | None:
    """Return the error type of a Result, or of a stream of them."""
    origin, args = _origin(annotation), typing.get_args(annotation)
    is_result = isinstance(origin, type) and (origin is ResultLike or issubclass(origin, _RESULTS))
    return args[1] if is_result and len(args) == 2 else None


def _item_of(annotation: Annotation) -> Annotation | None:
    origin, args = _origin(annotation), typing.get_args(annotation)
    if origin is collections.abc.Callable:  # what a policy makes of a step
        return args[-1]
    if origin in _ITEMS and len(args) > _ITEMS[origin]:
        return args[_ITEMS[origin]]
    if isinstance(origin, type) and len(args) == 1:
        return args[0] if issubclass(origin, BaseStream) else None
    return None


def _named(annotation: Annotation, known: _Known | None = None) -> ErrorTypes:
    """Return the names of the types in a union of errors."""
    if isinstance(annotation, TypeVar):
        return UNKNOWN if known is None else known.as_errors.get(annotation, UNKNOWN)
    if _is_union(annotation):
        return _union([_named(part, known) for part in typing.get_args(annotation)])
    if _is_never(annotation):
        return NO_ERRORS
    if annotation is None or annotation is types.NoneType:
        return ErrorTypes(("None",), complete=True)
    origin, args = _origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ErrorTypes((f"Literal[{', '.join(map(repr, args))}]",), complete=True)
    if origin is typing.Annotated:
        return _named(args[0], known)
    if not isinstance(origin or annotation, type) or annotation in {Any, object}:
        return UNKNOWN
    name = cast("type[Any]", origin or annotation).__name__
    parts = [_named(arg, known) for arg in args]
    if parts and all(part.complete and part.names for part in parts):
        name += f"[{', '.join(map(str, parts))}]"
    return ErrorTypes((name,), complete=True)


def _origin(annotation: Annotation) -> Any:
    return typing.get_origin(annotation)


def _is_union(annotation: Annotation) -> bool:
    return _origin(annotation) in {typing.Union, types.UnionType}


def _is_never(annotation: Annotation) -> bool:
    return annotation in {typing.Never, NoReturn, typing_extensions.Never}


# Functions of the user's.


def _returned(func: object) -> Annotation:
    """Return what a call of a function returns by its annotation, `_MISSING` if that is unknown.

    What wraps another function has the annotations of that one, and may return something else.
    """
    while isinstance(func, functools.partial):
        func = cast("functools.partial[object]", func).func
    if isinstance(func, type):
        is_plain = type(func) is type and not isinstance(func.__new__, types.FunctionType)
        return func if is_plain else _MISSING
    if isinstance(func, types.MethodType):
        func = func.__func__
    if not isinstance(func, types.FunctionType):
        func = getattr(type(func), "__call__", None)  # noqa: B004  # not whether there is one
    if not isinstance(func, types.FunctionType) or hasattr(func, "__wrapped__"):
        return _MISSING
    if "return" not in func.__annotations__:
        return _MISSING
    annotation = _evaluated(func)
    if annotation is not _MISSING and inspect.iscoroutinefunction(func):
        return cast("Any", collections.abc.Awaitable)[annotation]
    return annotation


def _evaluated(func: types.FunctionType) -> Annotation:
    """Return a return annotation; those of the parameters may be names that are not there."""

    def only_returns() -> None: ...

    only_returns.__annotations__ = {"return": func.__annotations__["return"]}
    free = {
        name: cell.cell_contents
        for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=True)
        if cell != types.CellType()
    }
    try:
        return typing.get_type_hints(
            only_returns, globalns=func.__globals__, localns=free, include_extras=True
        )["return"]
    except Exception:  # noqa: BLE001  # a name that is there for type checkers alone, for one
        return _MISSING


def _safe_exceptions(func: object) -> tuple[type[Exception], ...] | None:
    """Return the exceptions that ``safe``, ``future_safe`` and the like turn into failures.

    The functions that those decorators of `returns` make have the annotations of what they wrap.
    """
    at = func
    for _ in range(2):
        if not isinstance(at, types.FunctionType) or not at.__module__:
            return None
        if not at.__globals__.get("__name__", "").startswith("returns."):
            return None
        cells = dict(zip(at.__code__.co_freevars, at.__closure__ or (), strict=True))
        if "inner_exceptions" in cells:
            exceptions: Any = cells["inner_exceptions"].cell_contents
            return exceptions if isinstance(exceptions, tuple) else None
        if "factory" not in cells:
            return None
        at = cells["factory"].cell_contents
    return None
