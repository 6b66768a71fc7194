"""Functions whose result would be dropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mypy.checker import TypeChecker
from mypy.nodes import (
    CallExpr,
    Expression,
    MemberExpr,
    RefExpr,
)
from mypy.types import (
    CallableType,
    Instance,
    Type,
    get_proper_type,
)

from returns_pipeline.mypy_plugin._values import NO_OUTCOME, message, must_use

__all__ = ["OURS", "misused"]

OURS: Final = "returns_pipeline."
_STREAM: Final = "aiostream.core.BaseStream"
_NO_TERMINAL: Final = "returns_pipeline._engine.future_results.StreamWithoutTerminal"

# Methods and functions of this package that drop what the function passed to them returns,
_SIDE_EFFECTS: Final = frozenset({"tap", "tap_async", "tap_failure", "tap_failure_async"})
# those that emit it as it is, with the method to use instead,
_NESTING: Final = {
    "alt": "lash(), or lash_async()",
    "map": "bind(), bind_async() or map_async()",
    "map_async": "bind_async()",
    "map_result": "bind_result(), bind_async_result() or map_async()",
}
# those that drop what the function passed by this keyword returns,
_CALLBACKS: Final = frozenset({"late", "on_drop", "on_report", "on_retry", "on_state_change"})
# and those that await it, or take it for the outcome of a step.
_TERMINALS: Final = frozenset({"for_each", "for_each_all"})  # returning a function is a mistake
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
    name = _called(call.callee, checker)
    if name is None:
        return
    for argument, given_name in zip(call.args, call.arg_names, strict=True):
        function = get_proper_type(checker.lookup_type_or_none(argument))
        if isinstance(function, CallableType):
            drops = name in _SIDE_EFFECTS or given_name in _CALLBACKS
            why = _dropping(name, function, checker) if drops else _unsuited(name, function)
            if why is not None:
                yield argument, why


def _dropping(name: str, function: CallableType, checker: TypeChecker) -> str | None:
    """Return why a function may not be passed where its result is dropped; None if it may."""
    returned = _awaited(function.ret_type)
    if (value := must_use(returned)) is not None:
        return f"of what this returns, {message(returned, value, checker.options)}"
    if name in {"tap", "tap_failure"} and returned is not function.ret_type:
        return f"what this returns never runs; use {name}_async()"
    return None


def _unsuited(name: str, function: CallableType) -> str | None:
    """Return why a function may not be passed where its result is used; None if it may."""
    returned = _awaited(function.ret_type)
    if name in _NESTING:
        unawaited = returned is not function.ret_type and name != "map_async"
        if unawaited or must_use(returned) is not None:
            return f"nothing looks into what this returns; use {_NESTING[name]}"
    if name in _STEPS and _is_a(returned, _STREAM):
        return f"of what this returns, {NO_OUTCOME}"
    if name in _TERMINALS and isinstance(get_proper_type(returned), CallableType):
        return "nothing calls the function that this returns"
    return None


def _called(callee: Expression, checker: TypeChecker) -> str | None:
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


def _awaited(type_: Type) -> Type:
    """Return what awaiting a coroutine returns, and any other type as it is."""
    match get_proper_type(type_):
        case Instance(type=info, args=args) if info.fullname == "typing.Coroutine" and args:
            return args[-1]
        case _:
            return type_
