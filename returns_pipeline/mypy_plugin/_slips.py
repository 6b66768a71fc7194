"""Short messages for common slips, where mypy would list every overload of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from mypy.errorcodes import CALL_OVERLOAD
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
    TupleType,
    Type,
    TypeOfAny,
    get_proper_type,
)

__all__ = ["FUNCTIONS", "METHODS", "explain"]

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
    ctx.api.fail(message, place, code=CALL_OVERLOAD)
    unknown = AnyType(TypeOfAny.from_error)
    fallback = ctx.api.named_generic_type("builtins.function", [])  # for a class, too
    kinds = [ARG_STAR, ARG_STAR2]
    return CallableType([unknown, unknown], kinds, [None, None], unknown, fallback)


def _in_a_list(call: CallExpr) -> tuple[Expression, str] | None:
    """Find steps that are passed in one list."""
    first = _positional(call, 0)
    if first is not None and _is_sequence(first):
        name = call.callee.name if isinstance(call.callee, MemberExpr | NameExpr) else "race"
        return first, f"{name}() takes its steps one by one, not in a list: {name}(near, far)"
    return None


def _in_a_tier(call: CallExpr) -> tuple[Expression, str] | None:
    """Find strategies without a name, and those that are passed in one list."""
    first, second = _positional(call, 0), _positional(call, 1)
    if first is not None and _is_function(first):
        return first, 'Tier() takes a name and then its strategies: Tier("fast", near, far)'
    if second is not None and _is_sequence(second):
        message = "Tier() takes its strategies one by one, not in a list"
        return second, f'{message}: Tier("fast", near, far)'
    return None


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
    "returns_pipeline.policies._parallel.all_of": _in_a_list,
    "returns_pipeline.policies._parallel.race": _in_a_list,
    "returns_pipeline.policies._sequential.Tier": _in_a_tier,
    "returns_pipeline.policies._sequential.with_policy": _swapped,
}
METHODS: Final[dict[str, _Slip]] = {"returns_pipeline.saga.Saga.step": _in_a_saga}


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
