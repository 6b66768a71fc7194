"""Short messages for common slips, where mypy would list every overload of a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from mypy.checker import TypeChecker
from mypy.errorcodes import ARG_TYPE
from mypy.messages import format_type
from mypy.nodes import (
    ARG_NAMED,
    ARG_POS,
    ARG_STAR,
    ARG_STAR2,
    CallExpr,
    Decorator,
    Expression,
    FuncDef,
    LambdaExpr,
    ListComprehension,
    ListExpr,
    MemberExpr,
    NameExpr,
    OverloadedFuncDef,
    RefExpr,
    TupleExpr,
    Var,
)
from mypy.plugin import FunctionSigContext, MethodSigContext
from mypy.types import (
    AnyType,
    CallableType,
    FunctionLike,
    Instance,
    NoneType,
    TupleType,
    Type,
    TypeOfAny,
    UninhabitedType,
    get_proper_type,
)

from returns_pipeline.mypy_plugin._functions import called

__all__ = ["FUNCTIONS", "METHODS", "explain", "unfit"]

_Slip: TypeAlias = Callable[[CallExpr], tuple[Expression, str] | None]


def explain(ctx: FunctionSigContext | MethodSigContext, slip: _Slip) -> FunctionLike:
    """Report a slip in a call, and take its arguments as they are; else change nothing.

    Mypy calls this for each overload, and shows the same message once. It evaluates no argument:
    calls inside calls would take mypy time that is exponential in their depth.
    """
    found = slip(ctx.context) if isinstance(ctx.context, CallExpr) else None
    if found is None:
        return ctx.default_signature
    place, message = found
    ctx.api.fail(message, place, code=ARG_TYPE)
    unknown = AnyType(TypeOfAny.from_error)
    fallback = ctx.api.named_generic_type("builtins.function", [])  # for a class, too
    kinds = [ARG_STAR, ARG_STAR2]
    return CallableType([unknown, unknown], kinds, [None, None], unknown, fallback)


def _side_by_side(call: CallExpr) -> tuple[Expression, str] | None:
    """Find steps that are passed in one list, and those that cannot run side by side."""
    first = _positional(call, 0)
    name = call.callee.name if isinstance(call.callee, MemberExpr | NameExpr) else "race"
    if first is not None and _is_sequence(first):
        return first, f"{name}() takes its steps one by one, not in a list: {name}(near, far)"
    return _misfit(name, call, 0)


def _misfit(name: str, call: CallExpr, first: int) -> tuple[Expression, str] | None:
    """Find a step that returns nothing to await, or takes another number of arguments."""
    least, most = 0, math.inf
    for step, kind in zip(call.args[first:], call.arg_kinds[first:], strict=True):
        type_ = get_proper_type(_declared(step))
        if kind != ARG_POS or not isinstance(type_, CallableType) or type_.is_type_obj():
            continue
        returned = get_proper_type(type_.ret_type)
        if isinstance(returned, NoneType | Instance) and not _can_be_awaited(returned):
            return (
                step,
                f"{name}() takes steps, which are awaited: this one returns nothing awaitable",
            )
        if ARG_NAMED in type_.arg_kinds:
            return step, f"{name}() passes arguments by position: this step needs one by keyword"
        least, before = max(least, type_.min_args), least
        most = min(most, math.inf if type_.is_var_arg else len(type_.arg_types))
        if least > most:
            count = type_.min_args if before <= most else len(type_.arg_types)
            message = f"{name}() passes the same arguments to all steps"
            return step, f"{message}: this one takes {count}, another one does not"
    return None


def _can_be_awaited(type_: NoneType | Instance) -> bool:
    return isinstance(type_, Instance) and type_.type.get("__await__") is not None


def _in_a_tier(call: CallExpr) -> tuple[Expression, str] | None:
    """Find strategies without a name, and those that are passed in one list."""
    first, second = _positional(call, 0), _positional(call, 1)
    if first is not None and _is_function(first):
        return first, 'Tier() takes a name and then its strategies: Tier("fast", near, far)'
    if second is not None and _is_sequence(second):
        message = "Tier() takes its strategies one by one, not in a list"
        return second, f'{message}: Tier("fast", near, far)'
    return _misfit("Tier", call, 1)


def _swapped(call: CallExpr) -> tuple[Expression, str] | None:
    """Find a function in the place of the policy."""
    second = _positional(call, 1)
    if second is not None and _is_function(second):
        return second, "with_policy() takes a step and then a policy: this is a function"
    return None


def _in_a_saga(call: CallExpr) -> tuple[Expression, str] | None:
    """Find a step without a name, and an undo that was called."""
    first = _positional(call, 0)
    if first is not None and _is_function(first):
        return first, 'step() takes a name and then a step: step("save", save)'
    for argument, kind, name in zip(call.args, call.arg_kinds, call.arg_names, strict=True):
        if kind == ARG_NAMED and name == "undo" and _is_coroutine(argument):
            return argument, "undo= takes a function, which is called later: this was called now"
    return None


# Their full names, and what finds the slips in a call of them.
FUNCTIONS: Final[dict[str, _Slip]] = {
    "returns_pipeline.policies._all_of.all_of": _side_by_side,
    "returns_pipeline.policies._parallel.race": _side_by_side,
    "returns_pipeline.policies._sequential.Tier": _in_a_tier,
    "returns_pipeline.policies._sequential.with_policy": _swapped,
}
METHODS: Final[dict[str, _Slip]] = {"returns_pipeline.saga.Saga.step": _in_a_saga}


def unfit(call: CallExpr, type_: Type, checker: TypeChecker) -> str | None:
    """Return why steps cannot run side by side, if no argument has the types of all of them.

    Mypy accepts them, and finds the parameters of what was made of them to be `Never`.
    """
    if called(call.callee, checker) not in {"Tier", "all_of", "race"}:
        return None
    made = get_proper_type(type_)
    together: Sequence[Type] = ()
    if isinstance(made, CallableType):
        together = made.arg_types
    elif isinstance(made, Instance):
        together = made.args[:-2]
    for place, parameter in enumerate(together):
        if isinstance(get_proper_type(parameter), UninhabitedType):
            steps = [get_proper_type(checker.lookup_type_or_none(step)) for step in call.args]
            taken = [
                step.arg_types[place]
                for step in steps
                if isinstance(step, CallableType) and place < len(step.arg_types)
            ]
            reported = len(set(taken)) < 2  # by mypy, for another reason
            if not reported and not any(
                isinstance(get_proper_type(each), UninhabitedType) for each in taken
            ):
                names = ", ".join(format_type(each, checker.options) for each in taken)
                return f"no argument fits all these steps: they take {names}"
    return None


def _positional(call: CallExpr, place: int) -> Expression | None:
    """Return an argument by its position, if there is no ``*`` before or at it."""
    kinds = call.arg_kinds[: place + 1]
    return call.args[place] if kinds == [ARG_POS] * (place + 1) else None


def _declared(expression: Expression) -> Type | None:
    """Return the type of what a name refers to, as it is declared."""
    node = expression.node if isinstance(expression, RefExpr) else None
    if isinstance(node, Decorator):
        node = node.var
    if isinstance(node, FuncDef | OverloadedFuncDef | Var):
        return get_proper_type(node.type)
    return None


def _is_sequence(expression: Expression) -> bool:
    if isinstance(expression, ListExpr | TupleExpr | ListComprehension):
        return True
    type_ = get_proper_type(_declared(expression))
    lists = ("builtins.list", "builtins.tuple")
    return isinstance(type_, TupleType) or (
        isinstance(type_, Instance) and type_.type.fullname in lists
    )


def _is_function(expression: Expression) -> bool:
    if isinstance(expression, LambdaExpr):
        return True
    return isinstance(get_proper_type(_declared(expression)), FunctionLike)


def _is_coroutine(expression: Expression) -> bool:
    """Whether this is a call of a coroutine function."""
    type_ = _declared(expression.callee) if isinstance(expression, CallExpr) else None
    type_ = get_proper_type(type_)
    if not isinstance(type_, CallableType):
        return False
    returned = get_proper_type(type_.ret_type)
    return isinstance(returned, Instance) and returned.type.has_base("typing.Coroutine")
