"""Statements that drop a value: a table of types that reports them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias, cast

from mypy.checker import TypeChecker
from mypy.checker_state import checker_state
from mypy.errorcodes import ARG_TYPE, DEPRECATED, UNUSED_AWAITABLE
from mypy.errors import ErrorInfo, Errors
from mypy.messages import format_type
from mypy.nodes import (
    AssertStmt,
    AssignmentStmt,
    Block,
    CallExpr,
    ClassDef,
    ComparisonExpr,
    ConditionalExpr,
    Decorator,
    DictionaryComprehension,
    Expression,
    ExpressionStmt,
    ForStmt,
    FuncDef,
    GeneratorExpr,
    IfStmt,
    LambdaExpr,
    ListComprehension,
    ListExpr,
    MatchStmt,
    MemberExpr,
    MypyFile,
    NameExpr,
    OpExpr,
    OverloadedFuncDef,
    RefExpr,
    SetComprehension,
    Statement,
    TryStmt,
    TupleExpr,
    UnaryExpr,
    WhileStmt,
    WithStmt,
)
from mypy.patterns import Pattern
from mypy.types import (
    CallableType,
    Type,
    TypeVarType,
    get_proper_type,
)

from returns_pipeline.mypy_plugin._functions import OURS, awaited, misused
from returns_pipeline.mypy_plugin._patterns import never_matching, patterns_inside
from returns_pipeline.mypy_plugin._slips import unfit
from returns_pipeline.mypy_plugin._values import (
    MUST_USE,
    asked_for_truth,
    is_always_true,
    is_never_equal,
    message,
    must_use,
    read_as_items,
    values_of,
    why_no_items,
)

__all__ = ["Patterns", "patterns_of", "type_tables", "watch_statements"]

# What a pattern is directly inside of: another pattern, or a statement.
Patterns: TypeAlias = dict[Pattern, Pattern | MatchStmt]

_unknown_mypy: set[str] = set()  # files in which it was reported


def watch_statements() -> None:
    """Replace the table of the file that is being checked by one that watches statements."""
    checker = checker_state.type_checker
    if not isinstance(checker, TypeChecker):
        return
    tables = type_tables(checker)
    if tables is None or tables[0].__class__ is not dict:
        return
    if checker.path in checker.errors.ignored_files:
        return
    tables[0] = _WatchedTypes(checker.tree, checker.path, checker.errors, tables[0])


def type_tables(checker: TypeChecker) -> list[dict[Expression, Type]] | None:
    """Return mypy's tables of types, which are private to it.

    There is no other way to find statements: see the package's docstring. The first table is the
    one that mypy keeps; those after it hold the types of trials. If a version of mypy has no such
    tables, that is reported once in each file; otherwise the plugin would silently find nothing.
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


def patterns_of(checker: TypeChecker) -> Patterns:
    """Return what each pattern in a file is directly inside of."""
    tables = type_tables(checker)
    watched = tables[0] if tables else None
    return watched.patterns if isinstance(watched, _WatchedTypes) else {}


class _WatchedTypes(dict[Expression, Type]):
    """The types of a file's expressions. It reports a statement whose value must be used."""

    def __init__(
        self, tree: MypyFile, path: str, errors: Errors, known: dict[Expression, Type]
    ) -> None:
        super().__init__(known)
        self._statements = _Statements(tree)
        self.patterns = self._statements.patterns
        self._path = path
        self._errors = errors
        self._reported: set[tuple[int, int]] = set()
        self._lines: set[int] = set()  # of calls with a function whose result would be dropped

    def __setitem__(self, expression: Expression, type_: Type) -> None:
        super().__setitem__(expression, type_)
        statement = self._statements.of(expression)
        if statement is None and not self._statements.asks(expression):
            return
        # The checker is not kept in an attribute: it refers to this table, and the cycle would
        # outlive the check of the file.
        checker = checker_state.type_checker
        # A function that needs a type which is not known yet is checked again later.
        if not isinstance(checker, TypeChecker) or checker.current_node_deferred:
            return
        if isinstance(expression, CallExpr) and (why := unfit(expression, type_, checker)):
            checker.fail(why, expression, code=ARG_TYPE)
        if self._errors.is_error_code_enabled(MUST_USE):
            self._check_use(expression, type_, checker)
            self._check_items(expression, type_, checker)
            if statement is not None:
                self._check_statement(statement, type_, checker)

    def _check_use(self, expression: Expression, type_: Type, checker: TypeChecker) -> None:
        """Report a call, a condition or the subject of a ``match`` that loses a failure."""
        if isinstance(expression, CallExpr):
            for argument, why in misused(expression, type_, checker):
                checker.fail(why, argument, code=MUST_USE)
                self._lines.update((expression.line, argument.line))
        asked = [expression] if expression in self._statements.conditions else []
        for truth in (*asked, *asked_for_truth(expression)):
            known = type_ if truth is expression else checker.lookup_type_or_none(truth)
            if known is not None and is_always_true(known):
                name = format_type(known, checker.options)
                checker.fail(f"{name} is always true, even if it failed", truth, code=MUST_USE)
        if isinstance(expression, ComparisonExpr):
            for operator, left, right in expression.pairwise():
                found = [checker.lookup_type_or_none(side) for side in (left, right)]
                if operator in {"==", "!="} and is_never_equal(*filter(None, found)):
                    names = [format_type(side, checker.options) for side in found if side]
                    checker.fail(" is never equal to ".join(names), expression, code=MUST_USE)
        if (matched := self._statements.subjects.get(expression)) is not None:
            for pattern, why in never_matching(matched, type_, checker.options):
                checker.fail(why, pattern, code=MUST_USE)

    def _check_items(self, expression: Expression, type_: Type, checker: TypeChecker) -> None:
        """Report a container that is read as if it were the collection inside of it."""
        read = [expression] if expression in self._statements.unpacked else []
        for container in (*read, *read_as_items(expression)):
            known = type_ if container is expression else checker.lookup_type_or_none(container)
            found = None if known is None else why_no_items(known, checker.options)
            if found is not None:
                checker.fail(found, container, code=MUST_USE)

    def _check_statement(
        self, statement: ExpressionStmt, type_: Type, checker: TypeChecker
    ) -> None:
        """Report a statement that drops a value, or does not call what would return one."""
        function = get_proper_type(type_)
        if isinstance(function, CallableType) and isinstance(
            statement.expr, LambdaExpr | MemberExpr
        ):
            if must_use(awaited(function.ret_type)):
                checker.fail("nothing calls this function", statement, code=MUST_USE)
            return
        for dropped in values_of(statement.expr):
            known = type_ if dropped is statement.expr else checker.lookup_type_or_none(dropped)
            value = None if known is None else must_use(known)
            if known and value:
                checker.fail(message(known, value, checker.options), statement, code=MUST_USE)
                self._reported.add((statement.line, statement.column))
                return

    def update(self, others: dict[Expression, Type]) -> None:  # type: ignore[override]
        """Add the types of a trial that mypy has chosen, as after an assignment."""
        for expression, type_ in others.items():
            self[expression] = type_

    def clear(self) -> None:
        """Forget the types, as mypy does after each check of the file or of a part of it.

        Mypy's own errors about statements that were reported here are removed.
        """
        super().clear()
        if self._reported or self._lines:
            infos = self._errors.error_info_map.get(self._path, [])
            infos[:] = [info for info in infos if not self._is_duplicate(info)]

    def _is_duplicate(self, info: ErrorInfo) -> bool:
        if info.line in self._lines and (
            (info.code == DEPRECATED and OURS in info.message)
            or (info.code is None and f'"{DEPRECATED.code}" not covered' in info.message)
        ):
            return True
        return (info.line, info.column) in self._reported and (
            info.code == UNUSED_AWAITABLE
            # The hint that a comment which ignores our code does not ignore this one.
            or (info.code is None and f'"{UNUSED_AWAITABLE.code}" not covered' in info.message)
        )


# Expressions that may lose a failure themselves.
_ASKING: Final = (
    CallExpr,
    ComparisonExpr,
    ConditionalExpr,
    DictionaryComprehension,
    GeneratorExpr,
    ListComprehension,
    OpExpr,
    SetComprehension,
    UnaryExpr,
)


class _Statements:
    """The statements of a file that consist of an expression alone."""

    def __init__(self, tree: MypyFile) -> None:
        self._by_expression: dict[Expression, ExpressionStmt] = {}
        # A function with a TypeVar of several types is checked as one copy for each of them, and
        # a copy has other expressions at the same positions.
        self._by_position: dict[_Position, ExpressionStmt] = {}
        self.conditions: set[Expression] = set()
        self.unpacked: set[Expression] = set()
        self.patterns: Patterns = {}
        self.subjects: dict[Expression, MatchStmt] = {}
        self._add(tree.defs, copied=False)

    def of(self, expression: Expression) -> ExpressionStmt | None:
        """Return the statement that is this expression, if there is one."""
        statement = self._by_expression.get(expression)
        if statement is None and self._by_position:
            return self._by_position.get(_position(expression))
        return statement

    def asks(self, expression: Expression) -> bool:
        """Whether a type may be wrong where this expression is, which is part of a statement."""
        return (
            isinstance(expression, _ASKING)
            or expression in self.conditions
            or expression in self.unpacked
            or expression in self.subjects
        )

    def _add(self, body: Sequence[Statement], *, copied: bool) -> None:
        for statement in body:
            self._note(statement)
            if isinstance(statement, ExpressionStmt):
                self._by_expression[statement.expr] = statement
                if copied:
                    self._by_position[_position(statement.expr)] = statement
            elif isinstance(statement, FuncDef):
                self._add(statement.body.body, copied=copied or _is_copied(statement))
            elif not (isinstance(statement, WithStmt) and any(map(_is_raises, statement.expr))):
                self._add(list(_inside(statement)), copied=copied)

    def _note(self, statement: Statement) -> None:
        """Note the expressions of a statement of which only the truth, or the items, count."""
        match statement:
            case IfStmt(expr=asked):
                self.conditions.update(asked)
            case WhileStmt(expr=condition) | AssertStmt(expr=condition):
                self.conditions.add(condition)
            case ForStmt(expr=read):
                self.unpacked.add(read)
            case AssignmentStmt(lvalues=targets, rvalue=read):
                if any(isinstance(target, TupleExpr | ListExpr) for target in targets):
                    self.unpacked.add(read)
            case MatchStmt(subject=subject, patterns=patterns):
                self.subjects[subject] = statement
                for pattern in patterns:
                    self._add_pattern(pattern, statement)
            case _:
                pass

    def _add_pattern(self, pattern: Pattern, parent: Pattern | MatchStmt) -> None:
        self.patterns[pattern] = parent
        for inner in patterns_inside(pattern):
            self._add_pattern(inner, pattern)


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
