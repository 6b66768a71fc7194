"""`Record`: the base class of events, which are made for each window and must cost little."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias, get_type_hints

from msgspec import NODEFAULT, Struct, structs

from returns_pipeline._engine.pydantic_fields import PydanticField, struct_schema

__all__ = ["PartlyShown", "Record"]

_Schema: TypeAlias = dict[str, Any]


class Record(Struct, frozen=True, kw_only=True):
    """A frozen struct. A frozen dataclass takes ten times as long to make.

    It may be a field of a pydantic model, as a dataclass may.
    """

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: Callable[[Any], _Schema]
    ) -> _Schema:
        """Return the schema of a dataclass with the same fields, which is converted."""
        hints = get_type_hints(cls)
        fields: list[Any] = [
            (
                field.name,
                hints[field.name],
                dataclasses.field()
                if field.default is NODEFAULT
                else dataclasses.field(default=field.default),
            )
            for field in structs.fields(cls)
        ]
        twin = dataclasses.make_dataclass(
            cls.__name__, fields, bases=(PydanticField,), frozen=True, kw_only=True
        )

        def read(found: Any) -> object:
            return cls(**vars(found))

        def written(found: Any) -> object:
            return twin(**structs.asdict(found))

        return struct_schema(cls, handler(twin), read, written)


class PartlyShown(Record, frozen=True, kw_only=True, eq=False):
    """A record with one field that ``repr`` and ``==`` leave out.

    Attributes:
        left_out: The name of the field.
    """

    left_out: ClassVar[str]

    def _shown(self) -> tuple[object, ...]:
        names = self.__struct_fields__
        return tuple([getattr(self, name) for name in names if name != self.left_out])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PartlyShown) or other.__class__ is not self.__class__:
            return NotImplemented
        return self._shown() == other._shown()

    def __hash__(self) -> int:
        return hash(self._shown())

    def __repr__(self) -> str:
        names = [name for name in self.__struct_fields__ if name != self.left_out]
        values = zip(names, self._shown(), strict=True)
        shown = ", ".join([f"{name}={value!r}" for name, value in values])
        return f"{type(self).__name__}({shown})"
