"""``python -m returns_pipeline.worker module:factory``: runs a worker, or several processes of it.

Exit codes: those of `WorkerReport.exit_code`; 1 after an exception; 2 if there is no such factory,
or it returns something else than a worker.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

from returns_pipeline.worker._early import EarlySignals

if TYPE_CHECKING:  # they are imported by `_work`: the parent of several processes needs none
    from returns_pipeline.worker._report import WorkerReport
    from returns_pipeline.worker._worker import Worker

__all__ = ["main"]

_log = logging.getLogger("returns_pipeline.worker")

_USAGE: Final = 2
_FORMAT: Final = "%(asctime)s %(levelname)s %(process)d %(message)s"


class _WrongUse(Exception):
    """The command line, or what it names, is not what it has to be."""


def main(arguments: Sequence[str], early: EarlySignals) -> int:
    """Run the command line, and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        host, ports = _addresses(options.health, options.processes)
    except ValueError:
        print(f"--health takes [HOST:]PORT, not {options.health!r}", file=sys.stderr)  # noqa: T201
        return _USAGE
    if options.processes > 1:
        # The module of the factory is imported by the children alone.
        from returns_pipeline.worker._supervisor import supervise  # noqa: PLC0415

        logging.basicConfig(level=logging.INFO, format=_FORMAT)
        base = [sys.executable, "-m", "returns_pipeline.worker", options.factory, "--with-parent"]
        commands = [
            [*base, *([] if port is None else ["--health", f"{host or ''}:{port}"])]
            for port in ports
        ]
        return asyncio.run(supervise(commands, early))
    if options.with_parent:
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        factory = _find(options.factory)
        logging.basicConfig(level=logging.INFO, format=_FORMAT)
        report = asyncio.run(_work(factory, options.factory, early, host, ports[0]))
    except _WrongUse as wrong:
        print(wrong, file=sys.stderr)  # noqa: T201
        return _USAGE
    except Exception:  # noqa: BLE001  # any exception of the user's code ends here
        _log.exception("the worker has failed")
        return 1
    return 0 if report is None else report.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m returns_pipeline.worker",
        description="Run a worker until SIGTERM or SIGINT; a second one cancels it.",
        epilog="Exit codes: 0 it has ended or drained; 1 an exception; 2 wrong use; 3 a failure of"
        " the pipeline; 4 of dead_letters; 5 draining took too long; 6 a second signal.",
    )
    _ = parser.add_argument(
        "factory",
        metavar="MODULE:FACTORY",
        help="a Worker; or a function that returns one, or an asynchronous context manager of one",
    )
    _ = parser.add_argument(
        "--processes",
        metavar="N",
        type=_processes,
        default=1,
        help="how many to run; one that dies is started again, after a wait",
    )
    _ = parser.add_argument(
        "--health",
        metavar="[HOST:]PORT",
        help="answer GET /live, /ready and /statistics; each process has a port, from this one on",
    )
    _ = parser.add_argument("--with-parent", action="store_true", help=argparse.SUPPRESS)
    return parser


def _processes(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"it must be a whole number, at least 1, not {text!r}")
    return int(text)


def _addresses(text: str | None, processes: int) -> tuple[str | None, list[int | None]]:
    """Return the host of ``[HOST:]PORT``, and the port of each process: from this one on.

    Port 0 is any free port, of each.
    """
    if text is None:
        return None, [None] * processes
    host, _, port = text.rpartition(":")
    first = int(port)
    if not 0 <= first <= 65_536 - processes:
        raise ValueError
    ports: list[int | None] = [first + number if first else 0 for number in range(processes)]
    return host.strip("[]") or None, ports


def _find(name: str) -> object:
    """Return what ``module:factory`` names.

    Raises:
        _WrongUse: There is none.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute or module.startswith(".") or "/" in module:
        raise _WrongUse(f"expected MODULE:FACTORY, such as shop.billing:worker, not {name!r}")
    try:
        found: object = import_module(module)
    except ModuleNotFoundError as error:
        # A module that the user's own lacks is another matter: its traceback is of use.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise _WrongUse(f"there is no module {error.name}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise _WrongUse(f"{module} has no {attribute}") from error
    return found


def _end_with_parent() -> None:
    """Wait until the parent has gone, which holds the other end of a pipe, and then drain."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


async def _work(
    factory: object, name: str, early: EarlySignals, host: str | None, port: int | None
) -> WorkerReport[object] | None:
    """Run one worker, unless a signal comes before it is made."""
    loop = asyncio.get_running_loop()
    task = cast("asyncio.Task[Any]", asyncio.current_task())
    stop = asyncio.Event()
    is_made = False

    def on_early() -> None:
        stop.set()
        if not is_made:  # what it waits for, such as a database, may never come
            _ = task.cancel()

    early.forward = lambda: loop.call_soon_threadsafe(on_early)
    async with AsyncExitStack() as stack:
        # A signal may come when the loop is closed already.
        _ = stack.callback(setattr, early, "forward", None)
        if early.came:
            return None
        try:
            worker = await stack.enter_async_context(_made(factory, name))
            if port is not None:
                from returns_pipeline.worker._health import serve_health  # noqa: PLC0415

                at = await stack.enter_async_context(serve_health(worker, port, host=host))
                _log.info("%r tells its health at port %d", worker, at)
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            _ = task.uncancel()
            _log.info("%s was stopped before there was a worker", name)
            return None
        is_made = True
        report = await worker.run(stop)
    stopped = report.stopped_by
    told = "" if report.failure is None else f": {_shown(report.failure)}"
    if report.partition is not None:
        told += f", in the pipeline of {report.partition}"
    if report.sink_failure is not None:
        told += f"; dead_letters: {report.sink_failure!r}"
    _log.log(
        logging.ERROR if stopped.exit_code else logging.INFO,
        "%r was stopped by: %s%s; %d handled, %d dead letters",
        worker,
        stopped.value,
        told,
        report.handled,
        report.dead,
    )
    return report


def _shown(failure: object) -> str:
    """Show a failure without the message that it is about: logs are read by many."""
    from returns_pipeline.connectors import DeadLetter  # noqa: PLC0415

    if not isinstance(failure, DeadLetter):
        return repr(failure)
    letter = cast("DeadLetter[object]", failure)
    return f"{letter.error!r} at {letter.message.partition} {letter.message.position}"


@asynccontextmanager
async def _made(factory: object, name: str) -> AsyncGenerator[Worker[object]]:
    """Return what the factory makes, for as long as the block runs.

    Raises:
        _WrongUse: It is not a worker.
    """
    from returns_pipeline.worker._worker import Worker  # noqa: PLC0415

    made: Any = factory
    if callable(factory) and not isinstance(factory, Worker):
        made = factory()
    if inspect.isawaitable(made):
        made = await made
    if inspect.isasyncgen(made):
        raise _WrongUse(f"{name} is a generator: decorate it with contextlib.asynccontextmanager")
    if isinstance(made, AbstractAsyncContextManager):
        async with cast("AbstractAsyncContextManager[object]", made) as worker:
            yield _checked(worker, name)
    else:
        yield _checked(made, name)


def _checked(made: object, name: str) -> Worker[object]:
    from returns_pipeline.worker._worker import Worker  # noqa: PLC0415

    if not isinstance(made, Worker):
        raise _WrongUse(f"{name} returned {made!r}, which is not a Worker")
    return cast("Worker[object]", made)
