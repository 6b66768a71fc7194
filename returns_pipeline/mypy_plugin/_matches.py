"""The exact types of values that a `match` statement finds in a `Result`."""

from __future__ import annotations

from typing import Final

from mypy.checker import TypeChecker
from mypy.maptype import map_instance_to_supertype
from mypy.nodes import MatchStmt
from mypy.patterns import AsPattern, ClassPattern, OrPattern, Pattern, SequencePattern
from mypy.plugin import AttributeContext
from mypy.types import AnyType, Instance, TupleType, Type, UnionType, get_proper_type

from returns_pipeline.mypy_plugin._patterns import IO_RESULT, PATTERNS, RESULT
from returns_pipeline.mypy_plugin._statements import patterns_of

__all__ = ["INNER_VALUES", "name_matched_value"]

INNER_VALUES: Final = frozenset(f"{name}._inner_value" for name in PATTERNS)


def name_matched_value(context: AttributeContext) -> Type:
    """Return the type of what a pattern finds in a container; of other attributes, the default."""
    default = context.default_attr_type
    pattern = context.context
    if not (isinstance(pattern, Pattern) and isinstance(context.api, TypeChecker)):
        return default
    if not _leaves_open(default):
        return default
    exact = _type_of(pattern, context.api)
    return default if exact is None else exact


def _leaves_open(type_: Type) -> bool:
    """Whether a type is `Any`, or a Result of it."""
    proper = get_proper_type(type_)
    if isinstance(proper, Instance):
        return any(isinstance(get_proper_type(each), AnyType) for each in proper.args)
    return isinstance(proper, AnyType)


def _type_of(pattern: Pattern, checker: TypeChecker) -> Type | None:
    """Return the type of the values that a pattern is matched with; None if that is unknown."""
    parent = patterns_of(checker).get(pattern)
    if isinstance(parent, MatchStmt):
        return checker.lookup_type_or_none(parent.subject)
    outer = None if parent is None else _type_of(parent, checker)
    if outer is None:
        return None
    match parent:
        case AsPattern() | OrPattern():
            return outer
        case ClassPattern(positionals=[_], keyword_keys=[]):
            return _held(outer, parent.class_ref.fullname)
        case SequencePattern():
            whole = get_proper_type(outer)
            if isinstance(whole, TupleType) and len(whole.items) == len(parent.patterns):
                return next(
                    item
                    for item, each in zip(whole.items, parent.patterns, strict=True)
                    if each is pattern
                )
            return None
        case _:
            return None


def _held(container: Type, pattern: str) -> Type | None:
    """Return the type of what a pattern finds in a container that may be a union."""
    if pattern not in PATTERNS:
        return None
    base, place = PATTERNS[pattern]
    proper = get_proper_type(container)
    found: list[Type] = []
    for item in proper.items if isinstance(proper, UnionType) else [proper]:
        instance = get_proper_type(item)
        if isinstance(instance, Instance) and instance.type.has_base(base):
            info = next(each for each in instance.type.mro if each.fullname == base)
            arguments = list(map_instance_to_supertype(instance, info).args)
            if base == IO_RESULT:  # it holds a Result, of which the other side is not known
                result = _result_of(instance)
                if result is None:
                    return None
                found.append(Instance(result.type, arguments))
            else:
                found.append(arguments[place])
    return UnionType.make_union(found) if found else None


def _result_of(io_result: Instance) -> Instance | None:
    """Return some `Result`: the type of what an ``IOResult`` holds."""
    held = io_result.type.get("_inner_value")
    type_ = None if held is None else get_proper_type(held.type)
    return type_ if isinstance(type_, Instance) and type_.type.fullname == RESULT else None
