"""``python -m returns_pipeline.journal``: what the person on call looks at, and puts right.

``list`` and ``show`` only look: they take nothing from anybody and create nothing. ``recover``
undoes what dead processes left open, ``retry`` and ``discard`` say what becomes of actions that
`recover` has parked. All of them may run while the program itself is at work.

The output for programs (``--json``) is described in the ``--help`` of each, and ``docs/sagas.md``
shows a session.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import re
import shutil
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import unquote

from returns_pipeline import journal as journals
from returns_pipeline.compensation import CompensationRegistry
from returns_pipeline.compensation.protocol import OperableJournal
from returns_pipeline.errors import InvalidArgument, JournalUnavailable, PipelineError
from returns_pipeline.journal._display import (
    STATES,
    as_json,
    counts,
    list_as_text,
    report_error,
    report_facts,
    reports_as_text,
    saga_as_text,
    saga_facts,
    short_ids,
    visible,
)
from returns_pipeline.journal._recovery import recover
from returns_pipeline.journal.sqlite._journal import SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from returns_pipeline.compensation import Compensation
    from returns_pipeline.compensation.protocol import StoredSaga

__all__ = ["hide_passwords", "load_registries", "main", "open_journal"]

FINE: Final = 0
WAITING: Final = 1  # what was asked about is stuck or deferred, or there was nothing to change
CANNOT: Final = 2  # as argparse has it
INTERRUPTED: Final = 130  # as a shell has it

# How long the program keeps what is done is not known here: nothing is dropped before its time.
_FOR_EVER: Final = 100 * 365 * 86_400.0  # seconds
_WIDTH: Final = 100  # columns, if there is no terminal that could say

_PROG: Final = "python -m returns_pipeline.journal"

_ABOUT: Final = """\
Look at a journal of undo actions, and put right what waits for a person.

An undo is pending until it has been carried out or its window is committed, stuck when its
attempts are used up or its arguments make no sense, deferred when it waits for a program that
knows its name and version, and done when it was carried out or discarded.
"""

_MORE: Final = """\
URL is a path, sqlite:FILE, sqlite:///ABSOLUTE/FILE, or postgresql://USER@HOST/DATABASE (give a
password by PGPASSWORD or a password file, or every user of the machine can see it in the list of
processes). SAGA is the id of a saga, or so much of its beginning that no other begins with it.

exit status:
  0    fine
  1    recover and list --check: something is stuck or deferred; retry and discard: nothing was
  2    it cannot be done: wrong usage, no such saga, a journal that is absent or cannot be read
  130  interrupted: the undo that was under way has been finished, nothing is left half done

examples:
  %(prog)s list orders.db
  %(prog)s list orders.db --state stuck --json
  %(prog)s list orders.db --check || page somebody
  %(prog)s show orders.db 3f2a
  %(prog)s recover orders.db --registry shop.orders:registry
  %(prog)s retry orders.db 3f2a
  %(prog)s discard orders.db 3f2a --reason "refunded by hand, ticket 4711"
"""

_JSON: Final = """\
--json writes one document to the standard output; fields may be added, and none is taken away.
Times are ISO 8601 in UTC.
"""

_LIST_JSON: Final = """\
  {"journal", "sagas": [{"id", "name", "began", "owner": "alive" | "dead" | "none",
   "owner_id", "counts": {"pending", "stuck", "deferred", "done"}, "last_error"}]}
"""

_SHOW_JSON: Final = """\
  {"journal", "saga": {as in list, and "actions": [{"id", "order", "name", "version",
   "arguments" (null if it is no JSON object), "arguments_text" (as recorded), "path", "key",
   "state", "attempts", "next_attempt", "error"}]}}
"""

_RECOVER_JSON: Final = """\
  {"journal", "reports": [{"saga", "name", "done": [ENTRY], "stuck": [ENTRY],
   "deferred": [ENTRY], "error" (why the journal let it go no further, or null)}]},
   where ENTRY is {"name", "call", "path", "error"}
"""

_RETRY_JSON: Final = '  {"journal", "saga", "retried": how many}\n'
_DISCARD_JSON: Final = '  {"journal", "saga", "discarded": how many, "reason"}\n'


def open_journal(
    url: str, *, schema: str | None = None, liveness: str | None = None
) -> OperableJournal:
    """Give the journal at an address. It must be there: none is created by looking.

    Args:
        url: A path, ``sqlite:`` with a path, ``sqlite:///`` with an absolute path, or the address
            of a PostgreSQL database.
        schema: Of a database: where its tables are, if the program says so, too.
        liveness: Of a database: as the program says, if it does.

    Raises:
        InvalidArgument: The address makes no sense, or an option does not go with it.
        JournalUnavailable: There is no such file.
        MissingExtra: It needs a package that is not installed.
    """
    scheme, colon, rest = url.partition(":")
    given = {"schema": schema, "liveness": liveness}
    # Any: the journal itself says what they may be.
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if colon and scheme in {"postgres", "postgresql"}:
        return journals.PostgresJournal(url, retention=_FOR_EVER, **options)
    if options:
        raise InvalidArgument(f"--{next(iter(options))} is for journals in PostgreSQL")
    path = url
    if colon and scheme == "sqlite":
        path = _path_of(rest)
    elif rest.startswith("//"):
        raise InvalidArgument(f"no journal has an address of the kind {scheme}://")
    if not path:
        raise InvalidArgument("the address of the journal is empty")
    file = Path(path).absolute()
    if not file.exists():
        raise JournalUnavailable(str(file), "there is no such file")
    return SqliteJournal(file, retention=_FOR_EVER)


def _path_of(rest: str) -> str:
    """Give the path in an address, from behind ``sqlite:``."""
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host or not slash:
            raise InvalidArgument(
                "sqlite:// wants three slashes and an absolute path, or none: sqlite:FILE"
            )
        rest = f"/{path.lstrip('/')}"
    if "?" in rest:
        raise InvalidArgument("an address of SQLite takes no parameters behind a '?'")
    return unquote(rest)


def hide_passwords(text: str) -> str:
    """Replace each password in an address by asterisks."""
    text = re.sub(r"(://[^:@/\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"(password=)[^&\s'\"]+", r"\1***", text)


class _Registries(CompensationRegistry):
    """Several registries as one."""

    def __init__(self, known: dict[str, Compensation[...]]) -> None:
        super().__init__()
        self._all = known

    def __getitem__(self, name: str) -> Compensation[...]:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


def load_registries(places: Sequence[str]) -> CompensationRegistry:
    """Import registries, each given as ``module:attribute``, and give them as one.

    Raises:
        InvalidArgument: One cannot be imported or is no `CompensationRegistry`, or two of them
            have different compensations under one name.
    """
    known: dict[str, Compensation[...]] = {}
    origin: dict[str, str] = {}
    for place in places:
        for name, undo in _load(place).items():
            if known.setdefault(name, undo) is not undo:
                raise InvalidArgument(
                    f"registries {origin[name]} and {place} both have a {name!r}, and not the same"
                )
            _ = origin.setdefault(name, place)
    return _Registries(known)


def _load(place: str) -> CompensationRegistry:
    module, _, attribute = place.partition(":")
    if not module or not attribute:
        raise InvalidArgument(f"registry {place!r} is not of the form module:attribute")
    try:
        found: object = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        # A stranger's code: whatever it raises, it is not there.
        where = traceback.extract_tb(error.__traceback__)[-1]
        at = "" if "importlib" in where.filename else f" ({where.filename}:{where.lineno})"
        raise InvalidArgument(f"registry {place!r} cannot be imported: {error!r}{at}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise InvalidArgument(f"registry {place!r}: there is no {name!r}")
        found = getattr(found, name)
    if not isinstance(found, CompensationRegistry):
        kind = type(found).__qualname__
        raise InvalidArgument(f"registry {place!r} is no CompensationRegistry, but of type {kind}")
    return found


class _Asked(argparse.Namespace):
    """What was typed."""

    verb: str
    url: str
    json: bool = False
    schema: str | None = None
    liveness: str | None = None
    saga: str = ""
    states: list[str] | None = None
    all: bool = False
    check: bool = False
    registries: list[str]
    reason: str = ""


class _Parser(argparse.ArgumentParser):
    """Complains in one line, in which no password stands."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{message} (see {self.prog} --help)")
        self.exit(CANNOT)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROG,
        description=_ABOUT,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, about: str, fields: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name,
            help=about[0].lower() + about[1:].rstrip("."),
            description=about,
            epilog=f"{_JSON}{fields}\n{_MORE}".replace("%(prog)s", _PROG),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _ = made.add_argument("url", metavar="URL", help="where the journal is")
        _ = made.add_argument("--json", action="store_true", help="for programs")
        of_database = made.add_argument_group("of a journal in PostgreSQL, as the program has them")
        _ = of_database.add_argument("--schema", metavar="NAME", help="where its tables are")
        _ = of_database.add_argument("--liveness", choices=("session", "lease"))
        return made

    listing = verb("list", "List sagas that are not done, the newest first.", _LIST_JSON)
    _ = listing.add_argument(
        "--state",
        dest="states",
        action="append",
        choices=STATES,
        help="only sagas with an action in this state; may be given several times",
    )
    _ = listing.add_argument("--all", action="store_true", help="also sagas that are all done")
    _ = listing.add_argument(
        "--check", action="store_true", help="end with status 1 if one of them is stuck or deferred"
    )
    showing = verb("show", "Show all that is known of a saga.", _SHOW_JSON)
    _ = showing.add_argument("saga", metavar="SAGA")
    recovering = verb("recover", "Undo what dead processes left open.", _RECOVER_JSON)
    _ = recovering.add_argument(
        "--registry",
        dest="registries",
        action="append",
        required=True,
        metavar="MODULE:ATTRIBUTE",
        help="a CompensationRegistry of the program; may be given several times",
    )
    about = "Let what is stuck or deferred in a saga be tried again by the next recover."
    retrying = verb("retry", about, _RETRY_JSON)
    _ = retrying.add_argument("saga", metavar="SAGA")
    about = "Give up what is stuck or deferred in a saga. It stays listed, with the reason."
    discarding = verb("discard", about, _DISCARD_JSON)
    _ = discarding.add_argument("saga", metavar="SAGA")
    _ = discarding.add_argument(
        "--reason", required=True, metavar="TEXT", help="why, for those who look later"
    )
    return parser


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is written, for a person and for a program, and the exit status."""

    text: str
    document: dict[str, object]
    status: int = FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is asked for and give the exit status.

    Args:
        argv: The arguments; by default those of the process.

    Raises:
        SystemExit: After ``--help``, and when the arguments make no sense.
    """
    try:
        asked = _parser().parse_args(argv, namespace=_Asked())
        answer = _answer(asked)
        _write(as_json(answer.document) if asked.json else answer.text)
    except SystemExit:
        _write("")  # what --help has written
        raise
    except KeyboardInterrupt:
        _complain("interrupted; what was not undone is still on record")
        return INTERRUPTED
    except (PipelineError, OSError) as error:
        _complain(str(error))
        return CANNOT
    except Exception:  # noqa: BLE001  # ours or a driver's: not to be taken for "stuck"
        _complain(traceback.format_exc(), lines=True)
        return CANNOT
    return answer.status


def _answer(asked: _Asked) -> _Answer:
    if asked.verb == "recover":
        # What the program's own code prints must not get into the answer.
        with contextlib.redirect_stdout(sys.stderr):
            registry = load_registries(asked.registries)
            return asyncio.run(_with_journal(asked, lambda j, url: _recover(j, url, registry)))
    if asked.verb == "discard" and not asked.reason.strip():
        raise InvalidArgument("--reason must say why")
    work = {"list": _list, "show": _show, "retry": _retry, "discard": _discard}[asked.verb]
    return asyncio.run(_with_journal(asked, lambda journal, url: work(journal, url, asked)))


async def _with_journal(
    asked: _Asked, work: Callable[[OperableJournal, str], Awaitable[_Answer]]
) -> _Answer:
    journal = open_journal(asked.url, schema=asked.schema, liveness=asked.liveness)
    url = hide_passwords(asked.url)
    try:
        return await work(journal, url)
    except OSError as error:
        raise JournalUnavailable(url, str(error)) from error
    finally:
        await journal.close()  # what a recovery had taken over is free for the next


async def _list(journal: OperableJournal, url: str, asked: _Asked) -> _Answer:
    sagas = await journal.sagas()
    short = short_ids(saga.id for saga in sagas)
    wanted = set(asked.states or (STATES if asked.all else STATES[:-1]))
    shown = [saga for saga in sagas if any(action.state in wanted for action in saga.actions)]
    every = counts(action for saga in shown for action in saga.actions)
    return _Answer(
        list_as_text(shown, short, now=time.time(), width=_width()),
        {"journal": url, "sagas": [saga_facts(saga, actions=False) for saga in shown]},
        WAITING if asked.check and (every["stuck"] or every["deferred"]) else FINE,
    )


async def _show(journal: OperableJournal, url: str, asked: _Asked) -> _Answer:
    saga = _find(await journal.sagas(), asked.saga)
    return _Answer(
        saga_as_text(saga, now=time.time(), width=_width()),
        {"journal": url, "saga": saga_facts(saga, actions=True)},
    )


async def _recover(journal: OperableJournal, url: str, registry: CompensationRegistry) -> _Answer:
    reports = await recover(journal, registry)
    failed = any(report_error(report) is not None for report in reports)
    left = any(report.stuck or report.deferred for report in reports)
    return _Answer(
        reports_as_text(reports, width=_width()),
        {"journal": url, "reports": [report_facts(report) for report in reports]},
        CANNOT if failed else WAITING if left else FINE,
    )


async def _retry(journal: OperableJournal, url: str, asked: _Asked) -> _Answer:
    saga = _find(await journal.sagas(), asked.saga)
    count = await journal.retry(saga.id)
    document: dict[str, object] = {"journal": url, "saga": saga.id, "retried": count}
    return _changed(document, saga, count, "to be tried again by the next recover")


async def _discard(journal: OperableJournal, url: str, asked: _Asked) -> _Answer:
    saga = _find(await journal.sagas(), asked.saga)
    count = await journal.discard(saga.id, asked.reason)
    document: dict[str, object]
    document = {"journal": url, "saga": saga.id, "discarded": count, "reason": asked.reason}
    return _changed(document, saga, count, "discarded, and listed with the reason")


def _changed(document: dict[str, object], saga: StoredSaga, count: int, how: str) -> _Answer:
    if not count:
        # A journal leaves to an owner that lives what it has not given up.
        owner = ", or its owner is alive and has it in hand" if saga.alive else ""
        return _Answer(
            f"Nothing in saga {saga.id} is stuck or deferred{owner}.\n", document, WAITING
        )
    actions = "1 action" if count == 1 else f"{count} actions"
    return _Answer(f"Saga {saga.id}: {actions} {how}.\n", document)


def _find(sagas: Sequence[StoredSaga], beginning: str) -> StoredSaga:
    """Give the saga of this id, or the only one whose id begins so."""
    found = [saga for saga in sagas if saga.id.startswith(beginning)] if beginning else []
    found = [saga for saga in found if saga.id == beginning] or found
    if not found:
        raise InvalidArgument(f"there is no saga {beginning!r}; list --all shows those there are")
    if len(found) > 1:
        ids = ", ".join([saga.id for saga in found[:4]] + ["..."] * (len(found) > 4))
        raise InvalidArgument(f"{len(found)} sagas begin with {beginning!r}: {ids}")
    return found[0]


def _width() -> int:
    """Give the columns there are: of the terminal, or as COLUMNS says."""
    return shutil.get_terminal_size((_WIDTH, 24)).columns


def _write(text: str) -> None:
    """Write to the standard output; nothing is wrong if nobody reads on."""
    out = sys.stdout
    encoding = out.encoding or "utf-8"
    try:
        _ = out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()
    except BrokenPipeError:
        # What is still held would fail again when Python ends: let it go nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        _ = os.dup2(nowhere, out.fileno())
        os.close(nowhere)


def _complain(message: str, *, lines: bool = False) -> None:
    """Write to the standard error: one line, unless it is a traceback."""
    safe = "\n".join(map(visible, message.splitlines())) if lines else visible(message)
    with contextlib.suppress(BrokenPipeError):
        _ = sys.stderr.write(f"{hide_passwords(safe)}\n")
        sys.stderr.flush()
