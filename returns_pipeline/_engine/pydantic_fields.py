"""Records that are fields of pydantic's models, although JSON cannot hold all they have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, ClassVar, TypeAlias, get_args

__all__ = ["PydanticField", "stack_schema", "struct_schema"]

_Schema: TypeAlias = dict[str, Any]

# The kinds of schemas that pydantic has for functions and for instances of unknown classes.
_NOT_IN_JSON = {"callable", "is-instance"}


class PydanticField:
    """The base class of a dataclass that pydantic reads. It does not import pydantic.

    - A field may be an instance of any class, which pydantic checks with `isinstance`.
    - The JSON schema has no such field, and no function. If the field may be ``None``, that is
      what the JSON schema has for it.
    """

    __slots__ = ()

    __pydantic_config__: ClassVar[_Schema] = {"arbitrary_types_allowed": True}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: _Schema, handler: Callable[[_Schema], _Schema]
    ) -> _Schema:
        """Return the JSON schema of what JSON can hold."""
        inner = schema["schema"]
        fields = [_in_json(each) for each in inner["fields"]]
        inner = {**inner, "fields": [each for each in fields if each is not None]}
        return handler({**schema, "schema": inner})


def _in_json(schema: _Schema) -> _Schema | None:
    """Return the part of a schema that JSON can hold, if there is one."""
    if schema["type"] in _NOT_IN_JSON:
        return None
    if "schema" not in schema:
        return schema
    inner = _in_json(schema["schema"])
    if inner is not None:
        return {**schema, "schema": inner}
    return {"type": "none"} if schema["type"] == "nullable" else None


def stack_schema(
    stack: type, annotation: object, generate: Callable[[Any], _Schema], fits: Callable[..., bool]
) -> _Schema:
    """Return pydantic's schema for a class whose type arguments are those of its layers, in order.

    A field is an instance, or a list of what its layers are read from. JSON has such a list.

    Args:
        stack: The class: it is made of a tuple, and has its ``layers``.
        annotation: The class with its type arguments. A field is an instance alone without them,
            or if one of them is not a record.
        generate: Returns pydantic's schema for a layer.
        fits: Whether an instance has layers of these classes.
    """
    layers: tuple[Any, ...] = get_args(annotation)
    if not layers:
        return {"type": "is-instance", "cls": stack}

    def check(found: Any) -> Any:
        if not fits(found, layers):
            names = ", ".join(layer.__name__ for layer in layers)
            raise ValueError(f"the layers must be {names}, not {found!r}")
        return found

    def layers_of(found: Any) -> Any:
        return found.layers

    instance = _after(check, {"type": "is-instance", "cls": stack})
    if not all(map(is_dataclass, layers)):
        return instance
    parts: _Schema = {"type": "tuple", "items_schema": [generate(layer) for layer in layers]}
    return _made_of(instance, parts, stack, layers_of)


def struct_schema(
    struct: type,
    twin: _Schema,
    read: Callable[[Any], object],
    written: Callable[[Any], object],
) -> _Schema:
    """Return pydantic's schema for a struct of msgspec, which is read and written as a dataclass.

    Args:
        struct: The class.
        twin: The schema of the dataclass.
        read: Returns the struct that an instance of the dataclass stands for.
        written: Returns the dataclass for a struct.
    """
    return _made_of({"type": "is-instance", "cls": struct}, twin, read, written)


def _made_of(
    instance: _Schema,
    parts: _Schema,
    read: Callable[[Any], object],
    written: Callable[[Any], object],
) -> _Schema:
    """Return the schema of an instance, or of the parts it is made of. JSON has the parts."""
    return {
        "type": "json-or-python",
        "json_schema": _after(read, parts),
        "python_schema": {"type": "union", "choices": [instance, _after(read, parts)]},
        "serialization": {
            "type": "function-plain",
            "function": written,
            "return_schema": parts,
        },
    }


def _after(function: Callable[[Any], object], schema: _Schema) -> _Schema:
    return {
        "type": "function-after",
        "function": {"type": "no-info", "function": function},
        "schema": schema,
    }
