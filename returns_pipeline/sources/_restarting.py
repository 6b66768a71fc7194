"""`restarting`: a source that is opened again when it has failed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Any, TypeVar

from aiostream import Stream

from returns_pipeline._engine import checks
from returns_pipeline._engine.calls import recorded
from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.fan_in import FairMerge
from returns_pipeline._engine.future_results import discard
from returns_pipeline._engine.operator import OpenIterator, Repeatable, open_iterator
from returns_pipeline._engine.reader import Reader
from returns_pipeline._engine.retry_loop import next_delay
from returns_pipeline._engine.task_owner import was_stopped
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.retry import RetryPolicy

__all__ = ["restarting"]

T = TypeVar("T")


@recorded
def restarting(factory: Callable[[], AsyncIterable[T]], policy: RetryPolicy) -> Stream[T]:
    """Emit the items of a source that is opened again, after a wait, whenever it fails.

    1. ``factory`` opens a source, at the first read and after each failure. Its items are emitted
       as they come; those of a source that is opened again follow those of the one before. Where
       it begins depends on the source: a feed begins with new items, a table with its first row,
       unless ``factory`` remembers the reader's position.
    2. When a source, or ``factory``, raises an exception that ``policy.retry_on`` names (by
       default: any exception), it is closed. After the policy's wait it is opened again.
    3. Failures are counted *in a row*: an item begins the count, the waits and
       ``policy.total_timeout`` again. After ``policy.attempts`` failures in a row, the last
       exception is raised.
    4. When a source ends, the stream ends. If a source ends that should not, let it raise instead.

    ``policy.on_retry`` is called with each failure that is followed by another try.

    Order of events: all sources run in one task, in a copy of the first reader's context.

    Backpressure: one item is held; then the source waits.

    Cancel safety: a cancelled read loses nothing, also during the wait; the next read continues.
    ``aclose()`` stops the source, or the wait, and awaits its clean-up.

    Known elsewhere as: ``RestartSource.withBackoff`` (Akka and Pekko), ``retry`` (Rx, Effect),
    ``handleErrorWith`` and a schedule (fs2).

    Args:
        factory: Returns a new source each time, such as an async generator function.
        policy: How often to try, how long to wait, and after which exceptions.

    Returns:
        A stream of the items of all of them.

    Raises:
        InvalidArgument: At the call, if ``policy`` is not a `RetryPolicy`, or ``factory`` cannot be
            called.
        TypeError: While reading, if what ``factory`` returned is not an async iterable.
        Exception: The last exception, when the policy allows no other attempt, with a note of how
            many exceptions in a row there were.

    >>> from collections.abc import AsyncIterator
    >>> from returns_pipeline.testing import run, timeline
    >>> pages = iter([["a", "b"], [], ["c"]])
    >>> async def feed() -> AsyncIterator[str]:
    ...     page = next(pages)
    ...     for item in page:
    ...         yield item
    ...     if "c" not in page:
    ...         raise ConnectionError
    >>> policy = RetryPolicy(attempts=3, wait=5.0, retry_on=ConnectionError)
    >>> run(timeline(restarting(feed, policy)))
    [(0.0, 'a'), (0.0, 'b'), (10.0, 'c')]
    """
    if not callable(factory):
        raise InvalidArgument(f"factory must be a function that opens a source, not {factory!r}")
    if not isinstance(policy, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"policy must be a RetryPolicy, not {policy!r}")
    source: _Restarted[T] = _Restarted(factory, policy)
    return Repeatable(lambda: Reader(FairMerge[T, T]([source], 1)))


class _Restarted(AsyncIterable[T]):
    """The sources, one after the other."""

    __slots__ = ("_factory", "_policy")

    def __init__(self, factory: Callable[[], AsyncIterable[T]], policy: RetryPolicy) -> None:
        self._factory = factory
        self._policy = policy

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        loop = asyncio.get_running_loop()
        policy = self._policy
        failed = 0  # times in a row
        due = math.inf  # no try begins after this
        while True:
            failure: Exception | None = None
            try:
                given = self._factory()
            except Exception as error:  # noqa: BLE001  # the policy decides
                failure = error
            else:
                source = _of_factory(given)
                opened: OpenIterator[T] | None = None
                try:
                    opened = await open_iterator(source)
                    async for item in opened.items:
                        failed = 0
                        yield item
                except Exception as error:  # noqa: BLE001  # the policy decides
                    failure = error
                finally:
                    await _close(opened, failure)
            if failure is None:
                return
            if not failed:
                due = loop.time() + policy.total_timeout
            failed += 1
            try:
                # A client may report its cancellation as a lost connection.
                delay = None if was_stopped() else await next_delay(policy, failed, failure, due)
                if delay is None:
                    if failed > 1:
                        add_note(failure, f"the source has failed {failed} times in a row")
                    raise failure
            finally:
                failure = None  # its traceback holds this frame
            await asyncio.sleep(delay)


async def _close(opened: OpenIterator[Any] | None, failure: Exception | None) -> None:
    """Close a source; if it has failed, that is what is raised, not an error of its clean-up."""
    if opened is None:  # it has failed to open
        return
    try:
        await opened.aclose()
    except Exception as error:
        if failure is None:
            raise
        add_note(failure, f"while the source was being closed, {error!r} was raised")


def _of_factory(given: AsyncIterable[T]) -> AsyncIterable[T]:
    try:
        return checks.source(given)
    except TypeError as error:
        discard(given)
        raise TypeError(f"the factory of restarting(): {error}") from None
