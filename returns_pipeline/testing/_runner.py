"""Run a coroutine on virtual time, and see that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from returns_pipeline._engine.cancellation import add_note
from returns_pipeline.testing._await_points import chain, report
from returns_pipeline.testing._clock import Deadlock, VirtualTimeLoop, virtual_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["LeakedTasks", "check_leaks", "run"]

T = TypeVar("T")


class LeakedTasks(AssertionError):
    """Tasks were still there, or async generators still open, when the main one ended."""


def run(main: Awaitable[T], *, patience: float = 10.0, debug: bool | None = None) -> T:
    """Run a coroutine, or await anything, on virtual time, from 0 seconds on.

    The clock stands still while a task can run and jumps to the next timer when none can. No real
    time passes, so a test of an hour's time limit takes a millisecond. The rules, also those for
    threads and sockets, stand in the docstring of `returns_pipeline.testing`.

    It is an error if ``main`` leaves something behind:

    - a task that is not done, or one that was cancelled and not awaited;
    - an async generator that is suspended and still referred to, so that nobody has closed it.

    What is dropped at the very end of ``main`` may still clean up, as long as no time passes. When
    ``main`` fails, errors that the event loop could only log (those of callbacks, and of tasks
    nobody asked) are added to the exception as notes: often they are why.

    Context variables: ``main`` runs in a copy of the caller's context. Ctrl-C cancels it and gives
    `KeyboardInterrupt`.

    Args:
        main: A coroutine, or anything to be awaited once. A ``FutureResult`` gives its
            ``IOResult``.
        patience: Real seconds to wait for a thread, a socket or a child process, above 0.
        debug: asyncio's debug mode; `None` for its own default.

    Returns:
        What ``main`` gives.

    Raises:
        Deadlock: All tasks wait, and neither a timer nor the world outside can wake one. The
            message names each task and the places at which it waits.
        LeakedTasks: The coroutine returned and left tasks or generators. They are ended.
        RuntimeError: At the call, if an event loop is running already.
        TypeError: At the call, if ``main`` cannot be awaited.
        BaseException: What the coroutine raised.

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
    if asyncio._get_running_loop() is not None:
        if asyncio.iscoroutine(main):
            main.close()
        raise RuntimeError("run() starts an event loop, and one is running already: use await")
    logged: list[str] = []
    runner = asyncio.Runner(
        debug=debug, loop_factory=functools.partial(VirtualTimeLoop, patience=patience)
    )
    _ = runner.get_loop()  # a bad argument is refused before there is a coroutine to be awaited
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
    def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if (error := context.get("exception")) is not None:
            logged.append(f"the event loop logged: {context.get('message')}: {error!r}")

    task = asyncio.current_task()
    assert task is not None
    task.set_name("main")
    asyncio.get_running_loop().set_exception_handler(note)
    result = await main
    await check_leaks()
    return result


async def check_leaks() -> None:
    """Raise `LeakedTasks` if there are other tasks than this one, or open async generators."""
    __tracebackhide__ = True
    loop = virtual_loop("check_leaks()")
    tasks = _other_tasks()
    if loop.unfinished_generators():
        gc.collect()  # those that only a cycle keeps are dropped, not held
    if not tasks and not loop.unfinished_generators() and loop.is_idle():
        return
    found = report("", tasks)
    cancelled = {task for task in tasks if task.cancelling()}
    await loop.until_idle()
    # A task that somebody has dropped cancels itself now, and the interpreter closes generators.
    left = {task for task in tasks if not (task.cancelled() or _is_closing(task))}
    if left or cancelled:
        raise LeakedTasks("tasks left running, or cancelled and not awaited" + found)
    if late := _other_tasks():
        raise LeakedTasks(report("tasks that began at the very end", late))
    if still := loop.unfinished_generators():
        lines = [f"  {chain(generator)[-1]}" for generator in still]
        raise LeakedTasks("\n".join(["async generators left open, suspended at", *lines]))


def _other_tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def _is_closing(task: asyncio.Task[Any]) -> bool:
    """Say whether it was the loop that closed a generator nobody held any more."""
    return task.done() and type(task.get_coro()).__name__ == "async_generator_athrow"
