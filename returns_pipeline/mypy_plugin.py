"""A plugin for mypy: a dropped `Result` is an error, and listed exceptions keep their names.

In ``mypy.ini``, alone or together with the plugin of `returns`, in either order::

    [mypy]
    plugins = returns_pipeline.mypy_plugin

1. A statement that drops a value which must be used is an error with the code ``must-use``: a
   `Result`, `IOResult` or `Maybe`; a `FutureResult`, `Future` or `RequiresContext`; a stream or a
   `Saga`; a union with one of them; a collection, iterator, generator, future or task of them, or a
   mapping to them. Only the value counts, not where it comes from: a call, an ``await``, an
   operator ``|``, or a branch of a condition. A value that a name or a dictionary still holds is
   not dropped, and ``_ = ...`` says that it may be. In the block of ``with pytest.raises(...)``,
   where a call is expected to raise, nothing is reported. ``# type: ignore[must-use]``,
   ``disable_error_code`` and sections per module work as for mypy's own codes. Where mypy's
   ``unused-awaitable`` reports the same statement, only ``must-use`` is shown.
2. A function whose result would be dropped is an error with the same code: ``tap(save)``, where
   ``save`` returns one of these values; a callback such as ``on_drop=`` that does; a coroutine
   function in ``map()``; a step that returns a stream, and ``ctx.run(stream)``, where the stream's
   last item alone would be taken for the outcome.
3. ``@safe(exceptions=(A, B))``, and `impure_safe` and `future_safe` in the same way, have the error
   type ``A | B``. Mypy alone joins the two to their common base class, and does so with the items
   of ``select({"a": a, "b": b})``.

It does everything that the plugin of `returns` does, and leaves mypy's own plugin in place. The
types of this package are exact without it. It works with mypy 1.19 to 2.4, with its cache, its
daemon and its workers. Importing it does not import the rest of this package.

How it works: mypy has no hook for statements. It writes the type of each expression into a table
as soon as that type is final, and the table may be of a subclass of `dict`. So whenever mypy first
asks this plugin anything about a file, the file's table is replaced by one that knows which
expressions are statements. By then overloads are resolved, and an error belongs to the function in
which it is reported, on which mypy's daemon relies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias, cast

from mypy.checker import TypeChecker
from mypy.checker_state import checker_state
from mypy.errorcodes import DEPRECATED, UNUSED_AWAITABLE, ErrorCode
from mypy.errors import ErrorInfo, Errors
from mypy.maptype import map_instance_to_supertype
from mypy.messages import format_type
from mypy.nodes import (
    AssertTypeExpr,
    AssignmentExpr,
    AwaitExpr,
    Block,
    CallExpr,
    ClassDef,
    ConditionalExpr,
    Decorator,
    DictExpr,
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
    RefExpr,
    RevealExpr,
    Statement,
    TryStmt,
    WhileStmt,
    WithStmt,
)
from mypy.options import Options
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

__all__ = ["MUST_USE", "plugin"]

MUST_USE: Final = ErrorCode(
    "must-use", "Check that no value is dropped that holds a failure or has not run yet", "General"
)

_UNSEEN: Final = "a failure in it would go unnoticed; handle it"
_UNRUN: Final = "it never runs; await it and handle its result"
_UNREAD: Final = "nothing reads it; iterate over it, or await one of its terminals"
_UNCALLED: Final = "it never runs; call it with what it requires"
_NO_OUTCOME: Final = "a stream is no outcome; end it in collect(), run(), for_each(), ..."

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

# Classes that hold values, with the type argument that is the value's: the first, or the last of a
# mapping. To drop one is to drop its values.
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

_OURS: Final = "returns_pipeline."
_SELECT: Final = "returns_pipeline.combine._select._Select.__call__"
_STREAM: Final = "aiostream.core.BaseStream"
_NO_TERMINAL: Final = "returns_pipeline._engine.future_results.StreamWithoutTerminal"

# Methods and functions of ours that drop what the function they are given returns,
_SIDE_EFFECTS: Final = frozenset({"tap", "tap_async", "tap_failure", "tap_failure_async"})
# those that keep it, but do not await it,
_UNAWAITED: Final = frozenset({"map", "map_result"})
# those that drop what the function given by this name returns,
_CALLBACKS: Final = frozenset({"late", "on_drop", "on_retry", "on_state_change"})
# and those that await it for the outcome of a step.
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

_SAFE: Final = frozenset(
    {"returns.future.future_safe", "returns.io.impure_safe", "returns.result.safe"}
)


def plugin(version: str) -> type[Plugin]:
    """Return the class of the plugin, for mypy."""

    class Composed(_MustUsePlugin):
        """Our own plugin, which asks the plugin of `returns` after itself."""

        def __init__(self, options: Options) -> None:
            super().__init__(options, returns_plugin(version)(options))

    return Composed


class _MustUsePlugin(Plugin):
    """Answers as the plugin of `returns` does, save for decorators.

    Mypy takes a question that gets no answer to the plugins after this, its own among them.
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
        if fullname == _SELECT:
            return _unite_selected
        return self._returns.get_method_hook(fullname)

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        _watch_statements()
        return self._returns.get_attribute_hook(fullname)

    def get_class_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        _watch_statements()
        return self._returns.get_class_attribute_hook(fullname)


# Values that must be used.

_unknown_mypy: set[str] = set()  # files in which it was reported


def _watch_statements() -> None:
    """Replace the table of the file that is being checked by one that watches statements."""
    checker = checker_state.type_checker
    if not isinstance(checker, TypeChecker):
        return
    tables = _tables(checker)
    if tables is None or tables[0].__class__ is not dict:
        return
    if checker.path in checker.errors.ignored_files:
        return
    watched = _WatchedTypes(checker.tree, checker.path, checker.errors)
    watched.update(tables[0])
    tables[0] = watched


def _tables(checker: TypeChecker) -> list[dict[Expression, Type]] | None:
    """Return mypy's tables of types, which are private to it.

    There is no other way to learn of statements: see above. The first table is the one that is
    kept; those after it are of trials. Where a version of mypy keeps none, it reports that once in
    each file, rather than to find nothing silently.
    """
    tables: Any = getattr(checker, "_type_maps", None)
    if isinstance(tables, list) and tables and isinstance(tables[0], dict):
        return cast("list[dict[Expression, Type]]", tables)
    if checker.path not in _unknown_mypy:
        _unknown_mypy.add(checker.path)
        checker.fail(
            "the plugin returns_pipeline.mypy_plugin does not know this version of mypy and finds "
            "no dropped values; use one that it names, or remove it from the list of plugins",
            checker.tree,
            code=MUST_USE,
        )
    return None


class _WatchedTypes(dict[Expression, Type]):
    """The types of a file's expressions. It reports a statement whose value must be used."""

    def __init__(self, tree: MypyFile, path: str, errors: Errors) -> None:
        super().__init__()
        self._statements = _Statements(tree)
        self._path = path
        self._errors = errors
        self._reported: set[tuple[int, int]] = set()
        self._lines: set[int] = set()  # of calls with a function whose result would be dropped

    def __setitem__(self, expression: Expression, type_: Type) -> None:
        super().__setitem__(expression, type_)
        statement = self._statements.of(expression)
        if statement is None and not isinstance(expression, CallExpr):
            return
        # The checker is not kept in an attribute: it refers to this table, and the cycle would
        # outlive the check of the file.
        checker = checker_state.type_checker
        # A function that needs a type which is not known yet is checked again later.
        if not isinstance(checker, TypeChecker) or checker.current_node_deferred:
            return
        if isinstance(expression, CallExpr) and self._errors.is_error_code_enabled(MUST_USE):
            for argument, why in _misused(expression, type_, checker):
                checker.fail(why, argument, code=MUST_USE)
                self._lines.update((expression.line, argument.line))
        if statement is None:
            return
        for dropped in _dropped(expression):
            known = type_ if dropped is expression else checker.lookup_type_or_none(dropped)
            value = None if known is None else _must_use(known)
            if known and value and self._errors.is_error_code_enabled(MUST_USE):
                checker.fail(_message(known, value, checker.options), statement, code=MUST_USE)
                self._reported.add((statement.line, statement.column))
                return

    def clear(self) -> None:
        """Forget the types, as mypy does after each check of the file or of a part of it.

        Errors of mypy's own about statements that were reported here are taken back.
        """
        super().clear()
        if self._reported or self._lines:
            infos = self._errors.error_info_map.get(self._path, [])
            infos[:] = [info for info in infos if not self._is_duplicate(info)]

    def _is_duplicate(self, info: ErrorInfo) -> bool:
        if info.line in self._lines and (
            (info.code == DEPRECATED and _OURS in info.message)
            or (info.code is None and f'"{DEPRECATED.code}" not covered' in info.message)
        ):
            return True
        return (info.line, info.column) in self._reported and (
            info.code == UNUSED_AWAITABLE
            # The hint that a comment which ignores our code does not ignore this one.
            or (info.code is None and f'"{UNUSED_AWAITABLE.code}" not covered' in info.message)
        )


class _Statements:
    """The statements of a file that consist of an expression alone."""

    def __init__(self, tree: MypyFile) -> None:
        self._by_expression: dict[Expression, ExpressionStmt] = {}
        # A function with a TypeVar of several types is checked as one copy for each of them, and
        # a copy has other expressions at the same positions.
        self._by_position: dict[_Position, ExpressionStmt] = {}
        self._add(tree.defs, copied=False)

    def of(self, expression: Expression) -> ExpressionStmt | None:
        """Return the statement that is this expression, if there is one."""
        statement = self._by_expression.get(expression)
        if statement is None and self._by_position:
            return self._by_position.get(_position(expression))
        return statement

    def _add(self, body: Sequence[Statement], *, copied: bool) -> None:
        for statement in body:
            if isinstance(statement, ExpressionStmt):
                self._by_expression[statement.expr] = statement
                if copied:
                    self._by_position[_position(statement.expr)] = statement
            elif isinstance(statement, FuncDef):
                self._add(statement.body.body, copied=copied or _is_copied(statement))
            elif not (isinstance(statement, WithStmt) and any(map(_is_raises, statement.expr))):
                self._add(list(_inside(statement)), copied=copied)


def _inside(statement: Statement) -> Iterator[Statement]:
    """Yield the statements directly inside a statement."""
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


def _is_raises(expression: Expression) -> bool:
    """Whether this is ``pytest.raises(...)``."""
    match expression:
        case CallExpr(callee=RefExpr(fullname=str(fullname))) if fullname:
            return fullname.endswith(".raises") and fullname.lstrip("_").startswith("pytest.")
        case CallExpr(callee=MemberExpr(name="raises", expr=NameExpr(name="pytest"))):
            return True  # pytest is not installed where mypy runs
        case _:
            return False


_Position: TypeAlias = tuple[int, int, int | None, int | None]


def _position(expression: Expression) -> _Position:
    return expression.line, expression.column, expression.end_line, expression.end_column


def _is_copied(function: FuncDef) -> bool:
    of_function = function.type.variables if isinstance(function.type, CallableType) else ()
    of_class = function.info.defn.type_vars if function.info else ()
    return any(isinstance(v, TypeVarType) and v.values for v in (*of_function, *of_class))


def _dropped(expression: Expression) -> Iterator[Expression]:
    """Yield those that may be the expression's value, save for values that are kept elsewhere."""
    match expression:
        case ConditionalExpr():
            yield from _dropped(expression.if_expr)
            yield from _dropped(expression.else_expr)
        case OpExpr(op="and" | "or"):
            yield from _dropped(expression.left)
            yield from _dropped(expression.right)
        case NameExpr() | AssignmentExpr() | CallExpr(callee=MemberExpr(name="setdefault")):
            return
        case AwaitExpr(expr=CallExpr(callee=RefExpr(fullname="asyncio.tasks.wait"))):
            return  # it returns the tasks that it was given
        case CallExpr(analyzed=AssertTypeExpr() | RevealExpr()):  # these return their argument
            return
        case _:
            yield expression


def _must_use(type_: Type) -> Instance | None:
    """Return the part of a type that must not be dropped, if there is one."""
    match get_proper_type(type_):
        case Instance() as instance:
            if any(base.fullname in _DROPPED for base in instance.type.mro):
                return instance
            if instance.type.fullname in _HOLDERS and instance.args:
                return _must_use(instance.args[_HOLDERS[instance.type.fullname]])
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


# Functions whose result would be dropped.


def _misused(call: CallExpr, type_: Type, checker: TypeChecker) -> Iterator[tuple[Expression, str]]:
    """Yield the arguments of a call that are functions whose result would be dropped, and why."""
    if _is_a(type_, _NO_TERMINAL):
        yield call, _NO_OUTCOME
        return
    name = _called(call.callee, checker)
    if name is None:
        return
    for argument, given_name in zip(call.args, call.arg_names, strict=True):
        function = get_proper_type(checker.lookup_type_or_none(argument))
        if not isinstance(function, CallableType):
            continue
        returned = _awaited(function.ret_type)
        if name in _SIDE_EFFECTS or given_name in _CALLBACKS:
            if (value := _must_use(returned)) is not None:
                why = _message(returned, value, checker.options)
                yield argument, f"of what this returns, {why}"
            elif name in {"tap", "tap_failure"} and returned is not function.ret_type:
                yield argument, f"what this returns never runs; use {name}_async()"
        elif name in _UNAWAITED and returned is not function.ret_type:
            yield argument, "what this returns never runs; use map_async(), or bind_async()"
        elif name in _STEPS and _is_a(returned, _STREAM):
            yield argument, f"of what this returns, {_NO_OUTCOME}"


def _called(callee: Expression, checker: TypeChecker) -> str | None:
    """Return the short name of the function or method of ours that is called."""
    if isinstance(callee, RefExpr) and callee.fullname:
        fullname = callee.fullname
        return fullname.rpartition(".")[2] if fullname.startswith(_OURS) else None
    if isinstance(callee, MemberExpr):
        owner = get_proper_type(checker.lookup_type_or_none(callee.expr))
        if isinstance(owner, Instance):
            defined = owner.type.get_containing_type_info(callee.name)
            return callee.name if defined and defined.fullname.startswith(_OURS) else None
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


# The items of streams in a dictionary, whose values mypy joins to a common base class.


def _unite_selected(context: MethodContext) -> Type:
    """Put the union of the items in place of what mypy makes of ``select({"a": a, "b": b})``."""
    returned = get_proper_type(context.default_return_type)
    if not (isinstance(returned, Instance) and isinstance(context.args[0][0], DictExpr)):
        return returned
    values = [value for _, value in context.args[0][0].items]
    read = [_item_of(context.api.get_expression_type(value)) for value in values]
    known = [item for item in read if item is not None]
    emitted = get_proper_type(returned.args[0])
    rest = emitted.items[1:] if isinstance(emitted, UnionType) else []
    pair = get_proper_type(emitted.items[0]) if isinstance(emitted, UnionType) else emitted
    if not isinstance(pair, TupleType) or len(known) != len(values) or not known:
        return returned
    united = TupleType([pair.items[0], UnionType.make_union(known)], pair.partial_fallback)
    return Instance(returned.type, [UnionType.make_union([united, *rest])])


def _item_of(source: Type) -> Type | None:
    """Return the type of the items of an async iterable."""
    instance = get_proper_type(source)
    if isinstance(instance, Instance):
        for base in instance.type.mro:
            if base.fullname == "typing.AsyncIterable":
                return map_instance_to_supertype(instance, base).args[0]
    return None


# The exact errors of `safe`, `impure_safe` and `future_safe`.


def _name_each_exception(context: FunctionContext) -> Type:
    """Put the union of the listed exceptions in place of their common base class."""
    decorator = get_proper_type(context.default_return_type)
    decorated = get_proper_type(decorator.ret_type) if isinstance(decorator, CallableType) else None
    if not isinstance(decorator, CallableType) or not isinstance(decorated, CallableType):
        return decorator  # `@safe` without arguments: the decorated function itself
    result = get_proper_type(decorated.ret_type)
    errors = _listed(context.arg_types[0][0])
    if not isinstance(result, Instance) or len(result.args) != 2 or not errors:
        return decorator
    result = Instance(result.type, [result.args[0], UnionType.make_union(errors)])
    # The parameters of `copy_modified` have a type of mypy's own that pyright does not know.
    decorated = decorated.copy_modified(ret_type=result)  # pyright: ignore[reportUnknownMemberType]
    return decorator.copy_modified(ret_type=decorated)  # pyright: ignore[reportUnknownMemberType]


def _listed(exceptions: Type) -> list[Type]:
    """Return the exceptions that a tuple's classes stand for; none if one of them is unknown.

    Then mypy is exact by itself: for a tuple of any length, or with a union in it.
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
