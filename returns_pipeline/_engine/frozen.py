"""`allow_type_arguments`: frozen generic dataclasses whose types are spelled out at the call."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import TypeVar

__all__ = ["allow_type_arguments"]

T = TypeVar("T")


def allow_type_arguments(made: type[T]) -> type[T]:
    """Make ``Made[int](...)`` work for a generic dataclass that is frozen and has slots.

    Such a call sets an attribute of the new instance. On Python 3.11 it accepts no other failure of
    that than an `AttributeError`. The method that the dataclass gets raises a `TypeError`, because
    it refers to the class as it was before it got its slots.
    """

    def refuse(_: T, name: str, __: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    setattr(made, "__setattr__", refuse)  # noqa: B010  # checkers refuse it as a method
    return made
