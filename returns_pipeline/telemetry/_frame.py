"""What a live view shows: lines of text, made of the rows of a `Board`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from returns_pipeline.telemetry._board import (
    Board,
    Happened,
    JournalRow,
    SourceRow,
    StageRow,
    StepRow,
    UndoRow,
)

__all__ = ["Line", "Rates", "Span", "Style", "frame", "one_line"]

Style: TypeAlias = Literal["", "bold", "dim", "red", "yellow", "cyan"]
Span: TypeAlias = tuple[str, Style]
Line: TypeAlias = list[Span]
_Key: TypeAlias = tuple[str, str, str]  # the kind of row, the pipeline, the name

# Seconds over which a rate is measured.
_RATE_WINDOW: Final = 5.0
_BAR: Final = 8  # characters
_MOST_SHOWN: Final = 12  # rows of one kind
_MOST_NAMED: Final = 6  # rows in one line
_LONGEST_NAME: Final = 28


class Rates:
    """How fast counts grow, over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[_Key, int]]] = deque([(0.0, {})])

    def add(self, now: float, counts: dict[_Key, int]) -> None:
        """Record the counts at a time, which does not go back."""
        seen = self._seen
        if now > seen[-1][0]:
            seen.append((now, counts))
        while len(seen) > 2 and seen[1][0] <= now - _RATE_WINDOW:
            seen.popleft()

    def of(self, key: _Key) -> float | None:
        """Return by how much a count grows in a second; None if no time has passed."""
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        if ended <= began:
            return None
        return (last.get(key, 0) - first.get(key, 0)) / (ended - began)


@dataclass(slots=True)
class _Row:
    """One row of the view.

    Attributes:
        now: What is so at this moment.
        details: What else is to be said, the most urgent first.
        urgent: Whether something is wrong.
    """

    kind: str
    pipeline: str
    name: str
    count: int
    now: str
    details: list[str]
    urgent: bool = False

    @property
    def key(self) -> _Key:
        return self.kind, self.pipeline, self.name


def frame(board: Board, rates: Rates, width: int, *, ascii_only: bool = False) -> list[Line]:
    """Return the lines of the view. None is to be wider than ``width``: a longer one is cut.

    Args:
        board: The rows.
        rates: To which the counts of now are added.
        width: In characters.
        ascii_only: Whether other characters cannot be shown.
    """
    with board.lock:
        age = board.age
        rows = [*_rows(board, ascii_only=ascii_only)]
        rates.add(age, {row.key: row.count for row in rows})
        return [
            _title(board, age),
            *_alerts(board),
            *_table(board, rows, rates, width),
            *_last("failures", board.failures, "red"),
            *_last("undo actions", board.undone, "yellow"),
        ]


def one_line(board: Board, rates: Rates) -> str:
    """Return the state of everything in one line, for an output that is not a terminal."""
    with board.lock:
        age = board.age
        rows = [*_rows(board, ascii_only=True)]
        rates.add(age, {row.key: row.count for row in rows})
        parts: list[str] = []
        for row in rows[:_MOST_NAMED]:
            rate = rates.of(row.key)
            text = f"{_name(board, row)} {row.count:,}"
            if row.kind != "undo" and rate is not None:
                text += f" ({_rate(rate)})"
            parts.append(", ".join([text, *row.details[:1]] if row.urgent else [text]))
        if len(rows) > _MOST_NAMED:
            parts.append(f"{len(rows) - _MOST_NAMED} more")
        alerts = ["".join([text for text, _ in line]) for line in _alerts(board)]
        title = "".join([text for text, _ in _title(board, age)])
        return "; ".join([title, *alerts, *parts])


def _title(board: Board, age: float) -> Line:
    named = [(name, state) for name, state in board.pipelines.items() if name or state]
    title: Line = [(_clock(age), "dim")]
    for name, state in named[:_MOST_NAMED]:
        title.append(("  ", ""))
        title.append((name or "worker", "bold"))
        if state:
            title.append((f" {state}", "dim"))
    if len(named) > _MOST_NAMED:
        title.append((f"  and {len(named) - _MOST_NAMED} more", "dim"))
    if not board.pipelines:
        title.append(("  nothing was reported yet", "dim"))
    return title


def _alerts(board: Board) -> Iterator[Line]:
    """Yield what needs a person, then what may fix itself."""
    stuck = sum(row.stuck for row in board.undo.values())
    if stuck:
        noun = "action is" if stuck == 1 else "actions are"
        yield [(f"{stuck} undo {noun} stuck: a person must act", "red")]
    for (_, source), row in board.sources.items():
        if row.lost:
            yield [(f"{source} has no connection: {row.lost}", "red")]
    for (_, breaker), state in board.breakers.items():
        if state != "closed":
            yield [(f"the breaker {breaker} is {state}", "yellow")]


# Rows


def _rows(board: Board, *, ascii_only: bool) -> Iterator[_Row]:
    """Yield a row for each thing, in the order in which items pass them."""
    for (pipeline, name), source in board.sources.items():
        yield _source_row(pipeline, name, source)
    for (pipeline, name), stage in board.stages.items():
        yield _stage_row(pipeline, name, stage, ascii_only=ascii_only)
    for (pipeline, name), step in board.steps.items():
        yield _step_row(pipeline, name, step)
    for (pipeline, name), undo in board.undo.items():
        yield _undo_row(pipeline, name, undo)
    for (pipeline, name), journal in board.journals.items():
        yield _journal_row(pipeline, name, journal)


def _source_row(pipeline: str, name: str, row: SourceRow) -> _Row:
    details: list[str] = []
    if row.lag:
        lag = sum(each for each, _ in row.lag.values())
        oldest = max(each for _, each in row.lag.values())
        details.append(f"lag {lag:,}, the oldest is {_seconds(oldest)} old")
    details += _counted((row.redelivered, "redelivered"), (row.reconnected, "times reconnected"))
    now = f"{row.in_flight:,} in flight"
    return _Row("source", pipeline, name, row.fetched, now, details, bool(row.lost))


def _stage_row(pipeline: str, name: str, row: StageRow, *, ascii_only: bool) -> _Row:
    details: list[str] = []
    now = "" if row.held is None else f"{row.held:,} held"
    if row.windows:
        size = row.items / row.windows
        noun = "window" if row.windows == 1 else "windows"
        details.append(f"{row.windows:,} {noun} of {size:,.0f}, last by {row.reason}")
    if row.largest and row.held is not None:
        now = f"{_bar(row.held / row.largest, ascii_only=ascii_only)} {now}"
    if row.waited:
        details.append(f"waited {_seconds(row.waited)} for its reader")
    details += _counted((row.late, "late"))
    return _Row("window" if row.windows else "stage", pipeline, name, row.items, now, details)


def _step_row(pipeline: str, name: str, row: StepRow) -> _Row:
    details = _counted(
        (row.failed, "failed"), (row.retried, "retried"), (row.timed_out, "timed out")
    )
    if row.ended:
        details.append(f"{_seconds(row.took / row.ended)} each")
    if row.waited:
        details.append(f"waited {_seconds(row.waited)} for limits")
    now = f"{row.running:,} running"
    return _Row("step", pipeline, name or "limits", row.ended, now, details, row.failed > 0)


def _undo_row(pipeline: str, name: str, row: UndoRow) -> _Row:
    now = f"{row.done:,} undone"
    details = _counted((row.stuck, "stuck"), (row.failed, "failed, to be tried again"))
    return _Row("undo", pipeline, name, row.registered, now, details, row.stuck + row.failed > 0)


def _journal_row(pipeline: str, name: str, row: JournalRow) -> _Row:
    details = _counted((row.failed, "refused"), (row.recovered, "recovered"))
    if row.batches:
        details.append(f"{_seconds(row.took / row.batches)} a batch")
    now = f"{row.queued:,} queued"
    return _Row("journal", pipeline, name, row.requests, now, details, row.failed > 0)


def _counted(*counts: tuple[int, str]) -> list[str]:
    return [f"{count:,} {what}" for count, what in counts if count]


# Lines


def _table(board: Board, rows: list[_Row], rates: Rates, width: int) -> Iterator[Line]:
    """Yield the rows in columns; details have a line of their own if there is no room."""
    shown: list[tuple[_Row, list[str]]] = []
    left_out = 0
    of_kind: dict[str, int] = {}
    for row in rows:
        of_kind[row.kind] = of_kind.get(row.kind, 0) + 1
        if of_kind[row.kind] > _MOST_SHOWN:
            left_out += 1
            continue
        grows_by = rates.of(row.key)
        cells = [
            row.kind,
            _cut(_name(board, row), _LONGEST_NAME),
            f"{row.count:,}",
            "" if grows_by is None or row.kind == "undo" else _rate(grows_by),
            row.now,
        ]
        shown.append((row, cells))
    if not shown:
        return
    heads = ["", "", "total", "rate", "now"]
    columns = zip(heads, *[cells for _, cells in shown], strict=True)
    widths = [max(map(len, column)) for column in columns]
    indent = " " * (widths[0] + 2)
    taken = sum(widths) + 2 * len(widths)
    beside = all(taken + len(", ".join(row.details)) <= width for row, _ in shown)
    yield []
    count, rate, now = heads[2:]
    head = f"{count:>{widths[2]}}  {rate:>{widths[3]}}  {now}"
    yield [(" " * (widths[0] + widths[1] + 4), ""), (head, "dim")]
    for row, (kind, name, count, rate, now) in shown:
        details = ", ".join(row.details)
        line: Line = [
            (f"{kind:<{widths[0]}}  ", "dim"),
            (f"{name:<{widths[1]}}  ", "red" if row.urgent else "bold"),
            (f"{count:>{widths[2]}}  ", ""),
            (f"{rate:>{widths[3]}}  ", "cyan"),
            (now if not (beside and details) else f"{now:<{widths[4]}}  ", ""),
        ]
        style: Style = "yellow" if row.urgent else "dim"
        if beside and details:
            line.append((details, style))
        yield line
        if details and not beside:
            for part in _packed(row.details, width - len(indent)):
                yield [(indent, ""), (part, style)]
    if left_out:
        yield [(f"{indent}and {left_out} more", "dim")]


def _packed(texts: list[str], width: int) -> list[str]:
    """Join texts to lines of at most a width, if a single one is not longer."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 2 + len(text) <= width:
            lines[-1] += f", {text}"
        else:
            lines.append(text)
    return lines


def _last(title: str, happened: Iterable[Happened], style: Style) -> Iterator[Line]:
    found = [*happened]
    if not found:
        return
    yield []
    yield [(f"last {title}", "dim")]
    width = max(len(_clock(each.at)) for each in found)
    for each in found:
        name = f"{_cut(each.name, _LONGEST_NAME)}  "
        yield [(f"{_clock(each.at):>{width}}  ", "dim"), (name, "bold"), (each.text, style)]


def _name(board: Board, row: _Row) -> str:
    """Return the name of a row, with that of its pipeline if there are several."""
    several = len([name for name in board.pipelines if name]) > 1
    return f"{row.pipeline}/{row.name}" if several and row.pipeline else row.name


def _bar(part: float, *, ascii_only: bool) -> str:
    full, empty = ("#", "-") if ascii_only else ("█", "░")
    count = round(min(max(part, 0.0), 1.0) * _BAR)
    return full * count + empty * (_BAR - count)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _rate(rate: float) -> str:
    return f"{rate:,.1f}/s" if 0 < rate < 10 else f"{rate:,.0f}/s"


def _clock(seconds: float) -> str:
    """Show a time since the start as minutes, or hours, and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _seconds(seconds: float) -> str:
    if seconds < 1.0:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.1f} s" if seconds < 60.0 else _clock(seconds)
