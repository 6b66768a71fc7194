"""Make code fail, or be cancelled, at each place where it waits, one after the other.

What must hold "whatever happens" is tested by making it happen everywhere::

    async def scenario(injector: FaultInjector) -> None:
        store = Store()
        with suppress(asyncio.CancelledError):
            await injector.run(store.save(ROWS))
        assert store.rows in ([], ROWS)

    inject_everywhere(scenario)

An *await point* is a place where a task really waits: each time it gives control back to the event
loop is one, whether it waits for a timer, a future, a lock or nothing (``sleep(0)``). An ``await``
that has its answer at once is none. Points are counted from 1, in the order in which they are
reached, in the coroutine that is run and in every task that it starts, directly or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from returns_pipeline._engine.cancellation import add_note
from returns_pipeline._engine.reader import wait_done
from returns_pipeline.errors import InvalidArgument
from returns_pipeline.testing._await_points import chain, is_asyncio, is_of_tasks
from returns_pipeline.testing._clock import steering
from returns_pipeline.testing._runner import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

    Error = BaseException | Callable[[], BaseException]

__all__ = ["FaultInjector", "inject_everywhere"]

T = TypeVar("T")


class FaultInjector:
    """Strike once: at the n-th await point.

    Without an ``error`` it cancels, as a caller does who has had enough: the task that `run` gives
    to the coroutine is cancelled, whether it is that task or one of its children that has just
    reached the point.

    With an ``error``, the error is raised where the point is, as if what was awaited there had
    failed. An await that cannot fail by itself is no point then: awaiting a task, ``gather()``,
    ``asyncio.wait()``, the end of a task group.

    The points of child tasks count on virtual time only, see `returns_pipeline.testing.run`; on
    another event loop, those of the coroutine itself do.

    Args:
        at: Which point, from 1.
        error: The exception, or what makes one (a class will do); `None` to cancel.
        times: How many points in a row are struck, from that one on. More than one shows whether
            the clean-up withstands a second blow.

    Attributes:
        at: The same.
        error: The exception of this injector; `None` if it cancels.
        points: How many points were reached so far.
        fired: Whether it has struck.
        where: Where it struck first: a name given to `point`, or file and line; until then empty.

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

    def __init__(self, at: int, error: Error | None = None, *, times: int = 1) -> None:
        if at < 1:
            raise InvalidArgument(f"at must be at least 1, not {at!r}")
        if times < 1:
            raise InvalidArgument(f"times must be at least 1, not {times!r}")
        self.at = at
        self.error: BaseException | None = error() if callable(error) else error
        self.points: int = 0
        self.where: str = ""
        self._times = times
        self._task: asyncio.Task[Any] | None = None
        self._used = False

    def __repr__(self) -> str:
        what = "cancel" if self.error is None else repr(self.error)
        where = f" in {self.where}" if self.where else ""
        return f"<FaultInjector: {what} at point {self.at}{where}>"

    @property
    def fired(self) -> bool:
        """Whether it has struck."""
        return self.points >= self.at

    @classmethod
    def every(cls, error: Error | None = None, *, times: int = 1) -> Iterator[FaultInjector]:
        """Give an injector for the first point, one for the second, and so on.

        It ends after the round whose injector did not strike, because the code was through before.
        In that round everything has to go right.

        Args:
            error: As for the class. Give a class or a function, so that each round has an
                exception of its own: exceptions gather notes and tracebacks.
            times: As for the class.

        Raises:
            InvalidArgument: At the first round, if ``times`` is below 1.
            RuntimeError: If a round did not use its injector, and would never end.

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
        """Run a coroutine, or await anything, in a task of its own, and strike there.

        Cancel safety: a cancellation of the caller is passed on, and raised when the task is over.

        Args:
            main: Awaited once. A ``FutureResult`` gives its ``IOResult``.

        Returns:
            What ``main`` gives.

        Raises:
            CancelledError: If ``main`` was cancelled by the injector, and let it through.
            BaseException: What ``main`` raised.
            RuntimeError: If the injector is in use already.
        """
        if self._task is not None:
            if asyncio.iscoroutine(main):
                main.close()
            raise RuntimeError(f"{self!r} is running something already")
        self._used = True
        self._task = task = asyncio.get_running_loop().create_task(self._steered(self._root(main)))
        try:
            await wait_done(task)
        finally:
            self._task = None
        return task.result()

    async def point(self, name: str = "") -> None:
        """Count as an await point: to be put where a fake would do its work.

        It needs no `run`. Without one, a cancelling injector cancels the calling task.

        Args:
            name: Told by ``where`` and by the ``repr()``.

        Raises:
            CancelledError: At the n-th point, if the injector cancels.
            BaseException: The injector's ``error``, at the n-th point.
        """
        self(name)
        if self.error is None and self._is_struck():
            await asyncio.sleep(0)  # where the cancellation comes through

    def __call__(self, name: str = "") -> None:
        """Count as a point, in a function that is not a coroutine.

        A cancelling injector cancels the task, which comes through at the next ``await``.
        """
        self._used = True
        self._reached(name or "point()")
        if self._is_struck():
            if self.error is not None:
                raise self.error
            self._cancel()

    def _reached(self, where: str) -> None:
        self.points += 1
        if self.points == self.at:
            self.where = where

    def _is_struck(self) -> bool:
        return self.at <= self.points < self.at + self._times

    def _cancel(self) -> None:
        task = self._task or asyncio.current_task()
        if task is None:
            raise RuntimeError(f"{self!r} was called outside any task: there is nothing to cancel")
        _ = task.cancel()

    def on_suspended(
        self, coroutine: Coroutine[Any, Any, Any], awaited: object
    ) -> BaseException | None:
        """Count a point of a task that is driven; give what is to be raised there, if anything."""
        if self._task is None or self._task.done():  # this task outlived it
            return None
        if self.error is not None and _cannot_fail(coroutine, awaited):
            return None
        self._reached(_place(coroutine))
        if not self._is_struck():
            return None
        if self.error is None:
            self._cancel()
        return self.error

    async def _root(self, main: Awaitable[T]) -> T:
        # Set here: a loop that steers its tasks would otherwise count this one's points twice.
        _ = steering.set(self._steered)
        return await main

    def _steered(self, coroutine: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        return _Driven(self, coroutine)


def inject_everywhere(
    scenario: Callable[[FaultInjector], Awaitable[object]],
    error: Error | None = None,
    *,
    times: int = 1,
) -> int:
    """Run a scenario on virtual time over and over, the fault one await point later each time.

    It ends after the run that was through before its fault. Each run has a loop of its own, so a
    task that one leaves behind is an error of that run.

    Args:
        scenario: Builds what it needs, runs it with the injector it is given, and checks.
        error: The exception or what makes one, raised at the point; `None` to cancel there.
        times: How many points in a row are struck.

    Returns:
        How many points there were: the number of runs, less one.

    Raises:
        BaseException: What a run raised, with a note that says where the fault had struck.

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


class _Driven(Coroutine[Any, Any, T]):
    """A coroutine whose steps are looked at: what one gives is what its task waits for.

    Not an ``async def`` around it: of a task that is cancelled before its first step, the inner
    coroutine would never be started, and Python would warn of that.
    """

    def __init__(self, injector: FaultInjector, coroutine: Coroutine[Any, Any, T]) -> None:
        self._injector = injector
        self._coroutine = coroutine

    def send(self, value: object, /) -> object:
        return self._looked_at(self._coroutine.send(value))

    def throw(self, *error: Any) -> object:  # Any: one exception, or the old three
        return self._looked_at(self._coroutine.throw(*error))

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        # A coroutine must have it; a task steps by send() and throw().
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> object:
        """Be the coroutine for all who ask for its name, code or frame."""
        return getattr(self._coroutine, name)

    def _looked_at(self, awaited: object) -> object:
        error = self._injector.on_suspended(self._coroutine, awaited)
        while error is not None:
            if asyncio.isfuture(awaited):
                awaited._asyncio_future_blocking = False  # the task does not get to see it
            awaited = self._coroutine.throw(error)
            error = self._injector.on_suspended(self._coroutine, awaited)
        return awaited


def _place(coroutine: Coroutine[Any, Any, Any]) -> str:
    places = chain(coroutine)
    own = [place for place in places if not is_asyncio(place)]
    return str((own or places)[-1]) if places else "a place unknown"


def _cannot_fail(coroutine: Coroutine[Any, Any, Any], awaited: object) -> bool:
    """Tell the awaits of tasks from those of the world outside."""
    if is_of_tasks(awaited):
        return True
    places = chain(coroutine)
    return bool(places) and is_asyncio(places[-1]) and places[-1].name in _NEVER_FAIL


# What waits for tasks in asyncio, besides the tasks' own futures.
_NEVER_FAIL = {
    "TaskGroup.__aexit__",
    "TaskGroup._aexit",  # 3.13
    "_wait",
    "_AsCompletedIterator._wait_for_one",
    "as_completed.<locals>._wait_for_one",
}
