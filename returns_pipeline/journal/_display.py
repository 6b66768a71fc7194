r"""How a journal is shown to a person and to a program: as plain text, and as JSON.

The contents of a journal were written by programs, and some of them by strangers: ids, names,
arguments, errors. A character that is not printable never reaches a terminal, and never breaks a
line or a table: it is shown as Python would escape it (``\x1b``).
"""

from __future__ import annotations

import json
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from returns_pipeline.compensation import CompensationEntry
from returns_pipeline.compensation._internals import printable
from returns_pipeline.compensation.protocol import (
    RecoveryReport,
    StoredAction,
    StoredPositions,
    StoredSaga,
)
from returns_pipeline.journal._arguments import shown

__all__ = [
    "STATES",
    "as_json",
    "counts",
    "list_as_text",
    "needs_recovery",
    "positions_as_text",
    "positions_facts",
    "report_error",
    "report_facts",
    "reports_as_text",
    "saga_as_text",
    "saga_facts",
    "short_ids",
]

STATES: Final = ("pending", "stuck", "deferred", "done")
_LABEL: Final = 12  # columns before the values of `show`
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))

# The error of an undo is any object, and its repr() may be long, or raise.
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 1_000


# The contents of a saga.


def counts(actions: Iterable[StoredAction]) -> dict[str, int]:
    """Count actions by state; every state is a key."""
    found = Counter(action.state for action in actions)
    return {state: found[state] for state in STATES}


def short_ids(ids: Iterable[str], *, least: int = 8) -> dict[str, str]:
    """Return the shortest unique beginning of each id."""
    ordered = sorted(ids)
    short: dict[str, str] = {}
    for index, one in enumerate(ordered):
        neighbours = ordered[max(0, index - 1) : index] + ordered[index + 1 : index + 2]
        length = max([least, *(_common(one, other) + 1 for other in neighbours)])
        short[one] = one[:length]
    return short


def _common(one: str, other: str) -> int:
    length = 0
    while one[: length + 1] == other[: length + 1] and length < len(one):
        length += 1
    return length


def needs_recovery(saga: StoredSaga) -> bool:
    """Return whether it has pending actions and no living owner."""
    return not saga.alive and counts(saga.actions)["pending"] > 0


def _owner(saga: StoredSaga) -> str:
    if not saga.owner:
        return "none"
    return "alive" if saga.alive else "dead"


def _last_error(saga: StoredSaga) -> StoredAction | None:
    """Return the failed action to look at first: stuck, then deferred, then others."""
    order = {"stuck": 0, "deferred": 1, "pending": 2}
    failed = [action for action in saga.actions if action.error]
    return min(failed, key=lambda action: order.get(action.state, 3), default=None)


def _arguments(text: str) -> dict[str, Any] | None:
    """Parse recorded arguments; ``None`` if they are not an object of strict JSON."""

    def refuse(constant: str) -> object:
        raise ValueError(constant)

    try:
        read: object = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None  # pyright: ignore[reportUnknownVariableType]


def _instant(seconds: float) -> str | None:
    """Return a time since 1970 in ISO 8601 and UTC; ``None`` if there is no such time."""
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# For programs.


def as_json(document: Mapping[str, object]) -> str:
    """Return a document as text, with printable ASCII and line ends only."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def saga_facts(saga: StoredSaga, *, actions: bool) -> dict[str, object]:
    """Return a saga for JSON, with its actions or without."""
    failed = _last_error(saga)
    facts: dict[str, object] = {
        "id": saga.id,
        "name": saga.name,
        "began": _instant(saga.began),
        "owner": _owner(saga),
        "owner_id": saga.owner or None,
        "counts": counts(saga.actions),
        "last_error": None if failed is None else failed.error,
    }
    if actions:
        facts["actions"] = [_action_facts(n, action) for n, action in enumerate(saga.actions, 1)]
    return facts


def _action_facts(order: int, action: StoredAction) -> dict[str, object]:
    return {
        "id": action.id,
        "order": order,
        "name": action.name,
        "version": action.version,
        "arguments": _arguments(shown(action.arguments)),
        "arguments_text": shown(action.arguments),
        "path": action.path,
        "key": action.key,
        "state": action.state,
        "attempts": action.attempts,
        "next_attempt": _instant(action.next_attempt) if action.next_attempt else None,
        "error": action.error or None,
    }


def positions_facts(stored: StoredPositions) -> dict[str, object]:
    """Return the positions of a partition, for JSON."""
    mark = stored.spans.mark
    return {
        "source": stored.source,
        "partition": stored.partition,
        "epoch": stored.epoch,
        "handled": None if mark is None else list(mark.last),
        "time": None if mark is None or mark.stamp is None else _instant(mark.stamp),
        "beyond": [[list(each.after), list(each.last)] for each in stored.spans if each != mark],
    }


def report_error(report: RecoveryReport) -> str | None:
    """Return the error of the journal that ended the work on a saga, if one did."""
    return None if report.error is None else str(report.error)


def report_facts(report: RecoveryReport) -> dict[str, object]:
    """Return the outcome of a saga, for JSON."""
    return {
        "saga": report.saga,
        "name": report.name,
        "done": [_entry_facts(entry) for entry in report.done],
        "stuck": [_entry_facts(entry) for entry in report.stuck],
        "deferred": [_entry_facts(entry) for entry in report.deferred],
        "error": report_error(report),
    }


def _entry_facts(entry: CompensationEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "call": str(entry),
        "path": entry.scope,
        "error": None if entry.error is None else _error(entry.error),
    }


def _error(error: object) -> str:
    return error if isinstance(error, str) else _brief.repr(error)


# For people.


def list_as_text(
    sagas: Sequence[StoredSaga], short: Mapping[str, str], *, now: float, width: int
) -> str:
    """Return a line for each saga, and one for its error.

    Args:
        sagas: To be listed, in this order.
        short: The id that is shown for each.
        now: The time, in seconds since 1970.
        width: Columns; names and errors are cut to fit.
    """
    if not sagas:
        return "No saga to show.\n"
    head = ["SAGA", "NAME", "AGE", "OWNER", *map(str.upper, STATES)]
    rows = [
        [
            printable(short[saga.id]),
            printable(saga.name),
            _age(now - saga.began),
            _owner(saga),
            *map(str, counts(saga.actions).values()),
        ]
        for saga in sagas
    ]
    others = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    room = max(12, width - sum(others[:1] + others[2:]) - 2 * (len(head) - 1))
    widest = max(len(head[1]), *(_columns(row[1]) for row in rows))
    others[1] = min(widest, room)
    lines = [_row(head, others)]
    for saga, row in zip(sagas, rows, strict=True):
        lines.append(_row(row, others))
        if (failed := _last_error(saga)) is not None:
            text = f"{_call(failed, 40)}: {printable(failed.error)}"
            indent = " " * (others[0] + 2)
            lines.append(indent + _cut(text, max(12, width - len(indent))))
    return "".join(f"{line}\n" for line in [*lines, *_summary(sagas)])


def positions_as_text(stored: Sequence[StoredPositions], *, width: int) -> str:
    """Return a line for each partition: up to where it was handled, and how much after a gap.

    Args:
        stored: To be listed, in this order.
        width: Columns; a line is cut to fit.
    """
    if not stored:
        return "No positions are stored.\n"
    table = [["SOURCE", "PARTITION", "HANDLED UP TO", "OF", "AFTER A GAP", "TAKEN"]]
    for each in stored:
        mark = each.spans.mark
        beyond = len(each.spans) - (mark is not None)
        table.append(
            [
                printable(each.source),
                printable(each.partition),
                "-" if mark is None else ".".join(map(str, mark.last)),
                (mark is not None and mark.stamp is not None and _instant(mark.stamp)) or "-",
                _number(beyond, "stretch") if beyond == 1 else f"{beyond} stretches",
                str(each.epoch),
            ]
        )
    widths = [max(map(_columns, column)) for column in zip(*table, strict=True)]
    return "".join(f"{_cut(_row(row, widths), width)}\n" for row in table)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    made: list[str] = []
    for place, (cell, room) in enumerate(zip(cells, widths, strict=True)):
        text = _cut(cell, room)
        fill = " " * (room - _columns(text))
        made.append(fill + text if place > 3 else text + fill)  # numbers
    return "  ".join(made).rstrip()


def _summary(sagas: Sequence[StoredSaga]) -> list[str]:
    every = counts(action for saga in sagas for action in saga.actions)
    waiting = [f"{every[state]} {state}" for state in ("stuck", "deferred") if every[state]]
    # Actions registered before a deferred one wait with it, for another program or a person.
    orphans = sum(
        1 for saga in sagas if needs_recovery(saga) and not counts(saga.actions)["deferred"]
    )
    lines: list[str] = []
    if waiting:
        lines.append(f"Waiting for you: {' and '.join(waiting)}. See show, then retry or discard.")
    if orphans:
        verb = "has" if orphans == 1 else "have"
        lines.append(f"{_number(orphans, 'saga')} {verb} no living owner. See recover.")
    return ["", *lines] if lines else []


def saga_as_text(saga: StoredSaga, *, now: float, width: int) -> str:
    """Return everything known about a saga, its actions in the order in which they are undone."""
    owner = _owner(saga)
    began = f"{_instant(saga.began) or '?'} ({_age(now - saga.began)} ago)"
    tally = ", ".join(f"{n} {state}" for state, n in counts(saga.actions).items() if n)
    lines = _fields(
        {
            "saga": saga.id,
            "name": saga.name,
            "began": began,
            "owner": f"{owner} ({saga.owner})" if saga.owner else owner,
            "actions": f"{tally or 'none'}; the last registered first, as they are undone",
        },
        width,
    )
    for order, action in enumerate(saga.actions, 1):
        lines += ["", *_action_lines(order, action, now=now, width=width)]
    return "".join(f"{line}\n" for line in lines)


def _action_lines(order: int, action: StoredAction, *, now: float, width: int) -> list[str]:
    state = f"{action.state}, {_number(action.attempts, 'attempt')}"
    if action.state == "pending" and action.next_attempt > now:
        state += f", the next at {_instant(action.next_attempt) or '?'}"
    fields = {
        f"{order}.": f"{action.name} v{action.version}",
        "arguments": _readable(action.arguments),
        "state": state,
        "path": action.path,
        "key": action.key,
        "id": action.id,
    }
    if action.error:
        fields["error"] = action.error
    return _fields(fields, width)


def _fields(fields: Mapping[str, str], width: int) -> list[str]:
    """Return a line for each field; a long value continues on lines of its own."""
    lines: list[str] = []
    room = max(20, width - _LABEL)
    for label, value in fields.items():
        rest = printable(value)
        begin = f"{label:<{_LABEL}}"
        while len(part := _first(rest, room)) < len(rest):
            lines.append(begin + part)
            begin, rest = " " * _LABEL, rest[len(part) :]
        lines.append(f"{begin}{rest}".rstrip())
    return lines


def reports_as_text(reports: Sequence[RecoveryReport], *, width: int) -> str:
    """Return the outcome of each saga, with a line for each action."""
    if not reports:
        return "Nothing to recover: no dead process left anything behind.\n"
    lines: list[str] = []
    for report in reports:
        parts = {"undone": report.done, "stuck": report.stuck, "deferred": report.deferred}
        tally = ", ".join(f"{len(entries)} {what}" for what, entries in parts.items() if entries)
        saga = f"{printable(report.saga)} {printable(report.name)}"
        lines.append(_cut(f"{saga}: {tally or 'nothing undone'}", width))
        if (failed := report_error(report)) is not None:
            lines.append(_cut(f"  not finished: {printable(failed)}", width))
        for what, entries in parts.items():
            for entry in entries:
                error = "" if entry.error is None else f": {printable(_error(entry.error))}"
                call = _cut(printable(str(entry)), 60)
                lines.append(_cut(f"  {what:<10}{call}{error}", width))
    if any(report.stuck or report.deferred for report in reports):
        lines += ["", "Waiting for you: see show, then retry or discard."]
    return "".join(f"{line}\n" for line in lines)


def _call(action: StoredAction, room: int) -> str:
    return f"{printable(action.name)}({_cut(printable(_readable(action.arguments)), room)})"


def _readable(text: str) -> str:
    """Return recorded arguments as those of a call, or as recorded if they cannot be parsed."""
    text = shown(text)
    named = _arguments(text)
    if named is None:
        return text
    return ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in named.items()
    )


def _age(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "0 s"


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _columns(text: str) -> int:
    """Return how many columns printable text takes."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def _first(text: str, room: int) -> str:
    """Return as much of the beginning as fits."""
    taken = 0
    for index, one in enumerate(text):
        taken += _columns(one)
        if taken > room:
            return text[:index]
    return text


def _cut(text: str, room: int) -> str:
    return text if _columns(text) <= room else f"{_first(text, room - 3)}..."
