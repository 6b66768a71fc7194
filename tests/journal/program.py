"""A process that writes windows and is killed at the n-th point. Run by the crash tests.

Effects are files. Each undo, each commit that returned and each point is a line in a log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from returns.result import Failure, Result, Success

from returns_pipeline._engine.future_results import to_result
from returns_pipeline.compensation import CompensationRegistry, CompensationScope, current_key
from returns_pipeline.context import StepContext
from returns_pipeline.errors import JournalUnavailable
from returns_pipeline.journal import PostgresJournal, SqliteJournal, recover
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.saga import Saga
from returns_pipeline.testing import DurableJournal, FaultyJournal, timed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from returns_pipeline.journal import StoredSaga

Step: TypeAlias = Result[str, str]

registry = CompensationRegistry()
place = Path()
store = ""
left = -1  # points until the process is killed


def point(where: str) -> None:
    """Die here, if it is this one's turn."""
    global left  # noqa: PLW0603  # the process's own
    left -= 1
    log("points", where)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def log(file: str, line: str) -> None:
    """Write a line that survives the process."""
    with (place / file).open("a") as lines:
        lines.write(f"{line}\n")


def journal_of(*, lazy: bool = False) -> DurableJournal:
    """Open the journal: a file, or a schema of a database."""
    if store == "sqlite":
        return SqliteJournal(place / "journal.db", lazy_commits=lazy, retention=0.0)
    dsn, _, schema = store.partition("#")
    return PostgresJournal(dsn, schema=schema, retention=0.0)


async def take_back(name: str) -> None:
    """Take an effect back, that may never have happened; the first attempt of all on "0a" fails."""
    point("before undo")
    if name == "0a" and not (place / "flaked").exists():
        log("flaked", name)
        raise OSError("not now")
    log("undone", f"{name} {current_key()}")
    (place / "effects" / name).unlink(missing_ok=True)
    point("after undo")


delete = registry.compensation("delete", retry=RetryPolicy(attempts=3, wait=0.0))(take_back)
known = CompensationRegistry()  # of a program that does not know all
known.compensation("delete", retry=delete.retry)(take_back)
late = registry.compensation("late")(take_back)


def effect(name: str, key: str) -> None:
    """Do what is to be undone."""
    point("before effect")
    (place / "effects" / name).write_text(key)
    point("after effect")


async def write(window: int, step: StepContext) -> Result[int, str]:
    """Write two files, each on record before; every third window then fails."""
    for part in "ab":
        name = f"{window}{part}"
        await step.register(delete, name)
        effect(name, step.key)
    return Failure("no good") if window % 3 == 2 else Success(window)


def windows(ctx: StepContext, count: int, *, hold: bool) -> ResultStream[int, str]:
    return ResultStream.of(timed(*range(count))).bind_step(write, ctx, hold=hold)


async def each(ctx: StepContext) -> None:
    """Write five windows, each by itself."""
    stream = windows(ctx, 5, hold=False).tap(lambda window: log("committed", str(window)))
    _ = await ctx.run(stream.collect_all())


async def lazily(ctx: StepContext) -> None:
    """Write five windows, whose commits are durable at the end."""
    _ = await ctx.run(windows(ctx, 5, hold=False).collect_all())
    for window in 0, 1, 3, 4:
        log("committed", str(window))


async def hold(ctx: StepContext) -> None:
    """Write windows until one fails, and with it those before."""
    _ = await ctx.run(windows(ctx, 5, hold=True).collect())


async def keep(ctx: StepContext) -> None:
    """Write two windows that succeed or fail together; they succeed."""
    _ = await ctx.run(windows(ctx, 2, hold=True).collect())
    for window in 0, 1:
        log("committed", str(window))


async def saga(ctx: StepContext) -> None:
    """Carry out steps whose undos are made of their outputs."""

    def step(name: str, *, fail: bool = False) -> Callable[[str], Coroutine[None, None, Step]]:
        async def run(_: str) -> Step:
            if fail:
                return Failure("no good")
            effect(name, ctx.key)
            return Success(name)

        return run

    made = Saga("two").step("a", step("0a"), undo=delete).step("b", step("0b"), undo=delete)
    if (await to_result(ctx.run(made.run("", ctx)))) == Success("0b"):
        log("committed", "0")
    failing = Saga("fails").step("a", step("1a"), undo=delete).step("b", step("", fail=True))
    _ = await to_result(ctx.run(failing.run("", ctx)))


FORWARD = {"each": each, "lazy": lazily, "hold": hold, "keep": keep, "saga": saga}


async def forward(what: str) -> None:
    """Work."""
    journal = FaultyJournal(journal_of(lazy=what == "lazy"), point)
    async with StepContext("windows", journal=journal) as ctx:
        await FORWARD[what](ctx)
    await journal.close()


async def leave() -> None:
    """Leave three sagas open, one with an undo that not every program knows."""
    journal = journal_of()
    scopes = [CompensationScope(f"{number}", journal=journal) for number in range(3)]
    for number, scope in enumerate(scopes):
        for part in "ab":
            name = f"{number}{part}"
            await scope.register(late if name == "1a" else delete, name)
            effect(name, scope.key)
    os.kill(os.getpid(), signal.SIGKILL)


async def backward(undos: CompensationRegistry) -> None:
    """Undo what another process left."""
    journal = FaultyJournal(journal_of(), point)
    while True:
        if not any(saga.alive for saga in await _listed(journal)):
            break
        await asyncio.sleep(0.002)  # until the server knows that its client is dead
    for report in await recover(journal, undos):
        log("reports", repr(report))
        if report.error is not None:
            raise report.error
    for saga in await _listed(journal):
        for action in saga.actions:
            log("left", f"{action.arguments} {action.state}")
    await journal.close()


async def _listed(journal: DurableJournal) -> list[StoredSaga]:
    with contextlib.suppress(JournalUnavailable):  # there is no file yet
        return await journal.sagas()
    return []


def run(where: str, points: str, what: str, url: str) -> None:
    """Do what the command line says, in this process."""
    global place, left, store
    place, left, store = Path(where), int(points), url
    if what == "leave":
        asyncio.run(leave())
    elif what in {"backward", "backward with what is known"}:
        asyncio.run(backward(registry if what == "backward" else known))
    else:
        asyncio.run(forward(what))


def serve() -> None:
    """Fork a process for each line of the input, and say how it ended: imports are made once."""
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            try:
                run(*line.rstrip("\n").split("\t"))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        _ = sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        _ = sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import asyncpg  # noqa: F401  # before it forks, not in each child
    serve()
