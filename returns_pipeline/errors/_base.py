"""The base of every error of the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

__all__ = ["PipelineError"]


class PipelineError(Exception):
    """Base of every error that this library raises or returns in a `Failure`.

    >>> from returns_pipeline.errors import StepTimeout
    >>> issubclass(StepTimeout, PipelineError)
    True
    """

    def __eq__(self, other: object) -> bool:
        """Compare class and facts, so that tests can compare whole results.

        Exceptions among the facts are compared in the same way, also those of other libraries.
        """
        if type(other) is not type(self):
            return NotImplemented
        return _same(self.args, other.args)

    def __hash__(self) -> int:
        """Agree with ``==`` even when a fact itself cannot be hashed."""
        return hash((type(self), len(self.args)))


def _same(one: object, other: object) -> bool:
    """Compare facts. For Python, two exceptions with the same facts are not equal."""
    if one == other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, BaseException) and isinstance(other, BaseException):
        if type(one).__eq__ is not object.__eq__:
            return False  # the class compares by its own rule, which found them different
        return _same(_facts_of(one), _facts_of(other))
    if isinstance(one, tuple | list):
        ours, theirs = cast("Sequence[object]", one), cast("Sequence[object]", other)
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    return False


def _facts_of(error: BaseException) -> tuple[object, ...]:
    """Return the class and message of an exception, without its traceback and notes."""
    state = sorted((name, fact) for name, fact in vars(error).items() if name != "__notes__")
    return (str(error), error.args, *state)
