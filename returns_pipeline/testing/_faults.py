"""Make code fail, or be cancelled, at each place where it waits, one after the other.

A claim about "whatever happens" is tested by making it happen everywhere::

    async def scenario(injector: FaultInjector) -> None:
        store = Store()
        with suppress(asyncio.CancelledError):
            await injector.run(store.save(ROWS))
        assert store.rows in ([], ROWS)

    inject_everywhere(scenario)

An *await point* is a place where a task really waits. Each time a task hands control back to the
event loop counts as one, whether it waits for a timer, a future, a lock or nothing (``sleep(0)``).
An ``await`` whose result is there at once does not count. Points are counted from 1, in the order
in which they are reached, in the coroutine that is run and in every task that it starts, directly
or not, also in tasks with a context of their own and in those made as ``asyncio.Task(...)``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any, TypeAlias, TypeVar

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import add_note, wait_done
from returns_pipeline.testing._await_points import await_chain, is_asyncio, is_task_or_gather
from returns_pipeline.testing._clock import steering
from returns_pipeline.testing._runner import run

__all__ = ["FaultInjector", "inject_everywhere"]

T = TypeVar("T")

_Error: TypeAlias = BaseException | Callable[[], BaseException]


class FaultInjector:
    """Injects one fault: at the n-th await point.

    Without an ``error`` the fault is a cancellation, as by a caller that stops waiting: the task in
    which `run` runs the coroutine is cancelled, whether that task or one of its children has just
    reached the point.

    With an ``error``, the error is raised at the point, as if the operation awaited there had
    failed. An await that cannot fail by itself does not count as a point then: that of a task, of
    ``gather()``, of ``asyncio.wait()``, of the end of a task group.

    The points of child tasks count on virtual time only, see `returns_pipeline.testing.run`. On
    another event loop, only those of the coroutine itself do.

    Args:
        at: The point to fail at, from 1.
        error: The exception, or a function or class that makes one; `None` to cancel.
        times: How many points in a row fail, from that one on. More than one shows whether the
            clean-up withstands a second fault.

    Attributes:
        at: The same.
        error: The exception of this injector; `None` if it cancels.
        points: How many points were reached so far.
        fired: Whether it has injected its fault.
        where: The place of the first fault: a name passed to `point`, or file and line. Empty until
            then.

    Raises:
        InvalidArgument: At the call, if ``at`` or ``times`` is below 1.

    >>> async def save(rows: list[int]) -> None:
    ...     for row in 1, 2:
    ...         await asyncio.sleep(0.1)
    ...         rows.append(row)
    >>> async def main() -> list[int]:
    ...     rows: list[int] = []
    ...     try:
    ...         await FaultInjector(2, OSError).run(save(rows))
    ...     except OSError:
    ...         pass
    ...     return rows
    >>> run(main())
    [1]
    """

    def __init__(self, at: int, error: _Error | None = None, *, times: int = 1) -> None:
        self.at: int = checks.count("at", at)
        self._times = checks.count("times", times)
        self.error: BaseException | None = error() if callable(error) else error
        self.points: int = 0
        self.where: str = ""
        self._running = False
        self._task: asyncio.Task[Any] | None = None  # of `run`, from its first step on
        self._used = False

    def __repr__(self) -> str:
        what = "cancel" if self.error is None else repr(self.error)
        where = f" in {self.where}" if self.where else ""
        return f"<FaultInjector: {what} at point {self.at}{where}>"

    @property
    def fired(self) -> bool:
        """Whether it has injected its fault."""
        return self.points >= self.at

    @classmethod
    def every(cls, error: _Error | None = None, *, times: int = 1) -> Iterator[FaultInjector]:
        """Yield an injector for the first point, one for the second, and so on.

        The last round is the one whose code ended before its injector's point. In that round
        everything must succeed.

        Args:
            error: As for the class. Pass a class or a function, so that each round has an exception
                of its own: exceptions collect notes and tracebacks.
            times: As for the class.

        Raises:
            InvalidArgument: In the first round, if ``times`` is below 1.
            RuntimeError: If a round did not use its injector. Otherwise the loop would never end.

        >>> async def greet(said: list[str]) -> None:
        ...     said.append("hello")
        ...     await asyncio.sleep(1)
        ...     said.append("goodbye")
        >>> async def main() -> None:
        ...     for injector in FaultInjector.every():
        ...         said: list[str] = []
        ...         try:
        ...             await injector.run(greet(said))
        ...         except asyncio.CancelledError:
        ...             pass
        ...         print(injector.fired, said)
        >>> run(main())
        True ['hello']
        False ['hello', 'goodbye']
        """
        at = 1
        while True:
            injector = cls(at, error, times=times)
            yield injector
            if not injector._used:
                raise RuntimeError(f"{injector!r} was not used: await its run() or its point()")
            if not injector.fired:
                return
            at += 1

    async def run(self, main: Awaitable[T]) -> T:
        """Run a coroutine, or await any awaitable, in a task of its own; inject the fault there.

        Cancel safety: a cancellation of the caller is passed on to the task, and raised when the
        task has ended.

        Args:
            main: Awaited once. Awaiting a ``FutureResult`` returns its ``IOResult``.

        Returns:
            The result of ``main``.

        Raises:
            CancelledError: If the injector cancelled ``main``, which did not suppress it.
            BaseException: Any exception of ``main``.
            RuntimeError: If the injector is running something already.
        """
        if self._running:
            if asyncio.iscoroutine(main):
                main.close()
            raise RuntimeError(f"{self!r} is running something already")
        self._used = self._running = True
        try:
            task = asyncio.get_running_loop().create_task(self._steered(self._root(main)))
            try:
                _ = await asyncio.wait({task})
            except asyncio.CancelledError:
                _ = task.cancel()  # as if it were awaited right here
                await wait_done(task)
                raise
        finally:
            self._running = False
            self._task = None
        return task.result()

    async def point(self, name: str = "") -> None:
        """Count as an await point: call it where a fake would do its work.

        It needs no `run`. Without one, a cancelling injector cancels the calling task.

        Args:
            name: Appears in ``where`` and in the ``repr()``.

        Raises:
            CancelledError: At the n-th point, if the injector cancels.
            BaseException: The injector's ``error``, at the n-th point.
        """
        self(name)
        if self.error is None and self._is_faulty():
            await asyncio.sleep(0)  # where the cancellation is raised

    def __call__(self, name: str = "") -> None:
        """Count as a point, in a function that is not a coroutine.

        A cancelling injector cancels the task, which has its effect at the next ``await``.
        """
        self._used = True
        self._reached(name or "point()")
        if self._is_faulty():
            if self.error is not None:
                raise self.error
            self._cancel()

    def _reached(self, where: str) -> None:
        self.points += 1
        if self.points == self.at:
            self.where = where

    def _is_faulty(self) -> bool:
        return self.at <= self.points < self.at + self._times

    def _cancel(self) -> None:
        task = self._task or asyncio.current_task()
        if task is None:
            raise RuntimeError(f"{self!r} was called outside any task: there is nothing to cancel")
        _ = task.cancel()

    def _on_suspended(
        self, coroutine: Coroutine[Any, Any, Any], awaited: object
    ) -> BaseException | None:
        """Count a point of a steered task; return the exception to be raised there, if any."""
        if self._task is None or self._task.done():  # the task outlived the run
            return None
        if self.error is not None and _cannot_fail(coroutine, awaited):
            return None
        self._reached(_line(coroutine))
        if not self._is_faulty():
            return None
        if self.error is None:
            self._cancel()
        return self.error

    async def _root(self, main: Awaitable[T]) -> T:
        # An eager task is here before `create_task()` returns it.
        self._task = asyncio.current_task()
        # Set here, inside the task: otherwise `create_task()` would wrap this coroutine twice, and
        # each of its points would count as two.
        _ = steering.set(self._steered)
        return await main

    def _steered(self, coroutine: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        return _Steered(self._on_suspended, coroutine)


def inject_everywhere(
    scenario: Callable[[FaultInjector], Awaitable[object]],
    error: _Error | None = None,
    *,
    times: int = 1,
) -> int:
    """Run a scenario on virtual time over and over, with the fault one await point later each time.

    The last run is the one that ended before its fault. Each run has a loop of its own, so a task
    that is left running is an error of the run that started it.

    Args:
        scenario: Builds what it needs, runs it with the injector it is passed, and checks.
        error: The exception, or a function or class that makes one, raised at the point; `None` to
            cancel there.
        times: How many points in a row fail.

    Returns:
        How many points there were: the number of runs, less one.

    Raises:
        BaseException: Any exception of a run, with a note that names the place of the fault.

    >>> async def scenario(injector: FaultInjector) -> None:
    ...     done: list[int] = []
    ...     try:
    ...         await injector.run(work(done))
    ...     except asyncio.CancelledError:
    ...         assert done in ([], [1])
    ...     else:
    ...         assert done == [1, 2]
    >>> async def work(done: list[int]) -> None:
    ...     for item in 1, 2:
    ...         await asyncio.sleep(1)
    ...         done.append(item)
    >>> inject_everywhere(scenario)
    2
    """
    rounds = 0
    for injector in FaultInjector.every(error, times=times):
        try:
            run(scenario(injector))
        except BaseException as raised:
            add_note(raised, f"during the run with {injector!r}")
            raise
        rounds += 1
    return rounds - 1


class _Steered(Coroutine[Any, Any, T]):
    """A coroutine whose steps are observed: the value of a step is what its task waits for.

    It is not an ``async def`` around the coroutine: if a task were cancelled before its first step,
    the inner coroutine would never be started, and Python would warn.
    """

    def __init__(
        self,
        on_suspended: Callable[[Coroutine[Any, Any, T], object], BaseException | None],
        coroutine: Coroutine[Any, Any, T],
    ) -> None:
        self._on_suspended = on_suspended
        self._coroutine = coroutine

    def send(self, value: object, /) -> object:
        return self._observed(self._coroutine.send(value))

    def throw(self, *error: Any) -> object:  # Any: one exception, or the old three
        return self._observed(self._coroutine.throw(*error))

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        # A coroutine must have it, but a task calls send() and throw() alone.
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> object:
        """Return the coroutine's name, code or frame, for code that asks for it."""
        return getattr(self._coroutine, name)

    def _observed(self, awaited: object) -> object:
        error = self._on_suspended(self._coroutine, awaited)
        while error is not None:
            if asyncio.isfuture(awaited):
                # The task never sees this future, so nothing will await it.
                awaited._asyncio_future_blocking = False
            awaited = self._coroutine.throw(error)
            error = self._on_suspended(self._coroutine, awaited)
        return awaited


def _line(coroutine: Coroutine[Any, Any, Any]) -> str:
    points = await_chain(coroutine)
    own = [point for point in points if not is_asyncio(point)]
    return str((own or points)[-1]) if points else "an unknown place"


def _cannot_fail(coroutine: Coroutine[Any, Any, Any], awaited: object) -> bool:
    """Whether this waits for tasks of the program, which fail by themselves or not at all."""
    if is_task_or_gather(awaited):
        return True
    points = await_chain(coroutine)
    return bool(points) and is_asyncio(points[-1]) and points[-1].name in _NEVER_FAIL


# The functions of asyncio that wait for tasks through a future of their own.
_NEVER_FAIL = {
    "TaskGroup.__aexit__",
    "TaskGroup._aexit",  # 3.13
    "_wait",
    "_AsCompletedIterator._wait_for_one",
    "as_completed.<locals>._wait_for_one",
}
