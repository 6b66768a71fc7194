"""What a checker names where the arguments of a common slip are: types that no value has.

Where no overload fits a call, mypy lists them all, in thousands of characters. But if an argument
would fit one of them but for its type arguments, mypy reports this argument alone. So functions
with many overloads have one more for each common slip. It is never chosen: no value has these
types. Their names are the message: ``expected "Sequence[OneStepAfterAnother]"``.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, final

__all__ = [
    "ButAPolicy",
    "FirstNameThenStep",
    "FirstStepThenPolicy",
    "NotANumber",
    "OneStepAfterAnother",
    "UndoThatIsNotCalled",
]

T_co = TypeVar("T_co", covariant=True)


@final
class OneStepAfterAnother:
    """``race(near, far)``, not ``race([near, far])``."""


@final
class FirstStepThenPolicy:
    """``with_policy(fetch, policy)``, not ``with_policy(policy, fetch)``."""


@final
class FirstNameThenStep:
    """``step("save", save)``, not ``step(save)``."""


@final
class UndoThatIsNotCalled:
    """``undo=release``, not ``undo=release(1)``."""


@final
class ButAPolicy:
    """``retry=RetryPolicy(3)``, not ``retry=3``."""


class NotANumber(Protocol[T_co]):
    """A number, but for its type argument: ``NotANumber[ButAPolicy]``."""

    def __abs__(self) -> T_co: ...
