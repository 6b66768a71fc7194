"""Records that are fields of pydantic's models, although JSON cannot hold all they have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

__all__ = ["PydanticField"]

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
