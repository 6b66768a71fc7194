"""Run a coroutine on virtual time, and check that it leaves nothing running."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, TypeVar

from returns_pipeline._engine import checks
from returns_pipeline._engine.cancellation import add_note
from returns_pipeline.testing._await_points import await_chain, describe_tasks
from returns_pipeline.testing._browser import IN_BROWSER, outer_loop_set_aside
from returns_pipeline.testing._clock import Deadlock, VirtualTimeLoop, virtual_loop
from returns_pipeline.testing._wall_clock import timestamp, virtual_wall_clock

__all__ = ["LeakedTasks", "check_leaks", "run"]

T = TypeVar("T")


class LeakedTasks(AssertionError):
    """Tasks were still running, or async generators still open, when the main coroutine ended.

    >>> async def main() -> None:
    ...     global task
    ...     task = asyncio.ensure_future(asyncio.sleep(60.0))
    >>> try:
    ...     run(main())
    ... except LeakedTasks:
    ...     print("a task was left running")
    a task was left running
    """


def run(
    main: Awaitable[T],
    *,
    patience: checks.Seconds = 10.0,
    epoch: float | datetime | None = None,
    debug: bool | None = None,
) -> T:
    """Run a coroutine, or await any awaitable, on virtual time, from 0 seconds on.

    The clock does not move while a task can run, and jumps to the next timer when none can. No real
    time passes, so a test of an hour's timeout takes a millisecond. The docstring of
    `returns_pipeline.testing` has all rules, also those for threads and sockets.

    ``main`` must not leave anything running:

    - a task that is not done, or that was cancelled and not awaited;
    - an async generator that is suspended and still referenced, so that nothing will close it.

    Tasks that ``main`` drops at its very end may still clean up, as long as no time passes. If
    ``main`` fails, errors that the event loop could only log (those of callbacks, and of tasks
    whose result was never read) are added to the exception as notes: often they are the cause.

    Context variables: ``main`` runs in a copy of the caller's context. Ctrl-C cancels it and raises
    `KeyboardInterrupt`.

    Args:
        main: A coroutine, or anything to be awaited once. Awaiting a ``FutureResult`` returns its
            ``IOResult``.
        patience: Real seconds, above 0, to wait for a thread, a socket, a child process or a
            signal.
        epoch: The date at the start, in seconds since 1970 or as a `datetime`. With it,
            `time.time()` and `time.time_ns()` are on virtual time too, in the whole process; code
            that imported them by name, and `datetime.now()`, still get the real date, as all code
            does by default.
        debug: asyncio's debug mode; `None` for its own default.

    Returns:
        The result of ``main``.

    Raises:
        Deadlock: All tasks wait, and no timer or external event can wake one. The message names
            each task and the lines at which it waits.
        InvalidArgument: At the call, if ``patience`` or ``epoch`` is out of range.
        LeakedTasks: The coroutine returned and left tasks or generators. They are ended.
        RuntimeError: At the call, if an event loop is running already.
        TypeError: At the call, if ``main`` cannot be awaited.
        BaseException: Any exception of the coroutine.

    >>> async def main() -> float:
    ...     await asyncio.sleep(3600)
    ...     return asyncio.get_running_loop().time()
    >>> run(main())
    3600.0
    """
    given: object = main
    if not inspect.isawaitable(given):
        hint = f"; call it: run({given.__name__}())" if inspect.isfunction(given) else ""
        raise TypeError(f"run() needs a coroutine or another awaitable, not {given!r}{hint}")
    if asyncio._get_running_loop() is not None and not IN_BROWSER:
        if asyncio.iscoroutine(main):
            main.close()
        raise RuntimeError("run() starts an event loop, and one is running already: use await")
    if IN_BROWSER:
        with outer_loop_set_aside():
            return _run(main, patience, epoch, debug)
    return _run(main, patience, epoch, debug)


def _run(
    main: Awaitable[T],
    patience: checks.Seconds,
    epoch: float | datetime | None,
    debug: bool | None,
) -> T:
    logged: list[str] = []
    wall_clock: AbstractContextManager[None] = nullcontext()
    start = None if epoch is None else timestamp("epoch", epoch)
    runner = asyncio.Runner(
        debug=debug, loop_factory=functools.partial(VirtualTimeLoop, patience=patience)
    )
    # Bad arguments are refused before `_checked()` is called: it would have to be closed.
    loop = runner.get_loop()
    if start is not None:
        assert isinstance(loop, VirtualTimeLoop)
        wall_clock = virtual_wall_clock(loop, start)
    with wall_clock:
        try:
            result = runner.run(_checked(main, logged))
        except BaseException as error:
            for note in logged:
                add_note(error, note)
            try:
                runner.close()
            except Deadlock as closing:
                add_note(error, f"then, while the tasks were being cancelled: {closing}")
            raise
        runner.close()
    return result


async def _checked(main: Awaitable[T], logged: list[str]) -> T:
    def log(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if (error := context.get("exception")) is not None:
            logged.append(f"the event loop logged: {context.get('message')}: {error!r}")

    task = asyncio.current_task()
    assert task is not None
    task.set_name("main")
    asyncio.get_running_loop().set_exception_handler(log)
    result = await main
    await check_leaks()
    return result


async def check_leaks() -> None:
    """Raise `LeakedTasks` if there are other tasks than this one, or open async generators."""
    __tracebackhide__ = True
    loop = virtual_loop("check_leaks()")
    tasks = _other_tasks()
    if _open_generators(loop):
        gc.collect()  # those that only a reference cycle keeps are dropped, not held
    if not tasks and not _open_generators(loop) and not _has_ready_callbacks(loop):
        return
    found = describe_tasks("", tasks)
    cancelled = {task for task in tasks if task.cancelling()}
    await loop.advance(0)
    # By now a task that was dropped has cancelled itself, and the interpreter has closed dropped
    # generators, each in a task of its own.
    left = {task for task in tasks if not (task.cancelled() or _has_closed_generator(task))}
    if left or cancelled:
        raise LeakedTasks("tasks left running, or cancelled and not awaited" + found)
    if late := _other_tasks():
        raise LeakedTasks(describe_tasks("tasks that were started at the very end", late))
    if still := _open_generators(loop):
        lines = [f"  {await_chain(generator)[-1]}" for generator in still]
        raise LeakedTasks("\n".join(["async generators left open, suspended at", *lines]))


def _other_tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def _has_ready_callbacks(loop: VirtualTimeLoop) -> bool:
    """Whether anything is going to run before time passes."""
    return bool(getattr(loop, "_ready", ()))  # asyncio's own queue of callbacks


def _open_generators(loop: VirtualTimeLoop) -> list[AsyncGenerator[Any, Any]]:
    """Return the async generators that were begun, are not closed, and are suspended."""
    # asyncio keeps them for shutdown_asyncgens(). Its set is weak, and may shrink meanwhile.
    begun: set[Any] = set(getattr(loop, "_asyncgens", ()))
    return [it for it in begun if it.ag_frame is not None and not it.ag_running]


def _has_closed_generator(task: asyncio.Task[Any]) -> bool:
    """Whether the loop started this task to close a dropped generator, and it is done."""
    return task.done() and type(task.get_coro()).__name__ == "async_generator_athrow"
