"""The arguments of ``python -m returns_pipeline.journal``, and the text of its help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, NoReturn

from returns_pipeline.journal._display import STATES

__all__ = ["USAGE", "Options", "parser"]

USAGE: Final = 2  # the exit status of argparse for wrong usage

_PROG: Final = "python -m returns_pipeline.journal"

_ABOUT: Final = """\
Show a journal of undo actions, and settle those that need a person.

An undo is pending until it is run or its window is committed; stuck if its attempts are used up
or its arguments cannot be read; deferred if it waits for a program that knows its name and
version; done if it was run or discarded.
"""

_MORE: Final = """\
URL is a path, sqlite:FILE, sqlite:///ABSOLUTE/FILE, or postgresql://USER@HOST/DATABASE (pass a
password in PGPASSWORD or a password file; otherwise every user of the machine can see it in the
list of processes). SAGA is the id of a saga, or a beginning that no other id has.

exit status:
  0    fine
  1    recover: something is stuck or deferred; list --check: the same, or something is pending
       without a living owner; retry and discard: nothing was stuck or deferred; positions
       forget: nothing was stored
  2    an error: wrong usage, no such saga, a journal that is absent or cannot be read
  130  interrupted: the undo that was under way was finished, nothing is left half done

examples:
  %(prog)s list orders.db
  %(prog)s list orders.db --state stuck --json
  %(prog)s list orders.db --check || page-the-person-on-call
  %(prog)s show orders.db 3f2a
  %(prog)s recover orders.db --registry shop.orders:registry
  %(prog)s retry orders.db 3f2a
  %(prog)s discard orders.db 3f2a --reason "refunded by hand, ticket 4711"
  %(prog)s positions list orders.db
  %(prog)s positions forget orders.db "kafka orders/billing" orders-3
"""

_JSON: Final = """\
--json writes one document to the standard output; fields may be added, and none is removed.
Times are ISO 8601 in UTC.
"""

_LIST_JSON: Final = """\
  {"journal", "sagas": [{"id", "name", "began", "owner": "alive" | "dead" | "none",
   "owner_id", "counts": {"pending", "stuck", "deferred", "done"}, "last_error"}]}
"""

_SHOW_JSON: Final = """\
  {"journal", "saga": {as in list, and "actions": [{"id", "order", "name", "version",
   "arguments" (null if it is not a JSON object), "arguments_text" (as recorded), "path", "key",
   "state", "attempts", "next_attempt", "error"}]}}
"""

_RECOVER_JSON: Final = """\
  {"journal", "reports": [{"saga", "name", "done": [ENTRY], "stuck": [ENTRY],
   "deferred": [ENTRY], "error" (of the journal, that ended the work on it, or null)}]},
   where ENTRY is {"name", "call", "path", "error"}
"""

_RETRY_JSON: Final = '  {"journal", "saga", "retried": how many}\n'
_DISCARD_JSON: Final = '  {"journal", "saga", "discarded": how many, "reason"}\n'

_POSITIONS_JSON: Final = """\
  {"journal", "positions": [{"source", "partition", "epoch", "handled" (up to and including this
   position, or null), "time" (of the message there, or null), "beyond": [[after, last]] (what was
   handled after a gap)}]}
"""

_FORGET_JSON: Final = '  {"journal", "source", "forgotten": [partition]}\n'


class Options(argparse.Namespace):
    """The parsed arguments."""

    verb: str
    act: str = ""
    url: str
    json: bool = False
    schema: str | None = None
    liveness: str | None = None
    saga: str = ""
    states: list[str] | None = None
    all: bool = False
    check: bool = False
    registries: list[str]
    concurrency: int = 1
    reason: str = ""
    source: str = ""
    partitions: list[str]


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line."""

    report: Callable[[str], object] = print

    def error(self, message: str) -> NoReturn:
        _ = self.report(f"{message} (see {self.prog} --help)")
        self.exit(USAGE)


def parser(report: Callable[[str], object]) -> argparse.ArgumentParser:
    """Return the parser.

    Args:
        report: Called with the message if the usage is wrong.
    """

    class Parser(_Parser):
        """Also for each verb, because argparse makes their parsers of the same class."""

    Parser.report = staticmethod(report)
    made = Parser(
        prog=_PROG,
        description=_ABOUT,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(name: str, about: str, fields: str, among: Any = verbs) -> argparse.ArgumentParser:
        verb: argparse.ArgumentParser = among.add_parser(
            name,
            help=about[0].lower() + about[1:].rstrip("."),
            description=about,
            epilog=f"{_JSON}{fields}\n{_MORE}".replace("%(prog)s", _PROG),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _ = verb.add_argument("url", metavar="URL", help="where the journal is")
        _ = verb.add_argument("--json", action="store_true", help="for programs")
        of_database = verb.add_argument_group("of a journal in PostgreSQL, as the program has them")
        _ = of_database.add_argument("--schema", metavar="NAME", help="where its tables are")
        _ = of_database.add_argument("--liveness", choices=("session", "lease"))
        return verb

    listing = add("list", "List sagas that are not done, the newest first.", _LIST_JSON)
    _ = listing.add_argument(
        "--state",
        dest="states",
        action="append",
        choices=STATES,
        help="only sagas with an action in this state; may be given several times",
    )
    _ = listing.add_argument("--all", action="store_true", help="also sagas that are all done")
    _ = listing.add_argument(
        "--check",
        action="store_true",
        help="end with status 1 if one of them needs a person, or a recover",
    )
    showing = add("show", "Show everything that is known of a saga.", _SHOW_JSON)
    _ = showing.add_argument("saga", metavar="SAGA")
    recovering = add("recover", "Undo the actions that dead processes left behind.", _RECOVER_JSON)
    _ = recovering.add_argument(
        "--registry",
        dest="registries",
        action="append",
        required=True,
        metavar="MODULE:ATTRIBUTE",
        help="a CompensationRegistry of the program, or a function that returns one, or an "
        "asynchronous context manager of one; may be given several times",
    )
    _ = recovering.add_argument(
        "--concurrency",
        type=int,
        default=1,
        metavar="N",
        help="how many sagas are worked on at the same time; by default one after the other",
    )
    about = "Make the stuck and deferred actions of a saga pending, for the next recover."
    retrying = add("retry", about, _RETRY_JSON)
    _ = retrying.add_argument("saga", metavar="SAGA")
    about = "Discard the stuck and deferred actions of a saga. They stay listed, with the reason."
    discarding = add("discard", about, _DISCARD_JSON)
    _ = discarding.add_argument("saga", metavar="SAGA")
    _ = discarding.add_argument(
        "--reason", required=True, metavar="TEXT", help="why, for people who read it later"
    )
    about = "Show which positions of sources are stored, and forget them."
    both = verbs.add_parser("positions", help=about[0].lower() + about[1:-1], description=about)
    acts = both.add_subparsers(dest="act", required=True, metavar="list|forget")
    about = "List which positions of sources are stored with the commits of their windows."
    _ = add("list", about, _POSITIONS_JSON, acts)
    about = (
        "Forget the positions of partitions of a source, such as those of a topic that was made "
        "again. Stop its readers first: the next ones read on where the broker has them begin, "
        "and do again what it delivers again."
    )
    forgetting = add("forget", about, _FORGET_JSON, acts)
    _ = forgetting.add_argument("source", metavar="SOURCE", help="as list shows it")
    _ = forgetting.add_argument("partitions", metavar="PARTITION", nargs="*", help="the same")
    _ = forgetting.add_argument("--all", action="store_true", help="all partitions of the source")
    return made
