# mypy: disable-error-code="unused-awaitable, unused-coroutine"
# pyright: reportUnusedCoroutine=false
"""Never run. What the checkers say of scopes, contexts and what is registered there."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, assert_type

import tenacity
from returns.future import FutureResult

from returns_pipeline import (
    Compensation,
    CompensationRegistry,
    CompensationReport,
    CompensationScope,
    ResultStream,
    RetryPolicy,
    StepContext,
    current_key,
    pipe,
    results,
)
from returns_pipeline.compensation import CompensationEntry, ScopeState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from returns.result import Result

registry = CompensationRegistry()


@registry.compensation("delete", retry=RetryPolicy(attempts=5, wait=0.5), timeout=2.0)
async def delete(batch_id: str, *, table: str = "batches") -> None:
    """Take a batch back."""


async def forget(batch_id: str, tries: int) -> bool:
    """Any function that returns an awaitable will do."""
    return bool(batch_id) and tries > 0


def forget_soon(batch_id: str) -> FutureResult[None, OSError]:
    raise OSError(batch_id)


class BadEvent(Exception): ...


class WriteError(Exception): ...


def persist(batch: list[int], step: StepContext) -> FutureResult[str, WriteError]:
    raise WriteError(batch, step)


async def publish(batch: list[int], step: StepContext) -> Result[int, WriteError]:
    raise WriteError(batch, step)


def registrations() -> None:
    """A registered function keeps its parameters."""
    assert_type(registry["delete"], Compensation[...])
    delete("a", table="b")
    assert_type(RetryPolicy(wait=tenacity.wait_fixed(1)).delay(1, OSError()), float)
    assert_type(current_key(), str)
    delete(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    registry.compensation("delete")(len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    registry.compensation(delete)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    registry.compensation("delete", RetryPolicy())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    CompensationRegistry(encode=str, decode=lambda type_, value: type_(value))
    CompensationRegistry(encode="str")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    registry.compensation("hides", sensitive={"card"})
    registry.compensation("hides", sensitive=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    CompensationRegistry("name")  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    Compensation("delete")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RetryPolicy(attempts="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    RetryPolicy(wait="1 s")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    RetryPolicy().delay(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RetryPolicy().attempts = 4  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    current_key("name")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def scopes(scope: CompensationScope) -> None:
    """The arguments of an undo are checked where it is registered."""
    await scope.register(delete, "a", table="b")
    await scope.register(forget, "a", tries=3)
    await scope.register(forget_soon, "a")
    await scope.register(lambda: forget("a", 1))
    await scope.register(functools.partial(forget, "a"), 3)
    await scope.register(functools.partial(forget, tries=3), "a")
    await scope.register(scope.compensate)  # a method, bound
    assert_type(scope.child("inner"), CompensationScope)
    scope.absorb(scope.child())
    await scope.commit()
    assert_type(await scope.compensate(), CompensationReport)
    assert_type(scope.report, CompensationReport)
    assert_type(scope.name, str)
    assert_type(scope.path, str)
    assert_type(scope.closed, bool)
    assert_type(scope.state, ScopeState)
    assert_type(scope.state is ScopeState.LOST, bool)
    assert_type(len(scope), int)
    async with CompensationScope("outer", order="parallel", timeout=5.0) as entered:
        assert_type(entered, CompensationScope)
    scope.register(delete)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    scope.register(delete, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scope.register(delete, "a", name="b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    scope.register(forget, "a", "3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scope.register(lambda: forget("a", 1), "a")  # type: ignore[arg-type, misc]  # pyright: ignore[reportCallIssue]
    scope.register(forget("a", 3))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scope.register(len, "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scope.child(scope)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scope.absorb("inner")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scope.commit(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    scope.compensate(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    CompensationScope("outer", "parallel")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    CompensationScope("outer", order="random")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    scope.state = ScopeState.OPEN  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    with scope:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportAttributeAccessIssue]
        pass


def reports(report: CompensationReport) -> None:
    """What was undone and what was not, as values."""
    assert_type(report.done, tuple[CompensationEntry, ...])
    assert_type(report.failures + report.not_run, tuple[CompensationEntry, ...])
    assert_type(report.committed, tuple[CompensationEntry, ...])
    assert_type(report.all_committed, bool)
    assert_type(report.notes(), list[str])
    assert_type(report.done[0].name, str)
    assert_type(report.done[0].args, tuple[object, ...])
    assert_type(report.done[0].error, object)
    report.check()
    CompensationReport(done=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    report.notes(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    report.check(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    report.done = ()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    CompensationEntry()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def contexts(
    ctx: StepContext,
    step: FutureResult[int, WriteError],
    coroutine: Coroutine[None, None, Result[str, BadEvent]],
    plain: Awaitable[int],
) -> None:
    """A context returns what its step returns."""
    assert_type(ctx.run(step), FutureResult[int, WriteError])
    assert_type(ctx.run(coroutine), FutureResult[str, BadEvent])
    await ctx.register(delete, "a")
    assert_type(ctx.child("inner", deadline=9.0), StepContext)
    assert_type(ctx.now() - ctx.deadline, float)
    assert_type((ctx.name, ctx.path, ctx.key), tuple[str, str, str])
    assert_type(ctx.scope, CompensationScope)
    assert_type(ctx.report, CompensationReport)
    assert_type(ctx.outcome, ScopeState)
    await ctx.commit()
    async with StepContext("job") as entered:
        assert_type(entered, StepContext)
    ctx.run(plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ctx.register(delete, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ctx.child()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ctx.child("inner", 9.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ctx.now(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ctx.commit(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    StepContext()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    StepContext("job", scope=ctx)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def steps(s: ResultStream[list[int], BadEvent], ctx: StepContext) -> None:
    """A step takes a value and a context; the error widens."""
    assert_type(s.bind_step(persist, ctx), ResultStream[str, BadEvent | WriteError])
    assert_type(
        s.bind_step(publish, ctx, concurrency=4, ordered=False, hold=True),
        ResultStream[int, BadEvent | WriteError],
    )
    assert_type(
        s.bind_step(lambda batch, step: persist(batch, step), ctx),
        ResultStream[str, BadEvent | WriteError],
    )
    assert_type(
        results.bind_step(s, persist, ctx, hold=True), ResultStream[str, BadEvent | WriteError]
    )
    assert_type(s | pipe.bind_step(persist, ctx), ResultStream[str, BadEvent | WriteError])
    s.bind_step(persist)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    s.bind_step(forget_soon, ctx)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.bind_step(persist, "ctx")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    s.map(len).bind_step(persist, ctx)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    results.bind_step(s, forget_soon, ctx)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pipe.bind_step(forget_soon, ctx)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def undo_of(func: Callable[[str], Awaitable[object]]) -> Compensation[[str]]:
    """A compensation keeps the parameters it was made of."""
    return registry.compensation("undo")(func)


@registry.compensation("restock")
async def restock(item: str) -> bool:
    return bool(item)


async def calls() -> None:
    """Awaiting an undo returns what its function returns."""
    known: Compensation[[str], bool] = restock
    assert_type(await known("book"), bool)
    assert_type(await restock("book"), bool)
    await restock(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    wrong: Compensation[[str], str] = restock  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    undo: Compensation[[str]] = restock
    print(wrong, undo)
