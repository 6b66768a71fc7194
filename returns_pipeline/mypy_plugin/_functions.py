"""Functions whose result would be dropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mypy.checker import TypeChecker
from mypy.messages import format_type
from mypy.nodes import (
    CallExpr,
    Expression,
    GeneratorExpr,
    ListComprehension,
    MemberExpr,
    RefExpr,
)
from mypy.types import (
    CallableType,
    Instance,
    Type,
    get_proper_type,
)

from returns_pipeline.mypy_plugin._values import (
    NO_OUTCOME,
    is_always_true,
    item_of,
    message,
    must_use,
)

__all__ = ["OURS", "awaited", "called", "misused"]

OURS: Final = "returns_pipeline."
_STREAM: Final = "aiostream.core.BaseStream"
_NO_TERMINAL: Final = "returns_pipeline._engine.future_results.StreamWithoutTerminal"

# Methods and functions of this package that drop what the function passed to them returns,
_SIDE_EFFECTS: Final = frozenset({"tap", "tap_async", "tap_failure", "tap_failure_async"})
# those that emit it as it is, with the method to use instead,
_NESTING: Final = {
    "alt": "lash(), or lash_async()",
    "attempt": "bind(), bind_async() or attempt_async()",
    "attempt_async": "bind_async()",
    "map": "bind(), bind_async() or map_async()",
    "map_async": "bind_async()",
    "map_result": "bind_result(), bind_async_result() or map_async()",
}
# the methods of containers that do so, too,
_MAPPING: Final = {
    "alt": "lash()",
    "map": "bind(), or in a FutureResult bind_result() or bind_awaitable()",
}
# those that take an item's key from the function passed by this keyword,
_KEYS: Final = frozenset({"key", "partition"})
# those that drop what the function passed by this keyword returns,
_CALLBACKS: Final = frozenset({"late", "on_drop", "on_report", "on_retry", "on_state_change"})
# and those that await it, or take it for the outcome of a step.
_TERMINALS: Final = frozenset({"for_each", "for_each_all"})
# What these see a failure in; in anything else it would be lost.
_SEEN: Final = ("returns.result.Result", "returns.io.IOResult", "returns.future.FutureResult")
_AWAITABLES: Final = frozenset(
    {"_asyncio.Future", "_asyncio.Task", "typing.Awaitable", "typing.Coroutine"}
)
# Functions of Python that ask whether values are true: all of these are.
_TRUTHS: Final = frozenset({"builtins.all", "builtins.any", "builtins.bool", "builtins.filter"})
_STEPS: Final = frozenset(
    {
        "Tier",
        "all_of",
        "bind_async",
        "bind_async_result",
        "bind_step",
        "hedge",
        "lash_async",
        "race",
        "step",
        "tap_result_async",
        "with_policy",
        "with_retry",
        "with_timeout",
    }
)


def misused(call: CallExpr, type_: Type, checker: TypeChecker) -> Iterator[tuple[Expression, str]]:
    """Yield the arguments of a call that are functions whose result would be dropped, and why."""
    if _is_a(type_, _NO_TERMINAL):
        yield call, NO_OUTCOME
        return
    if isinstance(call.callee, RefExpr) and call.callee.fullname in _TRUTHS:
        yield from _always_true_inside(call, checker)
    name = called(call.callee, checker)
    if name is None:
        yield from _nested(call, checker)
        return
    for argument, given_name in zip(call.args, call.arg_names, strict=True):
        function = get_proper_type(checker.lookup_type_or_none(argument))
        if isinstance(function, CallableType):
            drops = name in _SIDE_EFFECTS or given_name in _CALLBACKS
            if drops:
                why = _dropping(name, function, checker)
            elif given_name in _KEYS:
                why = _no_key(function)
            else:
                why = _unsuited(name, function, checker)
            if why is not None:
                yield argument, why


def _dropping(name: str, function: CallableType, checker: TypeChecker) -> str | None:
    """Return why a function may not be passed where its result is dropped; None if it may."""
    returned = awaited(function.ret_type)
    if (value := must_use(returned)) is not None:
        return f"of what this returns, {message(returned, value, checker.options)}"
    if name in {"tap", "tap_failure"} and _can_beawaited(function.ret_type):
        return f"nothing awaits what this returns; use {name}_async()"
    return None


def _no_key(function: CallableType) -> str | None:
    """Return why what a function returns is not a key."""
    if _can_beawaited(function.ret_type) or must_use(function.ret_type) is not None:
        return "what this returns is not a key: nothing awaits it, or looks into it"
    return None


def _nested(call: CallExpr, checker: TypeChecker) -> Iterator[tuple[Expression, str]]:
    """Yield the function that puts a Result, or a coroutine, into a container by ``map()``."""
    callee = call.callee
    if not (isinstance(callee, MemberExpr) and callee.name in _MAPPING and len(call.args) == 1):
        return
    owner = checker.lookup_type_or_none(callee.expr)
    function = get_proper_type(checker.lookup_type_or_none(call.args[0]))
    if owner is None or not any(_is_a(owner, each) for each in _SEEN):
        return
    if isinstance(function, CallableType):
        returned = function.ret_type
        if _can_beawaited(returned) or any(_is_a(returned, each) for each in _SEEN):
            use = _MAPPING[callee.name]
            yield call.args[0], f"nothing looks into what this returns; use {use}"


def _always_true_inside(call: CallExpr, checker: TypeChecker) -> Iterator[tuple[Expression, str]]:
    """Yield what ``all()``, ``any()``, ``bool()`` or ``filter()`` finds true whatever it holds."""
    first = call.args[0] if call.args else None
    given = None if first is None else get_proper_type(checker.lookup_type_or_none(first))
    if first is None or given is None:
        return
    if isinstance(given, CallableType):
        asked: Type | None = given.ret_type
    elif isinstance(call.callee, RefExpr) and call.callee.fullname == "builtins.bool":
        asked = given
    else:
        # In a comprehension the items may have been widened to what `any()` takes, `object`.
        made = first.generator if isinstance(first, ListComprehension) else first
        inside = made.left_expr if isinstance(made, GeneratorExpr) else None
        asked = item_of(given) if inside is None else checker.lookup_type_or_none(inside)
    if asked is not None and is_always_true(asked):
        name = format_type(asked, checker.options)
        yield first, f"{name} is always true, even if it failed"


def _unsuited(name: str, function: CallableType, checker: TypeChecker) -> str | None:
    """Return why a function may not be passed where its result is used; None if it may."""
    returned = awaited(function.ret_type)
    if name in _NESTING:
        unawaited = returned is not function.ret_type and not name.endswith("_async")
        if unawaited or must_use(returned) is not None:
            return f"nothing looks into what this returns; use {_NESTING[name]}"
    if name in _STEPS and _is_a(returned, _STREAM):
        return f"of what this returns, {NO_OUTCOME}"
    if name in _TERMINALS and isinstance(get_proper_type(returned), CallableType):
        return "nothing calls the function that this returns"
    seen = any(_is_a(returned, each) for each in _SEEN)
    if name in _TERMINALS and not seen and (value := must_use(returned)) is not None:
        return f"of what this returns, {message(returned, value, checker.options)}"
    return None


def called(callee: Expression, checker: TypeChecker) -> str | None:
    """Return the short name of the function or method of this package that is called."""
    if isinstance(callee, RefExpr) and callee.fullname:
        fullname = callee.fullname
        return fullname.rpartition(".")[2] if fullname.startswith(OURS) else None
    if isinstance(callee, MemberExpr):
        owner = get_proper_type(checker.lookup_type_or_none(callee.expr))
        if isinstance(owner, Instance):
            defined = owner.type.get_containing_type_info(callee.name)
            return callee.name if defined and defined.fullname.startswith(OURS) else None
    return None


def _is_a(type_: Type, fullname: str) -> bool:
    instance = get_proper_type(type_)
    return isinstance(instance, Instance) and instance.type.has_base(fullname)


def _can_beawaited(type_: Type) -> bool:
    instance = get_proper_type(type_)
    return isinstance(instance, Instance) and instance.type.get("__await__") is not None


def awaited(type_: Type) -> Type:
    """Return what awaiting a coroutine or a task returns, and any other type as it is."""
    match get_proper_type(type_):
        case Instance(type=info, args=args) if info.fullname in _AWAITABLES and args:
            return args[-1]
        case _:
            return type_
