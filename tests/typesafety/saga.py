# mypy: disable-error-code="unused-awaitable"
"""What the checkers must say about sagas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, assert_type

from returns.future import FutureResult
from returns.result import Result, Success

from returns_pipeline.errors import StepTimeout
from returns_pipeline.retry import RetryPolicy, Timeout
from returns_pipeline.saga import Saga

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

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
    """Each step takes the output before it; errors widen; an undo takes the step's output."""
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
    charged.run(Order(), on_report=lambda report: report.check())
    charged.run(Order(), on_report=note)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    context_steps(release, ctx)
    charged.pivot("charge")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    charged.run("order")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    # The next ones take something else than the step returns.
    reserved.step("again", reserve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    reserved.step("charge", charge, undo=release)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    Saga("ship").step("reserve", reserve, undo=note)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def reserve_with(order: Order, ctx: StepContext) -> Result[Reservation, KeyError]:
    """Take the context of the step as well."""
    return Success(Reservation())


async def charge_with(reservation: Reservation, ctx: StepContext) -> Result[str, OSError]:
    """Take it in a later step."""
    return Success("")


async def cancel(order: Order, reservation: Reservation) -> None:
    """Take the input and the output of a step."""


async def reserve_plain(order: Order) -> Result[Reservation, KeyError]:
    """Take no context."""
    return Success(Reservation())


def context_steps(release: Compensation[[Reservation]], ctx: StepContext) -> None:
    """A step may take its context, and an undo the step's input and output."""
    reserved = Saga("ship").step("reserve", reserve_with, undo=cancel)
    assert_type(reserved, Saga[Order, Reservation, KeyError])
    assert_type(
        Saga("ship").step("reserve", reserve_with, undo=release, timeout=2.0),
        Saga[Order, Reservation, KeyError | StepTimeout],
    )
    assert_type(
        Saga("ship").step("reserve", reserve_plain, undo=cancel),
        Saga[Order, Reservation, KeyError],
    )
    assert_type(
        reserved.step("charge", charge_with, timeout=2.0),
        Saga[Order, str, KeyError | OSError | StepTimeout],
    )
    assert_type(
        reserved.step("charge", lambda r, own: charge_with(r, own)),
        Saga[Order, str, KeyError | OSError],
    )
    reserved.step("charge", charge_with, undo=cancel)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    reserved.step("again", reserve_with)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]


P = ParamSpec("P")
R = TypeVar("R")


def logged(func: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Decorate a step, as many programs do."""
    return func


@logged
async def reserve_logged(order: int) -> Result[str, KeyError]:
    """Be a step after an ordinary decorator."""
    return Success(str(order))


async def charge_text(reservation: str) -> Result[float, ValueError]:
    """Take the output of the step before."""
    return Success(float(reservation))


async def charge_bytes(reservation: bytes) -> Result[float, ValueError]:
    """Take something else."""
    return Success(float(reservation))


def check_a_decorated_step() -> None:
    """A saga stays exact after a step with a typed decorator."""
    reserved = Saga("ship").step("reserve", reserve_logged)
    assert_type(reserved, Saga[int, str, KeyError])
    charged = reserved.step("charge", charge_text)
    assert_type(charged, Saga[int, float, KeyError | ValueError])
    assert_type(charged.run(1), FutureResult[float, KeyError | ValueError])
    reserved.step("charge", charge_bytes)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    reserved.run(b"order")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Busy(Exception):
    """An error with facts."""

    code: int = 503


async def reserve_busy(order: int) -> Result[str, Busy]:
    """Fail with that error."""
    return Success(str(order))


async def charge_text_error(reservation: str) -> Result[float, str]:
    """Fail with a text."""
    return Success(float(reservation))


def is_busy(error: Busy) -> bool:
    return error.code == 503


def is_known(error: Exception) -> bool:
    return bool(error.args)


def check_that_a_policy_knows_the_errors_of_its_step(given: RetryPolicy[Exception]) -> None:
    """A function that names errors takes those of its step, and does not widen the saga's."""
    busy = RetryPolicy(3, retry_on=is_busy)
    saga = Saga("ship").step("reserve", reserve_busy, retry=busy)
    assert_type(saga, Saga[int, str, Busy])
    assert_type(
        Saga("ship").step("reserve", reserve_busy, retry=RetryPolicy(3, retry_on=is_known)),
        Saga[int, str, Busy],
    )
    assert_type(saga.step("charge", charge_text, retry=given), Saga[int, float, Busy | ValueError])
    assert_type(
        saga.step("charge", charge_text_error, retry=RetryPolicy(3, retry_on=(OSError, KeyError))),
        Saga[int, float, Busy | str],
    )
    assert_type(
        saga.step("charge", lambda text: charge_text(text), retry=RetryPolicy(3)),
        Saga[int, float, Busy | ValueError],
    )
    saga.step("charge", charge_text, retry=busy)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    saga.step("charge", charge_text_error, retry=given)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Saga("ship").step("charge", charge_text, retry=busy)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    # A function that does not know StepTimeout does not retry it.
    assert_type(
        Saga("ship").step("reserve", reserve_busy, retry=busy, timeout=2.0),
        Saga[int, str, Busy | StepTimeout],
    )
    assert_type(
        saga.step("charge", charge_text, retry=given, timeout=2.0),
        Saga[int, float, Busy | ValueError | StepTimeout],
    )
    saga.step("charge", charge_text, retry=busy, timeout=2.0)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
