"""The steps of a `ResultStream` that await a function of its values."""

# See _chained.
# pyright: reportImportCycles=false

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from returns.future import FutureResult
from returns.result import Result, Success
from typing_extensions import deprecated

from returns_pipeline._engine import checks, fusion, steps
from returns_pipeline._engine.concurrent_map import expand_concurrently
from returns_pipeline._engine.future_results import AsyncResult, AwaitedLost, unpacked
from returns_pipeline._engine.marks import Mark
from returns_pipeline._engine.steps import Failed
from returns_pipeline._engine.terminals import chain_of
from returns_pipeline._engine.written import written
from returns_pipeline.context import StepContext, _steps
from returns_pipeline.result_stream._chained import Chained
from returns_pipeline.result_stream._values import check_exceptions

if TYPE_CHECKING:
    from returns_pipeline.result_stream import ResultStream

__all__ = ["AsyncValueSteps"]

F = TypeVar("F")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)
X1 = TypeVar("X1", bound=Exception)
X2 = TypeVar("X2", bound=Exception)
X3 = TypeVar("X3", bound=Exception)
X4 = TypeVar("X4", bound=Exception)


class AsyncValueSteps(Chained[T_co, E_co], Generic[T_co, E_co]):
    """Those that await, one value at a time or several at once."""

    @written
    def tap_result_async(
        self,
        func: Callable[[T_co], AsyncResult[object, F]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co, E_co | F]:
        """Do as `tap_result`, awaiting ``func``.

        For ``concurrency`` and ``ordered`` see `bind_async`.

        >>> from returns_pipeline import ResultStream, err, ok
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> async def save(n):
        ...     return ok("saved") if n > 1 else err("lost")
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.tap_result_async(save).partition())
        <IO: ([2, 3], ['lost'])>
        """
        checks.async_function("tap_result_async", func)
        place = self._place("tap_result_async", func)
        begin: Callable[[Any], Any] = func
        if not inspect.iscoroutinefunction(func):
            begin = place.awaitable(func, for_result=True)

        async def keep(value: Any) -> Any:
            made = unpacked(await begin(value))
            return Success(value) if isinstance(made, Success) else made

        return self._async_step(
            steps.BIND_ASYNC, "tap_result_async", keep, concurrency, ordered, place=place
        )

    @overload
    def tap_async(
        self,
        func: Callable[[T_co], Awaitable[None]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co, E_co]: ...
    @overload
    @deprecated("its failure would be ignored: use tap_result_async()")
    def tap_async(
        self,
        func: Callable[[T_co], AwaitedLost],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co, E_co]: ...
    @overload
    def tap_async(
        self,
        func: Callable[[T_co], Awaitable[object]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co, E_co]: ...
    @written
    def tap_async(
        self,
        func: Callable[[T_co], Awaitable[object]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[T_co, E_co]:
        """Await ``func`` of each value for its effect; the item is emitted afterwards, unchanged.

        For ``concurrency`` and ``ordered`` see `bind_async`. The effect cannot fail by value, as
        with `tap`: see `tap_result_async`.

        Raises:
            InvalidArgument: At the call, if ``concurrency`` is below 1.
            TypeError: At the call, if ``func`` is not a function. While reading, if what it returns
                cannot be awaited, or awaits to a Result.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> async def show(n):
        ...     print(n)
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.tap_async(show).run())
        1
        2
        3
        <IOResult: <Success: 3>>
        """
        return self._async_step(steps.TAP_ASYNC, "tap_async", func, concurrency, ordered)

    @written
    def map_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co]:
        """Replace each value by the awaited result of ``func``, which cannot fail by value.

        For ``concurrency`` and ``ordered`` see `bind_async`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> import asyncio
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.map_async(lambda n: asyncio.sleep(1.0, n * 10), concurrency=3).collect())
        <IOResult: <Success: [10, 20, 30]>>
        """
        return self._async_step(steps.MAP_ASYNC, "map_async", func, concurrency, ordered)

    @written
    def bind_async(
        self,
        func: Callable[[T_co], AsyncResult[U, F]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | F]:
        """Replace each value by the Result that ``func`` returns when awaited.

        ``func`` is a coroutine function, or returns a `FutureResult`, like a step with policies.

        With a ``concurrency`` of 1, one value at a time, in the reader's task, and only when the
        reader asks for an item. With more, up to that many at a time, each in a task of its own;
        then

        1. items are emitted in the order of the source, or, if not ``ordered``, of completion;
        2. backpressure: at most ``concurrency`` items are read and not yet emitted;
        3. the first exception cancels and awaits the others, and is raised after the items that
           were completed before it;
        4. a cancelled read loses nothing; closing cancels the work and awaits it.

        Known elsewhere as ``mapAsync`` and ``mapAsyncUnordered`` (Akka and Pekko Streams),
        ``parEvalMap`` (fs2), ``buffered`` (futures-rs), ``mergeMap`` (Rx).

        Raises:
            InvalidArgument: At the call, if ``concurrency`` is below 1.
            TypeError: At the call, if ``func`` is not a function. While reading, if what it returns
                cannot be awaited, or awaits to no Result; the error names it, and its place in the
                chain.

        >>> from returns_pipeline import ResultStream, err, ok
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> async def check(n):
        ...     return ok(n) if n > 1 else err("too few")
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.bind_async(check, concurrency=3).partition())
        <IO: ([2, 3], ['too few'])>
        """
        return self._async_step(steps.BIND_ASYNC, "bind_async", func, concurrency, ordered)

    @written
    def bind_future_result(
        self,
        func: Callable[[T_co], FutureResult[U, F]],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | F]:
        """Do as `bind_async`, for functions that return a `FutureResult`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> from returns.future import FutureResult
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.bind_future_result(FutureResult.from_value).collect())
        <IOResult: <Success: [1, 2, 3]>>
        """
        return self._async_step(steps.BIND_ASYNC, "bind_future_result", func, concurrency, ordered)

    @written
    def bind_step(
        self,
        func: Callable[[T_co, StepContext], AsyncResult[U, F]],
        /,
        ctx: StepContext,
        *,
        concurrency: int = 1,
        ordered: bool = True,
        hold: bool = False,
        name: str | None = None,
    ) -> ResultStream[U, E_co | F]:
        """Replace each value by the Result of a step that runs in a context of its own.

        The step, which returns a `FutureResult` or is a coroutine of a Result, gets the value and
        a child of ``ctx``, to register its undo actions with. When it ends, they are settled
        before its Result is emitted:

        1. a `Success` commits them, so that an endless stream keeps none in memory;
        2. a `Failure` is emitted after they are undone;
        3. an exception or a cancellation propagates after they are undone;
        4. with ``hold``, a `Success` passes them to ``ctx`` instead. If anything fails later,
           ``ctx.run(stream.collect())``, or whatever runs the stream, undoes those of all held
           steps, newest first; otherwise it commits them at its end. A stream of messages that
           are acknowledged (`Source.messages`) refuses it: they could be undone after that.

        Effects that must succeed or fail together belong in one step:

        .. code-block:: python

            @future_safe(exceptions=(WriteError, PublishError))
            async def persist_and_publish(batch: list[Event], step: StepContext) -> BatchId:
                batch_id = BatchId(step.key)
                await step.register(delete_batch, batch_id)  # recorded before the effect
                await repository.write(batch_id, batch)
                await publisher.publish(batch_id)  # if this fails, the batch is deleted
                return batch_id

        Retries, time limits and the other `returns_pipeline.policies` wrap the step:
        ``bind_step(with_policy(persist, RetryPolicy(3) | Timeout(2.0)), ctx)``. Each attempt then
        has a child of its own, and is undone before the next.

        If the source of the messages stores its positions in the journal of ``ctx``, the commit of
        a step stores those of the messages in its value: see ``docs/connectors.md``.

        For ``concurrency`` and ``ordered`` see `bind_async`. Held steps that ran concurrently are
        undone in the reverse order of their start.

        Which item was it? The context of the step for the 18th value has the path
        ``shop/persist[17]``, by the function's name or ``name``. An exception out of the step has
        it in a note, ``in step shop/persist[17]``, with the attempt if a policy made several. A
        failure that is to carry its item is made by `with_item`: ``bind_step(with_item(persist),
        ctx)`` fails with an `ItemError`.

        Cancel safety: as `bind_async`; a cancellation propagates after the undo.

        Raises:
            InvalidArgument: At the call, if ``concurrency`` is below 1; or if another step of the
                chain stores the positions of the messages already.
            TypeError: At the call, if ``func`` is not a function, or ``ctx`` not a context.
            ScopeClosed: While reading, if ``ctx`` is closed.

        >>> from returns_pipeline import ResultStream, ok
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> from returns_pipeline import StepContext
        >>> async def save(n, step):
        ...     return ok(step.path)
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.bind_step(save, StepContext("shop")).collect())
        <IOResult: <Success: ['shop/save[0]', 'shop/save[1]', 'shop/save[2]']>>
        """
        if not isinstance(ctx, StepContext):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("bind_step() takes a step, then its context: bind_step(persist, ctx)")
        checks.async_function("bind_step", func)
        self._refuse_held("bind_step", hold=hold)
        place = self._place("bind_step", func)
        journal = _steps.journal_of(ctx)
        covers = self._stores_in(journal, place)
        step = _steps.with_child(ctx, func, name=name, hold=hold, covers=covers)
        made = self._async_step(
            steps.BIND_ASYNC, "bind_step", step, concurrency, ordered, place=place
        )
        if covers:
            made._chain.storing = journal, str(place)
        return made

    @overload
    def attempt_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        x1: type[X1],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | X1]: ...
    @overload
    def attempt_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        x1: type[X1],
        x2: type[X2],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | X1 | X2]: ...
    @overload
    def attempt_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        x1: type[X1],
        x2: type[X2],
        x3: type[X3],
        /,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | X1 | X2 | X3]: ...
    @overload
    def attempt_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        x1: type[X1],
        x2: type[X2],
        x3: type[X3],
        /,
        *more: type[X4],
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, E_co | X1 | X2 | X3 | X4]: ...
    @written
    def attempt_async(
        self,
        func: Callable[[T_co], Awaitable[U]],
        /,
        *exceptions: type[Exception],
        concurrency: int = 1,
        ordered: bool = True,
    ) -> ResultStream[U, Any]:
        """Do as `attempt`, awaiting ``func``.

        For ``concurrency`` and ``ordered`` see `bind_async`.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> async def parse(text):
        ...     return int(text)
        >>> s = ResultStream.of(from_iterable(["1", "x"]))
        >>> run(s.attempt_async(parse, ValueError).alt(type).partition())
        <IO: ([1], [<class 'ValueError'>])>
        """
        check_exceptions(exceptions)
        return self._async_step(
            steps.ATTEMPT_ASYNC, "attempt_async", func, concurrency, ordered, exceptions=exceptions
        )

    @written
    def flat_map(
        self, func: Callable[[T_co], AsyncIterable[Result[U, F]]], /, *, concurrency: int = 1
    ) -> ResultStream[U, E_co | F]:
        """Replace each value by the items of the stream that ``func`` returns for it.

        1. With a ``concurrency`` of 1, one stream after the other, all of them in one task, which
           runs the steps before this one, too. It is ahead of a slow reader by one item, of a
           waiting reader by as many as `merge`.
        2. With more, up to that many streams are read at a time, each in a task of its own: the
           items of one stream keep their order, those of several are emitted as they come, and each
           stream has at most one item waiting for the reader.

        Cancel safety: a cancelled read loses nothing. Closing stops the open streams, and awaits
        their clean-up.

        Known elsewhere as ``flatMapConcat`` and ``flatMapMerge`` (Akka and Pekko Streams),
        ``concatMap`` and ``mergeMap`` (Rx), ``parJoin`` (fs2).

        Raises:
            InvalidArgument: At the call, if ``concurrency`` is below 1.

        >>> from returns_pipeline import ResultStream
        >>> from returns_pipeline.sources import from_iterable
        >>> from returns_pipeline.testing import run
        >>> s = ResultStream.of(from_iterable([1, 2, 3]))
        >>> run(s.flat_map(lambda n: ResultStream.of(from_iterable(range(n)))).collect())
        <IOResult: <Success: [0, 0, 1, 0, 1, 2]>>
        """
        from returns_pipeline.combine._transform import expand_in_turn

        checks.function("flat_map", func, use="bind_async")
        self._refuse_repeats("flat_map")

        marked = self._chain.marked

        def expand(value: Any) -> AsyncIterable[Any]:
            inner = checks.source(func(value), of_results=True)
            fusion.refuse_marked(chain_of(inner))
            return inner

        def expand_bare(value: Any) -> AsyncIterable[Any]:
            return fusion.read(chain_of(expand(value)))

        if checks.count("concurrency", concurrency) == 1:
            return self._segment(
                lambda part: expand_in_turn(
                    part, expand, passing=(Failed, Mark), unpack=steps.split
                ),
                carries_marks=True,
            )
        return self._segment(
            lambda part: expand_concurrently(
                part, expand_bare, concurrency, passing=Failed, marked=marked
            ),
            carries_marks=True,
        )
