"""A plugin for mypy: a dropped `Result` is an error, and listed exceptions keep their names.

In ``mypy.ini``, alone or together with the plugin of `returns`, in either order::

    [mypy]
    plugins = returns_pipeline.mypy_plugin

1. A statement that drops a value which must be used is an error with the code ``must-use``: a
   `Result`, `IOResult` or `Maybe`; a `FutureResult`, `Future` or `RequiresContext`; a stream or a
   `Saga`; a union with one of them; a list, tuple or task of them. It is the value that counts, not
   how it came about: by a call, behind ``await``, behind ``|``, in either branch of a condition.
   What a name or a dictionary still holds is not dropped, and ``_ = ...`` says that it may be.
   ``# type: ignore[must-use]``, ``disable_error_code`` and sections per module work as for mypy's
   own codes. Of a statement that mypy's ``unused-awaitable`` speaks about too, only this is said.
2. ``@safe(exceptions=(A, B))``, `impure_safe` and `future_safe` likewise, give the error type
   ``A | B``. Mypy alone joins the two to what both inherit from.

Everything that the plugin of `returns` does is done as well, and mypy's own plugin is left in
place. The types of this package are exact without it. Works with mypy 1.19 to 2.4, its cache, its
daemon and its workers.

How it works: mypy has no hook for statements. It writes the type of each expression into a table
once that is settled, and a table may be of a subclass of `dict`. So whenever mypy asks this plugin
anything about a file for the first time, the file's table is replaced by one that knows which
expressions are statements. Thus types are final, overloads are resolved, and errors belong to the
function in which they are, on which mypy's daemon relies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from mypy.checker import TypeChecker
from mypy.checker_state import checker_state
from mypy.errorcodes import UNUSED_AWAITABLE, ErrorCode
from mypy.messages import format_type
from mypy.nodes import (
    AssertTypeExpr,
    AssignmentExpr,
    Block,
    CallExpr,
    ClassDef,
    ConditionalExpr,
    Decorator,
    Expression,
    ExpressionStmt,
    ForStmt,
    FuncDef,
    IfStmt,
    MatchStmt,
    MemberExpr,
    MypyFile,
    NameExpr,
    OpExpr,
    OverloadedFuncDef,
    RevealExpr,
    Statement,
    TryStmt,
    WhileStmt,
    WithStmt,
)
from mypy.plugin import (
    AttributeContext,
    FunctionContext,
    FunctionSigContext,
    MethodContext,
    MethodSigContext,
    Plugin,
)
from mypy.types import (
    CallableType,
    FunctionLike,
    Instance,
    TupleType,
    Type,
    TypeType,
    TypeVarType,
    UnionType,
    get_proper_type,
)
from returns.contrib.mypy.returns_plugin import plugin as returns_plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mypy.errors import ErrorInfo, Errors
    from mypy.options import Options

__all__ = ["MUST_USE", "plugin"]

MUST_USE: Final = ErrorCode(
    "must-use", "Check that no value is dropped that holds a failure or has yet to run", "General"
)

_UNSEEN: Final = "a failure in it would go unnoticed; handle it"
_UNRUN: Final = "it never runs; await it and handle what it gives"
_UNREAD: Final = "nothing reads it; iterate over it or await what a method of it gives"
_UNCALLED: Final = "it never runs; call it with what it requires"

# What is said of each class. A class of many bases is judged by the first one that is listed.
_DROPPED: Final = {
    "returns.result.Result": _UNSEEN,
    "returns.io.IOResult": _UNSEEN,
    "returns.maybe.Maybe": "that it may be empty would go unnoticed; handle it",
    "returns.future.FutureResult": _UNRUN,
    "returns.future.Future": _UNRUN,
    "returns.context.requires_context.RequiresContext": _UNCALLED,
    "returns.context.requires_context_result.RequiresContextResult": _UNCALLED,
    "returns.context.requires_context_ioresult.RequiresContextIOResult": _UNCALLED,
    "returns.context.requires_context_future_result.RequiresContextFutureResult": _UNCALLED,
    "aiostream.core.BaseStream": _UNREAD,
    "returns_pipeline.saga.Saga": "it does nothing until it is run; run it",
}

# With these, what they hold is dropped.
_HOLDERS: Final = frozenset(
    {
        "_asyncio.Future",
        "_asyncio.Task",
        "builtins.list",
        "builtins.tuple",
        "returns.io.IO",
    }
)

_SAFE: Final = frozenset(
    {"returns.future.future_safe", "returns.io.impure_safe", "returns.result.safe"}
)


def plugin(version: str) -> type[Plugin]:
    """Give mypy the class of the plugin."""

    class Composed(_MustUsePlugin):
        """The plugin of `returns`, asked after our own."""

        def __init__(self, options: Options) -> None:
            super().__init__(options, returns_plugin(version)(options))

    return Composed


class _MustUsePlugin(Plugin):
    """Answers as the plugin of `returns` does, but for three decorators.

    A question that is not answered goes on to the plugins after it, mypy's own among them.
    """

    def __init__(self, options: Options, returns: Plugin) -> None:
        super().__init__(options)
        self._returns = returns

    def get_function_signature_hook(
        self, fullname: str
    ) -> Callable[[FunctionSigContext], FunctionLike] | None:
        _watch_statements()
        return self._returns.get_function_signature_hook(fullname)

    def get_function_hook(self, fullname: str) -> Callable[[FunctionContext], Type] | None:
        _watch_statements()
        if fullname in _SAFE:
            return _name_each_exception
        return self._returns.get_function_hook(fullname)

    def get_method_signature_hook(
        self, fullname: str
    ) -> Callable[[MethodSigContext], FunctionLike] | None:
        _watch_statements()
        return self._returns.get_method_signature_hook(fullname)

    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        _watch_statements()
        return self._returns.get_method_hook(fullname)

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        _watch_statements()
        return self._returns.get_attribute_hook(fullname)

    def get_class_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        _watch_statements()
        return self._returns.get_class_attribute_hook(fullname)


# Values that must be used.


def _watch_statements() -> None:
    """See to it that the file that is being checked has a table that watches its statements."""
    checker = checker_state.type_checker
    if not isinstance(checker, TypeChecker):
        return
    # The table is private to mypy. There is no other way to learn of statements, see above; the
    # last table is the one that is kept, those after it are of trials.
    types = checker._type_maps[0]  # pyright: ignore[reportPrivateUsage]
    if types.__class__ is not dict or checker.path in checker.errors.ignored_files:
        return
    watched = _WatchedTypes(checker.tree, checker.path, checker.errors)
    watched.update(types)
    checker._type_maps[0] = watched  # pyright: ignore[reportPrivateUsage]


class _WatchedTypes(dict[Expression, Type]):
    """The types of a file's expressions; says so when that of a statement must be used."""

    def __init__(self, tree: MypyFile, path: str, errors: Errors) -> None:
        super().__init__()
        self._statements = _Statements(tree)
        self._path = path
        self._errors = errors
        self._reported: set[tuple[int, int]] = set()

    def __setitem__(self, expression: Expression, type_: Type) -> None:
        super().__setitem__(expression, type_)
        statement = self._statements.of(expression)
        if statement is None:
            return
        # Not kept, for it refers to this table: the circle would outlive the file's check.
        checker = checker_state.type_checker
        # A function that waits for a type is checked again when that is known.
        if not isinstance(checker, TypeChecker) or checker.current_node_deferred:
            return
        for dropped in _dropped(expression):
            known = type_ if dropped is expression else checker.lookup_type_or_none(dropped)
            value = None if known is None else _must_use(known)
            if known and value and self._errors.is_error_code_enabled(MUST_USE):
                checker.fail(_message(known, value, checker.options), statement, code=MUST_USE)
                self._reported.add((statement.line, statement.column))
                return

    def clear(self) -> None:
        """Forget the types; mypy does so after each check of the file or of parts of it.

        What its own check has said meanwhile about the same statements is taken back.
        """
        super().clear()
        if self._reported:
            infos = self._errors.error_info_map.get(self._path, [])
            infos[:] = [info for info in infos if not self._is_said_twice(info)]

    def _is_said_twice(self, info: ErrorInfo) -> bool:
        return (info.line, info.column) in self._reported and (
            info.code == UNUSED_AWAITABLE
            # The hint at a comment that ignores another code, such as ours.
            or (info.code is None and f'"{UNUSED_AWAITABLE.code}" not covered' in info.message)
        )


class _Statements:
    """The statements of a file that consist of an expression alone."""

    def __init__(self, tree: MypyFile) -> None:
        self._by_expression: dict[Expression, ExpressionStmt] = {}
        # A function with a TypeVar of listed types is checked as one copy for each of them.
        self._by_place: dict[_Place, ExpressionStmt] = {}
        self._add(tree.defs, copied=False)

    def of(self, expression: Expression) -> ExpressionStmt | None:
        """Give the statement that is this expression, if there is one."""
        statement = self._by_expression.get(expression)
        if statement is None and self._by_place:
            return self._by_place.get(_place(expression))
        return statement

    def _add(self, body: Sequence[Statement], *, copied: bool) -> None:
        for statement in body:
            if isinstance(statement, ExpressionStmt):
                self._by_expression[statement.expr] = statement
                if copied:
                    self._by_place[_place(statement.expr)] = statement
            elif isinstance(statement, FuncDef):
                self._add(statement.body.body, copied=copied or _is_copied(statement))
            else:
                self._add(list(_inside(statement)), copied=copied)


def _inside(statement: Statement) -> Iterator[Statement]:
    """Give what stands directly inside a statement."""
    match statement:
        case Block(body=body):
            yield from body
        case ClassDef(defs=body) | WithStmt(body=body):
            yield body
        case Decorator(func=function):
            yield function
        case OverloadedFuncDef(items=items, impl=last):
            yield from items
            yield from filter(None, [last])
        case IfStmt(body=bodies, else_body=last):
            yield from bodies
            yield from filter(None, [last])
        case ForStmt(body=body, else_body=last) | WhileStmt(body=body, else_body=last):
            yield body
            yield from filter(None, [last])
        case MatchStmt(bodies=bodies):
            yield from bodies
        case TryStmt(body=body, handlers=bodies, else_body=last, finally_body=always):
            yield from (body, *bodies)
            yield from filter(None, [last, always])
        case _:
            pass


_Place: TypeAlias = tuple[int, int, int | None, int | None]


def _place(expression: Expression) -> _Place:
    return expression.line, expression.column, expression.end_line, expression.end_column


def _is_copied(function: FuncDef) -> bool:
    of_function = function.type.variables if isinstance(function.type, CallableType) else ()
    of_class = function.info.defn.type_vars if function.info else ()
    return any(isinstance(v, TypeVarType) and v.values for v in (*of_function, *of_class))


def _dropped(expression: Expression) -> Iterator[Expression]:
    """Give those of which one is the expression's value, less what is kept elsewhere."""
    match expression:
        case ConditionalExpr():
            yield from _dropped(expression.if_expr)
            yield from _dropped(expression.else_expr)
        case OpExpr(op="and" | "or"):
            yield from _dropped(expression.left)
            yield from _dropped(expression.right)
        case NameExpr() | AssignmentExpr() | CallExpr(callee=MemberExpr(name="setdefault")):
            return
        case CallExpr(analyzed=AssertTypeExpr() | RevealExpr()):  # these only look at it
            return
        case _:
            yield expression


def _must_use(type_: Type) -> Instance | None:
    """Give the part of a type that may not be dropped, if there is one."""
    match get_proper_type(type_):
        case Instance() as instance:
            if any(base.fullname in _DROPPED for base in instance.type.mro):
                return instance
            if instance.type.fullname in _HOLDERS:
                return _first_must_use(instance.args)
        case UnionType(items=items) | TupleType(items=items):
            return _first_must_use(items)
        case TypeVarType(upper_bound=bound):
            return _must_use(bound)
        case _:
            pass
    return None


def _first_must_use(types: Sequence[Type]) -> Instance | None:
    return next(filter(None, map(_must_use, types)), None)


def _message(dropped: Type, value: Instance, options: Options) -> str:
    why = next(_DROPPED[base.fullname] for base in value.type.mro if base.fullname in _DROPPED)
    name = format_type(value, options)
    inside = "" if get_proper_type(dropped) == value else f" in {format_type(dropped, options)}"
    return f'{name}{inside} is dropped: {why}, or assign it to "_"'


# The exact errors of `safe`, `impure_safe` and `future_safe`.


def _name_each_exception(context: FunctionContext) -> Type:
    """Put the union of the listed exceptions where mypy has put what they have in common."""
    decorator = get_proper_type(context.default_return_type)
    decorated = get_proper_type(decorator.ret_type) if isinstance(decorator, CallableType) else None
    if not isinstance(decorator, CallableType) or not isinstance(decorated, CallableType):
        return decorator  # `@safe` without arguments: the decorated function itself
    result = get_proper_type(decorated.ret_type)
    errors = _listed(context.arg_types[0][0])
    if not isinstance(result, Instance) or len(result.args) != 2 or not errors:
        return decorator
    result = Instance(result.type, [result.args[0], UnionType.make_union(errors)])
    # mypy gives the parameters of `copy_modified` a type of its own that pyright does not know.
    decorated = decorated.copy_modified(ret_type=result)  # pyright: ignore[reportUnknownMemberType]
    return decorator.copy_modified(ret_type=decorated)  # pyright: ignore[reportUnknownMemberType]


def _listed(exceptions: Type) -> list[Type]:
    """Give the exceptions that a tuple's classes stand for; none if one of them is not known.

    Where mypy is exact by itself, that is: for a tuple of any length, or with a union in it.
    """
    classes = get_proper_type(exceptions)
    if not isinstance(classes, TupleType):
        return []
    errors = [_instance(class_) for class_ in classes.items]
    known = [error for error in errors if error is not None]
    return known if len(known) == len(errors) else []


def _instance(class_: Type) -> Type | None:
    match get_proper_type(class_):
        case TypeType(item=instance):
            return instance
        case FunctionLike() as function if function.is_type_obj():
            return function.items[0].ret_type
        case _:
            return None
