"""A process that writes windows and is killed at the n-th point. Run by the crash tests.

Effects are files. Each undo, and each commit that returned, is a line in a log.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from pathlib import Path

from returns.result import Failure, Result, Success

from returns_pipeline.compensation import CompensationRegistry, current_key
from returns_pipeline.context import StepContext
from returns_pipeline.journal import SqliteJournal, recover
from returns_pipeline.result_stream import ResultStream
from returns_pipeline.retry import RetryPolicy
from returns_pipeline.testing import timed

registry = CompensationRegistry()
place = Path()
left = -1  # points until the process is killed


def point() -> None:
    """Die here, if it is this one's turn."""
    global left  # noqa: PLW0603  # the process's own
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def log(file: str, line: str) -> None:
    """Write a line that survives the process."""
    with (place / file).open("a") as lines:
        lines.write(f"{line}\n")


@registry.compensation("delete", retry=RetryPolicy(attempts=3, wait=0.0))
async def delete(name: str) -> None:
    """Take an effect back; it may never have happened."""
    point()
    log("undone", f"{name} {current_key()}")
    (place / "effects" / name).unlink(missing_ok=True)
    point()


class Points:
    """A journal with a point before and behind each of its writes."""

    def __init__(self, journal: SqliteJournal) -> None:
        self.journal = journal

    def __getattr__(self, name: str) -> object:
        inner = getattr(self.journal, name)
        if name not in {"record", "forget", "change"}:
            return inner

        async def call(*args: object, **kwargs: object) -> object:
            point()
            result = await inner(*args, **kwargs)
            point()
            return result

        return call


async def write(window: int, step: StepContext) -> Result[int, str]:
    """Write two files, each on record before; every third window then fails."""
    for part in "ab":
        name = f"{window}{part}"
        await step.register(delete, name)
        point()
        (place / "effects" / name).write_text(step.key)
        point()
    return Failure("no good") if window % 3 == 2 else Success(window)


async def forward(*, hold: bool) -> None:
    """Write five windows."""
    journal = SqliteJournal(place / "journal.db")
    change = Points(journal).change
    journal.change = change  # type: ignore[assignment, method-assign]  # marks go through it
    async with StepContext("windows", journal=Points(journal)) as ctx:  # type: ignore[arg-type]
        windows = ResultStream.of(timed(*range(5))).bind_step(write, ctx, hold=hold)
        collected = windows.tap(lambda window: None if hold else log("committed", str(window)))
        result = await ctx.run(collected.collect_all() if not hold else collected.collect())
        log("result", repr(result))
    await journal.close()


async def backward() -> None:
    """Undo what another process left."""
    journal = SqliteJournal(place / "journal.db")
    journal.change = Points(journal).change  # type: ignore[assignment, method-assign]
    for report in await recover(journal, registry):
        log("reports", repr(report))
    await journal.close()


def run(where: str, points: str, what: str) -> None:
    """Do what is asked for, in this process."""
    global place, left
    place, left = Path(where), int(points)
    asyncio.run(backward() if what == "backward" else forward(hold=what == "hold"))


def serve() -> None:
    """Fork a process for each line of the input, and say how it ended: imports are made once."""
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            try:
                run(*line.split())
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        _ = sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        _ = sys.stdout.flush()


if __name__ == "__main__":
    serve()
