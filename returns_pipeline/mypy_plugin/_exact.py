"""Types that mypy alone would join to a common base class."""

from __future__ import annotations

from mypy.maptype import map_instance_to_supertype
from mypy.nodes import (
    DictExpr,
)
from mypy.plugin import (
    FunctionContext,
    MethodContext,
)
from mypy.types import (
    CallableType,
    FunctionLike,
    Instance,
    TupleType,
    Type,
    TypeType,
    UnionType,
    get_proper_type,
)

__all__ = ["name_each_exception", "unite_selected"]

# The items of streams in a dictionary.


def unite_selected(context: MethodContext) -> Type:
    """Return the type of ``select({"a": a, "b": b})`` with the union of the items' types."""
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


def name_each_exception(context: FunctionContext) -> Type:
    """Replace the common base class of the listed exceptions by their union."""
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
    """Return the exceptions that a tuple lists; none if the type of one of them is unknown.

    That is the case for a tuple of any length, or with a union in it. Mypy is exact there.
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
