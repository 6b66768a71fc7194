# mypy: disable-error-code="unused-awaitable"
"""What the checkers must say about sagas."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from returns.future import FutureResult

from returns_pipeline.errors import StepTimeout
from returns_pipeline.retry import RetryPolicy, Timeout
from returns_pipeline.saga import Saga

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from returns.result import Result

    from returns_pipeline.compensation import Compensation
    from returns_pipeline.context import StepContext


class Order: ...


class Reservation: ...


async def note(text: str) -> None:
    """Take a text."""


def check(
    reserve: Callable[[Order], FutureResult[Reservation, KeyError]],
    charge: Callable[[Reservation], Coroutine[None, None, Result[str, OSError]]],
    release: Compensation[[Reservation]],
    ctx: StepContext,
) -> None:
    """Each step takes what the one before gave; errors widen; an undo takes the step's output."""
    reserved = Saga("ship").step("reserve", reserve, undo=release)
    assert_type(reserved, Saga[Order, Reservation, KeyError])
    charged = reserved.step("charge", charge)
    assert_type(charged, Saga[Order, str, KeyError | OSError])
    assert_type(reserved.pivot(), Saga[Order, Reservation, KeyError])
    assert_type(
        reserved.step("charge", charge, timeout=2.0, undo=note),
        Saga[Order, str, KeyError | OSError | StepTimeout],
    )
    assert_type(
        Saga("ship").step("reserve", reserve, timeout=2.0),
        Saga[Order, Reservation, KeyError | StepTimeout],
    )
    assert_type(
        reserved.step("charge", charge, retry=RetryPolicy(3), timeout=Timeout(2.0, grace=1.0)),
        Saga[Order, str, KeyError | OSError | StepTimeout],
    )
    assert_type(
        Saga("ship").step("reserve", reserve, retry=RetryPolicy(3)),
        Saga[Order, Reservation, KeyError],
    )
    reserved.step("charge", charge, retry=Timeout(2.0))  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert_type(
        reserved.step("charge", lambda r: charge(r), undo=lambda text: note(text)),
        Saga[Order, str, KeyError | OSError],
    )
    assert_type(charged.run(Order()), FutureResult[str, KeyError | OSError])
    assert_type(charged.run(Order(), ctx), FutureResult[str, KeyError | OSError])

    charged.pivot("charge")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    charged.run("order")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    # The next ones take something else than the step gives.
    reserved.step("again", reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    reserved.step("charge", charge, undo=release)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    Saga("ship").step("reserve", reserve, undo=note)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
