"""``python -m returns_pipeline.journal``: the command line for the person on call.

``list`` and ``show`` only read: they take nothing from any process and create nothing. ``recover``
undoes the actions that dead processes left behind. ``retry`` and ``discard`` settle actions that
`recover` has given up. ``positions`` shows and forgets what sources have handled. All of them may
run while the program itself is running.

The output for programs (``--json``) is described in the ``--help`` of each, and ``docs/sagas.md``
shows a session.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from returns_pipeline.compensation import CompensationRegistry
from returns_pipeline.compensation._internals import printable
from returns_pipeline.compensation.protocol import OperableJournal, StoredSaga
from returns_pipeline.errors import InvalidArgument, JournalUnavailable, PipelineError
from returns_pipeline.journal._addresses import hide_passwords, open_journal
from returns_pipeline.journal._display import (
    STATES,
    as_json,
    counts,
    list_as_text,
    needs_recovery,
    positions_as_text,
    positions_facts,
    report_error,
    report_facts,
    reports_as_text,
    saga_as_text,
    saga_facts,
    short_ids,
)
from returns_pipeline.journal._parser import USAGE, Options, parser
from returns_pipeline.journal._recovery import recover
from returns_pipeline.journal._registries import find_registries, made_registries

__all__ = ["main"]

FINE: Final = 0
WAITING: Final = 1  # something needs a person, or there was nothing to change
CANNOT: Final = USAGE
INTERRUPTED: Final = 130  # as a shell has it

_WIDTH: Final = 100  # columns, if there is no terminal to ask


@dataclass(frozen=True, slots=True)
class _Answer:
    """The output for a person, the output for a program, and the exit status."""

    text: str
    document: dict[str, object]
    status: int = FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command, and return the exit status.

    Args:
        argv: The arguments; by default those of the process.

    Raises:
        SystemExit: After ``--help``, and for wrong usage.
    """
    try:
        options = parser(_complain).parse_args(argv, namespace=Options())
        answer = _answer(options)
        _write(as_json(answer.document) if options.json else answer.text)
    except SystemExit:
        _write("")  # flush what --help has written
        raise
    except KeyboardInterrupt:
        _complain("interrupted; what was not undone is still on record")
        return INTERRUPTED
    except (PipelineError, OSError) as error:
        _complain(str(error))
        return CANNOT
    except Exception:  # noqa: BLE001  # ours or a driver's: its status must not mean "stuck"
        _complain(traceback.format_exc(), lines=True)
        return CANNOT
    return answer.status


def _answer(options: Options) -> _Answer:
    if options.verb == "recover":
        # The program's own code may print: that must not become a part of the answer.
        with contextlib.redirect_stdout(sys.stderr):
            found = find_registries(options.registries)

            async def recovered(journal: OperableJournal, url: str) -> _Answer:
                async with made_registries(found) as registry:
                    return await _recover(journal, url, registry, options.concurrency)

            return asyncio.run(_with_journal(options, recovered))
    if options.verb == "discard" and not options.reason.strip():
        raise InvalidArgument("--reason must say why")
    verbs = {
        "list": _list,
        "show": _show,
        "retry": _retry,
        "discard": _discard,
        "positions list": _positions,
        "positions forget": _forget,
    }
    work = verbs[f"{options.verb} {options.act}".rstrip()]
    return asyncio.run(_with_journal(options, lambda journal, url: work(journal, url, options)))


async def _with_journal(
    options: Options, work: Callable[[OperableJournal, str], Awaitable[_Answer]]
) -> _Answer:
    journal = open_journal(options.url, schema=options.schema, liveness=options.liveness)
    url = hide_passwords(options.url)
    try:
        return await work(journal, url)
    except OSError as error:
        raise JournalUnavailable(url, str(error)) from error
    finally:
        await journal.close()  # this releases the sagas that a recovery has taken over


async def _list(journal: OperableJournal, url: str, options: Options) -> _Answer:
    sagas = await journal.sagas(done=options.all or "done" in (options.states or ()))
    short = short_ids(saga.id for saga in sagas)
    wanted = set(options.states or (STATES if options.all else STATES[:-1]))
    shown = [saga for saga in sagas if any(action.state in wanted for action in saga.actions)]
    every = counts(action for saga in shown for action in saga.actions)
    waiting = every["stuck"] or every["deferred"] or any(map(needs_recovery, shown))
    return _Answer(
        list_as_text(shown, short, now=time.time(), width=_width()),
        {"journal": url, "sagas": [saga_facts(saga, actions=False) for saga in shown]},
        WAITING if options.check and waiting else FINE,
    )


async def _show(journal: OperableJournal, url: str, options: Options) -> _Answer:
    saga = await _find(journal, options.saga)
    return _Answer(
        saga_as_text(saga, now=time.time(), width=_width()),
        {"journal": url, "saga": saga_facts(saga, actions=True)},
    )


async def _recover(
    journal: OperableJournal, url: str, registry: CompensationRegistry, concurrency: int
) -> _Answer:
    reports = await recover(journal, registry, concurrency=concurrency)
    failed = any(report_error(report) is not None for report in reports)
    left = any(report.stuck or report.deferred for report in reports)
    return _Answer(
        reports_as_text(reports, width=_width()),
        {"journal": url, "reports": [report_facts(report) for report in reports]},
        CANNOT if failed else WAITING if left else FINE,
    )


async def _retry(journal: OperableJournal, url: str, options: Options) -> _Answer:
    saga = await _find(journal, options.saga)
    count = await journal.retry(saga.id)
    document: dict[str, object] = {"journal": url, "saga": saga.id, "retried": count}
    return _changed(document, saga, count, "to be tried again by the next recover")


async def _discard(journal: OperableJournal, url: str, options: Options) -> _Answer:
    saga = await _find(journal, options.saga)
    count = await journal.discard(saga.id, options.reason)
    document: dict[str, object]
    document = {"journal": url, "saga": saga.id, "discarded": count, "reason": options.reason}
    return _changed(document, saga, count, "discarded, and listed with the reason")


async def _positions(journal: OperableJournal, url: str, _: Options) -> _Answer:
    stored = await journal.stored_positions()
    return _Answer(
        positions_as_text(stored, width=_width()),
        {"journal": url, "positions": [positions_facts(each) for each in stored]},
    )


async def _forget(journal: OperableJournal, url: str, options: Options) -> _Answer:
    if options.all == bool(options.partitions):
        raise InvalidArgument("say which partitions to forget, or --all")
    partitions = None if options.all else options.partitions
    forgotten = await journal.forget_positions(options.source, partitions)
    document: dict[str, object]
    document = {"journal": url, "source": options.source, "forgotten": forgotten}
    source = printable(options.source)
    if not forgotten:
        return _Answer(f"Nothing of this is stored of source {source}.\n", document, WAITING)
    names = ", ".join(map(printable, forgotten))
    return _Answer(f"Source {source}: the positions of {names} are forgotten.\n", document)


def _changed(document: dict[str, object], saga: StoredSaga, count: int, how: str) -> _Answer:
    shown = printable(saga.id)
    if not count:
        # A living owner keeps the actions that it has not given up.
        owner = ", or its owner is alive and works on it" if saga.alive else ""
        return _Answer(f"Nothing in saga {shown} is stuck or deferred{owner}.\n", document, WAITING)
    actions = "1 action" if count == 1 else f"{count} actions"
    return _Answer(f"Saga {shown}: {actions} {how}.\n", document)


async def _find(journal: OperableJournal, beginning: str) -> StoredSaga:
    """Return the saga of this id, or the only one whose id begins with it.

    Those that are not done are looked at first: the others may be many.
    """
    found: list[StoredSaga] = []
    for done in (False, True) if beginning else ():
        if not found:
            sagas = await journal.sagas(done=done)
            found = [saga for saga in sagas if saga.id.startswith(beginning)]
    found = [saga for saga in found if saga.id == beginning] or found
    if not found:
        raise InvalidArgument(f"there is no saga {beginning!r}; list --all shows those there are")
    if len(found) > 1:
        ids = ", ".join([saga.id for saga in found[:4]] + ["..."] * (len(found) > 4))
        raise InvalidArgument(f"{len(found)} sagas begin with {beginning!r}: {ids}")
    return found[0]


def _width() -> int:
    """Return how many columns the terminal has, or the variable COLUMNS says."""
    return shutil.get_terminal_size((_WIDTH, 24)).columns


def _write(text: str) -> None:
    """Write to the standard output. A reader that closes early, like ``head``, is fine."""
    out = sys.stdout
    encoding = out.encoding or "utf-8"
    try:
        _ = out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()
    except BrokenPipeError:
        # What is still buffered would fail again when Python ends: send it nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        _ = os.dup2(nowhere, out.fileno())
        os.close(nowhere)


def _complain(message: str, *, lines: bool = False) -> None:
    """Write to the standard error: one line, unless it is a traceback."""
    safe = "\n".join(map(printable, message.splitlines())) if lines else printable(message)
    with contextlib.suppress(BrokenPipeError):
        _ = sys.stderr.write(f"{hide_passwords(safe)}\n")
        sys.stderr.flush()
